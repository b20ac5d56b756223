"""The endpoint's processes: one, or several workers behind one port under a supervisor that replaces a dead one."""

import logging
import multiprocessing
import os
import secrets
import signal
import socket
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Thread

from fedrec.data.errors import InputError
from fedrec.recsys.recommender import Recommender
from fedrec.serving.settings import Settings

HEALTH_TIMEOUT = 30
"""Seconds after which a worker that does not answer its supervisor is replaced; it imports for some of them."""

METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""The variable that prometheus_client reads when it is imported: see its page on the multiprocess mode."""

WINDOWS = "windows"  # without the suffix .db, which names the metrics' files
logger = logging.getLogger("fedrec")


@dataclass(frozen=True)
class SharedFolder:
    """A temporary folder of the workers of one port: their metrics, and their callers' windows by keyed hashes."""

    path: Path
    key: bytes


@dataclass(frozen=True)
class Endpoint:
    """A run to serve, and how."""

    run: Path
    settings: Settings

    def serve(self, recommender: Recommender, listener: socket.socket) -> None:
        """Answer until a signal stops the process; the run is open already. Raises `InputError` for the store."""
        if self.settings.workers == 1:
            self._answer([listener], recommender)
            return
        self._check_store()
        with tempfile.TemporaryDirectory(prefix="fedrec-workers-") as folder:
            _supervise(self, SharedFolder(Path(folder), secrets.token_bytes(32)), listener)

    def work(self, shared: SharedFolder, sockets: Sequence[socket.socket] | None) -> None:
        """Answer as one of several workers, until told to stop or left alone."""
        Thread(target=_stop_with_parent, daemon=True).start()
        try:
            self._answer(list(sockets or ()), None, shared)
        except InputError as error:
            logger.error("%s", error)
            sys.exit(1)

    def _answer(
        self, sockets: list[socket.socket], loaded: Recommender | None, shared: SharedFolder | None = None
    ) -> None:
        import uvicorn

        from fedrec.serving.http.access_log import log_requests
        from fedrec.serving.http.app import build_app, host_app
        from fedrec.serving.http.protocol import uvicorn_config
        from fedrec.serving.model_source import ModelSource
        from fedrec.serving.process_tuning import tune_process

        log_requests()
        first = iter([loaded] if loaded else [])  # a reload opens the folder again
        source = ModelSource(lambda: next(first, None) or Recommender.load(self.run), self.run)
        process = self._open_process(shared)
        app = host_app(build_app([source], self.settings, process), process)
        tune_process()
        uvicorn.Server(uvicorn_config(app, self.settings)).run(sockets=sockets)

    def _open_process(self, shared: SharedFolder | None):
        from fedrec.serving.database import Database
        from fedrec.serving.http.process import Process
        from fedrec.serving.http.rate_limiter import Windows
        from fedrec.serving.http.shared_windows import SharedWindows
        from fedrec.serving.process_tuning import freeze_loaded_objects

        windows = Windows(SharedWindows(shared.path / WINDOWS), shared.key) if shared else Windows()
        database = Database.open(self.settings.store_address)
        return Process(database, windows, waits=shared is not None, loaded=freeze_loaded_objects)

    def _check_store(self) -> None:
        """Report a store that cannot be used once, before the workers do."""
        from fedrec.serving.database import Database

        Database.open(self.settings.store_address).close()


def _supervise(endpoint: Endpoint, shared: SharedFolder, listener: socket.socket) -> None:
    """Run workers that accept from one listening socket: what one has not accepted yet, another one will."""
    import uvicorn
    from uvicorn.supervisors import Multiprocess

    from fedrec.recsys.hardware import cores

    workers = endpoint.settings.workers
    os.environ[METRICS_FOLDER] = str(shared.path)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores() // workers)))
    config = uvicorn.Config("fedrec", workers=workers, log_config=None, timeout_worker_healthcheck=HEALTH_TIMEOUT)
    Multiprocess(config, partial(endpoint.work, shared), [listener]).run()


def _stop_with_parent() -> None:
    """Stop this worker if its supervisor is gone, which could not replace or stop it any more."""
    if parent := multiprocessing.parent_process():
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
