"""Groups: the users of a round in several parts, each of which answers with a sum of its own, whatever its nodes.

A robust rule needs several answers. Over nodes there are as many as nodes; one node that hosts everybody has one, and
a thousand phones have a thousand, each of one user, whose changes differ too much for a median. The setting `groups`
makes their number a choice: the cohort is dealt into groups by a draw from the run's seed and the round. Its order is
that of the tickets, so that a user's group does not depend on the node, and changes from round to round (bucketing:
Karimireddy et al. 2022, arXiv:2006.09365).

A node gets one order for each group that some of its users are in. A phone gets one, as without groups. A node of many
users gets up to `groups` orders, and so up to `groups` times the bytes of a round, one after the other; each of them is
the sum over fewer users, which shows the server more of them. A node with users in every group is in every group's
answer: no rule over groups stops it. Against such a node there is the rule over nodes (`groups` = 1).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from fedrec.data.randomness import Stream, random_stream
from fedrec.federation.config import RunConfig
from fedrec.federation.exchange import RoundReport, orders_per_node
from fedrec.federation.messages import Order, Update
from fedrec.federation.roster import Roster

Ask = Callable[[Mapping[int, Order]], RoundReport]
"""A function that sends each node one order, and returns the valid answers."""


def request_round(ask: Ask, roster: Roster, order: Order, config: RunConfig) -> RoundReport:
    """Ask the nodes of a round's users for their updates: one of each node or, with groups, one sum of each group.

    A node without a valid answer is not asked again in the round: its users in later groups are left out.
    """
    if config.server.groups == 1:
        return ask(orders_per_node(roster, order))
    gathered = Gathered()
    queues = _queue_orders(roster, order, config)
    while queues:
        wave = {node: queue.pop(0) for node, queue in queues.items()}
        report = ask({node: part for node, (_, part) in wave.items()})
        gathered.add(report, {node: group for node, (group, _) in wave.items()})
        queues = {node: queues[node] for node in report.nodes if queues[node]}
    return gathered.report


def deal_groups(users: np.ndarray, groups: int, seed: int, round: int) -> list[np.ndarray]:
    """Deal places of the roster into groups of like sizes: (u,) → at most `groups` rising arrays, none empty."""
    shuffled = random_stream(Stream.GROUPS, seed, round).permutation(users)
    return [np.sort(part) for part in np.array_split(shuffled, groups) if len(part)]


def _queue_orders(roster: Roster, order: Order, config: RunConfig) -> dict[int, list[tuple[int, Order]]]:
    """List each node's orders, each with its group."""
    queues: dict[int, list[tuple[int, Order]]] = {}
    for group, users in enumerate(deal_groups(order.users, config.server.groups, config.seed, order.round)):
        for node, part in orders_per_node(roster, replace(order, users=users)).items():
            queues.setdefault(node, []).append((group, part))
    return queues


@dataclass
class Gathered:
    """The sums of the answers so far, by group or another number, and the account of all answers."""

    sums: dict[int, Update] = field(default_factory=dict)
    account: RoundReport = field(default_factory=RoundReport)

    def add(self, report: RoundReport, groups: Mapping[int, int]) -> None:
        """Add the answers of some nodes, each to the sum of its group."""
        for node, update in zip(report.nodes, report.updates, strict=True):
            group = groups[node]
            self.sums[group] = self.sums[group] + update if group in self.sums else update
        counts = ("clients_asked", "clients_answered", "clients_refused")
        added = {name: getattr(self.account, name) + getattr(report, name) for name in counts}
        self.account = replace(self.account.with_traffic_of(report), **added)

    @property
    def report(self) -> RoundReport:
        """The account, with the sum of each group as one update."""
        return replace(self.account, updates=[self.sums[group] for group in sorted(self.sums)])
