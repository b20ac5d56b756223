"""The thread that loads a deployment's models, and then adopts what other processes change in the store."""

import logging
from collections.abc import Callable
from threading import Event, Thread

from fedrec.serving.experiment import Experiment
from fedrec.serving.model_manager import POLL, ModelManager
from fedrec.serving.store import StoreBusyError

LOOKS_PER_SAVE = 8
"""Looks at the store after which the counts of an A/B test are written there: each write waits for the disk."""

STOP_LIMIT = 1.0
"""Seconds to wait for the thread at the end: it may be loading a model."""

logger = logging.getLogger("fedrec")


class Follower:
    """Looks at a shared store every `POLL` seconds, for a fraction of a millisecond; no request waits for it."""

    def __init__(self, manager: ModelManager, experiment: Experiment | None = None) -> None:
        self._manager, self._experiment, self._stopped = manager, experiment, Event()
        self._thread = Thread(target=self._run, name="fedrec-follow", daemon=True)

    def start(self) -> None:
        """Load the models in the background."""
        self._thread.start()

    def close(self) -> None:
        """Stop following."""
        self._stopped.set()
        self._thread.join(STOP_LIMIT)
        self._try(self._save_counts)

    def _run(self) -> None:
        self._manager.start()
        if not self._manager.store.database.is_shared:
            return
        looks = 0
        while not self._stopped.wait(POLL):
            self._try(self._manager.follow_fleet)
            if not (looks := (looks + 1) % LOOKS_PER_SAVE):
                self._try(self._save_counts)

    def _save_counts(self) -> None:
        if self._experiment:
            self._experiment.save_counts()

    def _try(self, exchange: Callable[[], None]) -> None:
        """Read from the store, or write to it; the next time may succeed."""
        try:
            exchange()
        except StoreBusyError as error:
            logger.warning("nothing is exchanged with other processes now: %s", error)
        except Exception:
            logger.exception("what other processes changed could not be adopted")
