"""Passes of a fixed number of histories, by which a history gets the same vector, to the bit, in any company."""

import torch
from torch import Tensor

PASS_SIZE = 8
"""Maximum histories of a pass. Every product over their last places has so many rows, padded with zeros, because
libraries add up a product of one row in another order than one of eight. So, within one thread, a history gets the same
vector, to the bit, in any pass."""


def pad_pass(rows: Tensor) -> Tensor:
    """Append rows of zeros up to a whole pass: (B, …) → (PASS_SIZE, …)."""
    return torch.cat([rows, rows.new_zeros(PASS_SIZE - len(rows), *rows.shape[1:])])
