"""How much an adapter's neurons single an item out: what the node's policy refuses traps by."""

from collections.abc import Callable

from benchmarks.attacks.attack import Attack, Bar, Case, Column
from benchmarks.attacks.breaches import craft_sharp_traps
from benchmarks.attacks.scoring import Figures
from benchmarks.attacks.traps import soften_traps
from benchmarks.attacks.world import Size, World
from fedrec.federation.node import Node
from fedrec.federation.policy.node_policy import NodePolicy
from fedrec.federation.policy.trap_neurons import largest_leverage
from fedrec.recsys.model.lora import Adapter

ADAPTERS: dict[str, Callable[[World, Node], Adapter]] = {
    "traps for rare items": craft_sharp_traps,
    "traps that pass the policy": lambda world, node: soften_traps(world, node, craft_sharp_traps(world, node)),
    "an honest run's, at the start": lambda world, node: node.setup.method.adapter(),
    "an honest run's, trained": lambda world, node: world.trained(),
}
"""The adapters by name."""


def measure(world: World, case: Case) -> Figures:
    """Compute the largest leverage of an adapter, and the longest row or column of a tower's matrix."""
    node = world.node(world.config)
    adapter = ADAPTERS[case.about](world, node)
    gelu = node.config.model.item_tower == "gelu"
    matrices = [tensor for tensor in adapter.values() if tensor.ndim == 2]
    return {
        "leverage": largest_leverage(adapter["item.down"], world.embeddings, gelu),
        "norm": max(float(tensor.norm(dim=axis).max()) for tensor in matrices for axis in (0, 1)),
    }


def cases(size: Size) -> list[Case]:
    """List the adapters."""
    return [Case(about, control=number == 0) for number, about in enumerate(ADAPTERS)]


LEVERAGE = Attack(
    name="leverage",
    title="What traps look like to a node",
    attacker="A malicious server, which sends crafted adapters; for comparison, an honest one.",
    does="A node computes, over the public catalogue, how much of the energy of any combination of neurons lies on one "
    "item, in units of what as many random neurons have, and the longest row or column of a matrix.",
    conclusion=f"The default policy refuses a leverage above {NodePolicy.largest_leverage:g} and a norm above "
    f"{NodePolicy.largest_row_norm:g}. Honest adapters are well below both. Traps that are mixed with random neurons "
    "until they pass are milder; the section on traps says what they still find.",
    columns=(Column("leverage", "largest leverage"), Column("norm", "longest row or column")),
    bar=Bar("leverage", NodePolicy.largest_leverage),
    cases=cases,
    measure=measure,
)
