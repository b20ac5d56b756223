"""What a finished run serves: made once of its best round, then evaluated by the nodes and written as the artifact."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from torch import Tensor

from fedrec.federation.checkpoint import State
from fedrec.federation.run_statistics import Sums, load_total
from fedrec.federation.setup import TrainingSetup
from fedrec.recsys.closed_form.model import CutSolution
from fedrec.recsys.closed_form.solutions import as_adapter
from fedrec.recsys.exposure_bound import BIAS, ExposureBound
from fedrec.recsys.model.lora import Adapter
from fedrec.recsys.recommender import Recommender
from fedrec.recsys.training.hybrid import split_adapter


@dataclass(frozen=True, eq=False)
class Served:
    """The best round of a run, with the closed form, if there is one, at the rank that is served."""

    setup: TrainingSetup
    state: State
    total: Sums | None  # that the closed form was solved from
    bias: Tensor | None = None  # (N,) of the items, if their exposure is bounded

    @classmethod
    def load(cls, out: Path, setup: TrainingSetup, state: State) -> Self:
        """Take the state of a run, and read the sums in its folder if it has a closed form. Raises `InputError`."""
        return cls(setup, state, load_total(out) if state.chosen else None)

    @cached_property
    def solution(self) -> CutSolution | None:
        """The solution at the rank that is served; None without a closed form."""
        if self.total is None or self.state.chosen is None:
            return None
        _, solution = split_adapter(self.state.best)
        return self.setup.closed_form.cut(solution, self.total.statistics, self.state.chosen)

    @cached_property
    def adapter(self) -> Adapter:
        """The adapter that nodes evaluate: they score by it as the artifact does."""
        towers, _ = split_adapter(self.state.best)
        bias = {} if self.bias is None else {BIAS: self.bias}
        return towers | (as_adapter(self.solution) if self.solution else {}) | bias

    def artifact(self, card: dict[str, Any]) -> Recommender:
        """Build the artifact of a finished run with this card."""
        setup, (towers, _) = self.setup, split_adapter(self.state.best)
        vectors = setup.model.item_vectors(towers, setup.embeddings.matrix)
        closed_form = None
        if self.solution and self.total:
            closed_form = setup.closed_form.artifact(self.solution, self.total.statistics, vectors)
        bound = ExposureBound.of(self.bias)
        return Recommender.of_run(setup.dataset.catalogue, vectors, towers, card, closed_form, bound)
