"""The sums of a run with a closed form, in its folder: the total, and each node's, for whatever is asked of them later.

    statistics/total.safetensors     the sums over all users that answered
    statistics/node-7.safetensors    those of node 7; left out if more than 64 nodes answered
    statistics/members.safetensors   the users in them, each by a mark (federation/members.py)

Sums are packed (recsys/closed_form/packing.py). A user's sums can be subtracted from them, and a node's.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from fedrec.data.errors import InputError
from fedrec.data.storage.atomic_files import replaced_folder
from fedrec.data.storage.contents import Contents
from fedrec.data.storage.reading import regular
from fedrec.federation.members import Members
from fedrec.federation.messages import Update
from fedrec.federation.wire import to_float32_if_exact
from fedrec.recsys.closed_form.statistics import Statistics

FOLDER, TOTAL, MEMBERS, OF_NODES = "statistics", "total.safetensors", "members.safetensors", "node-*.safetensors"
FILES = tuple(f"{FOLDER}/{name}" for name in (TOTAL, MEMBERS, OF_NODES))
MAX_NODES = 64
"""The largest number of nodes whose sums are kept apart."""

_CONTENTS = Contents("folder of statistics", TOTAL, (TOTAL, MEMBERS, OF_NODES))


@dataclass(frozen=True, eq=False)
class Sums:
    """The sums over some users."""

    statistics: Statistics  # packed, float64
    users: int  # that were asked for
    learners: int  # of these, the users that have an example

    @classmethod
    def of(cls, update: Update) -> "Sums":
        """Take the sums of an answer, or of the total of answers."""
        return cls(update.deltas, update.users, int(update.sums["learners"]))

    def __add__(self, other: "Sums") -> "Sums":
        """Add the sums over other users."""
        added = {name: tensor + other.statistics[name] for name, tensor in self.statistics.items()}
        return Sums(added, self.users + other.users, self.learners + other.learners)

    def __sub__(self, other: "Sums") -> "Sums":
        """Subtract the sums over some of the users."""
        left = {name: tensor - other.statistics[name] for name, tensor in self.statistics.items()}
        return Sums(left, self.users - other.users, self.learners - other.learners)

    def save(self, path: Path) -> None:
        """Write the sums to a file."""
        counts = json.dumps({"users": self.users, "learners": self.learners})
        save_file(to_float32_if_exact(self.statistics), path, metadata={"counts": counts})

    @classmethod
    def load(cls, path: Path) -> "Sums":
        """Read the sums of a file. Raises `InputError` if it is missing or damaged."""
        remedy = "train the run again, into another folder"
        try:
            with safe_open(regular(path, remedy), framework="pt") as file:
                counts: dict[str, Any] = json.loads(file.metadata()["counts"])
                return cls({name: file.get_tensor(name).double() for name in file.keys()}, **counts)  # noqa: SIM118
        except FileNotFoundError as error:
            raise InputError(f"{path} is missing; {remedy}") from error
        except (SafetensorError, KeyError, ValueError, TypeError, OSError) as error:
            raise InputError(f"{path} cannot be read ({error}); {remedy}") from error


@dataclass(frozen=True, eq=False)
class RunSums:
    """All sums of a run, and the users in them."""

    total: Sums
    by_node: Mapping[int, Sums]
    members: Members

    def save(self, run: Path) -> None:
        """Write the sums of a run, all files in one step; those of each node only if there are few nodes."""
        with replaced_folder(run / FOLDER, _CONTENTS.check) as folder:
            self.total.save(folder / TOTAL)
            self.members.save(folder / MEMBERS)
            for node, sums in self.by_node.items() if len(self.by_node) <= MAX_NODES else ():
                sums.save(folder / f"node-{node}.safetensors")

    @classmethod
    def load(cls, run: Path) -> "RunSums":
        """Read the sums of a run. Raises `InputError` if a file is missing or damaged."""
        return cls(load_total(run), load_nodes(run), Members.load(run / FOLDER / MEMBERS))


def save_total(run: Path, total: Sums) -> None:
    """Write the total of a run alone, for a run that keeps nothing of its nodes and users."""
    with replaced_folder(run / FOLDER, _CONTENTS.check) as folder:
        total.save(folder / TOTAL)


def has_total(run: Path) -> bool:
    """Whether the total of a run is saved."""
    return (run / FOLDER / TOTAL).is_file()


def load_total(run: Path) -> Sums:
    """Read the total of a run. Raises `InputError` if there is none."""
    return Sums.load(run / FOLDER / TOTAL)


def load_nodes(run: Path) -> dict[int, Sums]:
    """Read the sums of each node of a run, by its number; empty if they were not kept. Raises `InputError`."""
    return {node: Sums.load(run / FOLDER / f"node-{node}.safetensors") for node in _kept_nodes(run)}


def _kept_nodes(run: Path) -> list[int]:
    files = (run / FOLDER).glob(OF_NODES)
    return sorted(int(file.stem.removeprefix("node-")) for file in files)


def summarise(run: Path, total: Sums) -> dict[str, Any]:
    """Summarise the sums of a run for its card: their users, and the nodes whose sums are kept apart."""
    return {"users": total.users, "learners": total.learners, "nodes_kept": len(_kept_nodes(run))}
