"""The server side of a round: who is asked, and what their sum does to the adapter. Nothing here knows of Flower."""

import hashlib
import json
import math
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from fedrec.data.errors import InputError
from fedrec.data.randomness import Stream, random_stream
from fedrec.data.storage.atomic_files import replaced_file
from fedrec.data.storage.reading import regular, require
from fedrec.federation.config import RunConfig, ServerConfig
from fedrec.federation.messages import Update
from fedrec.recsys.model.lora import Adapter

STATE = "state.safetensors"


@dataclass(frozen=True, eq=False)
class Roster:
    """Who can be asked: for each user its node and its number there, in the order of the users' tickets.

    That order is the same however the users are spread over nodes, so a draw means the same users anywhere.
    """

    nodes: np.ndarray  # (U,) node of each user
    users: np.ndarray  # (U,) number in that node's shard
    tickets: np.ndarray  # (U,) rising
    stamp: Mapping[str, str]  # what a node must have to be on it: the same catalogue, the same encoder

    @classmethod
    def empty(cls, stamp: Mapping[str, str]) -> "Roster":
        tickets = np.zeros(0, dtype=np.uint64)
        return cls(tickets, np.zeros(0, dtype=np.int64), tickets, stamp)

    def joined(self, node: int, tickets: np.ndarray) -> "Roster":
        """With one more node: its tickets in the order of its shard. Raises `InputError` if it claims users that are on
        the roster already."""
        everyone = np.concatenate([self.tickets, tickets])
        if (shared := np.isin(self.tickets, tickets)).any():
            raise InputError(
                f"it hosts the same users as node {self.nodes[shared][0]} ({shared.sum()} of its {len(tickets)}); give "
                "each node its own part of them"
            )
        order = np.argsort(everyone, kind="stable")
        nodes = np.concatenate([self.nodes, np.full(len(tickets), node, dtype=np.uint64)])
        users = np.concatenate([self.users, np.arange(len(tickets))])
        return Roster(nodes[order], users[order], everyone[order], self.stamp)

    @property
    def fingerprint(self) -> str:
        """Of the tickets: the same for the same users anywhere."""
        return hashlib.sha256(self.tickets.tobytes()).hexdigest()

    def __len__(self) -> int:
        return len(self.users)

    def per_node(self, drawn: np.ndarray) -> dict[int, np.ndarray]:
        """The drawn places of the roster as each node's own user numbers."""
        return {int(node): self.users[drawn][self.nodes[drawn] == node] for node in np.unique(self.nodes[drawn])}


def sample_clients(roster: Roster, count: int, seed: int, round: int, share: float = 1.0) -> np.ndarray:
    """`count` places of the roster, drawn uniformly without replacement; all of them where it has fewer.

    With a `share` below 1 no node gets more than this part of the `count` (but always one): as users come up in random
    order, those of a node that has its part are passed over. So the draw depends on who hosts whom.
    """
    generator = random_stream(Stream.SAMPLE_CLIENTS, seed, round)
    if share == 1:
        return np.sort(generator.choice(len(roster), size=min(count, len(roster)), replace=False))
    order = generator.permutation(len(roster))
    most = max(1, math.floor(share * count + 1e-9))
    return np.sort(order[_turns(roster.nodes[order]) < most][:count])


def _turns(nodes: np.ndarray) -> np.ndarray:
    """Count, for each place, the places before it that are of the same node: (u,) → (u,)."""
    by_node = np.argsort(nodes, kind="stable")
    _, counts = np.unique(nodes, return_counts=True)
    turns = np.empty(len(nodes), dtype=np.int64)
    turns[by_node] = np.arange(len(nodes)) - np.repeat(np.cumsum(counts) - counts, counts)
    return turns


@dataclass(frozen=True, eq=False)
class State:
    """All that the server remembers between rounds."""

    round: int
    adapter: Adapter
    momentum: Adapter  # m, float64
    variance: Adapter  # v, float64
    best: Adapter  # the adapter of the best validated round; without validation, of the last that was answered
    best_round: int = 0
    best_score: float = -1.0
    run: str = ""  # drawn when the run began: nodes tell by it what they keep for this run from what is of others
    roster: str = ""  # fingerprint of the users that could be asked last

    @classmethod
    def start(cls, adapter: Adapter, config: ServerConfig) -> "State":
        zeros = {name: torch.zeros(tensor.shape, dtype=torch.float64) for name, tensor in adapter.items()}
        floor = {name: torch.full_like(tensor, config.adaptivity**2) for name, tensor in zeros.items()}
        return cls(0, adapter, zeros, floor, adapter, run=secrets.token_hex(8))

    def validated(self, score: float) -> "State":
        """Keep this round's adapter if its validation score is the best so far."""
        if score <= self.best_score:
            return self
        return replace(self.kept(), best_score=score)

    def kept(self) -> "State":
        """With this round's adapter as the one that the run leaves."""
        return replace(self, best=self.adapter, best_round=self.round)

    def save(self, folder: Path) -> None:
        """Write the state in one step: a crash leaves this round's or the one before it. Raises `OSError`."""
        tensors = {
            f"{part}/{name}": tensor.clone()  # `best` may be `adapter`; the format holds no shared memory
            for part in _PARTS
            for name, tensor in getattr(self, part).items()
        }
        numbers = {name: getattr(self, name) for name in ("round", "best_round", "best_score", "run", "roster")}
        with replaced_file(folder / STATE) as path:
            try:
                save_file(tensors, path, metadata={"numbers": json.dumps(numbers)})
            except SafetensorError as error:
                raise OSError(0, f"the round could not be saved ({error})", str(folder / STATE)) from error

    @classmethod
    def load(cls, folder: Path) -> "State | None":
        """The state of the last finished round, or None before the first. Raises `InputError` if it is damaged."""
        path = folder / STATE
        if not path.exists():
            return None
        parts: dict[str, Any] = {part: {} for part in _PARTS}
        remedy = "train again into another folder"
        try:
            with safe_open(regular(path, remedy), framework="pt") as file:
                for key in sorted(file.keys()):
                    part, name = key.split("/", 1)
                    parts[part][name] = file.get_tensor(key)
                state = cls(**json.loads(file.metadata()["numbers"]), **parts)
        except InputError:
            raise
        except (SafetensorError, KeyError, ValueError, TypeError, OSError, RecursionError) as error:
            raise InputError(f"{path} cannot be read ({error}); {remedy}") from error
        state._check(path, remedy)
        return state

    def _check(self, path: Path, remedy: str) -> None:
        """Raises `InputError` where the parts are not of one adapter, or hold what no training leaves."""
        numbers = {name: getattr(self, name) for name in ("round", "best_round", "run", "roster")}
        require(numbers, {"round": int, "best_round": int, "run": str, "roster": str}, path, remedy)
        dtypes = dict(zip(_PARTS, (torch.float32, torch.float64, torch.float64, torch.float32), strict=True))
        shapes = {name: tensor.shape for name, tensor in self.adapter.items()}
        for part, dtype in dtypes.items():
            tensors: Adapter = getattr(self, part)
            if {name: tensor.shape for name, tensor in tensors.items()} != shapes:
                raise InputError(f"{path}: {part} has other names or shapes than the adapter; {remedy}")
            for name, tensor in tensors.items():
                if tensor.dtype != dtype or not tensor.isfinite().all():
                    raise InputError(f"{path}: {part}/{name} is not of finite numbers of {dtype}; {remedy}")


_PARTS = ("adapter", "momentum", "variance", "best")


def server_step(state: State, total: Update | None, config: RunConfig) -> State:
    """The next state, from the sum of a round's updates. If nobody answered (None), or nobody had an example to learn
    from, the adapter stays as it is.

    The mean change is divided out once, here, in float64: by the number of users who had an example. One that diverged
    counts among these, as a change of zero, so that a round in which many diverge takes a shorter step. Then the rules
    of Reddi et al. 2021 (algorithm 2): x ← x + η Δ, with Δ first replaced by its momentum, and that by momentum over
    the root of the variance.
    """
    learners = total.sums["learners"] if total else 0
    if total is None or not learners:
        return replace(state, round=state.round + 1)
    server, rate = config.server, rate_of(config, state.round)
    moved: dict[str, Adapter] = {"adapter": {}, "momentum": {}, "variance": {}}
    for name, delta in total.deltas.items():
        mean = delta / learners
        m, v = _moments(server, mean, state.momentum[name], state.variance[name])
        step = m / (v.sqrt() + server.adaptivity) if server.optimizer in ("fedadam", "fedyogi") else m
        moved["adapter"][name] = (state.adapter[name].double() + rate * step).float()
        moved["momentum"][name], moved["variance"][name] = m, v
    return replace(state, round=state.round + 1, **moved)


def rate_of(config: RunConfig, rounds_done: int) -> float:
    """The server's rate η for the next round."""
    left = 1 - rounds_done / config.rounds if config.server.schedule == "linear" else 1.0
    return config.server.server_rate * left


def _moments(
    config: ServerConfig, mean: torch.Tensor, m: torch.Tensor, v: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    square = mean.square()
    match config.optimizer:
        case "fedavg":
            return mean, v
        case "fedavgm":
            return config.beta1 * m + mean, v
        case "fedadam":
            return config.beta1 * m + (1 - config.beta1) * mean, config.beta2 * v + (1 - config.beta2) * square
        case "fedyogi":
            return (
                config.beta1 * m + (1 - config.beta1) * mean,
                v - (1 - config.beta2) * square * torch.sign(v - square),
            )
