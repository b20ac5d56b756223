"""Products with one weight per client, and the item tower's scores of shared candidates, each with its gradient.

A stack holds one tensor per client, (C, …). Before the first local step all clients still have the same tensor, and
the stack is that tensor seen C times (`Tensor.expand`). Forward, one product then serves the whole cohort, as in
plain central training; only the gradients are taken per client (Goodfellow 2015, arXiv:1510.01799). This holds
what autograd cannot know: it would copy the tensor C times first.

Shapes: C clients, S stacked tensors (1 where all clients share it, else C), M rows of a client, K candidates,
E embedding, R rank.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional as F

CURVE = 4.0
"""Brings the coordinates of unit-length embeddings into the curved part of the item tower's non-linearity."""


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """Each client's rows by its own weight: (C, M, i), (C, o, i) → (C, M, o)."""
    return _Linear.apply(x, weight)


def cosines(u: Tensor, e: Tensor, down: Tensor, up: Tensor, curved: bool = True) -> Tensor:
    """u · unit(e + up · gelu(4 · down · e)), without a table of K vectors per client; not curved, without the gelu.

    u: (C, M, E) unit vectors; e: (K, E); down: (C, R, E); up: (C, E, R). Returns (C, M, K).
    """
    return _Cosines.apply(u, e, down, up, curved)


def _distinct(stack: Tensor) -> Tensor:
    """The tensors of a stack that differ: (C, …) → (S, …)."""
    return stack[:1] if stack.stride(0) == 0 else stack


def _product(a: Tensor, b: Tensor) -> Tensor:
    """a @ b: in bfloat16 under autocast, but given back in float32 at least, so that all else stays exact enough."""
    return (a @ b).to(torch.promote_types(a.dtype, torch.float32))


def _by(x: Tensor, weight: Tensor) -> Tensor:
    """(C, M, i) by (S, i, o) → (C, M, o), as one product where the clients share the weight."""
    return _product(x, weight[0] if len(weight) == 1 else weight)


def _as_forward(ctx: Any, like: Tensor) -> torch.autocast:
    """The precision of the forward pass, for the backward one."""
    return torch.autocast(like.device.type, torch.bfloat16, enabled=ctx.lower)


class _Linear(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.lower = torch.is_autocast_enabled(x.device.type)
        ctx.save_for_backward(x, weight)
        return _by(x, _distinct(weight).mT)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor]:
        (gradient,) = gradients
        x, weight = ctx.saved_tensors
        with _as_forward(ctx, x):
            towards_x = _by(gradient, _distinct(weight)) if ctx.needs_input_grad[0] else None
            return towards_x, _product(gradient.mT, x.to(gradient.dtype))  # (C, o, i)


class _Cosines(Function):
    """With z = 4 · down · e, low = gelu(z), v = e + up · low and G the gradient of the scores s = u · v / |v|:

    ∂u = Σₖ Gₖ vₖ / |vₖ|;  ∂up = Σₖ (Σₘ Gₘₖ uₘ / |vₖ| − qₖ vₖ) lowₖᵀ;  ∂low likewise by upᵀ;
    where qₖ = Σₘ Gₘₖ sₘₖ / |vₖ|² takes out what would only lengthen vₖ.
    """

    @staticmethod
    def forward(ctx: Any, u: Tensor, e: Tensor, down: Tensor, up: Tensor, curved: bool) -> Tensor:
        ctx.lower, ctx.curved = torch.is_autocast_enabled(u.device.type), curved
        down, up = _distinct(down), _distinct(up)
        e = e.expand(len(up), *e.shape)  # (S, K, E): a product for each, not one of all, whose size would matter
        z = CURVE * _product(down, e.mT)  # (S, R, K)
        low = F.gelu(z) if curved else z
        bent = _Bent.of(e, low, up)
        onto_up = bent.dots(up.mT)  # (S, R, K): up · vₖ
        squares = e[0].square().sum(-1) + ((_product(up.mT, e.mT) + onto_up) * low).sum(1)  # (S, K): |vₖ|²
        scale = squares.rsqrt()
        scores = bent.dots(u).mul_(scale.unsqueeze(1))  # (C, M, K)
        ctx.save_for_backward(u, e, up, z, low, bent.table, onto_up, scale, scores)
        return scores

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, Tensor, Tensor, None]:
        (gradient,) = gradients
        u, e, up, z, low, table, onto_up, scale, scores = ctx.saved_tensors
        bent = _Bent(e, low, up, table)
        with _as_forward(ctx, u):
            scaled = gradient * scale.unsqueeze(1)  # (C, M, K): G / |v|
            radial = ((scaled * scores).sum(1) * scale).unsqueeze(1)  # (C, 1, K): q
            slope = torch.ones_like(z)  # (S, R, K)
            slope = CURVE * (torch.ops.aten.gelu_backward(slope, z) if ctx.curved else slope)
            towards_up = _product(u.mT, _by(scaled, low.mT)).sub_(bent.sums(radial * low).mT)  # (C, E, R)
            towards_low = _product(_by(u, up).mT, scaled).addcmul_(radial, onto_up, value=-1)  # (C, R, K)
            towards_down = _product(towards_low.mul_(slope), e[:1].expand(len(u), -1, -1))  # (C, R, E)
            return bent.sums(scaled), None, towards_down, towards_up, None


@dataclass(frozen=True, eq=False)
class _Bent:
    """The candidates' vectors v = e + up · low: a table where the clients share them, else through the low rank."""

    e: Tensor  # (S, K, E)
    low: Tensor  # (S, R, K)
    up: Tensor  # (S, E, R)
    table: Tensor | None  # (1, K, E)

    @classmethod
    def of(cls, e: Tensor, low: Tensor, up: Tensor) -> "_Bent":
        return cls(e, low, up, e + _product(up, low).mT if len(up) == 1 else None)

    def dots(self, x: Tensor) -> Tensor:
        """x · vₖ: (C, M, E) → (C, M, K)."""
        if self.table is not None:
            return _by(x, self.table.mT)
        return _product(x, self.e.mT).add_(_product(_product(x, self.up), self.low))

    def sums(self, weights: Tensor) -> Tensor:
        """Σₖ weightsₖ vₖ: (C, M, K) → (C, M, E)."""
        if self.table is not None:
            return _by(weights, self.table)
        return _product(weights, self.e).add_(_product(_product(weights, self.low.mT), self.up.mT))
