"""The client side of a round: a node's users train together, or are ranked. Nothing here knows of Flower."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache, reduce
from operator import add
from pathlib import Path
from typing import Any

from data.catalogue import Catalogue
from data.files import unreplaced
from data.shard import FOLDER, Shard
from federation.compress import Coding
from federation.config import RunConfig
from federation.keep import Keep, keep_file
from federation.orders import Terms, validate_order
from federation.update import Order, Update, summed, worst_loss
from recsys.embed import Embeddings, embed, resolve
from recsys.learner import Block, Learner, TwoTowers
from recsys.lora import Adapter
from recsys.machine import device, spread
from recsys.model import Model, ModelConfig
from recsys.peers import Peer
from recsys.rank import metric_sums, rank_users


@dataclass(frozen=True, eq=False)
class Node:
    """A process that hosts clients: their shard, what is public of the items, and what it keeps of each client."""

    shard: Shard
    public: Embeddings
    config: RunConfig
    keep: Keep = field(default_factory=Keep)

    @classmethod
    def open(cls, folder: Path, config: RunConfig, part: int = 0, parts: int = 1, lasting: bool = False) -> "Node":
        """The node that hosts part `part` of the users in a prepared folder; what it keeps of them is `lasting` where
        it is in a file there. Raises `InputError`."""
        with unreplaced(folder / FOLDER):
            public, shard = public_side(folder, config.model.encoder), Shard.load(folder).part(part, parts)
        keep = Keep(keep_file(folder, part, parts), shard.salts) if lasting else Keep()
        return cls(shard, public, config, keep)

    @cached_property
    def model(self) -> Model:
        """Opened when it is first needed, which takes seconds: a census needs none."""
        return shared_model(self.config.model, self.config.seed)

    @cached_property
    def learner(self) -> Learner:
        return learner(self.config, self.model, self.public)

    @cached_property
    def terms(self) -> Terms:
        shapes = {name: tensor.to("meta") for name, tensor in self.learner.adapter().items()}  # no numbers are kept
        return Terms(self.config, len(self.shard), shapes)

    def train(self, order: Order, adapter: Adapter) -> Update:
        """Fine-tune the ordered users from `adapter`; their clipped changes, summed. Raises `OrderRefused`."""
        validate_order(order, adapter, self.terms, training=True)
        with self._parts(order) as parts:
            return self._trained(order, adapter, parts)

    def _parts(self, order: Order) -> AbstractContextManager[dict[int, Any]]:
        return self.keep.training(order.run, order.round, order.best) if self.config.keeps else nullcontext({})

    def _trained(self, order: Order, adapter: Adapter, parts: dict[int, Any]) -> Update:
        def trained(block: Block) -> Update:
            fitted = self.learner.fit(adapter, block, parts)
            coding = self._coding(block, order.round)
            return summed(fitted, order.round, order.clip, coding, worst_loss(self.config))

        side_by_side = map if self.config.mode == "central" else spread  # one client has all cores in each product
        return reduce(add, side_by_side(trained, self.learner.blocks(self.shard, order.users, order.round)))

    def _coding(self, block: Block, round: int) -> Coding | None:
        config = self.config
        if config.bits == 32:
            return None
        return Coding.of(block.salts, config.bits, config.seed, round).to(self.public.matrix.device)

    def evaluate(self, order: Order, adapter: Adapter) -> Update:
        """Rank the ordered users' held-out items, over the full catalogue unless asked otherwise; the metrics, summed.

        Catalogue coverage is left out: on a node of one user it would name the user's recommendations.
        Raises `OrderRefused`.
        """
        validate_order(order, adapter, self.terms, training=False)
        parts = self.keep.at(order.run, order.round) if self.config.keeps else {}
        score = self.learner.scorer(adapter, self.shard, order.split, parts)
        found = rank_users(score, self.shard, order.users.tolist(), order.split, order.protocol)
        return Update(order.round, len(order.users), {}, metric_sums(found.ranks))


def learner(config: RunConfig, model: Model, public: Embeddings) -> Learner:
    """What the clients of a run learn with."""
    if config.method == "fedrec":
        pooled = config.mode == "central"
        return TwoTowers(model, public.matrix, public.warm, config.fit, config.seed, pooled, config.held_out)
    return Peer(config.peer, len(public.matrix), config.seed, dual=config.method == "pfedrec")


@lru_cache(maxsize=2)
def shared_model(config: ModelConfig, seed: int) -> Model:
    """One frozen model for all nodes in this process."""
    return Model(config, resolve(config.encoder), seed).to(device())


@lru_cache(maxsize=4)
def public_side(folder: Path, encoder: str) -> Embeddings:
    """The embedded catalogue of a prepared folder: one for all nodes in this process."""
    public = embed(Catalogue.load(folder), resolve(encoder), folder)
    return replace(public, matrix=public.matrix.to(device()))
