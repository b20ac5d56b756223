"""A network in this process that keeps a copy of every message."""

from collections.abc import Iterable

from flwr.app import Message

from fedrec.federation.local_grid import LocalGrid


class Recorder(LocalGrid):
    """A network that keeps a copy of every message that crosses it."""

    crossed: list[Message]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        sent = list(messages)
        replies = list(super().send_and_receive(sent, timeout=timeout))
        self.crossed += [*sent, *replies]
        return replies


def bytes_of(message: Message) -> Iterable[bytes]:
    for record in message.content.array_records.values():
        yield from (array.data for array in record.values())
    for record in (*message.content.config_records.values(), *message.content.metric_records.values()):
        yield from (
            value if isinstance(value, bytes) else repr((name, value)).encode() for name, value in record.items()
        )
