"""The cohort engine compared with other ways to train the same model on the same events.

* central: plain central training in big batches, with torch's own Adam;
* engine: a node's round as in every run, and the server's step;
* loop: the same clients one at a time, as simulators commonly do it;
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
from benchmarks.speed.clock import MIB, alternate, extra_memory, ratio, run_in_process
from benchmarks.speed.flower_simulation import simulate
from benchmarks.speed.one_client import train_alone
from fedrec.data.errors import InputError
from fedrec.data.randomness import DrawKey
from fedrec.data.shard import Cohort
from fedrec.data.synthetic.random_tables import SyntheticConfig
from fedrec.federation import round_log
from fedrec.federation.checkpoint import State
from fedrec.federation.config import RunConfig
from fedrec.federation.messages import Order, Update
from fedrec.federation.node import Node
from fedrec.federation.round_log import RoundLog
from fedrec.federation.rounds import run
from fedrec.federation.sampling import sample_clients
from fedrec.federation.server_step import server_step
from fedrec.recsys.hardware import cores, device
from fedrec.recsys.model.lora import Adapter, Stack
from fedrec.recsys.training.local_training import MAX_EVENTS, LocalTrainer

WORLD = SyntheticConfig(users=2000, items=2000, interactions=40_000, seed=0, longest=100)
"""Twenty events per user on average, by Zipf's law: most users have fewer."""

CLIENTS, LONE = 1000, 64  # clients of a round; of a round of the loop and of Flower's simulation
TURNS = 5
FLOWER_ROUNDS = 5
LENGTHS = (8, 16, 32, 50)
SIZES = (512, 1024, 2048, 4096, 8192)

Say = Callable[[str], None]


class Bench:
    """The clients of one round, and the ways to train them."""

    def __init__(self, data: Path, config: RunConfig, history: int | None = None) -> None:
        self.config = replace(config, model=replace(config.model, history=history or config.model.history))
        self.data = data
        self.node = Node.open(data, self.config)  # it hosts all users
        self.adapter = worlds.perturb(self.node.setup.model.adapter(), config.seed)
        self.embeddings = self.node.setup.device_embeddings.matrix
        self.trainer = LocalTrainer(self.node.setup.device_model, self.embeddings, self.config.fit)
        self.near = {name: tensor.to(self.embeddings.device) for name, tensor in self.adapter.items()}
        self.state = State.start(self.adapter, config.server)

    def order(self, clients: int) -> Order:
        """Build the first round's order to `clients` users."""
        _, roster = worlds.open_grid(self.data, self.config)
        users = roster.users[sample_clients(roster, clients, self.config.seed, 1)]
        return Order(1, users, self.config.clip)

    def cohort(self, order: Order) -> Cohort:
        """Draw the training windows of an order's users."""
        return self.node.shard.training_windows(order.users, self.config.model.history + 1, self.config.seed, 1)

    def losses(self, stack: Stack, cohort: Cohort) -> Tensor:
        """Compute the clients' losses, (C,)."""
        return self.trainer.client_losses(stack, cohort, DrawKey(self.config.seed, 1))

    def engine(self, order: Order) -> Update:
        """Train a round on the cohort engine, and let the server step."""
        total = self.node.train(order, self.adapter)
        server_step(self.state, total, self.config)
        return total

    def central(self, order: Order, optimizer: torch.optim.Optimizer, parameters: Stack) -> None:
        """Train centrally, in batches of similar length, so that padding costs the same as in the engine."""
        for _, block in self.cohort(order).blocks(MAX_EVENTS[self.embeddings.device.type], len(order.users)):
            optimizer.zero_grad()
            self.losses(parameters, block.pooled).sum().backward()
            optimizer.step()

    def loop(self, order: Order) -> Update:
        """Train one client after the other: clip its gradient step and add it."""
        total: Adapter = {name: torch.zeros(t.shape, dtype=torch.float64) for name, t in self.adapter.items()}
        lost = 0.0
        for _, client in self.cohort(order).blocks(1, 1):
            change, loss = train_alone(self.trainer, self.near, client, DrawKey(self.config.seed, 1), order.clip)
            for name, tensor in change.items():
                total[name] += tensor.cpu()
            lost += loss
        return Update(1, len(order.users), total, {"loss": lost})

    def optimizer(self) -> tuple[torch.optim.Optimizer, Stack]:
        """Build the optimiser of central training and its parameters."""
        parameters: Stack = {name: nn.Parameter(t.unsqueeze(0).clone()) for name, t in self.near.items()}
        return torch.optim.Adam(parameters.values(), lr=self.config.server.server_rate), parameters


def prepare_world(folder: Path, config: RunConfig) -> Path:
    """Prepare the made-up federation; return its folder."""
    return worlds.make_world(WORLD, folder, config)


def measure(config: RunConfig, say: Say) -> dict[str, Any]:
    """Measure the engine. Raises `InputError` if Flower's simulation runtime is not installed."""
    if importlib.util.find_spec("ray") is None:
        raise InputError(
            "--part cohort also runs Flower's simulation; pip install 'flwr[simulation]', or name another part"
        )
    with tempfile.TemporaryDirectory(prefix="fedrec-bench-") as name:
        folder = Path(name)
        say("making a federation")
        data = prepare_world(folder, config)
        bench = Bench(data, config)
        say("engine, central, loop")
        results = compare_ways(bench)
        say("Flower's simulation runtime")
        results = add_flower(results, bench, folder)
        say("histories of other lengths")
        results["lengths"] = {str(length): time_length(data, config, length) for length in LENGTHS}
        say("blocks of other sizes, each in a process of its own for its memory")
        results["blocks"] = {str(events): time_block_size(data, config, events) for events in SIZES}
        for way in ("central", "engine", "loop"):
            results["ways"][way]["memory_mib"] = measure_memory(data, config, way)
    return results


def compare_ways(bench: Bench) -> dict[str, Any]:
    """Time engine, central and loop in turns."""
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
    ways = {
        way: {"clients_per_second": clients_per_second(took), "seconds": round_all(seconds[way])}
        for way, took in each.items()
    }
    return {
        "clients_per_second": clients_per_second(each["engine"]),
        "tokens_per_second": round(clients_per_second(each["engine"]) * events / CLIENTS),
        "events_per_client": round(events / CLIENTS, 1),
        "ratios": {
            "engine/central": ratio(each["central"], each["engine"]),
            "engine/loop": ratio(each["loop"], each["engine"]),
        },
        "ways": ways,
        "same_update": {"loop": relative_difference(bench.loop(few), bench.engine(few))},
    }


def add_flower(results: dict[str, Any], bench: Bench, folder: Path) -> dict[str, Any]:
    """Add a few rounds under Flower's simulation, and how far its model is from that of the same rounds here."""
    config = replace(bench.config, clients_per_round=LONE, rounds=FLOWER_ROUNDS, validate_every=10**9)
    stamp, state = bench.node.setup.embeddings.provenance, State.start(bench.adapter, config.server)
    ends = {}
    for way, nodes in (("flower", len(bench.node.shard)), ("here", 1)):
        (out := folder / way).mkdir()
        one = replace(config, nodes=nodes, validation_users=1)
        if way == "flower":
            ends[way] = run_in_process(simulate, bench.data, one, stamp, state, out, cores())
        else:
            ends[way] = run(*worlds.open_grid(bench.data, one), state, one, RoundLog(out))
    # without the first round, in which the nodes load the model, and the last one, which validates
    speeds = [record["clients_per_second"] for record in round_log.read(folder / "flower")][1:-1]
    results["ways"]["flower"] = {"clients_per_second": statistics.median(speeds), "rounds": speeds}
    results["ratios"]["engine/flower"] = round(results["clients_per_second"] / statistics.median(speeds), 1)
    a, b = ends["flower"].adapter, ends["here"].adapter
    results["same_update"]["flower"] = max(float((a[name] - b[name]).abs().max()) for name in a)
    return results


def time_length(data: Path, config: RunConfig, history: int) -> dict[str, float]:
    """Time engine and central with all histories cut to a length."""
    bench = Bench(data, config, history)
    order = bench.order(CLIENTS)
    optimizer, parameters = bench.optimizer()
    seconds = alternate(
        {"central": partial(bench.central, order, optimizer, parameters), "engine": partial(bench.engine, order)}, TURNS
    )
    return {
        "engine/central": ratio(seconds["central"], seconds["engine"]),
        "clients_per_second": clients_per_second([s / CLIENTS for s in seconds["engine"]]),
    }


def time_block_size(data: Path, config: RunConfig, events: int) -> dict[str, float]:
    """Measure speed, and memory above the opened node's, with blocks of at most `events` events."""
    seconds, memory = run_in_process(_run_with_blocks, data, config, events)
    return {"clients_per_second": clients_per_second([s / CLIENTS for s in seconds]), "memory_mib": round(memory / MIB)}


def _run_with_blocks(data: Path, config: RunConfig, events: int) -> tuple[list[float], int]:
    MAX_EVENTS[device().type] = events
    bench = Bench(data, config)
    case = partial(bench.engine, bench.order(CLIENTS))
    with extra_memory() as most:
        case()
    return alternate({"engine": case}, 3)["engine"], most[0]


def measure_memory(data: Path, config: RunConfig, way: str) -> int:
    """Measure a round's peak memory above the opened node's, in MiB."""
    return round(run_in_process(_run_once, data, config, way) / MIB)


def _run_once(data: Path, config: RunConfig, way: str) -> int:
    bench = Bench(data, config)
    order = bench.order(CLIENTS)
    with extra_memory() as most:
        getattr(bench, way)(order, *(bench.optimizer() if way == "central" else ()))
    return most[0]


def relative_difference(a: Update, b: Update) -> float:
    """Compute the largest difference of two sums, as a share of the largest number in the first."""
    top = max(float(tensor.abs().max()) for tensor in a.deltas.values())
    return max(float((a.deltas[name] - b.deltas[name]).abs().max()) for name in a.deltas) / top


def clients_per_second(each: list[float]) -> float:
    """Compute the speed from the seconds per client of each turn."""
    return round(1 / statistics.median(each), 1)


def round_all(seconds: list[float]) -> list[float]:
    """Round seconds as they are written."""
    return [round(s, 4) for s in seconds]
