"""A real node's folder over the toy world, its policy, and a server that asks it what it likes."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Context, Message, RecordDict

from fedrec.federation import client_app, wire
from fedrec.federation.config import RunConfig, to_flat
from fedrec.federation.local_grid import LocalGrid
from fedrec.federation.messages import Order, OrderRefused, Update
from fedrec.federation.setup import TrainingSetup
from fedrec.recsys.model.lora import Adapter
from tests.support.toy_world import small_config

FOR_TOYS = "smallest_cohort = 4\nsmallest_open_statistics = 4\nfewest_negatives = 16\nfewest_secure_clients = 4\n"
"""A policy, as the owner of a node with few users and a tiny catalogue writes it into `node.toml`."""


@dataclass(frozen=True)
class Ask:
    """A question to a node: the kind of message, its users, and what else differs from a plain order.

    Of the kind `SECURE` it is the first stage of secure aggregation: keys for a sum of changes.
    """

    kind: str
    users: range
    changes: Mapping[str, Any] = field(default_factory=dict)

    def content(self, adapter: Adapter) -> RecordDict:
        if self.kind != wire.SECURE:
            return wire.encode_order(self.order(), adapter)
        return wire.encode_fields(
            wire.ADVERTISE, {"run": "ab" * 8, "round": 1, "kind": wire.TRAIN, "clients": len(self.users)}
        )

    def order(self) -> Order:
        plain = {"clip": 1.0} if self.kind == wire.TRAIN else {}
        plain |= {"split": "validation"} if self.kind == wire.EVALUATE else {}
        return Order(**{"round": 1, "users": np.array(self.users), **plain, **self.changes})


@dataclass(frozen=True)
class RealNode:
    """A node that is opened as `fedrec node run` opens it, or, `simulated`, as a trainer opens its own data."""

    folder: Path
    simulated: bool = False

    @classmethod
    def of(cls, toy: Path, folder: Path, policy: str | None = FOR_TOYS) -> "RealNode":
        """A copy of the toy world with this `node.toml`, or none."""
        shutil.copytree(toy, folder)
        if policy is not None:
            (folder / "node.toml").write_text(policy)
        client_app.close_nodes()
        return cls(folder)

    def answer(self, ask: Ask, config: RunConfig, adapter: Adapter) -> Update:
        """Its answer to one order; raises what the server is told if it refuses."""
        return wire.decode_update(self.reply(ask, config, adapter))

    def reply(self, ask: Ask, config: RunConfig, adapter: Adapter) -> RecordDict:
        """The content of its answer to one message; raises likewise."""
        LocalGrid(client_app.app, [], {})  # Flower's messages are of a run, which a grid sets
        where = {"data": str(self.folder), "persistent": False, "simulated": self.simulated}
        message = Message(ask.content(adapter), 1, ask.kind)
        return client_app.app(message, Context(1, 1, where, RecordDict(), to_flat(config))).content

    def obeys(self, asks: list[Ask], config: RunConfig, adapter: Adapter | None = None) -> list[str]:
        """What comes of each question: nothing, or the reason of a refusal."""
        return [self._outcome(ask, config, adapter) for ask in asks]

    def _outcome(self, ask: Ask, config: RunConfig, adapter: Adapter | None) -> str:
        try:
            self.reply(ask, config, {} if ask.kind == wire.STATISTICS else adapter or start(self.folder, config))
        except OrderRefused as refusal:
            return str(refusal)
        return ""


def start(folder: Path, config: RunConfig) -> Adapter:
    """The adapter that a run over a folder starts from."""
    return TrainingSetup(client_app.Dataset.open(folder), config).method.adapter()


def plain(**changes: object) -> RunConfig:
    return small_config(**changes)
