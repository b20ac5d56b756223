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

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from fedrec.data.randomness import Stream, random_stream, ticket_of
from fedrec.federation.compression.quantise import EXACT, SIDE, WIDTH, dequantise, hadamard, quantise
from fedrec.recsys.exact_sum import exact_sum
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
        """Flip the signs of the rows of a few clients: (c, G, D)."""
        return x * (1 - 2 * self.flips[few].to(x)).unsqueeze(1)


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
        for few in _parts(self.levels):
            back = hadamard(dequantise(self.levels[few], self.coding.bits))
            yield self.coding.flip_signs(back.mul_(self.scales[few].unsqueeze(2)), few).flatten(1)

    def total(self, shapes: Shapes) -> Adapter:
        """Compute the exact sum of the changes in float64."""
        total = torch.zeros(self.levels.shape[1:].numel(), dtype=torch.float64, device=self.levels.device)
        for changes in self.decode():
            total += exact_sum(changes)
        names = sorted(shapes)
        parts = total[: _numbers(shapes)].split([shapes[name].numel() for name in names])
        named = dict(zip(names, parts, strict=True))
        return {name: named[name].view(shape).cpu() for name, shape in shapes.items()}


def count_rows(shapes: Shapes) -> int:
    """Count the rows of a change of such tensors: G."""
    return -(-_numbers(shapes) // WIDTH)


def _numbers(shapes: Shapes) -> int:
    return sum(shape.numel() for shape in shapes.values())


def encode(deltas: Stack, coding: Eden) -> tuple[CompressedUpdate, Tensor]:
    """Encode each client's change, name → (C, …), and compute its L2 norm as it will be decoded: (C,)."""
    clients, device = len(coding.flips), coding.flips.device
    shape = (clients, count_rows({name: tensor.shape[1:] for name, tensor in deltas.items()}), WIDTH)
    levels = torch.empty(shape, dtype=torch.uint8, device=device)
    scales = torch.empty(shape[:2], device=device)
    lengths = torch.empty(shape[:2], dtype=torch.float64, device=device)
    for few in _parts(levels):
        levels[few], scales[few], lengths[few] = _encode_rows(
            coding.flip_signs(_as_rows(deltas, few), few), coding.bits
        )
    return CompressedUpdate(coding, levels, scales), torch.linalg.vector_norm(lengths, dim=1)


def _encode_rows(x: Tensor, bits: int) -> tuple[Tensor, Tensor, Tensor]:
    """Encode rows into levels, scales and norms: (c, G, D) → (c, G, D), (c, G), (c, G).

    With u the row in whole steps, y = H u, z = y √D / |y| and c the levels nearest to z, the row is decoded as s H c,
    where s = |y| / (√D ⟨c, z⟩) makes ⟨s H c, u⟩ = |u|².
    """
    steps = x.abs().sum(2).clamp_(min=1e-30) / EXACT
    y = hadamard((x / steps.unsqueeze(2)).round_())
    size = torch.linalg.vector_norm(y, dim=2)
    z = y.mul_((SIDE / size.clamp(min=1)).unsqueeze(2))  # y is whole, so that a size below 1 is 0
    levels, c = quantise(z, bits)
    scales = steps * size / (SIDE * (c * z).sum(2).clamp_(min=1))
    return levels, scales, scales * SIDE * c.square().sum(2).double().sqrt()


def _as_rows(deltas: Stack, few: slice) -> Tensor:
    """Concatenate a few clients' changes, in the order of names, into rows: (c, G, D)."""
    parts = [deltas[name][few].flatten(1) for name in sorted(deltas)]
    filling = parts[0].new_zeros(len(parts[0]), -sum(part.shape[1] for part in parts) % WIDTH)
    return torch.cat([*parts, filling], 1).view(len(filling), -1, WIDTH)


def _parts(levels: Tensor) -> Iterator[slice]:
    size = max(1, _AT_ONCE[levels.device.type] // levels.shape[1:].numel())
    return (slice(start, start + size) for start in range(0, len(levels), size))
