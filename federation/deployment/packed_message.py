"""A Flower message in the parts that travel, and what a node's connection asks of the process that answers.

Flower 1.41 sends a message as a head, a tree of the objects in it, and each object by itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from flwr.app import Message
from flwr.app.message import remove_content_from_message
from flwr.app.user_config import UserConfig
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import Message as Head
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents


@dataclass(frozen=True)
class PackedMessage:
    """A message as bytes: it crosses a socket between two processes."""

    head: bytes
    tree: bytes
    contents: Mapping[str, bytes]  # of each object, by its id

    @classmethod
    def of(cls, message: Message) -> Self:
        """Pack a message, which gets its id by this."""
        message.metadata.__dict__["_message_id"] = message.object_id
        head = message_to_proto(remove_content_from_message(message)).SerializeToString()
        with no_object_id_recompute():
            tree = get_object_tree(message).SerializeToString()
            objects = get_all_nested_objects(message)
            return cls(head, tree, {name: item.deflate() for name, item in objects.items()})

    @property
    def message(self) -> Message:
        """The message without its content."""
        return message_from_proto(Head.FromString(self.head))

    @property
    def object_tree(self) -> ObjectTree:
        """The tree of the ids of its objects."""
        return ObjectTree.FromString(self.tree)

    def unpack(self) -> Message:
        """Return the message with its content. Raises `TypeError` if the objects are of something else."""
        name = self.object_tree.object_id
        message = inflate_object_from_contents(name, dict(self.contents))
        if not isinstance(message, Message):
            raise TypeError(f"a {type(message).__name__} came in place of a message")
        message.metadata.__dict__["_message_id"] = name
        return message


@dataclass(frozen=True)
class Question:
    """A message to a node, and all that its answer needs of the run and of the node."""

    message: PackedMessage
    run: int
    node: int
    node_config: UserConfig
    run_config: UserConfig
    bundle: bytes  # the app that the server passes on; it is compared, and never run


@dataclass(frozen=True)
class Reply:
    """The answer to a question. The process that gave it may end with it."""

    message: PackedMessage
    last: bool
