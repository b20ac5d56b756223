"""Where a model comes from, and how an engine is made of it: with its index, and with the items that changed since."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fedrec.data.errors import InputError
from fedrec.recsys.recommender import Recommender
from fedrec.serving.encoding import QuestionEncoder
from fedrec.serving.engine import Engine
from fedrec.serving.index.external_index import ExternalIndexes
from fedrec.serving.index.filters import ColumnError
from fedrec.serving.index.saved_index import load_index, save_index
from fedrec.serving.index.vector_index import MAX_EXACT_ITEMS, Index
from fedrec.serving.live_catalogue import ItemRecord
from fedrec.serving.shared_encoders import share_encoder

Load = Callable[[], Recommender]
Changes = Mapping[str, ItemRecord | None]
"""Items by id that were added or, as None, removed since the training."""

logger = logging.getLogger("fedrec")


@dataclass(frozen=True, eq=False)
class ModelSource:
    """A function that opens a model, at the start and at each reload."""

    load: Load
    folder: Path | None = None  # the run's, which may hold a saved index
    indexes: ExternalIndexes | None = None  # elsewhere, instead of in memory

    def build_engine(self, changes: Changes) -> Engine:
        """Open the model, and offer its items with all changes. Raises `InputError` if it cannot be opened."""
        recommender = share_encoder(self.load())
        engine = Engine.from_recommender(recommender, self._load_or_build_index(recommender)).warm_up()
        return apply_changes(engine, changes)

    def _load_or_build_index(self, recommender: Recommender) -> Index:
        matrix, encoder = recommender.items.searched.numpy(), QuestionEncoder(recommender)
        if self.indexes:
            return self.indexes.open(recommender, encoder.ask_about)
        if self.folder is None or len(matrix) <= MAX_EXACT_ITEMS:
            return encoder.build_index()
        if index := load_index(self.folder, matrix, recommender.version):
            return index
        index = encoder.build_index()
        logger.info("index of %s items: recall %.4f with %s cells a search", len(matrix), index.recall, index.probes)
        try:
            save_index(index, self.folder, recommender.version)
        except (OSError, InputError) as error:  # the next start will rebuild it
            logger.warning("the index could not be saved: %s", error)
        return index


def apply_changes(engine: Engine, changes: Changes) -> Engine:
    """Return an engine without the removed items, and with the added ones that fit its columns."""
    for item_id in (item_id for item_id, item in changes.items() if not item):
        engine = engine.without_item(item_id)
    return engine.with_items([item for item in changes.values() if item and _fits_columns(engine, item)])


def _fits_columns(engine: Engine, item: ItemRecord) -> bool:
    """Check whether an item can be offered; it may have columns of an older catalogue."""
    try:
        engine.catalogue.as_frame(item)
    except ColumnError as error:
        logger.warning("item %s is left out of %s: %s", item.item_id, engine.recommender.version, error)
        return False
    return True
