"""The client side of a round: a node's users train together, or are ranked. Nothing here knows of Flower."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache, reduce
from operator import add
from pathlib import Path
from typing import Any

from fedrec.data.catalogue import Catalogue
from fedrec.data.shard import FOLDER, Shard
from fedrec.data.storage.atomic_files import unreplaced
from fedrec.federation.client_state import ClientStateStore, state_file
from fedrec.federation.clipping import clip_and_sum
from fedrec.federation.compression.eden import Eden
from fedrec.federation.config import RunConfig
from fedrec.federation.messages import Order, Update
from fedrec.federation.validate_order import Terms, validate_order
from fedrec.recsys.embeddings import Embeddings, embed_catalogue, resolve_encoder
from fedrec.recsys.evaluation.ranking import RankingConfig, metric_sums, rank_users
from fedrec.recsys.hardware import device, parallel_map
from fedrec.recsys.model.config import ModelConfig
from fedrec.recsys.model.lora import Adapter
from fedrec.recsys.model.two_tower import TwoTowerModel
from fedrec.recsys.training.method import Block, FederatedMethod


@dataclass(frozen=True, eq=False)
class Node:
    """A process that hosts clients: their shard, what is public of the items, and what it keeps of each client."""

    shard: Shard
    public: Embeddings
    config: RunConfig
    keep: ClientStateStore = field(default_factory=ClientStateStore)

    @classmethod
    def open(cls, folder: Path, config: RunConfig, part: int = 0, parts: int = 1, lasting: bool = False) -> "Node":
        """The node that hosts part `part` of the users in a prepared folder; what it keeps of them is `lasting` where
        it is in a file there. Raises `InputError`."""
        with unreplaced(folder / FOLDER):
            public, shard = public_side(folder, config.model.encoder), Shard.load(folder).part(part, parts)
        keep = ClientStateStore(state_file(folder, part, parts), shard.salts) if lasting else ClientStateStore()
        return cls(shard, public, config, keep)

    @cached_property
    def model(self) -> TwoTowerModel:
        """Opened when it is first needed, which takes seconds: a census needs none."""
        return shared_model(self.config.model, self.config.seed)

    @cached_property
    def method(self) -> FederatedMethod:
        return self.config.method_row.build(self.config, self.public, lambda: self.model)

    @cached_property
    def terms(self) -> Terms:
        shapes = {name: tensor.to("meta") for name, tensor in self.method.adapter().items()}  # no numbers are kept
        return Terms(self.config, len(self.shard), shapes)

    def train(self, order: Order, adapter: Adapter) -> Update:
        """Fine-tune the ordered users from `adapter`; their clipped changes, summed. Raises `OrderRefused`."""
        validate_order(order, adapter, self.terms, training=True)
        with self._parts(order) as parts:
            return self._trained(order, adapter, parts)

    def _parts(self, order: Order) -> AbstractContextManager[dict[int, Any]]:
        return (
            self.keep.training(order.run, order.round, order.best) if self.config.has_client_state else nullcontext({})
        )

    def _trained(self, order: Order, adapter: Adapter, parts: dict[int, Any]) -> Update:
        def trained(block: Block) -> Update:
            fitted = self.method.train_clients(adapter, block, parts)
            coding = self._coding(block, order.round)
            return clip_and_sum(fitted, order.round, order.clip, coding, self.config.largest_loss)

        side_by_side = (
            map if self.config.mode == "central" else parallel_map
        )  # one client has all cores in each product
        return reduce(add, side_by_side(trained, self.method.blocks(self.shard, order.users, order.round)))

    def _coding(self, block: Block, round: int) -> Eden | None:
        config = self.config
        if config.bits == 32:
            return None
        return Eden.of(block.salts, config.bits, config.seed, round).to(self.public.matrix.device)

    def evaluate(self, order: Order, adapter: Adapter) -> Update:
        """Rank the ordered users' held-out items, over the full catalogue unless asked otherwise; the metrics, summed.

        Catalogue coverage is left out: on a node of one user it would name the user's recommendations.
        Raises `OrderRefused`.
        """
        validate_order(order, adapter, self.terms, training=False)
        parts = self.keep.at(order.run, order.round) if self.config.has_client_state else {}
        score = self.method.scorer(adapter, self.shard, order.split, parts)
        found = rank_users(score, self.shard, order.users.tolist(), order.split, RankingConfig(order.protocol))
        return Update(order.round, len(order.users), {}, metric_sums(found.ranks))


@lru_cache(maxsize=2)
def shared_model(config: ModelConfig, seed: int) -> TwoTowerModel:
    """One frozen model for all nodes in this process."""
    return TwoTowerModel(config, resolve_encoder(config.encoder), seed).to(device())


@lru_cache(maxsize=4)
def public_side(folder: Path, encoder: str) -> Embeddings:
    """The embedded catalogue of a prepared folder: one for all nodes in this process."""
    public = embed_catalogue(Catalogue.load(folder), resolve_encoder(encoder), folder)
    return replace(public, matrix=public.matrix.to(device()))
