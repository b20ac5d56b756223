"""The cohort engine against what it could be compared with, all with the same model on the same events.

* central: plain central training, every event in one big batch after the other, with torch's own Adam;
* engine: a node's round as every run does it, and the server's step;
* loop: the same clients one at a time, as simulators commonly do;
* flower: the same ClientApp under Flower's own simulation runtime, a node for each client.
"""

import importlib.util
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.speed import worlds
from benchmarks.speed.clock import MIB, alternate, apart, extra_memory, ratio
from benchmarks.speed.flower_simulation import simulate
from fedrec.data.errors import InputError
from fedrec.data.shard import Cohort
from fedrec.data.synthetic.random_tables import SyntheticConfig
from fedrec.federation import round_log
from fedrec.federation.checkpoint import State
from fedrec.federation.clipping import norms
from fedrec.federation.config import RunConfig
from fedrec.federation.messages import Order, Update
from fedrec.federation.node import Node
from fedrec.federation.round_log import RoundLog
from fedrec.federation.rounds import run
from fedrec.federation.sampling import sample_clients
from fedrec.federation.server_step import server_step
from fedrec.recsys.hardware import cores, device
from fedrec.recsys.model.lora import Adapter, Stack, stacked
from fedrec.recsys.training.local_training import EVENTS, blocks, client_losses

WORLD = SyntheticConfig(users=2000, items=2000, interactions=40_000, seed=0, longest=100)
"""Twenty events a user, by Zipf's law: most have fewer."""

CLIENTS, LONE = 1000, 64  # of a round; of one that goes client by client
TURNS = 5
FLOWER_ROUNDS = 5
LENGTHS = (8, 16, 32, 50)
SIZES = (512, 1024, 2048, 4096, 8192)

Say = Callable[[str], None]


class Bench:
    """One round's clients, ready to be trained in each of the ways."""

    def __init__(self, data: Path, config: RunConfig, history: int | None = None) -> None:
        self.config = replace(config, model=replace(config.model, history=history or config.model.history))
        self.data = data
        self.node = Node.open(data, self.config)  # it hosts all users
        self.adapter = worlds.bent(self.node.setup.model.adapter(), config.seed)
        self.embeddings = self.node.setup.device_embeddings.matrix
        self.near = {name: tensor.to(self.embeddings.device) for name, tensor in self.adapter.items()}
        self.state = State.start(self.adapter, config.server)

    def order(self, clients: int) -> Order:
        """The first round's, to so many users."""
        _, roster = worlds.open_grid(self.data, self.config)
        users = roster.users[sample_clients(roster, clients, self.config.seed, 1)]
        return Order(1, users, self.config.clip)

    def cohort(self, order: Order) -> Cohort:
        return self.node.shard.crops(order.users, self.config.model.history + 1, self.config.seed, 1)

    def losses(self, stack: Stack, cohort: Cohort) -> Tensor:
        config = self.config
        return client_losses(
            self.node.setup.device_model, stack, cohort, self.embeddings, config.fit, (config.seed, 1, 0)
        )

    def engine(self, order: Order) -> Update:
        total = self.node.train(order, self.adapter)
        server_step(self.state, total, self.config)
        return total

    def central(self, order: Order, optimizer: torch.optim.Optimizer, parameters: Stack) -> None:
        """Batches of histories of like length, so that no padding is paid that the engine does not pay."""
        for _, block in self.cohort(order).blocks(EVENTS[self.embeddings.device.type], len(order.users)):
            optimizer.zero_grad()
            self.losses(parameters, block.pooled).sum().backward()
            optimizer.step()

    def loop(self, order: Order) -> Update:
        """One client after the other: its gradient, clipped, added."""
        total: Adapter = {name: torch.zeros(t.shape, dtype=torch.float64) for name, t in self.adapter.items()}
        lost = 0.0
        for _, client in self.cohort(order).blocks(1, 1):
            stack = {name: tensor.requires_grad_() for name, tensor in stacked(self.near, 1).items()}
            loss = self.losses(stack, client)
            gradients = torch.autograd.grad(loss.sum(), list(stack.values()))
            change = {name: -self.config.fit.local_rate * g for name, g in zip(stack, gradients, strict=True)}
            factor = order.clip / max(order.clip, float(norms(change)))
            for name, tensor in change.items():
                total[name] += factor * tensor[0].cpu()
            lost += float(loss.detach())
        return Update(1, len(order.users), total, {"loss": lost})

    def optimizer(self) -> tuple[torch.optim.Optimizer, Stack]:
        parameters: Stack = {name: nn.Parameter(t.unsqueeze(0).clone()) for name, t in self.near.items()}
        return torch.optim.Adam(parameters.values(), lr=self.config.server.server_rate), parameters


def prepared(folder: Path, config: RunConfig) -> Path:
    return worlds.make(WORLD, folder, config)


def measure(config: RunConfig, say: Say) -> dict[str, Any]:
    """All of the engine's figures. Raises `InputError` where Flower's simulation runtime is not installed."""
    if importlib.util.find_spec("ray") is None:
        raise InputError(
            "--part cohort runs Flower's simulation too; pip install 'flwr[simulation]', or name another part"
        )
    with tempfile.TemporaryDirectory(prefix="fedrec-bench-") as name:
        folder = Path(name)
        say("making a federation")
        data = prepared(folder, config)
        bench = Bench(data, config)
        say("engine, central, loop")
        found = compare(bench)
        say("Flower's simulation runtime")
        found = with_flower(found, bench, folder)
        say("histories of other lengths")
        found["lengths"] = {str(length): by_length(data, config, length) for length in LENGTHS}
        say("blocks of other sizes, each in a process of its own for its memory")
        found["blocks"] = {str(events): by_block(data, config, events) for events in SIZES}
        for way in ("central", "engine", "loop"):
            found["ways"][way]["memory_mib"] = memory(data, config, way)
    return found


def compare(bench: Bench) -> dict[str, Any]:
    """Engine, central and loop in turns."""
    many, few = bench.order(CLIENTS), bench.order(LONE)
    optimizer, parameters = bench.optimizer()
    cases: dict[str, Callable[[], object]] = {
        "central": partial(bench.central, many, optimizer, parameters),
        "engine": partial(bench.engine, many),
        "loop": partial(bench.loop, few),
    }
    seconds = alternate(cases, TURNS)
    events = int(bench.cohort(many).mask.sum())
    clients = {"central": CLIENTS, "engine": CLIENTS, "loop": LONE}
    each = {way: [s / clients[way] for s in took] for way, took in seconds.items()}
    ways = {way: {"clients_per_second": speed(took), "seconds": rounded(seconds[way])} for way, took in each.items()}
    return {
        "clients_per_second": speed(each["engine"]),
        "tokens_per_second": round(speed(each["engine"]) * events / CLIENTS),
        "events_per_client": round(events / CLIENTS, 1),
        "ratios": {
            "engine/central": ratio(each["central"], each["engine"]),
            "engine/loop": ratio(each["loop"], each["engine"]),
        },
        "ways": ways,
        "same_update": {"loop": difference(bench.loop(few), bench.engine(few))},
    }


def with_flower(found: dict[str, Any], bench: Bench, folder: Path) -> dict[str, Any]:
    """The same, and a few rounds of the same federation under Flower's simulation, which must end in the same model."""
    config = replace(bench.config, clients_per_round=LONE, rounds=FLOWER_ROUNDS, validate_every=10**9)
    stamp, state = bench.node.setup.embeddings.stamp, State.start(bench.adapter, config.server)
    ends = {}
    for way, nodes in (("flower", len(bench.node.shard)), ("here", 1)):
        (out := folder / way).mkdir()
        one = replace(config, nodes=nodes, validation_users=1)
        if way == "flower":
            ends[way] = apart(simulate, bench.data, one, stamp, state, out, cores())
        else:
            ends[way] = run(*worlds.open_grid(bench.data, one), state, one, RoundLog(out))
    # without the first round, in which the nodes read the model, and the last, which is validated
    speeds = [record["clients_per_second"] for record in round_log.read(folder / "flower")][1:-1]
    found["ways"]["flower"] = {"clients_per_second": statistics.median(speeds), "rounds": speeds}
    found["ratios"]["engine/flower"] = round(found["clients_per_second"] / statistics.median(speeds), 1)
    a, b = ends["flower"].adapter, ends["here"].adapter
    found["same_update"]["flower"] = max(float((a[name] - b[name]).abs().max()) for name in a)
    return found


def by_length(data: Path, config: RunConfig, history: int) -> dict[str, float]:
    """Engine and central where all histories are cut to a length."""
    bench = Bench(data, config, history)
    order = bench.order(CLIENTS)
    optimizer, parameters = bench.optimizer()
    seconds = alternate(
        {"central": partial(bench.central, order, optimizer, parameters), "engine": partial(bench.engine, order)}, TURNS
    )
    return {
        "engine/central": ratio(seconds["central"], seconds["engine"]),
        "clients_per_second": speed([s / CLIENTS for s in seconds["engine"]]),
    }


def by_block(data: Path, config: RunConfig, events: int) -> dict[str, float]:
    """Speed, and memory on top of the opened node's, with blocks of so many events."""
    seconds, memory = apart(_with_blocks, data, config, events)
    return {"clients_per_second": speed([s / CLIENTS for s in seconds]), "memory_mib": round(memory / MIB)}


def _with_blocks(data: Path, config: RunConfig, events: int) -> tuple[list[float], int]:
    EVENTS[device().type] = events
    bench = Bench(data, config)
    case = partial(bench.engine, bench.order(CLIENTS))
    with extra_memory() as most:
        case()
    return alternate({"engine": case}, 3)["engine"], most[0]


def memory(data: Path, config: RunConfig, way: str) -> int:
    """What a round takes on top of what the opened node holds, in MiB."""
    return round(apart(_once, data, config, way) / MIB)


def _once(data: Path, config: RunConfig, way: str) -> int:
    bench = Bench(data, config)
    order = bench.order(CLIENTS)
    with extra_memory() as most:
        getattr(bench, way)(order, *(bench.optimizer() if way == "central" else ()))
    return most[0]


def profile(config: RunConfig) -> list[dict[str, Any]]:
    """Where the time of one block goes, in one thread: operations by their own time, with their share."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiled

    from fedrec.federation.clipping import clip_and_sum
    from fedrec.recsys.training.local_training import train_clients

    with tempfile.TemporaryDirectory(prefix="fedrec-bench-") as name:
        bench = Bench(prepared(Path(name), config), config)
        block = next(blocks(bench.cohort(bench.order(CLIENTS)), bench.embeddings.device))
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        for _ in range(2):
            with profiled(activities=[ProfilerActivity.CPU]) as recorded:
                fitted = train_clients(
                    bench.node.setup.device_model, bench.near, block, bench.embeddings, config.fit, (config.seed, 1)
                )
                with torch.profiler.record_function("clip and sum"):
                    clip_and_sum(fitted, 1, config.clip)
        torch.set_num_threads(threads)
    rows = recorded.key_averages()
    whole = sum(row.self_cpu_time_total for row in rows)
    return [
        {
            "operation": row.key,
            "calls": row.count,
            "own": row.self_cpu_time_total / whole,
            "with_inner": row.cpu_time_total / whole,
        }
        for row in sorted(rows, key=lambda row: -row.self_cpu_time_total)
    ]


def difference(a: Update, b: Update) -> float:
    """The largest difference of two sums, as a share of the larger sum's largest number."""
    top = max(float(tensor.abs().max()) for tensor in a.deltas.values())
    return max(float((a.deltas[name] - b.deltas[name]).abs().max()) for name in a.deltas) / top


def speed(each: list[float]) -> float:
    return round(1 / statistics.median(each), 1)


def rounded(seconds: list[float]) -> list[float]:
    return [round(s, 4) for s in seconds]
