"""The endpoint's processes: one, or several workers behind one port under a supervisor that replaces a dead one."""

import logging
import os
import secrets
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from fedrec.data.errors import InputError
from fedrec.serving.http.access_log import log_requests
from fedrec.serving.http.supervisor import Supervisor
from fedrec.serving.settings import Settings

if TYPE_CHECKING:
    from fastapi import FastAPI

    from fedrec.recsys.recommender import Recommender
    from fedrec.serving.http.process import Process
    from fedrec.serving.model_source import ModelSource

    Loaded = dict[Path, Recommender]

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
    """A run to serve, or several as tenants, and how."""

    run: Path | None  # None: the settings' tenants
    settings: Settings

    def serve(self, listener: socket.socket, say: Callable[[str], None]) -> None:
        """Answer until a signal stops the process; `say` is told what is served.

        Raises `InputError` if a run, the store or the index cannot be used.
        """
        from fedrec.recsys.recommender import Recommender

        self._check_connections()
        loaded = {folder: Recommender.load(folder) for folders in self._folders.values() for folder in folders}
        say(", ".join(" against ".join(loaded[each].version for each in folders) for folders in self._folders.values()))
        if self.settings.workers == 1:
            self._answer([listener], loaded)
            return
        loaded.clear()  # each worker has its own
        with tempfile.TemporaryDirectory(prefix="fedrec-workers-") as folder:
            shared = SharedFolder(Path(folder), secrets.token_bytes(32))
            _share_environment(shared.path, self.settings.workers)
            log_requests()
            number = Supervisor(partial(self.work, shared, listener), self.settings.workers).run()
        signal.raise_signal(number)  # end as a single process does

    def work(self, shared: SharedFolder, listener: socket.socket) -> None:
        """Answer as one of several workers: all accept from one socket, and what one has not accepted, another will."""
        try:
            self._answer([listener], {}, shared)
        except InputError as error:
            logger.error("%s", error)
            sys.exit(1)
        except KeyboardInterrupt:  # the terminal's, which its supervisor reports
            pass

    def _answer(self, sockets: list[socket.socket], loaded: "Loaded", shared: SharedFolder | None = None) -> None:
        """Answer with these models first, if they are loaded."""
        import uvicorn

        from fedrec.serving.http.app import host_app
        from fedrec.serving.http.protocol import uvicorn_config
        from fedrec.serving.process_tuning import tune_process

        log_requests()
        process = self._open_process(shared)
        sources = {
            tenant: [_source_of(folder, loaded, process) for folder in folders]
            for tenant, folders in self._folders.items()
        }
        app = host_app(build_endpoint(sources, self.settings, process), process)
        tune_process()
        uvicorn.Server(uvicorn_config(app, self.settings)).run(sockets=sockets)

    @property
    def _folders(self) -> dict[str, list[Path]]:
        """The runs of each tenant, with that of its A/B test; a single model is the tenant without a name."""
        runs = (
            {"": (self.run, self.settings.against)}
            if self.run
            else {name: (tenant.run, tenant.against) for name, tenant in self.settings.tenants.items()}
        )
        return {name: [folder for folder in folders if folder] for name, folders in runs.items()}

    def _open_process(self, shared: SharedFolder | None) -> "Process":
        from fedrec.serving.database import Database
        from fedrec.serving.http.metrics import Metrics
        from fedrec.serving.http.process import Process
        from fedrec.serving.http.rate_limiter import Windows
        from fedrec.serving.http.shared_windows import SharedWindows
        from fedrec.serving.index.external_index import open_indexes
        from fedrec.serving.process_tuning import freeze_loaded_objects

        windows = Windows(SharedWindows(shared.path / WINDOWS), shared.key) if shared else Windows()
        database = Database.open(self.settings.store_address)
        metrics = Metrics(has_tenants=bool(self.settings.tenants))
        indexes = open_indexes(self.settings.index_address, self.settings.index_key)
        waits = shared is not None
        return Process(database, windows, metrics, indexes, waits=waits, loaded=freeze_loaded_objects)

    def _check_connections(self) -> None:
        """Report a store or an index that cannot be used: once, and before it is said what is served."""
        from fedrec.serving.database import Database
        from fedrec.serving.index.external_index import open_indexes

        Database.open(self.settings.store_address).close()
        if indexes := open_indexes(self.settings.index_address, self.settings.index_key):
            indexes.close()


def build_endpoint(sources: Mapping[str, Sequence["ModelSource"]], settings: Settings, process: "Process") -> "FastAPI":
    """Build the app of a single model, or that of all tenants."""
    from fedrec.serving.http.app import build_app
    from fedrec.serving.http.tenants import build_tenants_app

    if not settings.tenants:
        return build_app(sources[""], settings, process)
    apps = {name: build_app(own, settings.of_tenant(name), process, name) for name, own in sources.items()}
    return build_tenants_app(apps, settings, process)


def _source_of(folder: Path, loaded: "Loaded", process: "Process") -> "ModelSource":
    from fedrec.recsys.recommender import Recommender
    from fedrec.serving.model_source import ModelSource

    def load() -> Recommender:
        return loaded.pop(folder, None) or Recommender.load(folder)  # a reload opens it again

    return ModelSource(load, folder, process.indexes)


def _share_environment(folder: Path, workers: int) -> None:
    """Set what the workers inherit: where they count together, and their share of the cores."""
    from fedrec.recsys.hardware import cores

    os.environ[METRICS_FOLDER] = str(folder)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores() // workers)))
