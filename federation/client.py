"""The client side of a round: a node's users train together, or are ranked. Nothing here knows of Flower."""

from dataclasses import dataclass
from functools import reduce
from operator import add
from pathlib import Path

from torch import Tensor

from data.catalogue import Catalogue
from data.shard import Shard
from federation.config import RunConfig
from federation.update import Order, Update, summed
from recsys.embed import embed, resolve
from recsys.fit import fit, negatives
from recsys.lora import Adapter
from recsys.model import Model
from recsys.rank import metric_sums, model_scorer, rank


@dataclass(frozen=True, eq=False)
class Node:
    """A process that hosts clients: their shard, and what is public of the items."""

    shard: Shard
    embeddings: Tensor  # (N, E)
    model: Model
    config: RunConfig

    @classmethod
    def open(cls, folder: Path, part: int, parts: int, config: RunConfig, model: Model) -> "Node":
        """The node that hosts part `part` of the users in a prepared folder. Raises `InputError`."""
        encoder = resolve(config.model.encoder)
        embeddings = embed(Catalogue.load(folder), encoder, folder)
        shard = Shard.load(folder)
        return cls(shard if parts == 1 else shard.part(part, parts), embeddings.matrix, model, config)

    def train(self, order: Order, adapter: Adapter) -> Update:
        """Fine-tune the ordered users from `adapter`; their clipped changes, summed."""
        config = self.config
        cohort = self.shard.crops(order.users, config.model.history + 1, config.seed, order.round)
        if config.mode == "central":
            cohort = cohort.pooled
        draws = [
            negatives(config.fit, len(self.embeddings), config.seed, order.round, step)
            for step in range(config.fit.local_steps)
        ]
        blocks = fit(self.model, adapter, cohort, self.embeddings, config.fit, draws)
        return reduce(add, (summed(block, order.round, order.clip) for block in blocks))

    def evaluate(self, order: Order, adapter: Adapter) -> Update:
        """Rank the ordered users' held-out items over the full catalogue; the metrics, summed.

        Catalogue coverage is left out: on a node of one user it would name the user's recommendations.
        """
        vectors = self.model.item_vectors(adapter, self.embeddings)
        found = rank(model_scorer(self.model, adapter, vectors), self.shard, order.users.tolist(), order.split)
        return Update(order.round, len(order.users), {}, metric_sums(found.ranks))
