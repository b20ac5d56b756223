"""The settings of differential privacy."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Interval
from pydantic import ConfigDict


@dataclass(frozen=True)
class PrivacyConfig:
    """What a run guarantees to its users, and how it keeps the guarantee."""

    __pydantic_config__ = ConfigDict(use_attribute_docstrings=True)

    epsilon: Annotated[float, Ge(0)] = 0.0
    """Differential privacy of a user, by noise on what the server learns: the ε of the whole run. 0: no noise, and no
    claim."""
    delta: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    """The δ beside epsilon. 0: a tenth of one user, 1 / (10 · users)."""
    clip_quantile: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    """Share of the users whose change should be shorter than the clip, which follows it from round to round, at most to
    `clip` itself. 0: `clip` stays. With epsilon alone."""
    statistic_clip: Annotated[float, Gt(0)] = 1.0
    """Maximum L2 norm of what a user adds to the closed form's sums, in squared lengths of a feature vector, or in
    pairs. With epsilon alone."""
    statistic_budget: Annotated[float, Interval(gt=0, lt=1)] = 0.5
    """Share of epsilon for the closed form's sums, in a hybrid; the rounds of the towers have the rest."""

    noise_by: Literal["server", "nodes"] = "server"
    """Who adds the noise. server: it adds it to a sum that it has seen without; nodes: each node adds a share before it
    masks its sum, so that nobody sees a sum without noise. nodes needs secure. With epsilon alone."""
    honest_nodes: Annotated[float, Interval(gt=0, le=1)] = 1.0
    """Share of a group's nodes that add their noise, and keep it to themselves, with noise_by = nodes. The smaller, the
    more noise each node adds."""

    @property
    def by_nodes(self) -> bool:
        """Whether the nodes add the noise."""
        return self.enabled and self.noise_by == "nodes"

    @property
    def enabled(self) -> bool:
        """Whether the run gives a guarantee."""
        return self.epsilon > 0
