"""The settings of the closed form."""

from dataclasses import dataclass
from math import isqrt
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Interval, MinLen
from pydantic import ConfigDict

from fedrec.data.errors import InputError
from fedrec.recsys.closed_form.contexts import KernelStack

Bandwidth = Annotated[float, Gt(0)]
Decay = Annotated[float, Interval(ge=0, lt=1)]
LARGEST_PENALTY = 1e12
Penalty = Annotated[float, Interval(gt=0, le=LARGEST_PENALTY)]
Pull = Annotated[float, Interval(ge=0, le=LARGEST_PENALTY)]
LARGEST_DISCOUNT = 2.0
Discount = Annotated[float, Interval(ge=0, le=LARGEST_DISCOUNT)]
Share = Annotated[float, Interval(ge=0, le=1)]

MAX_ITEMS = 8192
"""Items that features `pairs`, and `ids` with one decay, are offered for: a table over more takes over 1 GiB."""


@dataclass(frozen=True)
class ClosedFormConfig:
    """What the closed form sums, and the solutions that validation chooses from."""

    __pydantic_config__ = ConfigDict(use_attribute_docstrings=True)

    features: Literal["text", "ids", "pairs"] = "text"
    """Features of an item in the sums. text: random Fourier features of its text embedding, as many whatever the
    catalogue's size; ids: one for each item, exact, for silos with few thousand items; pairs: counts of pairs of items
    with alike texts, the smallest sums, which noise hurts least: used by closed-form with
    `epsilon` unless this is set."""
    feature_width: Annotated[int, Ge(1)] = 1024
    """Random Fourier features of an item."""
    feature_bandwidths: Annotated[tuple[Bandwidth, ...], MinLen(1)] = (1.0, 4.0)
    """Frequencies of the random features, in turns: the larger, the more alike two texts must be to count as alike. A
    large one tells items apart; by a small one, an item with few events is scored as those with texts of its kind."""
    whitening: Annotated[float, Interval(ge=0, le=1)] = 0.5
    """Whitening of the text embeddings before the random features. 0: variances as they are, 1: all equal."""
    decays: Annotated[tuple[Decay, ...], MinLen(1)] = (0.8,)
    """Weight of an event in a context, relative to the event after it. With several, an event has a context of each in
    one regression: short ones for what follows what, long ones for taste. The sums grow with their number, squared."""
    reverse: Annotated[float, Interval(ge=0, le=1)] = 1.0
    """Weight of the events after a target, relative to those before it, while fitting. The longer histories are, the
    less it needs to be."""
    pair_neighbours: Annotated[int, Ge(1)] = 50
    """Of features pairs: the neighbours by text with which an item is counted. The longer histories are, the more pairs
    their noise leaves room for: 20 for a few events of each user, 300 for hundreds."""
    pair_priors: Annotated[tuple[Pull, ...], MinLen(1)] = (0.0, 3.0, 10.0, 30.0)
    """Of features pairs: weights of the texts' likeness beside the counts, to choose from on validation. Without
    validation, the middle one is taken."""
    pair_discounts: Annotated[tuple[Discount, ...], MinLen(1)] = (0.0, 0.3, 0.5)
    """Of features pairs: exponents of the popularity of both items by which the weight of a pair is divided, to choose
    from in the same way. 0: none, 0.5: a cosine."""
    statistic_events: Annotated[int, Ge(2)] = 4096
    """Most recent training events of a user that count in the sums: it bounds what one user adds."""
    ridges: Annotated[tuple[Penalty, ...], MinLen(1)] = (3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)
    """Ridge penalties to choose from on validation, in events of one item. Without validation, the middle one is
    taken."""
    priors: Annotated[tuple[Pull, ...], MinLen(1)] = (0.0, 10.0, 30.0)
    """Strengths of the pull towards the weights that the items' texts give, in events of one item, to choose from in
    the same way. 0: none. Features pairs have `pair_priors`."""
    discounts: Annotated[tuple[Discount, ...], MinLen(1)] = (0.0,)
    """Exponents of an item's popularity by which its scores are divided, to choose from in the same way. 0: none. For
    features = ids; pairs have `pair_discounts`."""
    decodes: Annotated[tuple[Penalty, ...], MinLen(1)] = (0.01, 0.1, 1.0)
    """Ridge penalties of the decoding from features to items, in items, to choose from in the same way; ids need
    none."""
    blend_shares: Annotated[tuple[Share, ...], MinLen(1)] = (0.2, 0.35, 0.5, 0.65, 0.8, 0.9)
    """Shares of the closed form in the scores of a hybrid, to choose from in the same way."""
    refinements: Annotated[int, Interval(ge=0, le=1000)] = 10
    """Candidates beyond those lists, at most: neighbours of the best one, and steps beyond the end of a list with more
    than one value if the best is there. 0: the lists alone."""

    new_item_scale: Annotated[float, Interval(ge=0, le=10)] = 1.0
    """How widely the scores of an item without any event, which its text predicts, spread over users, relative to those
    of other items: the larger, the more often such items are shown."""

    final_held_out: Annotated[int, Interval(ge=0, le=2)] = 2
    """Last events of each user that the sums of the finished model leave out. Below 2, sums are exchanged once more,
    after validation has chosen. 1: for a model to measure on the test items; 0: for one to serve; 2: the first sums are
    final."""

    served_rank: Annotated[int, Ge(1)] = 512
    """Width of the closed form's part of a served vector: the solution is cut to this rank before it is measured."""

    @property
    def stack(self) -> KernelStack:
        """The weights of events in a context of each decay."""
        return KernelStack(self.decays, self.reverse)


def check_catalogue(config: ClosedFormConfig, items: int) -> None:
    """Raise `InputError` if the sums over the ids of N = `items` items are too large."""
    decays = len(config.decays)
    most = isqrt(2 * MAX_ITEMS**2 // (decays**2 + decays))  # so many numbers as one decay has
    if config.features != "text" and items > most:
        raise InputError(
            f"setting features = {config.features!r}: sums over {items:,} items do not fit, at most {most:,} do with "
            f"{decays} of `decays`; use features = 'text', whose sums do not grow with the catalogue"
        )
