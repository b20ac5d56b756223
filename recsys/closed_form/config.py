"""The settings of the closed form."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Interval, MinLen
from pydantic import ConfigDict

from fedrec.recsys.closed_form.contexts import DecayKernel

Penalty = Annotated[float, Interval(gt=0, le=1e12)]
Weight = Annotated[float, Interval(ge=0, le=1e12)]
Share = Annotated[float, Interval(ge=0, le=1)]


@dataclass(frozen=True)
class ClosedFormConfig:
    """What the closed form sums, and the solutions that validation chooses from."""

    __pydantic_config__ = ConfigDict(use_attribute_docstrings=True)

    features: Literal["text", "ids", "pairs"] = "text"
    """Features of an item in the sums. text: random Fourier features of its text embedding, as many whatever the
    catalogue's size; ids: one for each item, exact, for silos with few thousand items; pairs: counts of pairs of items
    with alike texts, the smallest sums, which noise hurts least."""
    feature_width: Annotated[int, Ge(1)] = 1024
    """Random Fourier features of an item."""
    feature_bandwidth: Annotated[float, Gt(0)] = 4.0
    """Frequencies of the random features: the larger, the more alike two texts must be to count as alike."""
    whitening: Annotated[float, Interval(ge=0, le=1)] = 0.5
    """Whitening of the text embeddings before the random features. 0: variances as they are, 1: all equal."""
    decay: Annotated[float, Interval(ge=0, lt=1)] = 0.8
    """Weight of an event in a context, relative to the event after it."""
    reverse: Annotated[float, Interval(ge=0, le=1)] = 0.0
    """Weight of the events after a target, relative to those before it, while fitting. Above 0 for short histories."""
    pair_neighbours: Annotated[int, Ge(1)] = 20
    """Of features pairs: the neighbours by text with which an item is counted."""
    pair_priors: Annotated[tuple[Weight, ...], MinLen(1)] = (0.0, 3.0, 10.0)
    """Of features pairs: weights of the texts' likeness beside the counts, to choose from on validation. Without
    validation, the middle one is taken."""
    statistic_events: Annotated[int, Ge(2)] = 4096
    """Most recent training events of a user that count in the sums: it bounds what one user adds."""
    ridges: Annotated[tuple[Penalty, ...], MinLen(1)] = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
    """Ridge penalties to choose from on validation, in events of one item. Without validation, the middle one is
    taken."""
    decodes: Annotated[tuple[Penalty, ...], MinLen(1)] = (0.01, 0.1, 1.0)
    """Ridge penalties of the decoding from features to items, in items, to choose from in the same way; ids need
    none."""
    blend_shares: Annotated[tuple[Share, ...], MinLen(1)] = (0.2, 0.35, 0.5, 0.65, 0.8, 0.9)
    """Shares of the closed form in the scores of a hybrid, to choose from in the same way."""

    served_rank: Annotated[int, Ge(1)] = 512
    """Width of the closed form's part of a served vector: the solution is cut to this rank before it is measured."""

    @property
    def kernel(self) -> DecayKernel:
        """The weights of events in a context."""
        return DecayKernel(self.decay, self.reverse)
