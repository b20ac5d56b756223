"""The revision of a finished run: users are subtracted from its sums and added to them, and it is solved again.

The result is, to the bit, the closed form of a run whose nodes have the new histories, with the hyperparameters that
validation chose before. The towers of a hybrid are not trained again.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedrec.data.errors import InputError
from fedrec.data.storage.atomic_files import replaced_folder
from fedrec.data.storage.locks import in_use
from fedrec.federation import round_log
from fedrec.federation.checkpoint import State
from fedrec.federation.config import RunConfig
from fedrec.federation.members import Members, marks_of
from fedrec.federation.run_statistics import RunSums, Sums
from fedrec.federation.served import Served
from fedrec.federation.setup import TrainingSetup
from fedrec.federation.summand import Summand
from fedrec.federation.training_run import RUN, write_run
from fedrec.federation.validate_update import validate_sums
from fedrec.recsys.card import load_card
from fedrec.recsys.recommender import VECTORS
from fedrec.recsys.tensors import load_tensors
from fedrec.recsys.training.hybrid import split_adapter

KEPT = (round_log.METRICS, round_log.FILE)
"""The files of a run that a revision leaves as they are: what was measured before."""


@dataclass(frozen=True, eq=False)
class OpenRun:
    """A finished run whose sums can be changed: nothing is written before `save`."""

    folder: Path
    setup: TrainingSetup
    state: State
    sums: RunSums
    bias: Tensor | None = None  # (N,) of the items, if their exposure was bounded; it stays as it was measured

    @classmethod
    def load(cls, folder: Path, setup: TrainingSetup) -> "OpenRun":
        """Open a run. Raises `InputError` if it keeps no sums, or is not finished."""
        require_sums(folder, setup.config)
        state = State.load(folder)
        if state is None or state.chosen is None or not load_card(folder).get("finished"):
            raise InputError(f"{folder} has not finished training; continue with `fedrec train --resume`")
        return cls(folder, setup, state, RunSums.load(folder), load_tensors(folder / VECTORS).get("bias"))

    def marks_of(self, tickets: np.ndarray) -> np.ndarray:
        """Compute the marks of users by their tickets: (u,)."""
        return marks_of(self.state.run, tickets)

    def places_of(self, tickets: np.ndarray) -> np.ndarray:
        """Return the users' places among the members, -1 for users who are not in the sums: (u,)."""
        return self.sums.members.find(self.marks_of(tickets))

    def subtract(self, summand: Summand) -> "OpenRun":
        """Subtract users of one node. Raises `InputError` if they are not in the sums, or cannot have such sums."""
        places, members = self.places_of(summand.tickets), self.sums.members
        if (absent := int((places < 0).sum())) or not len(places):
            raise InputError(
                f"{absent or 'none'} of {len(places)} users are not in the sums of {self.folder}: they were never "
                "summed, or are forgotten already; leave them out"
            )
        nodes = np.unique(members.nodes[places])
        if len(nodes) > 1:
            raise InputError("a summand holds users of several nodes; write one for each node")
        self._check(summand.sums, "the summand")
        return self._changed(int(nodes[0]), summand.sums, -1, members.without(places))

    def add(self, summand: Summand, node: int) -> "OpenRun":
        """Add users to a node. Raises `InputError` if they cannot have such sums."""
        self._check(summand.sums, "the summand")
        members = self.sums.members.with_users(self.marks_of(summand.tickets), node)
        return self._changed(node, summand.sums, 1, members)

    def with_more_items(self, rows: np.ndarray) -> "OpenRun":
        """Move the sums to the setup's catalogue, in which the items of the run's own have the rows (n,)."""

        def moved(sums: Sums) -> Sums:
            return replace(sums, statistics=self.setup.closed_form.with_more_items(sums.statistics, rows))

        by_node = {node: moved(sums) for node, sums in self.sums.by_node.items()}
        sums, bias = replace(self.sums, total=moved(self.sums.total), by_node=by_node), self.bias
        if bias is not None:
            bias = torch.zeros(len(self.setup.dataset.catalogue)).index_copy(0, torch.from_numpy(rows), bias)
        return replace(self, sums=sums, bias=bias)

    def _changed(self, node: int, change: Sums, sign: int, members: Members) -> "OpenRun":
        def changed(sums: Sums) -> Sums:
            result = sums + change if sign > 0 else sums - change
            self._check(result, "what is left after the subtraction")
            return result

        kept = self.sums.by_node
        by_node = {**kept, node: changed(kept[node])} if node in kept else kept
        return replace(self, sums=RunSums(changed(self.sums.total), by_node, members))

    def _check(self, sums: Sums, what: str) -> None:
        """Raise `InputError` if no users can have such sums."""
        try:
            if not 0 <= sums.learners <= sums.users:
                raise ValueError(f"{sums.learners} users with an example, of {sums.users}")
            validate_sums(sums.statistics, sums.learners, self.setup.closed_form.bounds, self.setup.config)
        except ValueError as error:
            raise InputError(
                f"{what} cannot be sums of these users ({error}); recompute it from the histories that were summed"
            ) from error

    def save(self, note: dict[str, Any], data: dict[str, Any] | None = None) -> None:
        """Solve the sums again, and replace the run's folder in one step.

        The card gets a note on the revision, and `data` among the entries on its data. Raises `InputError` if the
        folder holds a file that is not of a run.
        """
        assert self.state.chosen
        solution = self.setup.closed_form.solver(self.sums.total.statistics).solve(self.state.chosen)
        best = split_adapter(self.state.best)[0] | solution
        state = replace(self.state, best=best, roster="", trials=())  # the users are others, and the search is over
        card = load_card(self.folder)
        card["revisions"] = [*card.get("revisions", []), note]
        card["data"] |= data or {}
        with replaced_folder(self.folder, RUN.check) as new:
            for name in KEPT:
                shutil.copy2(self.folder / name, new)
            self.sums.save(new)
            state.save(new)
            write_run(new, Served(self.setup, state, self.sums.total, self.bias), card)
            new.chmod(self.folder.stat().st_mode)


@contextmanager
def revising(folder: Path, setup: TrainingSetup) -> Iterator[OpenRun]:
    """Open a run to change its sums. Raises `InputError`, also if another process uses the run."""
    with in_use(folder):
        yield OpenRun.load(folder, setup)


def require_sums(folder: Path, config: RunConfig) -> None:
    """Raise `InputError` unless a run keeps the sums of its users, without noise."""
    if not config.method_row.summed:
        raise InputError(
            f"{folder} is a run of {config.method}, which keeps no sums; train it with method = closed-form or hybrid"
        )
    if config.privacy.enabled:
        raise InputError(
            f"{folder} was trained with epsilon = {config.privacy.epsilon:g}: its sums have noise, and no user can be "
            "subtracted from them or replaced; train again"
        )
