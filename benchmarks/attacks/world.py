"""The federation that is attacked: its settings, its nodes, and what an attacker at the server can ask of them."""

import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.attacks.defences import OFF, Defence
from fedrec.data.dataset import Dataset
from fedrec.data.shard import HELD_OUT, NO_ITEM, Shard
from fedrec.data.storage.json_file import save_json
from fedrec.federation.census import take_census
from fedrec.federation.checkpoint import State
from fedrec.federation.client_app import client_app
from fedrec.federation.config import RunConfig, Scalar, from_flat, to_flat
from fedrec.federation.exposure_rounds import bound_exposure
from fedrec.federation.local_grid import LocalGrid
from fedrec.federation.messages import Order, Update
from fedrec.federation.node import Node
from fedrec.federation.policy.guard import NodeGuard
from fedrec.federation.policy.node_policy import NodePolicy
from fedrec.federation.policy.order_book import OrderBook
from fedrec.federation.privacy.accounting import Releases, default_delta
from fedrec.federation.privatise import enter_ledger
from fedrec.federation.roster import Roster
from fedrec.federation.round_log import RoundLog
from fedrec.federation.rounds import run as run_rounds
from fedrec.federation.served import Served
from fedrec.federation.setup import TrainingSetup
from fedrec.federation.training_run import new_card
from fedrec.recsys.card import CARD
from fedrec.recsys.model.lora import Adapter
from fedrec.recsys.training.hybrid import HybridMethod
from fedrec.recsys.training.method import TwoTowerMethod


@dataclass(frozen=True)
class Size:
    """The size of an experiment: quick in a test, full for the published table."""

    victims: int  # users, or sums of users, that an attack is averaged over
    rounds: int  # of training before an attack
    poisoned_rounds: int  # of training while an attack runs
    shadows: int  # models that an attacker trains on users of its own
    guesses: int  # ids that it tries


QUICK = Size(victims=3, rounds=3, poisoned_rounds=3, shadows=4, guesses=1_000)
FULL = Size(victims=24, rounds=30, poisoned_rounds=40, shadows=8, guesses=1_000_000)

HONEST = "honest"
"""The name of a training without an attacker."""


@dataclass(frozen=True, eq=False)
class World:
    """A dataset, the settings of a run, the size of the experiment, its seed, and a folder for what is trained."""

    dataset: Dataset
    config: RunConfig
    size: Size
    folder: Path
    seed: int = 0
    _setups: dict[RunConfig, TrainingSetup] = field(default_factory=dict, repr=False)

    def generator(self, *key: int) -> np.random.Generator:
        """Build the generator of an attack's draws, which are the same in every run of the lab."""
        return np.random.default_rng([self.seed, *key])

    def configure(self, defence: Defence = OFF, settings: Mapping[str, Scalar] | None = None) -> RunConfig:
        """Return the run's settings without defences, with some changed, and those of a defence over them."""
        changed = {**OFF.settings, **(settings or {}), **defence.settings}
        return from_flat(to_flat(self.config) | changed)

    def setup(self, config: RunConfig) -> TrainingSetup:
        """Return the setup of a run with some settings, opened once."""
        if config not in self._setups:
            self._setups[config] = TrainingSetup(self.dataset, config)
        return self._setups[config]

    def node(
        self, config: RunConfig, shard: Shard | None = None, defence: Defence = OFF, policy: NodePolicy | None = None
    ) -> Node:
        """Build a node of such a run that hosts the dataset's users, or others. Its policy, if the defence is one, is
        the default or another.

        Raises `OrderRefused` if the policy refuses the run.
        """
        guard = None
        if defence.policy:
            guard = NodeGuard(policy or NodePolicy(), OrderBook(Path(tempfile.mkdtemp()) / "orders.db"))
            guard.check_run(config, len(self.dataset.catalogue))
        return Node(shard or self.dataset.shard, self.setup(config), guard=guard)

    @cached_property
    def popularity(self) -> np.ndarray:
        """The number of training events of each item, which is public: (N,)."""
        return np.bincount(self.dataset.shard.events("train")[1], minlength=len(self.dataset.catalogue)).astype(float)

    @cached_property
    def embeddings(self) -> Tensor:
        """The text embeddings of the items, which are public: (N, E)."""
        return self.setup(self.config).embeddings.matrix

    @property
    def users(self) -> int:
        """The number of users."""
        return len(self.dataset.shard)

    def draw_cohorts(self, users: int, count: int, key: int) -> list[np.ndarray]:
        """Draw cohorts of so many users each: the victims."""
        rng = self.generator(key, users)
        return [np.sort(rng.choice(self.users, min(users, self.users), replace=False)) for _ in range(count)]

    def mark(self, items: np.ndarray) -> np.ndarray:
        """Mark some items in the catalogue: (N,) of bool."""
        marks = np.zeros(len(self.dataset.catalogue), dtype=bool)
        marks[items] = True
        return marks

    def trained(self) -> Adapter:
        """Return the adapter after the rounds of `size`, trained once and kept in the folder."""
        config = self.configure(settings=rounds_of(self.size.rounds))
        return self.train([self.node(config)], config, HONEST).adapter

    def train(self, nodes: Sequence[Node], config: RunConfig, name: str) -> State:
        """Train over nodes, the attacker's among them, by the product's own loop; an interrupted training resumes.

        The folder's name is of the settings, too. `name` says what else decides the outcome.
        """
        settings_print = hashlib.blake2b(repr((config, self.seed)).encode(), digest_size=6).hexdigest()
        folder = self.folder / f"{name}-{settings_print}"
        folder.mkdir(parents=True, exist_ok=True)
        setup = self.setup(config)
        grid, roster = self._connect(nodes, config)
        state = State.load(folder) or State.start(setup.method.adapter(), config.server)
        if not (folder / CARD).exists():  # by which the ledger of a private run is begun
            save_json(folder / CARD, new_card(config, self.dataset.manifest, setup.described_encoders, None))
        state = enter_ledger(folder, config, state, len(roster))
        return run_rounds(grid, roster, state, config, RoundLog(folder))

    def served(self, nodes: Sequence[Node], config: RunConfig, state: State) -> Adapter:
        """Return the adapter of the best round, with the biases of the items if the run bounds their exposure."""
        served, (grid, roster) = Served(self.setup(config), state, None), self._connect(nodes, config)
        with tempfile.TemporaryDirectory() as folder:
            return replace(served, bias=bound_exposure(grid, roster, served, RoundLog(Path(folder))).bias).adapter

    def _connect(self, nodes: Sequence[Node], config: RunConfig) -> tuple[LocalGrid, Roster]:
        settings = replace(config, nodes=len(nodes))
        grid = LocalGrid(client_app(lambda context: nodes[context.node_id - 1]), [{}] * len(nodes), to_flat(settings))
        return grid, take_census(grid, settings, self.setup(config).stamp)

    def multiplier(self, config: RunConfig) -> float:
        """Find the noise of a run's guarantee, in what one user may add: of a round's sum, or of a closed form's."""
        return _multiplier(config, self.users) if config.privacy.enabled else 0.0


@cache
def _multiplier(config: RunConfig, users: int) -> float:
    rounds, rate = config.training_rounds, min(1.0, config.clients_per_round / users)
    wanted = Releases(rounds, rate if rounds else 0.0, 0.0, int(config.method_row.summed), 0.0)
    delta, budget = config.privacy.delta or default_delta(users), config.privacy.statistic_budget
    plan = wanted.with_noise(config.privacy.epsilon, delta, budget)
    return plan.round_noise or plan.statistic_noise


def rounds_of(rounds: int) -> dict[str, Scalar]:
    """Return the settings of a run of so many rounds that is validated once, at its end."""
    return {"rounds": rounds, "validate_every": rounds}


def towers_of(setup: TrainingSetup) -> TwoTowerMethod:
    """Return the two towers of a setup. Raises `TypeError` if its method has none."""
    method = setup.method
    towers = method.towers if isinstance(method, HybridMethod) else method
    if not isinstance(towers, TwoTowerMethod):
        raise TypeError(f"{setup.config.method} has no towers")
    return towers


def with_noise(update: Update, clip: float, noise: float, generator: np.random.Generator) -> Update:
    """Add Gaussian noise of standard deviation `noise` · `clip` to each number of a sum."""
    if not noise:
        return update

    def add_noise(tensor: Tensor) -> Tensor:
        return tensor + noise * clip * torch.from_numpy(generator.standard_normal(tuple(tensor.shape)))

    return replace(update, deltas={name: add_noise(tensor) for name, tensor in update.deltas.items()})


def observe(world: World, order: Order, adapter: Adapter, defence: Defence, node: Node) -> Update:
    """Return what the server sees of an order to train: the node's answer, with the defence's noise."""
    update = node.train(order, adapter)
    key = node.shard.salts[order.users].tolist()  # each sum has noise of its own
    noise = max(defence.noise, world.multiplier(node.config))
    return with_noise(update, order.clip, noise, world.generator(order.round, *key))


def forge_shard(histories: Sequence[np.ndarray], generator: np.random.Generator) -> Shard:
    """Build a shard of invented users, with salts at random: all events of a history are trained on."""
    events = [np.append(history, [NO_ITEM] * HELD_OUT["train"]) for history in histories]
    ends = np.cumsum([len(one) for one in events])
    salts = generator.integers(2**63, size=len(events), dtype=np.uint64)
    return Shard(ends - [len(one) for one in events], ends, np.concatenate(events).astype(np.int64), salts)
