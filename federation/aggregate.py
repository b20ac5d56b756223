"""Aggregation: the answers of a round become one update.

A rule is a function of the answers, in the order of the nodes' numbers or of the groups, and of the share of them that
may be false; it is a row of `AGGREGATIONS`, and the setting `aggregation` chooses it. A rule returns an `Update` on the
scale of a sum over clients: the server divides its `deltas` by `sums["learners"]` (federation/server_step.py), and its
sums become the metrics of the round. So a rule that computes a mean multiplies it by the total of `learners`.

Every answer is already a sum over clients, and the server sees nothing below it. A trim or a median drops a whole
answer, in all of its numbers or in some, and never a client. An answer is that of a node or, with the setting `groups`,
that of a group of the round's users, whatever nodes they are on (federation/groups.py). Against a client in an answer
there is the clip of its change on its own node, and nothing else.

* `sum` alone gives the same model however the users are spread over nodes, and works under secure aggregation, where
  the server sees one sum: there the clip is each node's, and the norm of the sum is all that can be checked.
* The other rules need answers that the server can see, one by one. Over groups the model still does not depend on the
  nodes. They are biased where answers differ for good reasons: a node whose users are unlike the others is left out.

The statistics of the closed form are always added. A trimmed `gram` is no sum of products, so that the equations have
no meaning, and users could not be subtracted from it. Each node's sums are bounded by what its users can have
(recsys/closed_form/bounds.py).
"""

from collections.abc import Callable, Sequence
from functools import reduce
from operator import add

from fedrec.federation.messages import Update
from fedrec.federation.robust.rules import (
    CentreRule,
    bound_norms,
    coordinate_median,
    geometric_median,
    multi_krum,
    trimmed_mean,
)

Aggregation = Callable[[Sequence[Update], float], Update]


def sum_updates(updates: Sequence[Update], liars: float = 0.0) -> Update:
    """Sum at least one update, in their order."""
    return reduce(add, updates)


AGGREGATIONS: dict[str, Aggregation] = {
    "sum": sum_updates,
    "norm-bound": bound_norms,
    "median": CentreRule(coordinate_median),
    "trimmed-mean": CentreRule(trimmed_mean),
    "geometric-median": CentreRule(geometric_median),
    "multi-krum": CentreRule(multi_krum, beside=3),
}
"""The rules by name."""


def aggregate(updates: Sequence[Update], rule: str = "sum", liars: float = 0.0) -> Update | None:
    """Aggregate a round's valid updates by the named rule; None if there are none."""
    return AGGREGATIONS[rule](updates, liars) if updates else None
