"""A network in this process under secure aggregation, on which the messages of some stages are lost or changed."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from flwr.app import Error, Message, RecordDict
from flwr.common.constant import ErrorCode

from fedrec.data.dataset import Dataset
from fedrec.data.errors import InputError
from fedrec.federation import wire
from fedrec.federation.config import RunConfig
from fedrec.federation.local_grid import LocalGrid
from fedrec.federation.setup import TrainingSetup

Change = Callable[[str, int, RecordDict], RecordDict]
"""A function of a stage, a node and the content of its answer."""


def stage_of(content: RecordDict) -> str:
    """The stage of a request; empty if it is of none."""
    return wire.stage_of(content) if "secure" in content else ""


class StagedGrid(LocalGrid):
    """A network that loses requests and answers, changes answers, and keeps what the server sees."""

    lost_requests: Mapping[str, set[int]] = {}
    lost_answers: Mapping[str, set[int]] = {}
    change: Change = staticmethod(lambda stage, node, content: content)
    until_round: int = 0
    """The last round in which something is lost or changed; 0: none."""

    @classmethod
    def of(cls, data: Path, config: RunConfig) -> "StagedGrid":
        grid = cls.over(TrainingSetup(Dataset.open(data), config))
        grid.seen = []
        return grid

    seen: list[tuple[str, int, RecordDict]]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        asked = list(messages)
        faulty = bool(asked) and int(asked[0].metadata.group_id) <= self.until_round
        stages = {message.metadata.dst_node_id: stage_of(message.content) for message in asked}
        kept = [m for m in asked if not (faulty and is_in(self.lost_requests, stages, m.metadata.dst_node_id))]
        for reply in map(self._answer, kept):
            node = reply.metadata.src_node_id
            if faulty and is_in(self.lost_answers, stages, node):
                continue
            if not reply.has_error() and stages[node]:
                if faulty:
                    reply.content = self.change(stages[node], node, reply.content)
                self.seen.append((stages[node], node, reply.content))
            yield reply

    def _answer(self, message: Message) -> Message:
        """The answer of a node, or the error that a network would bring in its place."""
        try:
            (reply,) = super().send_and_receive([message])
        except InputError as refusal:
            return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, str(refusal)), reply_to=message)
        return reply


def is_in(lost: Mapping[str, set[int]], stages: Mapping[int, str], node: int) -> bool:
    return node in lost.get(stages[node], ())
