"""Clipping: the changes of a block of clients, each bounded in L2 norm, and their exact sum."""

import math

import torch
from torch import Tensor

from fedrec.federation.compression.eden import Eden, encode, sum_as_decoded
from fedrec.federation.messages import Update
from fedrec.recsys.exact_sum import exact_scatter, exact_sum
from fedrec.recsys.model.lora import Adapter, Stack
from fedrec.recsys.training.local_training import ClientUpdates


def norms(deltas: Adapter) -> Tensor:
    """Compute each client's L2 norm over all of its change: name → (C, …) to (C,)."""
    lengths = [torch.linalg.vector_norm(tensor.flatten(1), dim=1) for tensor in deltas.values()]
    return torch.linalg.vector_norm(torch.stack(lengths).double(), dim=0)


def clip_and_sum(
    fitted: ClientUpdates, round: int, clip: float, coding: Eden | None = None, worst: float = math.inf
) -> Update:
    """Clip each client's change to L2 norm `clip` and sum the changes exactly.

    A client that diverged, or whose loss is above `worst`, adds nothing and is counted; so is one without examples.

    With a coding, each change is clipped and summed as the server would decode it.
    """
    lengths = norms(fitted.deltas)  # (C,)
    finite = lengths.isfinite() & fitted.losses.isfinite() & (fitted.losses <= worst)
    learners = torch.ones_like(finite) if fitted.learners is None else fitted.learners
    sound = finite & learners
    changes = fitted.deltas if sound.all() else _drop_diverged(fitted.deltas, ~sound)

    def factors(lengths: Tensor, some: slice = slice(None)) -> Tensor:
        shrunk = clip / lengths.clamp(min=torch.finfo(torch.float64).tiny)
        return shrunk.clamp(max=1).float().where(sound[some], 0)

    codes = None
    if coding is None:
        deltas = {name: _sum_clipped(tensor, fitted, factors(lengths)).cpu() for name, tensor in changes.items()}
    elif len(sound) == 1:
        codes, lengths = encode(changes, coding)
        codes = codes.scaled(factors(lengths))
        deltas = codes.total({name: tensor.shape[1:] for name, tensor in changes.items()})
    else:
        deltas, lengths = sum_as_decoded(changes, coding, factors)
    sums = {
        "loss": float(fitted.losses[sound].double().sum()),
        "learners": float(learners.sum()),
        "clipped": float((lengths[sound] > clip).sum()),
        "diverged": float((learners & ~finite).sum()),
    }
    return Update(round, len(sound), deltas, sums, codes)


def _sum_clipped(terms: Tensor, fitted: ClientUpdates, factors: Tensor) -> Tensor:
    if fitted.rows is None:
        return exact_sum(terms, factors)
    return exact_scatter(terms, fitted.rows, fitted.items, factors)


def _drop_diverged(deltas: Stack, lost: Tensor) -> Stack:
    return {name: tensor.masked_fill(lost.view(-1, *[1] * (tensor.ndim - 1)), 0) for name, tensor in deltas.items()}
