"""The fixed map from item vectors to the inputs of an encoder of another width."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fedrec.data.randomness import Stream, random_stream


def input_projection(item_width: int, hidden_width: int) -> Tensor | None:
    """Return a matrix of random signs, each divided by √D: (D, E); None if the widths are equal.

    It keeps lengths and inner products on average (Achlioptas 2003, doi:10.1016/S0022-0000(03)00025-4). It is public:
    the widths alone determine it, the same on every machine, and it is neither trained nor sent.
    """
    if item_width == hidden_width:
        return None
    rng = random_stream(Stream.INPUT_PROJECTION, item_width, hidden_width)
    signs = 2 * rng.integers(2, size=(hidden_width, item_width)) - 1
    return torch.from_numpy((signs / hidden_width**0.5).astype(np.float32))


def project(vectors: Tensor, projection: Tensor | None) -> Tensor:
    """Apply the projection, if there is one: (…, E) → (…, D)."""
    return vectors if projection is None else F.linear(vectors, projection)
