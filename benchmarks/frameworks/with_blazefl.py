"""A round in BlazeFL: https://github.com/blazefl/blazefl. Changes travel as vectors, as in its own FedAvg."""

# pyright: reportMissingImports=false

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.multiprocessing as mp
from blazefl.core import BaseServerHandler, IPCMode, ProcessPoolClientTrainer, SHMHandle, ThreadPoolClientTrainer
from torch import Tensor

from benchmarks.frameworks.work import ClientWork
from fedrec.recsys.model.lora import Adapter


@dataclass
class Downlink:
    """The server's message to the clients of a round."""

    adapter: Tensor  # (P,)


@dataclass
class Uplink:
    """A client's answer; through shared memory, a handle takes the place of its change."""

    change: Tensor | SHMHandle  # (P,)


class Server(BaseServerHandler[Uplink, Downlink]):
    """The sum of the clients' changes."""

    def __init__(self, work: ClientWork) -> None:
        self.clients = len(work.clients)
        self.adapter = work.to_vector(work.adapter)
        self.total = torch.zeros_like(self.adapter, dtype=torch.float64)

    def downlink_package(self) -> Downlink:
        return Downlink(self.adapter)

    def sample_clients(self) -> list[int]:
        self.total.zero_()
        return list(range(self.clients))

    def load(self, payload: Uplink) -> bool:
        self.total += payload.change
        return True


class Threads(ThreadPoolClientTrainer[Uplink, Downlink]):
    """Clients in threads of this process."""

    def __init__(self, work: ClientWork) -> None:
        self.work, self.num_parallels, self.device = work, work.workers, "cpu"
        self.cache, self.stop_event = [], threading.Event()

    def worker(self, cid: int, device: str, payload: Downlink, stop_event: threading.Event) -> Uplink:
        adapter = self.work.from_vector(payload.adapter)
        return Uplink(self.work.to_vector(self.work.change_of(cid, adapter)))

    def uplink_package(self) -> list[Uplink]:
        packages, self.cache = self.cache, []
        return packages


class Processes(ProcessPoolClientTrainer[Uplink, Downlink, int]):
    """Clients in processes that are forked in each round, and inherit model and histories."""

    work: ClassVar[ClientWork]

    def __init__(self, work: ClientWork) -> None:
        Processes.work = work
        self.num_parallels, self.device, self.share_dir = work.workers, "cpu", Path()
        self.cache, self.ipc_mode, self.stop_event = [], IPCMode.SHARED_MEMORY, mp.Manager().Event()

    def get_client_config(self, cid: int) -> int:
        return cid

    def prepare_uplink_package_buffer(self) -> Uplink:
        return Uplink(torch.empty_like(self.work.to_vector(self.work.adapter)))

    @staticmethod
    def worker(
        config: int, payload: Downlink, device: str, stop_event: threading.Event, *, shm_buffer: Uplink
    ) -> Uplink:
        work = Processes.work
        change = work.change_of(config, work.from_vector(payload.adapter))
        shm_buffer.change.copy_(work.to_vector(change))
        return Uplink(SHMHandle())

    uplink_package = Threads.uplink_package


def build_round(work: ClientWork, trainer: Callable[[ClientWork], Any]) -> Callable[[], Adapter]:
    """Build a function that runs a round, by `Threads` or `Processes`, and returns the summed changes."""
    server, clients = Server(work), trainer(work)

    def run_round() -> Adapter:
        sampled, broadcast = server.sample_clients(), server.downlink_package()
        clients.local_process(broadcast, sampled)
        for package in clients.uplink_package():
            server.load(package)
        return work.from_vector(server.total)

    return run_round
