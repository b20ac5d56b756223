"""Flower's Grid without a network: messages go to our ClientApp in this process, through the same records."""

from collections.abc import Iterable, Sequence
from itertools import count
from typing import Self

from flwr.app import Context, Message, RecordDict
from flwr.app.user_config import UserConfig
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from fedrec.federation.client_app import client_app
from fedrec.federation.config import to_flat
from fedrec.federation.node import Node
from fedrec.federation.setup import TrainingSetup
from fedrec.federation.task_identity import identify


class LocalGrid(Grid):
    """Nodes in this process. Each has a node config, as a SuperNode has; all get the run's config."""

    nodes: Sequence[Node] = ()
    """The nodes themselves, if the grid was built over a setup."""

    def __init__(self, app: ClientApp, node_configs: Iterable[UserConfig], run_config: UserConfig) -> None:
        identify(run=1, node=1)
        self._app = app
        self._contexts = {
            node: Context(1, node, config, RecordDict(), run_config)
            for node, config in enumerate(node_configs, start=1)
        }
        self._numbers = count(1)
        self._replies: dict[str, Message] = {}
        self._run = Run.create_empty(1)

    @classmethod
    def over(cls, setup: TrainingSetup) -> Self:
        """Build `config.nodes` nodes that share a setup and its dataset's users. Raises `InputError`."""
        parts = setup.config.nodes
        nodes = [Node.host(setup, part, parts) for part in range(parts)]
        grid = cls(client_app(lambda context: nodes[context.node_id - 1]), [{}] * parts, to_flat(setup.config))
        grid.nodes = nodes
        return grid

    def set_run(self, run: Run) -> None:
        self._run = run

    @property
    def run(self) -> Run:
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        pushed = []
        for message in messages:
            message.metadata.__dict__["_message_id"] = str(next(self._numbers))
            self._replies[message.metadata.message_id] = self._app(
                message, self._contexts[message.metadata.dst_node_id]
            )
            pushed.append(message.metadata.message_id)
        return pushed

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return [self._replies.pop(message_id) for message_id in message_ids]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        return self.pull_messages(self.push_messages(messages))
