"""A summand of a run's sums: what some users of one node add to them, computed anew from the node's own folder.

A user's history gives the same sums at any time, to the bit, so that they can be subtracted. As a file, a summand is
what a node sends to have users forgotten.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from fedrec.data.errors import InputError
from fedrec.data.shard import Shard
from fedrec.data.storage.atomic_files import replaced_file
from fedrec.data.storage.reading import regular
from fedrec.federation.config import to_flat
from fedrec.federation.messages import Order
from fedrec.federation.node import Node
from fedrec.federation.run_statistics import Sums
from fedrec.federation.setup import TrainingSetup
from fedrec.federation.wire import to_float32_if_exact

_REMEDY = "write it again with `fedrec node withdraw`"


@dataclass(frozen=True, eq=False)
class Summand:
    """The sums over some users of one node, with the users' tickets."""

    sums: Sums
    tickets: np.ndarray  # (u,) uint64

    @classmethod
    def of(cls, setup: TrainingSetup, shard: Shard, users: np.ndarray) -> Self:
        """Sum the statistics of users (u,) of a shard, in the way in which a node answers the order for them."""
        order = Order(setup.config.summing_rounds[-1], users)
        answer = Node(shard, setup).sum_statistics(order, {})
        return cls(Sums.of(answer), shard.select(users).tickets())

    def save(self, path: Path, setup: TrainingSetup) -> None:
        """Write the summand to a file, readable by its owner alone."""
        about = {"users": len(self.tickets), "learners": self.sums.learners, "settings": _settings_print(setup)}
        tensors = to_float32_if_exact(self.sums.statistics) | {"tickets": torch.from_numpy(self.tickets.view(np.int64))}
        with replaced_file(path, rights=0o600) as partial:
            save_file(tensors, partial, metadata={"summand": json.dumps(about)})

    @classmethod
    def load(cls, path: Path, setup: TrainingSetup) -> Self:
        """Read the summand of a file, as it is. Raises `InputError` if it is damaged, or of another run's settings."""
        try:
            with safe_open(regular(path, _REMEDY, "`summand` "), framework="pt") as file:
                about: dict[str, Any] = json.loads(file.metadata()["summand"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            tickets = tensors.pop("tickets").numpy().view(np.uint64)
            counts = int(about["users"]), int(about["learners"])
            of_settings = about["settings"]
        except FileNotFoundError as error:
            raise InputError(f"`summand` {path} is not there; {_REMEDY}") from error
        except (SafetensorError, KeyError, ValueError, TypeError, OSError) as error:
            raise InputError(f"`summand` {path} cannot be read ({error}); {_REMEDY}") from error
        if of_settings != _settings_print(setup):
            raise InputError(
                f"`summand` {path} was written for other settings, another catalogue or another encoder than the "
                f"run's; {_REMEDY}, by the card of this run"
            )
        if counts[0] != len(tickets) or len(np.unique(tickets)) < len(tickets) or not 0 <= counts[1] <= len(tickets):
            raise InputError(f"`summand` {path}: its tickets do not fit its number of users; {_REMEDY}")
        return cls(Sums({name: tensor.double() for name, tensor in tensors.items()}, *counts), tickets)


def _settings_print(setup: TrainingSetup) -> str:
    """Compute a fingerprint of what sums depend on, beside the histories."""
    public = setup.dataset.catalogue.fingerprint, setup.encoder.sha256, to_flat(setup.config)
    return hashlib.sha256(json.dumps(public, sort_keys=True).encode()).hexdigest()
