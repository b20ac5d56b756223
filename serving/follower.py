"""The thread that loads a deployment's models, and then adopts what other processes change in the store."""

import logging
from threading import Event, Thread

from fedrec.serving.model_manager import POLL, ModelManager
from fedrec.serving.store import StoreBusyError

STOP_LIMIT = 1.0
"""Seconds to wait for the thread at the end: it may be loading a model."""

logger = logging.getLogger("fedrec")


class Follower:
    """Looks at a shared store every `POLL` seconds, for a fraction of a millisecond; no request waits for it."""

    def __init__(self, manager: ModelManager) -> None:
        self._manager, self._stopped = manager, Event()
        self._thread = Thread(target=self._run, name="fedrec-follow", daemon=True)

    def start(self) -> None:
        """Load the models in the background."""
        self._thread.start()

    def close(self) -> None:
        """Stop following."""
        self._stopped.set()
        self._thread.join(STOP_LIMIT)

    def _run(self) -> None:
        self._manager.start()
        if not self._manager.store.database.is_shared:
            return
        while not self._stopped.wait(POLL):
            try:
                self._manager.follow_fleet()
            except StoreBusyError as error:  # the next look may succeed
                logger.warning("changes by other processes cannot be seen: %s", error)
            except Exception:
                logger.exception("changes by other processes could not be adopted")
