"""A node invents users, and turns a round the other way."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from benchmarks.attacks.attack import Attack, Bar, Case, Column
from benchmarks.attacks.crafting import flip_signs, invent_crowd
from benchmarks.attacks.defences import GEOMETRIC_MEDIAN, MEDIAN, MULTI_KRUM, NORM_BOUND, OFF, TRIMMED_MEAN, Defence
from benchmarks.attacks.poisoned_run import PHONES, PoisonedNode
from benchmarks.attacks.scoring import Figures
from benchmarks.attacks.world import Size, World
from fedrec.federation.aggregate import aggregate
from fedrec.federation.config import RunConfig
from fedrec.federation.exchange import orders_per_node
from fedrec.federation.messages import Order
from fedrec.federation.node import Node
from fedrec.federation.roster import Roster
from fedrec.federation.sampling import sample_clients
from fedrec.federation.validate_update import validate_update
from fedrec.recsys.model.lora import Adapter

HONEST_NODES, TIMES = 4, 20
"""The honest nodes, which share the dataset's users, and how many times these users the intruder claims."""
QUARTER = Defence("a quarter of a round from one node", {"node_share": 0.25})


def measure(world: World, case: Case) -> Figures:
    """Compare the step of the first round beside the intruder with the step without: their cosine."""
    config = world.configure(case.defence, PHONES)
    honest = [Node.host(world.setup(config), part, HONEST_NODES) for part in range(HONEST_NODES)]
    clean = step_of(honest, world.configure(OFF, PHONES))
    found = step_of([*honest, intruder_beside(honest, TIMES * world.users)], config)
    cosine = float(torch.nn.functional.cosine_similarity(found, clean, dim=0))
    return {"cosine": cosine, "harm": 1 - cosine}


def intruder_beside(honest: Sequence[Node], users: int) -> Node:
    """Build a node of invented users, all of whom send the opposite of what the first honest node's users do."""
    first = honest[0]

    def opposite(node: Node, order: Order, adapter: Adapter) -> Sequence[Adapter]:
        told, *_ = flip_signs(first, replace(order, users=np.arange(len(first.shard))), adapter)
        return [told] * len(order.users)

    crowd = invent_crowd(first.shard, users)
    return PoisonedNode(crowd, first.setup, liars=np.arange(len(crowd)), lie=opposite)


def step_of(nodes: Sequence[Node], config: RunConfig) -> Tensor:
    """Compute the aggregate of the first round, of answers that the server accepts: (P,)."""
    roster, adapter = Roster.empty({}), nodes[0].setup.method.adapter()
    for number, node in enumerate(nodes):
        roster = roster.with_node(number, node.shard.tickets())
    cohort = sample_clients(roster, config.clients_per_round, config.seed, 1, config.node_share)
    updates = [
        validate_update(nodes[number].train(part, adapter), part, adapter, config)
        for number, part in orders_per_node(roster, Order(1, cohort, config.clip)).items()
    ]
    total = aggregate(updates, config.server.aggregation, config.server.liars)
    if total is None:
        raise RuntimeError("no node was asked")
    return torch.cat([total.deltas[name].flatten() for name in sorted(adapter)])


def cases(size: Size) -> list[Case]:
    """List the rules, and a bound on a node's share of a round."""
    rules = (MEDIAN, GEOMETRIC_MEDIAN)
    bounded = (NORM_BOUND, MEDIAN, TRIMMED_MEAN, GEOMETRIC_MEDIAN, MULTI_KRUM)
    defences = (OFF, *rules, QUARTER, *(QUARTER | rule for rule in bounded))
    about = f"{HONEST_NODES} honest nodes, and one that invents {TIMES} times their users"
    return [Case(about, defence, control=defence is OFF) for defence in defences]


INTRUDER = Attack(
    name="intruder",
    title="A node that invents users, in one round",
    attacker="A node. It claims many times the users of all others, and sends what it likes for them, within the clip.",
    does="For each of its users it sends the opposite of what the users of an honest node would send together. The "
    "figure is the cosine of the round's step with the step without the intruder: 1 is no harm, -1 the opposite.",
    conclusion="With the defaults most of a round is invented, and the model goes the other way. A bound on a node's "
    "share of the round leaves the intruder that much, and a rule over nodes less.",
    columns=(Column("cosine", "cosine with the honest step"), Column("harm", "1 less the cosine")),
    bar=Bar("harm", 1.0),
    cases=cases,
    measure=measure,
)
