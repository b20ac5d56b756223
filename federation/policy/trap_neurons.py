"""Adapters that are made to read a history, not to learn: found by their numbers alone, before anything is trained.

The item tower's `up` gets the gradient Σ ∂vₖ lowₖᵀ over the items k that a user trains on, lowₖ = gelu(4 · down · eₖ)
being the neurons' activations by item k. If a neuron, or a linear combination of neurons, is active for one item only,
its column of the sum says whether anybody has that item, however many users the sum is over: a *trap neuron* (Boenisch
et al. 2023, arXiv:2112.02918), or the difference of two neurons with different thresholds (Fowl et al. 2022,
arXiv:2110.13057). The catalogue is public and known to the node, so that it can compute by how much a combination can
single out an item: the item's leverage ℓᵢ = aᵢᵀ (AᵀA)⁻¹ aᵢ over the activations A, (N, R), is the largest share of the
energy of any combination that lies on item i. It is 1 for a trap. Over R random neurons, N·ℓ is distributed as χ² with
R degrees of freedom, and its largest value among N items is about R + 2√(R ln N) + 2 ln N (Laurent and Massart 2000,
doi:10.1214/aos/1015957395). Adapters of honest runs have little more than that (docs/attacks.md).

Not found, and left to the size of the sum and to noise: a combination singles out an item by up to the square root of
N·ℓ times the root mean square over all items, at the default limit, rank 64 and 1,682 items by 19 times, where
adapters of honest runs do by 12; neurons that are active for groups of items, which name the group, and by the
intersection of several rounds an item; traps in the attention of the user tower, of which only the norms are bounded;
and any trap in a catalogue so small that N is below the limit, as 350 items at rank 64 are.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from fedrec.federation.messages import OrderRefused
from fedrec.federation.policy.node_policy import NodePolicy
from fedrec.recsys.model.item_tower import GELU_INPUT_SCALE
from fedrec.recsys.model.lora import Adapter

DOWN = "item.down"
"""The item tower's neurons in an adapter: (R, E)."""

TOWERS = ("item.", "user.")
"""The beginnings of the names of the towers' matrices."""

BLOCK = 65_536
"""Items whose activations are held at once."""

RANGE, DEAD = 1e-13, 1e-9
"""The smallest eigenvalue of AᵀA that counts, of neurons of one length, relative to the largest: a combination below it
drowns in the rounding of changes to float32. And the length of a neuron's activations below which the neuron is dead:
what it adds to a change is rounded to zero (recsys/exact_sum.py)."""


def check_adapter(policy: NodePolicy, adapter: Adapter, embeddings: Tensor, gelu: bool) -> None:
    """Raise `OrderRefused`, which names the tensor, its value and the limit, if an adapter is made to read histories.

    embeddings: (N, E) of the public catalogue's texts; gelu: whether the item tower has its non-linearity.
    """
    for fault in (*_long_rows(policy, adapter), *_traps(policy, adapter, embeddings, gelu)):
        raise OrderRefused(f"this node's policy refuses the adapter: {fault}")


def leverages(down: Tensor, embeddings: Tensor, gelu: bool) -> Tensor:
    """Compute the leverage of each item over the neurons' activations: (R, E), (N, E) → (N,)."""

    def activations(block: Tensor) -> Tensor:
        low = GELU_INPUT_SCALE * block.double() @ down.double().T
        return F.gelu(low) if gelu else low

    blocks = embeddings.split(BLOCK)
    gram = torch.zeros(len(down), len(down), dtype=torch.double, device=embeddings.device)
    for block in blocks:
        gram += (active := activations(block)).T @ active
    scale = 1 / gram.diagonal().sqrt().clamp(min=DEAD)  # (R,): leverages do not depend on the neurons' lengths
    values, vectors = torch.linalg.eigh(scale[:, None] * gram * scale)
    within = values > RANGE * values.max()
    whitening = scale[:, None] * vectors[:, within] / values[within].sqrt()
    return torch.cat([(activations(block) @ whitening).square().sum(1) for block in blocks])


def largest_leverage(down: Tensor, embeddings: Tensor, gelu: bool) -> float:
    """Compute the largest leverage of an item, in units of the largest one over as many random neurons."""
    items, rank = len(embeddings), len(down)
    at_random = rank + 2 * math.sqrt(rank * math.log(items)) + 2 * math.log(items)
    return items * float(leverages(down, embeddings, gelu).max()) / at_random


def _long_rows(policy: NodePolicy, adapter: Adapter) -> Iterator[str]:
    for name, tensor in adapter.items():
        if name.startswith(TOWERS) and tensor.ndim == 2:
            longest = max(float(tensor.norm(dim=axis).max()) for axis in (0, 1))
            if longest > (limit := policy.largest_row_norm):
                yield f"{name} has a row or column of norm {longest:.3g}, and largest_row_norm = {limit:g}"


def _traps(policy: NodePolicy, adapter: Adapter, embeddings: Tensor, gelu: bool) -> Iterator[str]:
    if DOWN not in adapter:
        return
    largest = largest_leverage(adapter[DOWN].to(embeddings.device), embeddings, gelu)
    if largest > (limit := policy.largest_leverage):
        yield f"{DOWN} singles out an item, by {largest:.3g} times a random leverage, and largest_leverage = {limit:g}"
