"""A client's change in 1 to 8 bits a number: EDEN, Vargaftik et al. 2022, arXiv:2108.08842; with 1 bit it is
DRIVE, Vargaftik et al. 2021, arXiv:2105.08339.

A change is cut into rows of 1,024 numbers. Each row is rotated at random, which makes its numbers look like draws
from a normal distribution whatever they were; each number is then sent as the nearest level of the best quantiser
of that distribution, and with them one scale, chosen so that the row is decoded right on average. Every client has a
rotation of its own in every round, so that the errors of many average out. (Where one or two numbers are nearly all of
a row, few bits keep those alone; what clients learn is not like that.)

Rotations are computed exactly, so that a change is coded and decoded to the same bits in any company.

Shapes: C clients, G rows of a change, D numbers of a row; a change is filled up with zeros to G·D numbers.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fedrec.data.randomness import Stream, random_stream, ticket_of
from fedrec.federation.compression.quantise import (
    EXACT,
    SIDE,
    WIDTH,
    cells_of,
    dequantise,
    hadamard,
    nearest_levels,
    nearest_values,
)
from fedrec.recsys.exact_sum import ExactTotal
from fedrec.recsys.model.lora import Adapter, Stack

Shapes = Mapping[str, torch.Size]
"""Of the tensors of one client's change."""

_AT_ONCE = {"cpu": 2**17, "cuda": 2**24}
"""Numbers that are coded together, so that they are still in a core's cache from one step to the next."""


@dataclass(frozen=True, eq=False)
class Eden:
    """The coding of some clients' changes: its bits and rotations."""

    bits: int  # of a number, 1 to 8
    flips: Tensor  # (C, D) of bool: the signs to change before rotating, each client's own

    @classmethod
    def draw(cls, salts: np.ndarray, bits: int, seed: int, round: int) -> "Eden":
        """Draw rotations from the clients' tickets, which the server knows: flips are sent, and must reveal no salt."""
        rngs = (random_stream(Stream.ROTATIONS, seed, round, ticket_of(salt)) for salt in salts.tolist())
        drawn = np.frombuffer(b"".join(rng.bytes(WIDTH // 8) for rng in rngs), dtype=np.uint8)
        return cls(bits, torch.from_numpy(np.unpackbits(drawn).view(bool).reshape(len(salts), WIDTH)))

    def to(self, device: torch.device) -> "Eden":
        return replace(self, flips=self.flips.to(device))

    def flip_signs(self, x: Tensor, few: slice) -> Tensor:
        """Flip the signs of the rows of a few clients, in place: (c, G, D)."""
        return x.mul_((1 - 2 * self.flips[few].to(x)).unsqueeze(1))

    def rotate_back(self, c: Tensor, scales: Tensor, few: slice) -> Tensor:
        """Decode the rows of a few clients from their levels' values, (c, G, D), and their scales, (c, G)."""
        return self.flip_signs(hadamard(c).mul_(scales.unsqueeze(2)), few)


@dataclass(frozen=True, eq=False)
class CompressedUpdate:
    """The coded changes of some clients, with all that is needed to decode them."""

    coding: Eden
    levels: Tensor  # (C, G, D) of uint8, each less than 2^bits
    scales: Tensor  # (C, G)

    def scaled(self, factors: Tensor) -> "CompressedUpdate":
        """Multiply each client's change by its factor: (C,)."""
        return replace(self, scales=self.scales * factors.unsqueeze(1))

    def decode(self) -> Iterator[Tensor]:
        """Decode the changes, a few clients at a time: (c, G·D)."""
        clients, rows, _ = self.levels.shape
        for few in _parts(clients, rows, self.levels.device):
            values = dequantise(self.levels[few], self.coding.bits)
            yield self.coding.rotate_back(values, self.scales[few], few).flatten(1)

    def total(self, shapes: Shapes) -> Adapter:
        """Compute the exact sum of the changes in float64."""
        total = ExactTotal(self.levels.shape[1:].numel(), self.levels.device)
        for changes in self.decode():
            total.add(changes)
        return _named(total.value, shapes)


def count_rows(shapes: Shapes) -> int:
    """Count the rows of a change of such tensors: G."""
    return -(-_numbers(shapes) // WIDTH)


def _numbers(shapes: Shapes) -> int:
    return sum(shape.numel() for shape in shapes.values())


def encode(deltas: Stack, coding: Eden) -> tuple[CompressedUpdate, Tensor]:
    """Encode each client's change, name → (C, …), and compute its L2 norm as it will be decoded: (C,)."""
    shape = (len(coding.flips), count_rows(_shapes(deltas)), WIDTH)
    levels = torch.empty(shape, dtype=torch.uint8, device=coding.flips.device)
    scales = torch.empty(shape[:2], device=levels.device)
    lengths = torch.empty(shape[0], dtype=torch.float64, device=levels.device)
    for few in _parts(*shape[:2], on=levels.device):
        rows = _encode_rows(coding.flip_signs(_as_rows(deltas, few), few), coding.bits)
        levels[few], scales[few], lengths[few] = nearest_levels(rows.cells, coding.bits), rows.scales, rows.lengths
    return CompressedUpdate(coding, levels, scales), lengths


def sum_as_decoded(deltas: Stack, coding: Eden, factors: Callable[[Tensor, slice], Tensor]) -> tuple[Adapter, Tensor]:
    """Sum the changes as they would be decoded, times each client's factor, exactly; with their L2 norms, (C,).

    `factors` gets the norms of a few clients, and which. The codes of a few clients at a time are in memory.
    """
    shapes, clients, device = _shapes(deltas), len(coding.flips), coding.flips.device
    total = ExactTotal(count_rows(shapes) * WIDTH, device)
    lengths = torch.empty(clients, dtype=torch.float64, device=device)
    for few in _parts(clients, count_rows(shapes), device):
        rows = _encode_rows(coding.flip_signs(_as_rows(deltas, few), few), coding.bits)
        scales = rows.scales * factors(rows.lengths, few).unsqueeze(1)
        total.add(coding.rotate_back(rows.values, scales, few).flatten(1))
        lengths[few] = rows.lengths
    return _named(total.value, shapes), lengths


class _Rows(NamedTuple):
    """A few clients' changes, coded."""

    cells: Tensor  # (c, G, D) int32, which give the levels
    values: Tensor  # (c, G, D) of the levels
    scales: Tensor  # (c, G)
    lengths: Tensor  # (c,) float64: the changes' L2 norms as they will be decoded


def _encode_rows(x: Tensor, bits: int) -> _Rows:
    """Encode rows, (c, G, D), in place.

    With u the row in whole steps, y = H u, z = y √D / |y| and c the levels nearest to z, the row is decoded as s H c,
    where s = |y| / (√D ⟨c, z⟩) makes ⟨s H c, u⟩ = |u|².
    """
    steps = x.abs().sum(2).clamp_(min=1e-30) / EXACT
    y = hadamard(x.div_(steps.unsqueeze(2)).round_())
    size = torch.linalg.vector_norm(y, dim=2)
    z = y.mul_((SIDE / size.clamp(min=1)).unsqueeze(2))  # y is whole, so that a size below 1 is 0
    cells = cells_of(z)
    c = nearest_values(cells, bits)
    scales = steps * size / (SIDE * z.mul_(c).sum(2).clamp_(min=1))
    lengths = scales * SIDE * torch.square(c, out=z).sum(2).double().sqrt()
    return _Rows(cells, c, scales, torch.linalg.vector_norm(lengths, dim=1))


def _as_rows(deltas: Stack, few: slice) -> Tensor:
    """Concatenate a few clients' changes, in the order of names, into rows: (c, G, D)."""
    parts = [deltas[name][few].flatten(1) for name in sorted(deltas)]
    filling = parts[0].new_zeros(len(parts[0]), -sum(part.shape[1] for part in parts) % WIDTH)
    return torch.cat([*parts, filling], 1).view(len(filling), -1, WIDTH)


def _named(numbers: Tensor, shapes: Shapes) -> Adapter:
    """Cut the rows of a change, (G·D,), into its tensors."""
    names = sorted(shapes)
    parts = numbers[: _numbers(shapes)].split([shapes[name].numel() for name in names])
    named = dict(zip(names, parts, strict=True))
    return {name: named[name].view(shape).cpu() for name, shape in shapes.items()}


def _shapes(deltas: Stack) -> Shapes:
    return {name: tensor.shape[1:] for name, tensor in deltas.items()}


def _parts(clients: int, rows: int, on: torch.device) -> Iterator[slice]:
    """Divide the clients into a few at a time, of `rows` rows each."""
    size = max(1, _AT_ONCE[on.type] // (rows * WIDTH))
    return (slice(start, start + size) for start in range(0, clients, size))
