"""The client side of a round: a node's users train together, or are ranked. Nothing here knows of Flower."""

from dataclasses import dataclass
from functools import lru_cache, reduce
from operator import add
from pathlib import Path

import numpy as np

from data.catalogue import Catalogue
from data.errors import InputError
from data.shard import Shard
from federation.config import RunConfig
from federation.update import Order, Update, summed
from recsys.embed import Embeddings, embed, resolve
from recsys.fit import fit, negatives
from recsys.lora import Adapter
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
        shard = Shard.load(folder)
        if len(shard.items) and int(shard.items.max()) >= len(public.matrix):
            raise InputError(f"{folder}: the histories name items that the catalogue lacks; prepare the data again")
        return cls(shard.part(part, parts), public, model, config)

    def train(self, order: Order, adapter: Adapter) -> Update:
        """Fine-tune the ordered users from `adapter`; their clipped changes, summed."""
        config = self.config
        if len(np.unique(order.users)) < len(order.users):
            raise ValueError("an order that names a user twice is refused: it would move the sum twice")
        if config.mode == "federated" and not order.clip <= config.clip:
            raise ValueError(f"an order with clip {order.clip:g} is refused: this run promised {config.clip:g}")
        cohort = self.shard.crops(order.users, config.model.history + 1, config.seed, order.round)
        if config.mode == "central":
            cohort = cohort.pooled
        draws = [
            negatives(config.fit, len(self.public.matrix), config.seed, order.round, step)
            for step in range(config.fit.local_steps)
        ]
        blocks = fit(self.model, adapter, cohort, self.public.matrix, config.fit, draws)
        return reduce(add, (summed(block, order.round, order.clip) for block in blocks))

    def evaluate(self, order: Order, adapter: Adapter) -> Update:
        """Rank the ordered users' held-out items over the full catalogue; the metrics, summed.

        Catalogue coverage is left out: on a node of one user it would name the user's recommendations.
        """
        vectors = self.model.item_vectors(adapter, self.public.matrix)
        found = rank(model_scorer(self.model, adapter, vectors), self.shard, order.users.tolist(), order.split)
        return Update(order.round, len(order.users), {}, metric_sums(found.ranks))


@lru_cache(maxsize=4)
def public_side(folder: Path, encoder: str) -> Embeddings:
    """The embedded catalogue of a prepared folder: one for all nodes in this process."""
    return embed(Catalogue.load(folder), resolve(encoder), folder)
