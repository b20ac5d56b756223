"""The algebra of updates, the draw, and the server's rules as arithmetic."""

from dataclasses import replace
from functools import reduce
from math import log

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg
from hypothesis import given, settings
from hypothesis import strategies as st

from fedrec.data.errors import InputError
from fedrec.federation import wire
from fedrec.federation.checkpoint import State
from fedrec.federation.clipping import clip_and_sum
from fedrec.federation.config import RunConfig
from fedrec.federation.local_grid import LocalGrid
from fedrec.federation.messages import Order, Update
from fedrec.federation.optimisers import ServerConfig
from fedrec.federation.roster import Roster
from fedrec.federation.rounds import round_metrics
from fedrec.federation.sampling import sample_clients
from fedrec.federation.server_step import learning_rate, server_step
from fedrec.recsys.training.local_training import ClientUpdates
from fedrec.recsys.training.loss import sampled_softmax
from tests.support.toy_world import small_config


def update(values: list[float], users: int = 1) -> Update:
    return Update(1, users, {"a": torch.tensor(values, dtype=torch.float64)}, {"loss": 1.0, "learners": float(users)})


def roster_of(census: dict[int, np.ndarray]) -> Roster:
    return reduce(lambda roster, answer: roster.with_node(*answer), census.items(), Roster.empty({}))


def state(config: ServerConfig) -> State:
    return State.start({"a": torch.tensor([1.0, 2.0])}, config)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 9), st.permutations(range(9)))
def test_updates_add_exactly_in_any_order(seed: int, clients: int, order: list[int]) -> None:
    """The sum over any grouping and order of clients is the same to the bit."""
    generator = torch.Generator().manual_seed(seed)
    scale = 10 ** (6 * torch.rand(9, 1, generator=generator) - 4)
    deltas = scale * torch.randn(9, 4, generator=generator)
    at_once = clip_and_sum(ClientUpdates({"a": deltas}, torch.zeros(9)), 1, clip=3.0)
    groups = [order[:clients], order[clients:]]
    parts = [clip_and_sum(ClientUpdates({"a": deltas[g]}, torch.zeros(len(g))), 1, clip=3.0) for g in groups if g]
    total = parts[0] if len(parts) == 1 else parts[1] + parts[0]
    assert torch.equal(total.deltas["a"], at_once.deltas["a"])
    assert total.users == at_once.users == 9


def test_clipping_scales_a_long_change_and_leaves_a_short_one() -> None:
    fitted = ClientUpdates({"a": torch.tensor([[3.0, 4.0], [0.3, 0.4]])}, torch.tensor([1.0, 2.0]))
    found = clip_and_sum(fitted, 1, clip=1.0)
    assert found.deltas["a"].tolist() == pytest.approx([0.6 + 0.3, 0.8 + 0.4], abs=1e-6)
    assert found.sums == {"loss": 3.0, "learners": 2.0, "clipped": 1.0, "diverged": 0.0}


def test_a_client_with_nothing_to_learn_from_is_in_no_mean() -> None:
    """Two clients of four have an example, and one of the two diverged; where an adapter is not a number, the change of
    one without examples is not one either, and this is no divergence."""
    losses, learners = torch.tensor([2.0, 0.0, torch.nan, torch.nan]), torch.tensor([True, False, True, False])
    fitted = ClientUpdates({"a": torch.tensor([[0.5], [0.0], [0.1], [torch.nan]])}, losses, learners=learners)
    found = clip_and_sum(fitted, 1, clip=1.0)
    assert (found.users, found.deltas["a"].tolist()) == (4, [0.5])
    assert found.sums == {"loss": 2.0, "learners": 2.0, "clipped": 0.0, "diverged": 1.0}
    assert round_metrics(found) == {
        "loss": 2 / 1,
        "clipped": 0 / 1,
        "clients_diverged": 1,
        "clients_without_examples": 2,
    }
    nobody = clip_and_sum(
        ClientUpdates({"a": torch.zeros(1, 1)}, torch.zeros(1), learners=torch.tensor([False])), 1, clip=1.0
    )
    assert (round_metrics(nobody)["loss"], round_metrics(None)["loss"]) == (None, None)


def test_a_loss_that_the_model_cannot_have_is_divergence() -> None:
    found = clip_and_sum(
        ClientUpdates({"a": torch.tensor([[0.5], [0.25]])}, torch.tensor([1.0, 99.0])), 1, clip=1.0, worst=98.0
    )
    assert (found.deltas["a"].tolist(), found.sums["loss"], found.sums["diverged"]) == ([0.5], 1.0, 1.0)


@pytest.mark.parametrize("items", [2, 1000, 2**31])
@pytest.mark.parametrize("temperature", [0.01, 0.07, 5.0])
def test_no_cosine_has_a_loss_beyond_the_bound(items: int, temperature: float) -> None:
    """Every drawn item at cosine 1, and the next one at -1."""
    following, others = torch.tensor([-1 / temperature]), torch.full((1, min(items - 1, 8)), 1 / temperature)
    loss = float(sampled_softmax(following, others, torch.zeros_like(others).bool(), items))
    bound = small_config(temperature=temperature).largest_loss
    assert 2 / temperature + log(items - 1) <= loss + 1e-4 < bound + 1e-4
    assert bound < 1.05 * (2 / temperature + 32 * log(2)) + 1e-9


def test_a_client_that_diverged_adds_nothing_and_is_counted() -> None:
    fitted = ClientUpdates({"a": torch.tensor([[0.5], [torch.nan], [0.25]])}, torch.tensor([1.0, 2.0, torch.inf]))
    found = clip_and_sum(fitted, 1, clip=1.0)
    assert found.deltas["a"].tolist() == [0.5]
    assert (found.users, found.sums) == (3, {"loss": 1.0, "learners": 3.0, "clipped": 0.0, "diverged": 2.0})


def test_a_user_on_two_nodes_is_refused() -> None:
    with pytest.raises(InputError, match=r"same users as node 1 \(1 of its 1\)"):
        roster_of({1: np.array([1, 2], dtype=np.uint64), 2: np.array([2], dtype=np.uint64)})


def test_updates_of_different_rounds_do_not_add() -> None:
    with pytest.raises(ValueError, match="round 2"):
        _ = update([0, 0]) + Update(2, 1, update([0, 0]).deltas, update([0, 0]).sums)


def test_an_update_survives_the_wire_exactly() -> None:
    single = update([0.25, -1.5])
    large = update([1 + 2.0**-30, 3.0], users=7)
    for sent, dtype in ((single, "float32"), (large, "float64")):
        content = wire.encode_update(sent)
        assert content.array_records["deltas"]["a"].dtype == dtype
        received = wire.decode_update(content)
        assert torch.equal(received.deltas["a"], sent.deltas["a"])
        assert (received.round, received.users, received.sums) == (sent.round, sent.users, sent.sums)


def test_an_order_survives_the_wire() -> None:
    order = Order(round=3, users=np.array([4, 0, 9]), clip=0.5, split="test")
    received, adapter = wire.decode_order(wire.encode_order(order, {"a": torch.tensor([1.0, 2.0])}))
    assert (received.round, received.users.tolist(), received.clip, received.split) == (3, [4, 0, 9], 0.5, "test")
    assert torch.equal(adapter["a"], torch.tensor([1.0, 2.0]))


def test_the_same_users_are_drawn_however_they_are_spread() -> None:
    tickets = np.array([50, 10, 40, 20, 30], dtype=np.uint64)
    one = roster_of({7: tickets})
    two = roster_of({3: tickets[[1, 4]], 9: tickets[[0, 2, 3]]})
    drawn = sample_clients(one, 3, seed=1, round=2)
    ours = {int(tickets[user]) for user in one.per_node(drawn)[7]}
    spread = {3: tickets[[1, 4]], 9: tickets[[0, 2, 3]]}
    theirs = {int(spread[node][user]) for node, users in two.per_node(drawn).items() for user in users}
    assert ours == theirs
    assert len(ours) == 3


def test_a_draw_is_without_replacement_and_changes_by_round() -> None:
    roster = roster_of({1: np.arange(100, dtype=np.uint64)})
    first, second = sample_clients(roster, 10, 0, 1), sample_clients(roster, 10, 0, 2)
    assert len(set(first.tolist())) == 10
    assert first.tolist() != second.tolist()
    assert sample_clients(roster, 500, 0, 1).tolist() == list(range(100))


def test_a_node_that_brings_many_users_fills_its_share_of_a_cohort_and_no_more() -> None:
    """Of 1,000 users 950 are one node's: of 40 places it has 10, and the others have the rest."""
    tickets = np.random.default_rng(0).permutation(1000).astype(np.uint64)
    roster = roster_of({1: tickets[:950], 2: tickets[950:975], 3: tickets[975:]})
    for round in (1, 2):
        drawn = sample_clients(roster, 40, 0, round, share=0.25)
        assert len(set(drawn.tolist())) == len(drawn) == 10 + 10 + 10
        assert {node: len(users) for node, users in roster.per_node(drawn).items()} == {1: 10, 2: 10, 3: 10}
        half = sample_clients(roster, 40, 0, round, share=0.5)
        assert len(half) == 40
        assert len(roster.per_node(half)[1]) <= 20
        assert sample_clients(roster, 40, 0, round, share=1e-9).size == 3, "a node has one place at least"
    assert (
        sample_clients(roster, 40, 0, 1, share=0.25).tolist() != sample_clients(roster, 40, 0, 2, share=0.25).tolist()
    )


RULES = {
    # after one round with a mean change of (0.5, -0.25), from (1, 2), η = 0.1, β1 = 0.9, β2 = 0.99, τ = 0.01
    "fedavg": [1 + 0.1 * 0.5, 2 - 0.1 * 0.25],
    "fedavgm": [1 + 0.1 * 0.5, 2 - 0.1 * 0.25],
    "fedadam": [
        1 + 0.1 * (0.1 * 0.5) / ((0.99 * 1e-4 + 0.01 * 0.25) ** 0.5 + 0.01),
        2 - 0.1 * (0.1 * 0.25) / ((0.99 * 1e-4 + 0.01 * 0.0625) ** 0.5 + 0.01),
    ],
    "fedyogi": [
        1 + 0.1 * (0.1 * 0.5) / ((1e-4 + 0.01 * 0.25) ** 0.5 + 0.01),
        2 - 0.1 * (0.1 * 0.25) / ((1e-4 + 0.01 * 0.0625) ** 0.5 + 0.01),
    ],
}


@pytest.mark.parametrize("optimizer", RULES)
def test_one_round_of_each_rule(optimizer: str) -> None:
    server = ServerConfig(optimizer=optimizer, server_rate=0.1, adaptivity=0.01)  # type: ignore[arg-type]
    after = server_step(state(server), update([1.0, -0.5], users=2), RunConfig(server=server))
    assert after.adapter["a"].tolist() == pytest.approx(RULES[optimizer], abs=1e-6)
    assert after.round == 1


def test_the_step_is_the_mean_over_those_who_could_learn() -> None:
    """Three of five users had an example: theirs is the step, as it is without the other two."""
    config = RunConfig(server=ServerConfig(optimizer="fedavg", server_rate=1.0, schedule="constant"))
    with_two_more = replace(update([1.5, -0.75], users=5), sums={"loss": 1.0, "learners": 3.0})
    for total in (with_two_more, update([1.5, -0.75], users=3)):
        assert server_step(state(config.server), total, config).adapter["a"].tolist() == [1 + 1.5 / 3, 2 - 0.75 / 3]
    before = replace(state(config.server), momentum={"a": torch.ones(2, dtype=torch.float64)})
    nobody = server_step(before, replace(with_two_more, sums={"loss": 0.0, "learners": 0.0}), config)
    assert (nobody.round, nobody.adapter, nobody.momentum) == (1, before.adapter, before.momentum)


def test_momentum_carries_over() -> None:
    config = RunConfig(server=ServerConfig(optimizer="fedavgm", server_rate=1.0, schedule="constant"))
    after = server_step(server_step(state(config.server), update([1.0, 0.0]), config), update([1.0, 0.0]), config)
    assert after.adapter["a"].tolist() == pytest.approx([1 + 1 + (0.9 + 1), 2.0])


def test_a_linear_schedule_brings_the_rate_to_zero_with_the_last_round() -> None:
    config = RunConfig(rounds=4, server=ServerConfig(optimizer="fedavg", server_rate=0.8))
    assert [learning_rate(config, done) for done in range(5)] == pytest.approx([0.8, 0.6, 0.4, 0.2, 0.0])
    moved = server_step(replace(state(config.server), round=2), update([1.0, 0.0]), config)
    assert moved.adapter["a"].tolist() == pytest.approx([1 + 0.4, 2.0])


def test_a_round_that_nobody_answers_leaves_the_adapter() -> None:
    config = RunConfig()
    before = state(config.server)
    after = server_step(before, None, config)
    assert after.round == 1
    assert torch.equal(after.adapter["a"], before.adapter["a"])


def test_fedavg_is_flowers() -> None:
    """With η = 1, the adapter becomes the mean of what the clients hold: Flower's own FedAvg says the same."""
    LocalGrid(None, [], {})  # type: ignore[arg-type]
    start = state(ServerConfig())
    changes = [[0.5, 0.25], [-0.125, 1.0], [0.0, 2.0]]
    replies = []
    for node, change in enumerate(changes, start=1):
        held = ArrayRecord([(start.adapter["a"] + torch.tensor(change)).numpy()])
        content = RecordDict({"arrays": held, "metrics": MetricRecord({"num-examples": 1})})
        replies.append(Message(content, reply_to=Message(RecordDict(), node, "train")))
    theirs, _ = FedAvg().aggregate_train(1, replies)
    config = RunConfig(server=ServerConfig(optimizer="fedavg", server_rate=1.0))
    total = update(changes[0]) + update(changes[1]) + update(changes[2])
    assert theirs is not None
    expected = theirs.to_numpy_ndarrays()[0]
    assert server_step(start, total, config).adapter["a"].tolist() == pytest.approx(expected.tolist(), abs=1e-6)


def test_a_state_survives_the_disk(tmp_path) -> None:
    config = small_config()
    saved = server_step(state(config.server), update([1.0, 2.0]), config).with_score(0.25)
    saved.save(tmp_path)
    loaded = State.load(tmp_path)
    assert loaded is not None
    assert (loaded.round, loaded.best_round, loaded.best_score) == (1, 1, 0.25)
    for part in ("adapter", "momentum", "variance", "best"):
        assert torch.equal(getattr(loaded, part)["a"], getattr(saved, part)["a"])
    (tmp_path / "state.safetensors").write_bytes(b"half")
    with pytest.raises(InputError, match="cannot be read"):
        State.load(tmp_path)


def test_only_a_better_score_replaces_the_best() -> None:
    first = state(ServerConfig()).with_score(0.5)
    assert first.with_score(0.5) is first
    assert first.with_score(0.6).best_score == 0.6
