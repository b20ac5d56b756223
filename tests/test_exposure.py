"""A bound on exposure: users tell in sums what they would be shown, and items beyond their popularity are lowered."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Message
from torch import Tensor

from benchmarks.attacks.crafting import slope_of
from benchmarks.attacks.poisoned_run import draw_liars, measure_quality, target_of
from benchmarks.attacks.promotion import CRAFTED, lying_node
from benchmarks.attacks.world import World
from fedrec.data.dataset import Dataset
from fedrec.data.errors import InputError
from fedrec.federation import round_log, wire
from fedrec.federation.census import take_census
from fedrec.federation.checkpoint import State
from fedrec.federation.client_app import client_app
from fedrec.federation.clipping import norms
from fedrec.federation.config import RunConfig, from_flat, from_nested, to_flat
from fedrec.federation.exposure_rounds import Bounded, bound_exposure, describe
from fedrec.federation.local_grid import LocalGrid
from fedrec.federation.messages import Order, OrderRefused, Update
from fedrec.federation.node import Node
from fedrec.federation.policy.guard import NodeGuard
from fedrec.federation.policy.node_policy import NodePolicy
from fedrec.federation.policy.order_book import OrderBook
from fedrec.federation.revision import revising
from fedrec.federation.round_log import RoundLog
from fedrec.federation.served import Served
from fedrec.federation.setup import TrainingSetup
from fedrec.federation.training_run import open_run, train
from fedrec.federation.validate_update import validate_exposure
from fedrec.recsys.card import load_card
from fedrec.recsys.evaluation.exposure import count_exposure, with_bias
from fedrec.recsys.exposure_bound import BIAS, EDGES, WATCHED, Bounding, Exposure, ExposureBound, ExposureConfig
from fedrec.recsys.model.scoring import Scorer
from fedrec.recsys.portable import PortableUserModel
from fedrec.recsys.recommender import FILES, Recommender
from tests.support.lab import small_world
from tests.support.real_node import FOR_TOYS, Ask, RealNode
from tests.support.staged_grid import StagedGrid
from tests.support.toy_world import begun, shard_of, small_config

BOUNDED: dict[str, Any] = {"exposure_base": "auto", "exposure_liars": 0.0}
"""Exposure is bounded as it is by default, and nobody is taken for a liar."""
CLOSED: dict[str, Any] = {"method": "hybrid", "ridges": "1", "decodes": "0.1", "blend_shares": "0.2"}
METHODS: dict[str, dict[str, Any]] = {"towers": {}, "hybrid": CLOSED}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return small_world(tmp_path_factory.mktemp("world"))


def settings(world: World, method: str, **changes: Any) -> RunConfig:
    """A run of one round that bounds exposure."""
    return from_flat(to_flat(world.config) | {"rounds": 1} | METHODS[method] | BOUNDED | changes)


# ---- counting, by hand

ITEMS = 14


def preferring(*order: int) -> Callable[[Iterable[int]], Tensor]:
    """Score every user's items 1, 0.9, 0.8, … in an order."""
    scores = torch.zeros(ITEMS)
    scores[list(order)] = 1 - torch.arange(ITEMS) / 10
    return lambda users: scores.repeat(len(list(users)), 1)


def watching(*rows: int, items: int = ITEMS) -> Tensor:
    return torch.tensor([*rows, *[-1] * (items - len(rows))])


def test_counts_by_hand() -> None:
    """Three users of 14 items that all prefer 0, then 1, …; the first has had 0 and 13, the second 12, the third none.

    The first is shown 1 to 10, with 11 left out; the second 0 to 9, with 10 left out.
    """
    shard = shard_of([[0, 13, 0, 5], [12, 5], [5]])
    watched = watching(0, 1, 12)
    found = count_exposure(preferring(*range(ITEMS)), shard, np.arange(3), "test", watched)
    assert found.users == 2
    assert found.shown.tolist() == [1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1, 0, 0, 0]
    assert found.had.tolist() == [1, 0, 1, *[0] * 11]
    assert found.margins.sum(1).tolist() == [1, 2, 0, *[0] * 11]
    edge = int((EDGES < 1).sum())
    assert found.margins[:3, edge].tolist() == [1, 2, 0], "1 more than the first item left out, for both"


def test_a_bias_moves_an_item_out_of_the_lists() -> None:
    bias = torch.zeros(ITEMS)
    bias[3] = -2.0
    score = with_bias(preferring(*range(ITEMS)), bias)
    found = count_exposure(score, shard_of([[13, 5]]), [0], "test", watching())
    assert found.shown.nonzero().squeeze(1).tolist() == [0, 1, 2, 4, 5, 6, 7, 8, 9, 10]


def exposure_of(users: int, shown: int, had: int, margins: Sequence[float], items: int = 2000) -> Exposure:
    """Counts in which item 7 is shown to so many users, with such margins if it is watched."""
    tensors = Exposure.template(items)
    tensors["shown"][7] = shown
    tensors["had"][0] = had
    for margin in margins:
        tensors["margins"][0, torch.bucketize(torch.tensor(margin), EDGES).clamp(max=len(EDGES) - 1)] += 1
    return Exposure(users, **tensors)


def test_a_step_by_hand() -> None:
    """Of 100 users 40 are shown the item, and 12 have had it: 12 - 5 may be shown it, so that 33 lists are too many.

    33 margins are at most 0.5, an edge.
    """
    first = Bounding.start(ExposureConfig(0.02).limit, 2000).step(exposure_of(100, 40, 0, ()))
    assert first.watched[:2].tolist() == [7, -1]
    assert not first.bias.any()
    second = first.step(exposure_of(100, 40, 12, [0.5] * 33 + [0.6] * 7))
    assert second.bias[7] == -0.5
    assert int((second.bias < 0).sum()) == 1
    last = second.step(exposure_of(100, 7, 12, [0.1] * 7))
    assert (last.excess, float(last.bias[7])) == (0, -0.5)


@pytest.mark.parametrize(("base", "items", "most"), [(0.02, 2000, 2.0), (0.02, 100, 25.0), (0.001, 2000, 1.25)])
def test_an_item_without_users_may_be_shown_to_a_share_or_to_some_times_the_average(
    base: float, items: int, most: float
) -> None:
    allowed = ExposureConfig(base).limit.allowed(torch.zeros(items, dtype=torch.float64), 100)
    assert allowed.unique().tolist() == pytest.approx([most])


def test_liars_can_hide_an_item_that_few_have_and_none_that_many_have() -> None:
    """5 of 100 users claim that the item leads their lists by far: a bound cannot tell them from users who like it."""
    first = Bounding.start(ExposureConfig(0.02).limit, 2000).step(exposure_of(100, 6, 0, ()))
    claimed = [0.1] + [100.0] * 5
    assert first.step(exposure_of(100, 6, 1, claimed)).bias[7] == -16
    assert not first.step(exposure_of(100, 6, 12, claimed)).bias.any()


# ---- the artifact


@pytest.fixture(scope="module", params=METHODS)
def method(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def bounded(method: str, world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on one node, whose bound has lowered some items."""
    out = tmp_path_factory.mktemp("bounded") / "run"
    begun(out, world.dataset.folder, settings(world, method))
    return out


def test_a_default_run_is_bounded_and_logs_each_order_to_count(world: World, bounded: Path) -> None:
    """After the last round, with the bytes of each; it is told in one line."""
    record = load_card(bounded)["exposure"]
    assert record["base"] == 0.015
    assert describe(record).startswith(f"Exposure is bounded: {record['lowered']} items are lowered")
    records = round_log.read(bounded)
    assert [one["round"] for one in records] == list(range(1, len(records) + 1))
    counts = [one for one in records if "exposure" in one]
    assert counts == records[-record["orders"] :]
    assert all(one["clients_answered"] == 120 and one["bytes_up"] > 300 * 8 and one["seconds"] > 0 for one in counts)
    assert counts[0]["exposure"]["lowered"] == 0 < counts[0]["exposure"]["excess"]
    assert counts[-1]["exposure"] == {"users": 120, "lowered": record["lowered"], "excess": record["unsettled"]}


@pytest.mark.parametrize(
    ("changes", "base"),
    [
        ({}, 0.015),
        ({"method": "fedrec"}, 0.015),
        ({"method": "fedrec", "mode": "central"}, 0.015),
        ({"exposure_base": "0.02"}, 0.02),
        ({"method": "closed-form", "exposure_base": 0.02}, 0.02),
        ({"method": "closed-form"}, "closed-form trains no towers"),
        ({"epsilon": 8.0}, "its counts carry no noise, and epsilon = 8"),
        ({"method": "fedmf"}, "fedmf leaves no model to bound"),
        ({"exposure_base": "0"}, "exposure_base = 0"),
    ],
)
def test_which_runs_bound_exposure(changes: dict[str, Any], base: float | str) -> None:
    config = from_flat(changes)
    assert (config.exposure_limit.base if config.exposure_limit else config.unbounded) == base


def test_a_card_of_an_earlier_version_is_of_a_run_without_a_bound(bounded: Path, tmp_path: Path) -> None:
    card = load_card(bounded)
    assert from_nested(card["config"]).exposure_limit
    del card["config"]["exposure"]
    (tmp_path / "card.json").write_text(json.dumps(card), "utf-8")
    assert from_nested(load_card(tmp_path)["config"]).unbounded == "exposure_base = 0"


class Losing(LocalGrid):
    """A network on which some orders to count are answered, and then none: it breaks, or is silent."""

    answered: int
    breaks: bool

    @classmethod
    def of(cls, setup: TrainingSetup, answered: int, breaks: bool) -> "Losing":
        grid = cls.over(setup)
        grid.answered, grid.breaks = answered, breaks
        return grid

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        asked = list(messages)
        if asked[0].metadata.message_type != wire.EXPOSURE:
            return super().send_and_receive(asked, timeout=timeout)
        self.answered -= 1
        if self.answered < 0 and self.breaks:
            raise KeyboardInterrupt
        return super().send_and_receive(asked if self.answered >= 0 else [], timeout=timeout)


def test_the_same_users_on_other_nodes_give_the_same_bound_under_masks_and_after_a_kill(
    world: World, method: str, bounded: Path, tmp_path: Path
) -> None:
    """A network that is silent is named, and a run that was killed goes on as if it had not been."""
    recommender, data, out = Recommender.load(bounded), world.dataset, tmp_path / "run"
    assert recommender.bound
    record = recommender.card["exposure"]
    assert record["users"] == 120
    assert 0 < record["lowered"] == int((recommender.bound.bias < 0).sum())
    if method == "towers":
        begun(out, data.folder, settings(world, method, nodes=3, secure=True))
    else:
        run = open_run(out, data, settings(world, method, nodes=3), resume=False)
        with pytest.raises(KeyboardInterrupt):
            train(Losing.of(run.setup, answered=1, breaks=True), run)
        with pytest.raises(InputError, match=r"^0 of 120 users told what is shown \(node 1: no answer .*resume"):
            train(Losing.of(run.setup, answered=0, breaks=False), run)
        train(LocalGrid.over(run.setup), run)
        with revising(out, run.setup) as opened:  # users are forgotten in this way: the biases stay
            opened.with_more_items(np.arange(300)).save({})
    for file in filter(lambda file: (bounded / file).exists(), FILES):
        assert (out / file).read_bytes() == (bounded / file).read_bytes(), file


def test_the_artifact_shows_what_nodes_have_counted(world: World, bounded: Path) -> None:
    """The bias is one more number of each vector, in the artifact, on a device and in its lists."""
    shard, recommender = world.dataset.shard, Recommender.load(bounded)
    bound, score = recommender.bound, recommender.scorer()
    assert bound
    histories = [shard.history(user, "test") for user in range(12)]
    users, items = recommender.user_vectors(recommender.items.read, histories), recommender.items.searched
    torch.testing.assert_close(users.norm(dim=-1), torch.ones(12))
    assert items.norm(dim=-1).max() <= 3**0.5
    factor = bound.largest / users[:, -1:]  # from scores of unit vectors to those that the biases are for
    plain = users[:, :-1] @ replace(recommender, bound=None).items.searched.T * factor
    torch.testing.assert_close(score(histories) * factor, plain + bound.bias, atol=5e-5, rtol=0)
    assert (bound.bias <= 0).all()
    assert not recommender.user_vector([])[-1], "a user without a history has no bias either"
    portable = PortableUserModel(recommender.towers, recommender.closed_form, bound)
    each = [portable(recommender.items.read[list(h)][None], torch.ones(1, len(h)) > 0) for h in histories]
    torch.testing.assert_close(torch.cat(each), users, atol=2e-6, rtol=0)


def test_nothing_is_shown_too_widely(world: World, bounded: Path) -> None:
    """No user of 120 lies, and few have had an item: so 25/300 of them may be shown it."""
    recommender = Recommender.load(bounded)
    score, shard = recommender.scorer(), world.dataset.shard

    def count(scored: Scorer) -> Exposure:
        rows = watching(*range(300), items=300)
        return count_exposure(lambda users: scored([shard.history(user, "test") for user in users]), shard,
                              range(120), "test", rows)  # fmt: skip

    found, before = count(score), count(replace(recommender, bound=None).scorer())
    allowed = settings(world, "towers").exposure.limit.allowed(found.had, 120)
    assert (before.shown > allowed).sum() >= recommender.card["exposure"]["lowered"] / 2
    assert (found.shown > allowed).sum() <= recommender.card["exposure"]["unsettled"]


def test_a_bound_without_biases_is_none() -> None:
    assert ExposureBound.of(None) is None
    assert ExposureBound.of(torch.zeros(3)) is None


# ---- orders, answers and policies


def order_to_count(setup: TrainingSetup, **changes: Any) -> tuple[Order, dict[str, Tensor]]:
    items = len(setup.dataset.catalogue)
    beside = Bounding.start(setup.config.exposure.limit, items).order
    return replace(Order(1, np.arange(12), split="test"), **changes), setup.method.adapter() | beside


def test_orders_to_count_are_checked(toy: Path) -> None:
    setup = TrainingSetup(Dataset.open(toy), small_config(**BOUNDED))
    node, (order, adapter) = Node.host(setup), order_to_count(setup)
    assert node.count_exposure(order, adapter).sums == {"users": 12.0}
    for changes, reason in (({"split": "validation"}, "split"), ({"clip": 1.0}, "clip"), ({"round": 99}, "round")):
        with pytest.raises(OrderRefused, match=reason):
            node.count_exposure(order_to_count(setup, **changes)[0], adapter)
    with pytest.raises(OrderRefused, match="other tensors"):
        node.count_exposure(order, {name: tensor for name, tensor in adapter.items() if name != WATCHED})
    with pytest.raises(OrderRefused, match="watched names an item beyond"):
        node.count_exposure(order, adapter | {WATCHED: adapter[WATCHED] + 25})
    with pytest.raises(OrderRefused, match="counts no exposure \\(exposure_base = 0\\)"):
        Node.host(TrainingSetup(setup.dataset, small_config())).count_exposure(order, adapter)
    with pytest.raises(OrderRefused, match="other tensors"):
        Node.host(TrainingSetup(setup.dataset, small_config())).evaluate(
            order, {**setup.method.adapter(), BIAS: adapter[BIAS]}
        )


LIES: dict[str, tuple[Callable[[Update], Any], str]] = {
    "a negative count": (lambda update: update.deltas["shown"].__setitem__(3, -1), "shown holds numbers"),
    "more than all users": (lambda update: update.deltas["had"].__setitem__(0, 13), "had holds numbers"),
    "a part of a user": (lambda update: update.deltas["shown"].__setitem__(3, 0.5), "shown holds numbers"),
    "margins of one user twice": (lambda update: update.deltas["margins"].__setitem__(0, 1.0), "margins of an item"),
    "too long lists": (lambda update: update.deltas["shown"].fill_(12), "288 items in the lists of 12 users"),
    "too many users": (lambda update: update.sums.__setitem__("users", 13.0), "13 for the metric users"),
}


@pytest.mark.parametrize("lie", LIES)
def test_counts_that_no_users_can_have_are_refused(toy: Path, lie: str) -> None:
    setup = TrainingSetup(Dataset.open(toy), small_config(**BOUNDED))
    order, adapter = order_to_count(setup)
    template, (tell, reason) = Exposure.template(24), LIES[lie]
    update = validate_exposure(Node.host(setup).count_exposure(order, adapter), order, template)
    tell(update)
    with pytest.raises(ValueError, match=reason):
        validate_exposure(update, order, template)


def test_a_policy_can_refuse_to_count_and_does_for_few_users(toy: Path, tmp_path: Path) -> None:
    config = small_config(**BOUNDED)
    _, adapter = order_to_count(TrainingSetup(Dataset.open(toy), config))
    ask = Ask(wire.EXPOSURE, range(12), {"split": "test"})
    policies = {
        FOR_TOYS: "",
        FOR_TOYS + 'questions = ["train", "test"]': "it asks for exposure",
        "fewest_negatives = 16\nsmallest_cohort = 4\nsmallest_open_statistics = 13": "exposure of 12 users without",
    }
    for number, (policy, reason) in enumerate(policies.items()):
        (refusal,) = RealNode.of(toy, tmp_path / str(number), policy).obeys([ask], config, adapter)
        assert bool(refusal) == bool(reason)
        assert reason in refusal


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"epsilon": 8.0}, "carry no noise, and epsilon = 8"), ({"method": "fedmf"}, "leaves no model to bound")],
)
def test_what_does_not_go_with_it(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        small_config(**changes | {"exposure_base": 0.01})


class Guarded(StagedGrid):
    """Three nodes of 40 users, of which the first ones have a policy that lets them train and rank, and not count."""

    @classmethod
    def to(cls, setup: TrainingSetup, folder: Path, refusing: int) -> "Guarded":
        policy = NodePolicy(smallest_cohort=1, questions=("train", "validation", "test"))
        nodes = [Node.host(setup, part, 3) for part in range(3)]
        for part in range(refusing):
            nodes[part] = replace(nodes[part], guard=NodeGuard(policy, OrderBook(folder / f"{part}.db")))
        return cls(client_app(lambda context: nodes[context.node_id - 1]), [{}] * 3, to_flat(setup.config))


def test_nodes_that_refuse_to_count(world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """If most users are on such nodes, the default ends without a bound, and says so; a number ends with an error. The
    counts of the others are enough if they are of half of the users."""
    config = settings(world, "towers", nodes=3)
    run = open_run(tmp_path / "run", world.dataset, config, resume=False)
    train(Guarded.to(run.setup, tmp_path, refusing=3), run)
    recommender = Recommender.load(run.out)
    reason = recommender.card["exposure"]["reason"]
    assert reason.startswith("0 of 120 users told what is shown (node 1: ")
    assert "it asks for exposure, and questions = [" in reason
    assert not recommender.bound
    assert f"exposure is not bounded: {reason}; an item" in caplog.text
    assert len(round_log.read(run.out)[-1]["refusals"]) == 3

    state = State.load(run.out)
    assert state

    def bound(refusing: int, **changes: Any) -> Bounded:
        asked = settings(world, "towers", nodes=3, **changes)
        served = Served.load(run.out, world.setup(asked), state)
        grid = Guarded.to(served.setup, tmp_path / "more", refusing)
        return bound_exposure(grid, take_census(grid, asked, served.setup.stamp), served, RoundLog(tmp_path))

    assert bound(refusing=1).record["users"] == 80
    assert bound(refusing=2).record["reason"].startswith("40 of 120 users told")
    with pytest.raises(InputError, match=r"^40 of 120 users told .*exposure_base = 0$"):
        bound(refusing=2, exposure_base=0.015)


# ---- the attack


def test_a_promoted_item_is_taken_out_of_the_lists_whatever_liars_tell(world: World) -> None:
    """A fifth of 120 users has moved the towers, and lies about its lists: 25/300, and a quarter more, is the most."""
    liars, target = draw_liars(120, 0.2), target_of(world, "dead")
    config = settings(world, "towers", exposure_liars=0.2)
    node = lying_node(world.setup(config), world.dataset.shard, liars, CRAFTED, target)
    adapter = node.setup.method.adapter()
    for _ in range(8):
        step = slope_of(node, adapter, target, [node.shard.history(user, "train") for user in liars])
        length = float(norms({name: tensor.unsqueeze(0) for name, tensor in step.items()}))
        adapter = {name: (tensor + step[name] / length).float() for name, tensor in adapter.items()}
    state = replace(State.start(adapter, config.server), best_round=1)
    served = world.served([node], config, state)
    without, shown = (measure_quality(node.setup, one, target, liars)["shown"] for one in (adapter, served))
    assert without > 0.5
    assert shown <= 25 / 300 / 0.8
