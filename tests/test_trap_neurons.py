"""Adapters that are made to read histories find items in a sum if they are not checked, and are refused if they are."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor

from fedrec.data.dataset import Dataset
from fedrec.data.prepare import write_dataset
from fedrec.data.readers.film_text import add_text
from fedrec.data.readers.raw import Frames
from fedrec.data.readers.rules import Rules
from fedrec.federation.messages import Order, OrderRefused
from fedrec.federation.node import Node
from fedrec.federation.policy.check_run import check_run
from fedrec.federation.policy.guard import NodeGuard
from fedrec.federation.policy.node_policy import NodePolicy
from fedrec.federation.policy.order_book import OrderBook
from fedrec.federation.policy.trap_neurons import largest_leverage, leverages
from fedrec.federation.setup import TrainingSetup
from fedrec.recsys.model.lora import Adapter
from fedrec.recsys.recommender import Recommender
from tests.support.toy_world import COOKING, SPACE, begun, small_config

RANK, USERS, ITEMS = 16, 24, 240
CONFIG = small_config(item_rank=RANK, negatives=1)
"""As an attacker asks: hardly a negative hides an item that a user has."""

SETTINGS = {"item_rank": RANK, "rounds": 12, "server_rate": 0.02}


@dataclass(frozen=True)
class World:
    """240 films of two words; 24 users who have 8 of them each, and a node that hosts them all."""

    setup: TrainingSetup
    targets: list[int]  # of which the first half is in one history each, and the others in none

    def attack(
        self, crafted: Adapter, read: Callable[[Tensor], Tensor], policy: NodePolicy | None, book: Path
    ) -> float:
        """Order all users to train from an adapter, and tell the targets that somebody has; its AUC."""
        guard = NodeGuard(policy, OrderBook(book)) if policy else None
        node = Node(self.setup.dataset.shard, self.setup, guard=guard)
        told = node.train(Order(1, np.arange(USERS), clip=1.0), crafted).deltas["item.up"]
        scores = (
            self.embeddings().mean(0).double() @ read(told)
        ).numpy()  # (targets,): an item moves towards its users
        there, absent = np.split(scores, 2)
        return float((there[:, None] > absent).mean())

    def embeddings(self) -> Tensor:
        return self.setup.embeddings.matrix


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    titles = [f"{first} {second}" for first in COOKING + SPACE for second in (COOKING[:5] + SPACE[:5])]
    assert len(titles) == ITEMS
    described = add_text(
        pl.DataFrame({"item_id": titles, "title": titles, "year": [2000] * ITEMS, "genres": ["Film"] * ITEMS})
    )
    generator, targets = np.random.default_rng(0), list(range(0, RANK * 9, 9))
    others = np.setdiff1d(np.arange(ITEMS), targets)
    rows = []
    for user in range(USERS):
        history = generator.choice(others, 8, replace=False)
        if user < RANK // 2:
            history[2] = targets[user]
        rows += [(f"user-{user}", titles[row], step) for step, row in enumerate(history)]
    log = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    folder = tmp_path_factory.mktemp("world") / "data"
    write_dataset(Frames(log, described), folder, name="traps", rules=Rules(salts="by-id"))
    return World(TrainingSetup(Dataset.open(folder), CONFIG), targets)


def neurons(embeddings: Tensor, wanted: Tensor) -> Tensor:
    """Neurons whose inputs 4 · down · e are as wanted: (N, E), (N, R) → (R, E)."""
    return (torch.linalg.pinv(embeddings.double()) @ wanted.double() / 4).T.float()


def trapped(world: World) -> tuple[Adapter, Callable[[Tensor], Tensor]]:
    """One neuron per target, which the target alone activates; its column of the sum tells whether somebody has it."""
    wanted = torch.full((ITEMS, RANK), -8.0)
    wanted[world.targets, range(RANK)] = 8.0
    adapter = world.setup.method.adapter()
    return adapter | {"item.down": neurons(world.embeddings(), wanted)}, lambda up: up


def differing(world: World) -> tuple[Adapter, Callable[[Tensor], Tensor]]:
    """Neurons that all items activate, of which each but the first leaves out one target: their differences tell."""
    wanted = torch.full((ITEMS, RANK), 1.0)
    wanted[world.targets[1:-1], range(1, RANK - 1)] = -8.0
    adapter = world.setup.method.adapter()
    crafted = adapter | {"item.down": neurons(world.embeddings(), wanted)}
    return crafted, lambda up: up[:, :1] - up[:, 1:-1]


ATTACKS = {"one neuron per item": trapped, "differences of dense neurons": differing}


@pytest.mark.parametrize("craft", ATTACKS.values(), ids=ATTACKS)
def test_a_trap_finds_items_in_a_sum_and_is_refused(world: World, tmp_path: Path, craft) -> None:
    adapter, read = craft(world)
    assert world.attack(adapter, read, None, tmp_path / "a" / "orders.db") > 0.9, "the attack works"
    with pytest.raises(OrderRefused, match=r"item\.down singles out an item, by 5\..* times a random leverage"):
        world.attack(adapter, read, NodePolicy(largest_row_norm=torch.inf), tmp_path / "b" / "orders.db")
    unchecked = NodePolicy(largest_row_norm=torch.inf, largest_leverage=torch.inf)
    assert world.attack(adapter, read, unchecked, tmp_path / "c" / "orders.db") > 0.9, "it is this check that stops it"


def test_a_trap_of_tiny_numbers_is_found(world: World) -> None:
    """A change has float32's relative precision, so that a thousandth of a millionth of a column can be read."""
    adapter, _ = trapped(world)
    down = adapter["item.down"].clone()
    honest = leverages(world.setup.method.adapter()["item.down"], world.embeddings(), True)
    down[1:] = world.setup.method.adapter()["item.down"][1:]
    down[0] *= 1e-2
    assert float(leverages(down, world.embeddings(), True).max()) > 3 * float(honest.max())


def test_few_negatives_that_the_traps_need_are_refused(world: World) -> None:
    with pytest.raises(OrderRefused, match="negatives = 1, and fewest_negatives = 256, with 240 items"):
        check_run(NodePolicy(), CONFIG, ITEMS)
    check_run(NodePolicy(), small_config(item_rank=RANK, negatives=240), ITEMS)


def test_a_user_tower_beyond_the_norms_is_refused(world: World, tmp_path: Path) -> None:
    adapter = world.setup.method.adapter()
    for name in ("user.up", "user.down", "item.up"):
        crafted = adapter | {name: torch.full_like(adapter[name], 10.0)}
        with pytest.raises(OrderRefused, match=f"{name} has a row or column of norm .* largest_row_norm = 10"):
            world.attack(crafted, lambda up: up, NodePolicy(), tmp_path / "orders.db")


def test_leverages_are_the_diagonal_of_the_projection(world: World) -> None:
    down = world.setup.method.adapter()["item.down"]
    active = torch.nn.functional.gelu(4 * world.embeddings().double() @ down.double().T)
    expected = (active @ torch.linalg.pinv(active)).diagonal()
    found = leverages(down, world.embeddings(), True)
    assert torch.allclose(found, expected, atol=1e-9)
    assert float(found.sum()) == pytest.approx(RANK)


def test_a_dead_neuron_is_no_trap(world: World) -> None:
    """Its activations are beyond what a change can hold, however unequal they are."""
    down = world.setup.method.adapter()["item.down"].clone()
    before = float(leverages(down[1:], world.embeddings(), True).max())
    down[0] = neurons(world.embeddings(), torch.linspace(-20, -12, ITEMS).unsqueeze(1))[0]
    assert float(leverages(down, world.embeddings(), True).max()) == pytest.approx(before, rel=1e-3)


def ratio(run: Path, embeddings: Tensor) -> float:
    """The largest leverage of a trained run's item tower, in the unit of the policy."""
    return largest_leverage(Recommender.load(run).adapter["item.down"], embeddings, True)


def test_honest_adapters_pass_with_a_margin(world: World, tmp_path: Path) -> None:
    """At the start, and trained: two thirds of what the policy allows, at most."""
    start, embeddings = world.setup.method.adapter()["item.down"], world.embeddings()
    assert largest_leverage(start, embeddings, True) < 3 / 1.5
    begun(tmp_path / "run", world.setup.dataset.folder, small_config(**SETTINGS))
    assert ratio(tmp_path / "run", embeddings) < 3 / 1.5


@pytest.mark.long
def test_honest_adapters_of_real_data_pass_with_a_margin(ml_100k: Path, tmp_path: Path) -> None:
    """Twenty seconds: the embeddings of 1,682 films, and six rounds at three times the default step."""
    begun(tmp_path / "run", ml_100k, small_config(item_rank=64, negatives=512, rounds=6, server_rate=0.006))
    embeddings = TrainingSetup(Dataset.open(ml_100k), small_config()).embeddings.matrix
    assert ratio(tmp_path / "run", embeddings) < 3 / 1.5
