"""The client side of a round: a node's users train together, or are ranked. Nothing here knows of Flower."""

from dataclasses import dataclass, replace
from functools import lru_cache, reduce
from operator import add
from pathlib import Path

import numpy as np

from data.catalogue import Catalogue
from data.shard import Cohort, Shard
from federation.compress import Coding
from federation.config import RunConfig
from federation.update import Order, Update, summed
from recsys.embed import Embeddings, embed, resolve
from recsys.fit import blocks, fit, negatives
from recsys.lora import Adapter
from recsys.machine import device, spread
from recsys.model import Model
from recsys.rank import metric_sums, model_scorer, rank


@dataclass(frozen=True, eq=False)
class Node:
    """A process that hosts clients: their shard, and what is public of the items."""

    shard: Shard
    public: Embeddings
    model: Model
    config: RunConfig

    @classmethod
    def open(cls, folder: Path, part: int, parts: int, config: RunConfig, model: Model) -> "Node":
        """The node that hosts part `part` of the users in a prepared folder. Raises `InputError`."""
        public = public_side(folder, config.model.encoder)
        return cls(Shard.load(folder).part(part, parts), public, model, config)

    def train(self, order: Order, adapter: Adapter) -> Update:
        """Fine-tune the ordered users from `adapter`; their clipped changes, summed."""
        config = self.config
        if len(np.unique(order.users)) < len(order.users):
            raise ValueError("an order that names a user twice is refused: it would move the sum twice")
        if config.mode == "federated" and not order.clip <= config.clip:
            raise ValueError(f"an order with clip {order.clip:g} is refused: this run promised {config.clip:g}")
        cohort = self.shard.crops(order.users, config.model.history + 1, config.seed, order.round)
        cohort = cohort.within(len(self.public.matrix))
        draws = [
            negatives(config.fit, len(self.public.matrix), config.seed, order.round, step)
            for step in range(config.fit.local_steps)
        ]
        adapter = self._near(adapter)

        def trained(block: Cohort) -> Update:
            fitted = fit(self.model, adapter, block, self.public.matrix, config.fit, draws)
            return summed(fitted, order.round, order.clip, self._coding(block, order.round))

        if config.mode == "central":  # one client that owns everything: nobody's company, all cores in each product
            return trained(cohort.pooled)
        return reduce(add, spread(trained, blocks(cohort, self.public.matrix.device)))

    def _coding(self, block: Cohort, round: int) -> Coding | None:
        config = self.config
        if config.bits == 32:
            return None
        return Coding.of(block.salts, config.bits, config.seed, round).to(self.public.matrix.device)

    def _near(self, adapter: Adapter) -> Adapter:
        return {name: tensor.to(self.public.matrix.device) for name, tensor in adapter.items()}

    def evaluate(self, order: Order, adapter: Adapter) -> Update:
        """Rank the ordered users' held-out items over the full catalogue; the metrics, summed.

        Catalogue coverage is left out: on a node of one user it would name the user's recommendations.
        """
        adapter = self._near(adapter)
        vectors = self.model.item_vectors(adapter, self.public.matrix)
        found = rank(model_scorer(self.model, adapter, vectors), self.shard, order.users.tolist(), order.split)
        return Update(order.round, len(order.users), {}, metric_sums(found.ranks))


@lru_cache(maxsize=4)
def public_side(folder: Path, encoder: str) -> Embeddings:
    """The embedded catalogue of a prepared folder: one for all nodes in this process."""
    public = embed(Catalogue.load(folder), resolve(encoder), folder)
    return replace(public, matrix=public.matrix.to(device()))
