"""The server's checkpoint: its state after a round, saved to a file and loaded from it."""

import json
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from fedrec.data.errors import InputError
from fedrec.data.storage.atomic_files import replaced_file
from fedrec.data.storage.reading import regular, require
from fedrec.federation.optimisers import ServerConfig
from fedrec.recsys.closed_form.search import Hyperparameters, Trial
from fedrec.recsys.model.lora import Adapter
from fedrec.recsys.training.hybrid import split_adapter

STATE = "state.safetensors"


@dataclass(frozen=True, eq=False)
class State:
    """The server state: all that the server remembers between rounds."""

    round: int
    adapter: Adapter
    momentum: Adapter  # m, float64
    variance: Adapter  # v, float64
    best: Adapter  # the adapter of the best validated round; without validation, of the last that was answered. With a
    # closed form, its tensors are there, too
    best_round: int = 0
    best_score: float = -1.0
    run: str = ""  # drawn when the run began: by it nodes keep the client states of different runs apart
    roster: str = ""  # fingerprint of the users that could be asked last
    chosen: Hyperparameters | None = None  # of the closed form in `best`
    trials: tuple[Trial, ...] = ()  # the candidates of the closed form so far
    clip: float = 0.0  # of the next round, if it adapts; 0: that of the settings
    versions: Mapping[int, Adapter] = field(default_factory=dict)  # round → the adapter after it: those that clients
    # are still at work from in asynchronous rounds, without this round's

    @classmethod
    def start(cls, adapter: Adapter, config: ServerConfig) -> "State":
        zeros = {name: torch.zeros(tensor.shape, dtype=torch.float64) for name, tensor in adapter.items()}
        floor = {name: torch.full_like(tensor, config.adaptivity**2) for name, tensor in zeros.items()}
        return cls(0, adapter, zeros, floor, adapter, run=secrets.token_hex(8))

    def with_score(self, score: float) -> "State":
        """Return the state with this round's adapter as the best one if its validation score is the highest so far."""
        if score <= self.best_score:
            return self
        return replace(self.with_best_adapter(), best_score=score)

    def with_best_adapter(self) -> "State":
        """Return the state with this round's adapter as the best one."""
        return replace(self, best=self.adapter, best_round=self.round)

    def with_candidate(self, best: Adapter, chosen: Hyperparameters, score: float) -> "State":
        """Return the state with an adapter that holds a closed form as the best one if it is the first, or if its
        validation score is the highest of those."""
        state = replace(self, trials=(*self.trials, Trial(chosen, score)))
        if self.chosen and score <= self.best_score:
            return state
        return replace(state, best=best, best_round=self.round, best_score=score, chosen=chosen)

    def with_solution(self, best: Adapter, chosen: Hyperparameters) -> "State":
        """Return the state with an adapter that holds the finished closed form, which no validation compares."""
        return replace(self, best=best, best_round=self.round, best_score=max(self.best_score, 0.0), chosen=chosen)

    def save(self, folder: Path) -> None:
        """Write the state in one step: a crash leaves this round's or the one before it. Raises `OSError`."""
        tensors = {
            f"{part}/{name}": tensor.clone()  # `best` may be `adapter`; the format holds no shared memory
            for part, adapter in self._parts.items()
            for name, tensor in adapter.items()
        }
        numbers = {name: getattr(self, name) for name in ("round", "best_round", "best_score", "run", "roster", "clip")}
        if self.chosen:
            numbers |= {"chosen": self.chosen.as_record(), "trials": [asdict(trial) for trial in self.trials]}
        with replaced_file(folder / STATE) as path:
            try:
                save_file(tensors, path, metadata={"numbers": json.dumps(numbers)})
            except SafetensorError as error:
                raise OSError(0, f"the round could not be saved ({error})", str(folder / STATE)) from error

    @classmethod
    def load(cls, folder: Path) -> "State | None":
        """Load the state of the last finished round, or None before the first. Raises `InputError` if it is damaged."""
        path = folder / STATE
        if not path.exists():
            return None
        parts: dict[str, Any] = {part: {} for part in _DTYPES}
        versions: dict[int, Adapter] = {}
        remedy = "train again into another folder"
        try:
            with safe_open(regular(path, remedy), framework="pt") as file:
                for key in sorted(file.keys()):
                    part, name = key.split("/", 1)
                    of_version = part.removeprefix(_VERSION)
                    target = parts[part] if of_version == part else versions.setdefault(int(of_version), {})
                    target[name] = file.get_tensor(key)
                numbers = json.loads(file.metadata()["numbers"])
                if chosen := numbers.get("chosen"):
                    numbers["chosen"] = Hyperparameters(**chosen)
                    numbers["trials"] = tuple(map(Trial.from_record, numbers.get("trials", ())))
                state = cls(**numbers, **parts, versions=versions)
        except InputError:
            raise
        except (SafetensorError, LookupError, ValueError, TypeError, AttributeError, OSError, RecursionError) as error:
            raise InputError(f"{path} cannot be read ({error}); {remedy}") from error
        state._check(path, remedy)
        return state

    @property
    def _parts(self) -> dict[str, Adapter]:
        """The adapters and moments by the names of their parts in the file."""
        kept = {f"{_VERSION}{number}": adapter for number, adapter in self.versions.items()}
        return {part: getattr(self, part) for part in _DTYPES} | kept

    def _check(self, path: Path, remedy: str) -> None:
        """Raise `InputError` if the parts belong to different adapters, or hold numbers that no training leaves."""
        numbers = {name: getattr(self, name) for name in ("round", "best_round", "run", "roster")}
        require(numbers, {"round": int, "best_round": int, "run": str, "roster": str}, path, remedy)
        shapes = {name: tensor.shape for name, tensor in self.adapter.items()}
        for part, tensors in self._parts.items():
            dtype = _DTYPES.get(part, torch.float32)
            own = split_adapter(tensors)[0] if part == "best" else tensors
            if {name: tensor.shape for name, tensor in own.items()} != shapes:
                raise InputError(f"{path}: {part} has other names or shapes than the adapter; {remedy}")
            for name, tensor in tensors.items():
                if tensor.dtype != dtype or not tensor.isfinite().all():
                    raise InputError(f"{path}: {part}/{name} is not of finite numbers of {dtype}; {remedy}")


_DTYPES = {"adapter": torch.float32, "momentum": torch.float64, "variance": torch.float64, "best": torch.float32}
"""The parts of every state, and the types of their numbers."""
_VERSION = "version-"
"""The beginning of the name of a part that is one of `State.versions`."""
