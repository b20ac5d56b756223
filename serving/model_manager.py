"""The engine that answers now, and how another takes its place: in one step, between two requests."""

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from threading import Lock

from fedrec.data.errors import InputError
from fedrec.recsys.recommender import Recommender
from fedrec.serving.engine import Engine
from fedrec.serving.index.filters import ColumnError
from fedrec.serving.index.vector_index import EXACT, Index
from fedrec.serving.live_catalogue import ItemRecord
from fedrec.serving.store import Store
from fedrec.serving.threads import run_in_new_thread

Load = Callable[[], Recommender]
logger = logging.getLogger("fedrec")


class ModelManager:
    """A request takes `engine` once, and is answered by that one, whatever comes after. Changes take turns."""

    def __init__(self, load: Load, store: Store, folder: Path | None, loaded: Callable[[], object]) -> None:
        """`load` opens the model, now and again at each reload; `folder` may keep an index that takes long to build;
        `loaded` is called once, when all is there."""
        self._load, self._folder, self._loaded = load, folder, loaded
        self.store = store
        self.engine: Engine | None = None
        self.failure: str | None = None
        self.since = ""
        self._turn = Lock()

    def start(self) -> None:
        """Load the model; a failure is kept, to be told by whoever is asked whether it is ready."""
        try:
            self.reload().load_encoder()  # whoever asks by history is answered meanwhile
            self._loaded()
        except Exception as error:  # a thread's traceback would reach nobody
            self.failure = str(error)
            logger.error("the model could not be loaded: %s", error)

    def reload(self) -> Engine:
        """Open the model anew, with all items put in since, and let it answer once it can.

        Where that fails, the old one goes on, and the error is raised.
        """
        with self._turn:
            engine = run_in_new_thread(self._fresh)
            self.engine, self.since, self.failure = engine, datetime.now(UTC).isoformat(timespec="seconds"), None
            return engine

    def put(self, goods: ItemRecord) -> Engine:
        """Offer an item from now on. Raises `ColumnError`."""
        with self._turn:
            assert self.engine, "nothing is put in before the model is loaded"
            engine = run_in_new_thread(partial(self.engine.put, [goods]))
            self.store.put(goods)
            self.engine = engine
            return engine

    def drop(self, item_id: str) -> bool:
        """Take an item out; whether it was on offer."""
        with self._turn:
            assert self.engine, "nothing is taken out before the model is loaded"
            if self.engine.shelf.row(item_id) is None:
                return False
            engine = self.engine.drop(item_id)
            self.store.drop(item_id)
            self.engine = engine
            return True

    def _fresh(self) -> Engine:
        recommender = self._load()
        engine = Engine.of(recommender, self._index(recommender)).warm()
        if self.engine:  # the old one answers texts until this one does, too
            engine.load_encoder()
        changes = dict(self.store.items())
        for item_id in (item_id for item_id, goods in changes.items() if not goods):
            engine = engine.drop(item_id)
        return engine.put([goods for goods in changes.values() if goods and _fits(engine, goods)])

    def _index(self, recommender: Recommender) -> Index:
        matrix = recommender.vectors.numpy()
        if self._folder is None or len(matrix) <= EXACT:
            return Index.over(matrix)
        if index := Index.load(self._folder, matrix, recommender.version):
            return index
        index = Index.over(matrix)
        logger.info("index of %s items: recall %.4f with %s cells a search", len(matrix), index.recall, index.probes)
        try:
            index.save(self._folder, recommender.version)
        except (OSError, InputError) as error:  # it can be built again; the next start only takes longer
            logger.warning("the index could not be saved: %s", error)
        return index


def _fits(engine: Engine, goods: ItemRecord) -> bool:
    """Whether an item can be offered; it may be of an older catalogue's columns."""
    try:
        engine.shelf.fitted(goods)
    except ColumnError as unfit:
        logger.warning("item %s is left out of %s: %s", goods.item_id, engine.recommender.version, unfit)
        return False
    return True
