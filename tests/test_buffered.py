"""Asynchronous rounds: the schedule of a simulated fleet, the weights of staleness, and the laws of all rounds."""

from collections import Counter
from dataclasses import replace
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Context, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st

from fedrec.data.dataset import Dataset
from fedrec.data.errors import InputError
from fedrec.data.randomness import Stream, random_stream
from fedrec.federation import round_log, rounds, server_app
from fedrec.federation.buffered.config import BufferConfig
from fedrec.federation.buffered.fleet import Fleet
from fedrec.federation.buffered.schedule import Step, schedule_steps
from fedrec.federation.census import take_census
from fedrec.federation.checkpoint import State
from fedrec.federation.config import RUN_PATHS, RunConfig, to_flat
from fedrec.federation.local_grid import LocalGrid
from fedrec.federation.messages import Order, Update
from fedrec.federation.roster import Roster
from fedrec.federation.round_log import RoundLog
from fedrec.federation.rounds import run
from fedrec.federation.sampling import sample_clients
from fedrec.federation.server_app import RunStopped
from fedrec.federation.server_step import server_step
from fedrec.federation.setup import TrainingSetup
from tests.laws.method_laws import train_run
from tests.support.toy_world import small_config, toy_stamp

FLEET = {"buffer_size": 2, "max_staleness": 3, "fleet_slowness": 1.0, "fleet_absence": 0.5}
ROUNDS = 8


def fleet_config(**changes: Any) -> RunConfig:
    return small_config(rounds=ROUNDS, validate_every=4, **(FLEET | changes))


def roster_of(users: int) -> Roster:
    return Roster.empty({}).with_node(1, np.arange(100, 100 + users, dtype=np.uint64))


def first_steps(users: int, config: RunConfig, count: int) -> list[Step]:
    return list(islice(schedule_steps(roster_of(users), config), count))


def assert_same(one: State, other: State) -> None:
    for name, tensor in one.adapter.items():
        assert torch.equal(tensor, other.adapter[name]), name
        assert torch.equal(one.best[name], other.best[name]), name
    assert (one.round, one.best_round, one.best_score) == (other.round, other.best_round, other.best_score)


# ---- the schedule


def test_a_schedule_by_hand() -> None:
    """Two of three clients work at a time, and each answer is a step: a slow client's answer is of an old version."""
    config = small_config(clients_per_round=2, buffer_size=1, fleet_slowness=1.0)
    fleet = Fleet(config.buffer, config.seed)
    time = [fleet.work_time(100 + client) for client in range(3)]
    steps, clock, version = [], 0.0, 0
    turns = [turns_of(roster_of(3), config, version) for version in range(6)]
    at_work = [(time[client], client, 0) for client in turns[0][:2]]
    while version < 6:
        clock, client, begun = min(at_work)
        at_work.remove((clock, client, begun))
        steps.append((version, clock, {begun: [client]}))
        version += 1
        if version < 6:
            busy = {client for _, client, _ in at_work}
            new = next(client for client in turns[version] if client not in busy)
            at_work.append((clock + time[new], new, version))
    found = first_steps(3, config, 6)
    assert [(s.version, s.clock, {v: u.tolist() for v, u in s.answers.items()}) for s in found] == steps
    assert max(s.version - v for s in found for v in s.answers) >= 1


def turns_of(roster: Roster, config: RunConfig, version: int) -> list[int]:
    """Draw the order in which clients have their turns: first those that a synchronous round would sample."""
    rng = random_stream(Stream.TURNS, config.seed, version)
    sampled = sample_clients(roster, 2, config.seed, version + 1)
    return [*rng.permutation(sampled), *rng.permutation(np.setdiff1d(np.arange(len(roster)), sampled))]


@settings(max_examples=25, deadline=None)
@given(
    users=st.integers(1, 30),
    places=st.integers(1, 12),
    size=st.integers(1, 12),
    stale=st.integers(0, 4),
    slow=st.sampled_from([0.0, 0.5, 2.0]),
    absent=st.sampled_from([0.0, 1.0, 3.0]),
)
def test_what_holds_of_every_schedule(
    users: int, places: int, size: int, stale: int, slow: float, absent: float
) -> None:
    buffer = BufferConfig(min(size, places), 0.5, stale, slow, absent)
    config = replace(small_config(clients_per_round=places), buffer=buffer)
    steps = first_steps(users, config, 12)
    assert all(before.clock <= after.clock for before, after in pairwise(steps))
    for number, step in enumerate(steps):
        begun = [(version, client) for version, clients in step.answers.items() for client in clients]
        assert step.version == number
        assert 1 <= len(begun) <= buffer.buffer_size
        assert all(number - stale <= version <= number for version in step.answers)
        assert all(number + 1 - stale <= version <= number for version in step.in_use)
    for before, after in pairwise(steps):  # the server keeps the adapters that it will need
        assert {version for version in after.answers if version <= before.version} <= before.in_use
    answers = Counter((v, client) for step in steps for v, clients in step.answers.items() for client in clients)
    assert set(answers.values()) == {1}  # a client begins once from a version


def test_a_fleet_of_one_speed_and_a_full_buffer_is_the_synchronous_schedule() -> None:
    config = small_config(clients_per_round=5, buffer_size=5)
    for step in first_steps(9, config, 4):
        expected = sample_clients(roster_of(9), 5, config.seed, step.version + 1)
        assert step.clock == step.version + 1
        assert {version: clients.tolist() for version, clients in step.answers.items()} == {
            step.version: expected.tolist()
        }


def test_over_selection_takes_the_first_answers_and_gives_up_the_rest() -> None:
    config = small_config(clients_per_round=6, buffer_size=4, max_staleness=0, fleet_slowness=1.0)
    fleet = Fleet(config.buffer, config.seed)
    clock = 0.0
    for step in first_steps(30, config, 5):
        sampled = sample_clients(roster_of(30), 6, config.seed, step.version + 1).tolist()
        fastest = sorted(sampled, key=lambda client: fleet.work_time(100 + client))[:4]
        clock += fleet.work_time(100 + fastest[-1])
        assert step.clock == pytest.approx(clock)
        assert step.answers[step.version].tolist() == sorted(fastest)
        assert step.given_up == 2
        assert not step.in_use


def test_devices_follow_zipfs_law() -> None:
    """The median of u^-a is 2^a, and a share of 4^-1/a of the devices needs more than 4; the mean of u^b is 1/(1+b)."""
    fleet = Fleet(BufferConfig(1, fleet_slowness=0.5, fleet_absence=2.0), seed=3)
    times = np.array([fleet.work_time(ticket) for ticket in range(4000)])
    assert times.min() >= 1
    assert np.median(times) == pytest.approx(2**0.5, rel=0.03)
    assert np.mean(times > 4) == pytest.approx(4**-2, rel=0.15)
    there = np.array([[fleet.is_there(ticket, clock) for ticket in range(1000)] for clock in (0.0, 1.5, 2.0)])
    assert there.mean() == pytest.approx(1 / 3, rel=0.1)
    assert fleet.is_there(5, 1.2) == fleet.is_there(5, 1.9)  # within one unit of time
    assert (there[0] != there[1]).any()


# ---- training


def test_stale_changes_are_weighed_by_hand(toy: Path, tmp_path: Path) -> None:
    """Each step is x + Σ (1 + s)^-½ Δ / K, with Δ trained from the adapter of the version that the client began at."""
    config = fleet_config(optimizer="fedavg", server_rate=1.0, schedule="constant", buffer_size=3, max_staleness=2)
    setup = TrainingSetup(Dataset.open(toy), config)
    grid = LocalGrid.over(setup)
    roster = take_census(grid, config, toy_stamp())
    weights = {0: 1.0, 1: 2**-0.5, 2: 3**-0.5}
    adapters, seen = [setup.method.adapter()], set[int]()
    for step in islice(schedule_steps(roster, config), ROUNDS):
        total, learners = {name: torch.zeros(()).double() for name in adapters[0]}, 0.0
        for version, places in step.answers.items():
            seen.add(staleness := step.version - version)
            update = grid.nodes[0].train(Order(version + 1, roster.users[places], config.clip), adapters[version])
            total = {name: total[name] + weights[staleness] * update.deltas[name] for name in total}
            learners += update.sums["learners"]
        last = adapters[-1]
        adapters.append({name: (last[name].double() + total[name] / learners).float() for name in last})
    state = train_run(toy, config, tmp_path / "run")
    assert seen == {0, 1, 2}
    for name, tensor in state.adapter.items():
        assert torch.equal(tensor, adapters[-1][name]), name


def test_one_speed_and_a_full_buffer_give_the_synchronous_model(toy: Path, tmp_path: Path) -> None:
    """The control: without the fleet's differences nothing is stale. With them, the model is another."""
    alike, full = {"fleet_slowness": 0.0, "fleet_absence": 0.0}, {"buffer_size": 6}
    synchronous = train_run(toy, small_config(rounds=ROUNDS, validate_every=4), tmp_path / "synchronous")
    assert_same(train_run(toy, fleet_config(**alike, **full), tmp_path / "full"), synchronous)
    other = train_run(toy, fleet_config(), tmp_path / "buffered")
    assert any(not torch.equal(tensor, synchronous.adapter[name]) for name, tensor in other.adapter.items())
    records = round_log.read(tmp_path / "buffered")
    assert max(record["staleness"] for record in records) > 0
    assert all(record["clients_asked"] == record["clients_answered"] == 2 for record in records)
    assert "clock" not in round_log.read(tmp_path / "synchronous")[0]


@pytest.mark.parametrize("bits", [32, 4])
def test_the_same_model_anywhere_and_after_a_crash(toy: Path, tmp_path: Path, bits: int) -> None:
    """The same seed gives the same model on 1, 3 and 12 nodes, and in a run that was killed after round 3."""
    config = fleet_config(bits=bits)
    whole = train_run(toy, config, tmp_path / "1")
    for nodes in (3, 12):
        assert_same(train_run(toy, replace(config, nodes=nodes), tmp_path / str(nodes)), whole)
    (folder := tmp_path / "killed").mkdir()
    grid = LocalGrid.over(TrainingSetup(Dataset.open(toy), config))
    roster, start = (
        take_census(grid, config, toy_stamp()),
        State.start(grid.nodes[0].setup.method.adapter(), config.server),
    )

    def kill(record: dict[str, Any]) -> None:
        if record["round"] == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(grid, roster, start, config, RoundLog(folder, kill))
    left = State.load(folder)
    assert left
    assert left.round == 3
    assert left.versions  # clients are at work from older adapters
    assert_same(run(grid, roster, left, config, RoundLog(folder)), whole)
    done = State.load(folder)
    assert done
    assert not done.versions  # nobody is waited for after the last round
    with pytest.raises(InputError, match="other users than those that were at work"):
        run(grid, roster, replace(left, roster="others"), config, RoundLog(folder))


# ---- learning from stale changes


@pytest.mark.parametrize(
    ("late", "told", "largest"),
    [(0, 0, 38.0), (1, 0, 1.0), (1, 1, 7.93), (2, 0, 0.51), (2, 2, 4.66), (4, 0, 0.26), (4, 4, 2.56)],
)
def test_the_longest_stable_step_of_stale_changes(late: int, told: int, largest: float) -> None:
    """A server with momentum 0.9 descends λ x² / 2 by the gradients at its place `late` steps before. The largest ηλ
    at which it does not diverge falls with the staleness, and ten times as far if it is not told of it (the control).
    """
    curvature = torch.tensor([0.9 * largest, 1.2 * largest], dtype=torch.float64)
    config = small_config(optimizer="fedavgm", server_rate=0.1, schedule="constant")
    state = State.start({"x": torch.ones(2)}, config.server)
    path = [state.adapter["x"]] * (1 + late)
    for _ in range(600):
        total = Update(state.round, 1, {"x": -curvature * path[-1 - late]}, {"learners": 1.0})
        state = server_step(state, total, config, told)
        path.append(state.adapter["x"])
    below, above = torch.stack(path[-100:]).abs().amax(dim=0).tolist()
    assert below < 1
    assert not above < 20  # it may have left what float32 can hold


def test_the_first_steps_are_corrected_for_bias_by_hand() -> None:
    """At a staleness of 1.5 by (1 - β₂^t) to the power (1 - 1/4) / 2, and none without a second moment."""
    for optimiser, factor in {"fedadam": 0.01**0.375, "fedyogi": 0.01**0.375, "fedavgm": 1.0}.items():
        config = small_config(optimizer=optimiser, server_rate=1.0, schedule="constant")
        state = State.start({"x": torch.zeros(2)}, config.server)
        total = Update(1, 2, {"x": torch.tensor([0.5, -2.0], dtype=torch.float64)}, {"learners": 2.0})
        fresh, stale = (server_step(state, total, config, staleness) for staleness in (0.0, 1.5))
        torch.testing.assert_close(stale.adapter["x"], factor * fresh.adapter["x"])
        torch.testing.assert_close(stale.momentum["x"], fresh.momentum["x"] / 4)
        assert torch.equal(stale.variance["x"], fresh.variance["x"])


def test_stale_rounds_learn(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: a server that takes all changes for fresh ends with a higher loss than it began with."""
    changes = {"buffer_size": 3, "max_staleness": 8, "fleet_slowness": 0.5, "fleet_absence": 0.0}
    config = small_config(rounds=24, validate_every=24, server_rate=0.014, **changes)
    losses = {}
    for name, step in {"told": server_step, "not told": lambda *inputs: server_step(*inputs[:3])}.items():
        monkeypatch.setattr(rounds, "server_step", step)
        train_run(toy, config, tmp_path / name)
        loss = [record["loss"] for record in round_log.read(tmp_path / name)]
        losses[name] = (sum(loss[:6]) / 6, sum(loss[-6:]) / 6)
    (first, last), (first_not_told, last_not_told) = losses["told"], losses["not told"]
    assert last < 0.8 * first
    assert last_not_told > 1.2 * first_not_told


# ---- what does not go together


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"buffer_size": 7}, "no more than clients_per_round = 6 are at work"),
        ({"method": "closed-form"}, "trains in no rounds"),
        ({"method": "fedmf"}, "keep a state"),
        ({"mode": "central"}, "has no clients"),
        ({"node_share": 0.5}, "node_share = 0.5 limits a sample"),
        ({"aggregation": "median"}, "aggregation = 'median' compares"),
        ({"secure": True, "nodes": 3}, "of one client often"),
        ({"epsilon": 1.0}, "epsilon = 1 is reckoned for clients drawn at random"),
        ({"buffer_size": 0}, "only asynchronous rounds have a simulated fleet"),
    ],
)
def test_what_is_unsound_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        fleet_config(**changes)


def test_real_nodes_are_not_asked_by_a_simulated_clock(toy: Path, tmp_path: Path) -> None:
    config = fleet_config()
    table = RUN_PATHS | to_flat(config) | {"data": str(toy), "out": str(tmp_path / "run")}
    context = Context(1, 1, {}, RecordDict(), table)
    with pytest.raises(RunStopped, match="buffer_size = 2: asynchronous rounds are simulated in one process"):
        server_app.main(LocalGrid.over(TrainingSetup(Dataset.open(toy), config)), context)
    assert not (tmp_path / "run").exists()
