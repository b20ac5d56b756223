"""Aggregation: the updates of a round's nodes become one.

A rule is a function of the updates, in the order of the nodes' numbers, and a row of `AGGREGATIONS`; the setting
`aggregation` chooses it. A rule returns an `Update` on the scale of a sum over clients: the server divides its `deltas`
by `sums["learners"]` (federation/server_step.py), and its sums become the metrics of the round. So a rule that computes
a mean multiplies it by the total of `learners`.

Every update is already a sum over the clients of one node, and the server sees nothing below it. So a trimmed mean, or
a median, can be taken over nodes only: of each node's mean change (`deltas` over `learners`), weighted by neither its
clients nor their events. It drops a whole node, not a client; it needs many nodes that host like numbers of users, and
it biases the model where nodes host users of different kinds. Against a single client the bound is the clip of its
change on its own node. Only the sum gives the same model however the users are spread over nodes, and only the sum can
be taken under secure aggregation.
"""

from collections.abc import Callable, Sequence
from functools import reduce
from operator import add

from fedrec.federation.messages import Update

Aggregation = Callable[[Sequence[Update]], Update]


def sum_updates(updates: Sequence[Update]) -> Update:
    """Sum the updates of at least one node, in their order."""
    return reduce(add, updates)


AGGREGATIONS: dict[str, Aggregation] = {"sum": sum_updates}
"""The rules by name."""


def aggregate(updates: Sequence[Update], rule: str = "sum") -> Update | None:
    """Aggregate a round's valid updates by the named rule; None if there are none."""
    return AGGREGATIONS[rule](updates) if updates else None
