"""Vectors of items some of which have none."""

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from fedrec.data.errors import InputError


def fill_missing(vectors: Tensor, present: np.ndarray, name: str) -> Tensor:
    """Give the items that are not `present` the unit mean of those that are: (N, E) → (N, E).

    So every item's part is equally long, and no item is nearer to a text because it has no picture. Raises `InputError`
    if no item has a vector.
    """
    if not len(present):
        raise InputError(f"encoder {name!r}: none of {len(vectors):,} items has a vector; see the paths or the ids")
    filled = vectors.clone()
    filled[np.setdiff1d(np.arange(len(vectors)), present)] = F.normalize(vectors[present].mean(0), dim=0)
    return filled
