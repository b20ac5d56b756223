"""Adapters that are made to read a history, not to learn: found by their numbers alone, before anything is trained.

The item tower's `up` gets the gradient Σ ∂vₖ lowₖᵀ over the items k that a user trains on, lowₖ = gelu(4 · down · eₖ)
being the neurons' activations by item k. If a neuron, or a linear combination of neurons, is active for one item only,
its column of the sum says whether anybody has that item, however many users the sum is over: a *trap neuron* (Boenisch
et al. 2023, arXiv:2112.02918), or the difference of two neurons with different thresholds (Fowl et al. 2022,
arXiv:2110.13057). The catalogue is public and known to the node, so that it can compute by how much a combination can
single out an item: the item's leverage ℓᵢ = aᵢᵀ (AᵀA)⁻¹ aᵢ over the activations A, (N, R), is the largest share of the
energy of any combination that lies on item i. Leverages are between 0 and 1 and add up to R, so their mean is R/N.
Random neurons, and those of honest runs, have a largest leverage of 2.0 to 2.8 times the mean; a trap has N/R times it.

Not found, and left to the size of the sum and to noise: a combination singles out an item by up to
√(`largest_leverage` · R) times the root mean square over all items, at R = 64 by 18 times, where honest adapters of
that rank do by 12; neurons that are active for groups of items, which name the group, and by the intersection of
several rounds an item; traps in the attention of the user tower, of which only the norms are bounded; and any trap in
a catalogue of fewer than `largest_leverage` · R items, in which no leverage can be that large.
"""

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


def _long_rows(policy: NodePolicy, adapter: Adapter) -> Iterator[str]:
    for name, tensor in adapter.items():
        if name.startswith(TOWERS) and tensor.ndim == 2:
            longest = max(float(tensor.norm(dim=axis).max()) for axis in (0, 1))
            if longest > (limit := policy.largest_row_norm):
                yield f"{name} has a row or column of norm {longest:.3g}, and largest_row_norm = {limit:g}"


def _traps(policy: NodePolicy, adapter: Adapter, embeddings: Tensor, gelu: bool) -> Iterator[str]:
    if DOWN not in adapter:
        return
    down = adapter[DOWN].to(embeddings.device)
    largest = float(leverages(down, embeddings, gelu).max()) * len(embeddings) / len(down)
    if largest > policy.largest_leverage:
        yield (
            f"{DOWN} singles out an item, with {largest:.3g} times the mean leverage, "
            f"and largest_leverage = {policy.largest_leverage:g}"
        )
