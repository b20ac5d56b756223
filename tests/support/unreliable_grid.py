"""A network in this process on which the answers of one node are changed or lost."""

from collections.abc import Callable, Iterable
from pathlib import Path

from flwr.app import Message

from fedrec.data.dataset import Dataset
from fedrec.federation import wire
from fedrec.federation.census import take_census
from fedrec.federation.checkpoint import State
from fedrec.federation.config import RunConfig
from fedrec.federation.local_grid import LocalGrid
from fedrec.federation.round_log import RoundLog
from fedrec.federation.rounds import run
from fedrec.federation.setup import TrainingSetup
from fedrec.recsys.model.two_tower import TwoTowerModel
from tests.support.toy_world import toy_stamp

Tamper = Callable[[Message], Message | None]


class Unreliable(LocalGrid):
    """A network on which the answers of node 2 are changed, or lost where `tamper` gives None."""

    tamper: Tamper

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        for reply in super().send_and_receive(messages, timeout=timeout):
            hit = reply.metadata.src_node_id == 2 and reply.metadata.message_type in (wire.TRAIN, wire.STATISTICS)
            changed = self.tamper(reply) if hit else reply
            if changed is not None:
                yield changed


def unreliable(data: Path, config: RunConfig, tamper: Tamper) -> Unreliable:
    grid = Unreliable.over(TrainingSetup(Dataset.open(data), config))
    grid.tamper = tamper
    return grid


def trained(grid: LocalGrid, config: RunConfig, model: TwoTowerModel, folder: Path) -> State:
    folder.mkdir(exist_ok=True)
    start = State.start(model.adapter(), config.server)
    return run(grid, take_census(grid, config, toy_stamp()), start, config, RoundLog(folder))
