"""The engine that answers now, and how another replaces it: in one step, between two requests."""

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Literal

from fedrec.data.errors import InputError
from fedrec.recsys.recommender import Recommender
from fedrec.serving.encoding import QuestionEncoder
from fedrec.serving.engine import Engine
from fedrec.serving.index.external_index import ExternalIndexes
from fedrec.serving.index.filters import ColumnError
from fedrec.serving.index.saved_index import load_index, save_index
from fedrec.serving.index.vector_index import MAX_EXACT_ITEMS, Index
from fedrec.serving.live_catalogue import ItemRecord
from fedrec.serving.process_tuning import run_in_new_thread
from fedrec.serving.store import Store

Load = Callable[[], Recommender]
logger = logging.getLogger("fedrec")


class ModelNotReadyError(Exception):
    """No model answers yet: it is loading, or could not be loaded."""

    def __init__(self, state: Literal["loading", "failed"], detail: str) -> None:
        super().__init__(detail)
        self.state: Literal["loading", "failed"] = state


class ModelManager:
    """Each request takes `engine` once, and keeps it whatever replaces it meanwhile. Changes take turns."""

    def __init__(
        self,
        load: Load,
        store: Store,
        folder: Path | None,
        loaded: Callable[[], object],
        indexes: ExternalIndexes | None = None,
    ) -> None:
        """`load` opens the model, at the start and at each reload; `folder` may hold a saved index, unless `indexes`
        are elsewhere; `loaded` is called once, when everything is loaded."""
        self._load, self._folder, self._loaded, self._indexes = load, folder, loaded, indexes
        self.store = store
        self.engine: Engine | None = None
        self.failure: str | None = None
        self.since = ""
        self._turn = Lock()

    def start(self) -> None:
        """Load the model; keep a failure's message, which `require_engine` reports."""
        try:
            self.reload().load_text_encoder()  # questions by history are answered meanwhile
            self._loaded()
        except Exception as error:  # nobody would see a thread's traceback
            self.failure = str(error)
            logger.error("the model could not be loaded: %s", error)

    def require_engine(self) -> Engine:
        """Return the engine that answers now. Raises `ModelNotReadyError`."""
        if self.engine is None:
            if self.failure:
                raise ModelNotReadyError("failed", f"the model could not be loaded: {self.failure}")
            raise ModelNotReadyError("loading", "the model is loading")
        return self.engine

    def reload(self) -> Engine:
        """Open the model again, with all items added since, and let it answer once it is loaded.

        If that fails, the old model keeps answering, and the error is raised.
        """
        with self._turn:
            engine = run_in_new_thread(self._build_engine)
            self.engine, self.since, self.failure = engine, datetime.now(UTC).isoformat(timespec="seconds"), None
            return engine

    def put_item(self, item: ItemRecord) -> Engine:
        """Offer an item from now on. Raises `ColumnError`."""
        with self._turn:
            engine = run_in_new_thread(partial(self.require_engine().with_items, [item]))
            self.store.put_item(item)
            self.engine = engine
            return engine

    def drop_item(self, item_id: str) -> bool:
        """Remove an item; return whether it was on offer."""
        with self._turn:
            if self.require_engine().catalogue.find_row(item_id) is None:
                return False
            engine = self.require_engine().without_item(item_id)
            self.store.drop_item(item_id)
            self.engine = engine
            return True

    def _build_engine(self) -> Engine:
        recommender = self._load()
        engine = Engine.from_recommender(recommender, self._load_or_build_index(recommender)).warm_up()
        if self.engine:  # the old model answers texts until the new one can
            engine.load_text_encoder()
        changes = dict(self.store.changed_items())
        for item_id in (item_id for item_id, item in changes.items() if not item):
            engine = engine.without_item(item_id)
        return engine.with_items([item for item in changes.values() if item and _fits_columns(engine, item)])

    def _load_or_build_index(self, recommender: Recommender) -> Index:
        matrix, encoder = recommender.items.searched.numpy(), QuestionEncoder(recommender)
        if self._indexes:
            return self._indexes.open(recommender, encoder.ask_about)
        if self._folder is None or len(matrix) <= MAX_EXACT_ITEMS:
            return encoder.build_index()
        if index := load_index(self._folder, matrix, recommender.version):
            return index
        index = encoder.build_index()
        logger.info("index of %s items: recall %.4f with %s cells a search", len(matrix), index.recall, index.probes)
        try:
            save_index(index, self._folder, recommender.version)
        except (OSError, InputError) as error:  # the next start will rebuild it
            logger.warning("the index could not be saved: %s", error)
        return index


def _fits_columns(engine: Engine, item: ItemRecord) -> bool:
    """Check whether an item can be offered; it may have columns of an older catalogue."""
    try:
        engine.catalogue.as_frame(item)
    except ColumnError as error:
        logger.warning("item %s is left out of %s: %s", item.item_id, engine.recommender.version, error)
        return False
    return True
