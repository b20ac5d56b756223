"""The engines that answer now, and how others replace them: in one step, between two requests, in every process that
serves the same store."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Event, Lock
from typing import Literal

from fedrec.serving.engine import Engine
from fedrec.serving.live_catalogue import ItemRecord
from fedrec.serving.model_source import ModelSource, apply_changes
from fedrec.serving.process_tuning import run_in_new_thread
from fedrec.serving.store import FleetState, Store

POLL = 0.25
"""Seconds between two looks at what other processes have changed in the store."""

LOAD_MARGIN, MAX_LEAD = 1.5, 60.0
"""How much longer another process may take to load a model, as a factor; seconds that one waits for others at most."""

logger = logging.getLogger("fedrec")


class ModelNotReadyError(Exception):
    """No model answers yet: it is loading, or could not be loaded."""

    def __init__(self, state: Literal["loading", "failed"], detail: str) -> None:
        super().__init__(detail)
        self.state: Literal["loading", "failed"] = state


@dataclass(frozen=True)
class _Loaded:
    """Engines that may answer: all changes to items up to a number are in them."""

    engines: tuple[Engine, ...]
    changes: int

    @property
    def version(self) -> str:
        return " ".join(engine.recommender.version for engine in self.engines)


class ModelManager:
    """Each request takes `engines` once, and keeps them whatever replaces them meanwhile. Changes take turns.

    All processes with the same store change together. A change to an item is in the others once they have looked, after
    `POLL` seconds at most. A reload is announced with the time at which all switch to the model that they have loaded.
    """

    def __init__(
        self, sources: Sequence[ModelSource], store: Store, loaded: Callable[[], object] = lambda: None
    ) -> None:
        """`sources` has a model for each arm; `loaded` is called once, when everything is loaded."""
        self._sources, self._loaded = sources, loaded
        self.store = store
        self.engines: tuple[Engine, ...] = ()
        self.failure: str | None = None
        self.since = ""
        self.started = Event()
        """Set once the models answer, or cannot be loaded."""
        self._generation = self._changes = 0
        self._turn = Lock()

    @property
    def engine(self) -> Engine | None:
        """The engine of the first arm; None until it is loaded."""
        return self.engines[0] if self.engines else None

    def start(self) -> None:
        """Load the models; keep a failure's message, which `require_engines` reports."""
        try:
            with self._turn:
                self._generation = self.store.fleet().generation
                loaded = self._load_engines()
                self._switch(loaded, self.store.join_fleet(loaded.version))
            self.started.set()
            for engine in self.engines:  # questions by history are answered meanwhile
                engine.load_text_encoder()
            self._loaded()
        except Exception as error:  # nobody would see a thread's traceback
            self.failure = str(error)
            logger.error("the model could not be loaded: %s", error)
        finally:
            self.started.set()

    def require_engines(self) -> tuple[Engine, ...]:
        """Return the engines that answer now, one for each arm. Raises `ModelNotReadyError`."""
        if not self.engines:
            if self.failure:
                raise ModelNotReadyError("failed", f"the model could not be loaded: {self.failure}")
            raise ModelNotReadyError("loading", "the model is loading")
        return self.engines

    def reload(self) -> tuple[Engine, ...]:
        """Open the models again, with all items added since, and let them answer once all processes have loaded them.

        If that fails, the old models keep answering everywhere, and the error is raised.
        """
        with self._turn:
            began = time.monotonic()
            loaded = self._load_engines()
            lead = min(LOAD_MARGIN * (time.monotonic() - began) + 2 * POLL, MAX_LEAD)
            switch_at = time.time() + (lead if self.store.database.is_shared else 0)
            self._switch(loaded, self.store.announce_reload(loaded.version, switch_at))
            return loaded.engines

    def follow_fleet(self) -> None:
        """Adopt what other processes have changed. Raises `StoreBusyError`."""
        state = self.store.fleet()
        with self._turn:
            if state.generation != self._generation:
                self._generation = state.generation
                self._reload_with_others(state)
            elif state.changes > self._changes and self.engines:
                changes = dict(self.store.changed_items(after=self._changes))
                self.engines = run_in_new_thread(lambda: tuple(apply_changes(each, changes) for each in self.engines))
                self._changes = state.changes

    def put_item(self, item: ItemRecord) -> Engine:
        """Offer an item from now on. Raises `ColumnError` if it does not fit the columns of every arm."""
        with self._turn:
            before = self.require_engines()
            engines = run_in_new_thread(lambda: tuple(each.with_items([item]) for each in before))
            self._adopt_change(engines, self.store.put_item(item))
            return engines[0]

    def drop_item(self, item_id: str) -> bool:
        """Remove an item; return whether it was on offer."""
        with self._turn:
            before = self.require_engines()
            if all(each.catalogue.find_row(item_id) is None for each in before):
                return False
            engines = tuple(each.without_item(item_id) for each in before)
            self._adopt_change(engines, self.store.drop_item(item_id))
            return True

    def _load_engines(self) -> _Loaded:
        state, changes = self.store.fleet(), dict(self.store.changed_items())
        engines = run_in_new_thread(lambda: tuple(source.build_engine(changes) for source in self._sources))
        for engine in engines if self.engines else ():  # the old models answer texts until the new ones can
            engine.load_text_encoder()
        return _Loaded(engines, state.changes)

    def _switch(self, loaded: _Loaded, state: FleetState) -> None:
        """Answer from these engines, at the time that all processes know."""
        time.sleep(min(max(0.0, state.switch_at - time.time()), MAX_LEAD))
        self.engines, self._changes, self._generation = loaded.engines, loaded.changes, state.generation
        self.since, self.failure = datetime.now(UTC).isoformat(timespec="seconds"), None

    def _reload_with_others(self, state: FleetState) -> None:
        """Load the version that others load; if it is not here, the old models keep answering, and the log says so."""
        try:
            loaded = self._load_engines()
        except Exception as error:
            logger.error("%s was loaded elsewhere, but could not be here: %s", state.version, error)
            return
        if loaded.version != state.version:
            remedy = "copy the same run to every machine, and reload"
            logger.error("%s was loaded elsewhere, but the run here is %s; %s", state.version, loaded.version, remedy)
            return
        self._switch(loaded, state)

    def _adopt_change(self, engines: tuple[Engine, ...], number: int) -> None:
        """Answer from engines with one more change; if others made some before it, all are still to be read."""
        self.engines = engines
        if number == self._changes + 1:
            self._changes = number
