"""Products with one weight per client, and the item tower's scores of candidates, each with its gradient.

A stack holds one tensor per client, (C, …). Before the first local step all clients still have the same tensor, and
the stack is that tensor seen C times (`Tensor.expand`). Forward, one product then serves the whole cohort, as in
plain central training; only the gradients are taken per client (Goodfellow 2015, arXiv:1510.01799). This holds
what autograd cannot know: it would copy the tensor C times first.

Shapes: C clients, S stacked tensors (1 where all clients share it, else C), M rows of a client, K candidates of a
client, U items that are anyone's candidates, E embedding, R rank.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional as F

GELU_INPUT_SCALE = 4.0
"""Brings the coordinates of unit-length embeddings into the curved part of the item tower's non-linearity."""


def client_linear(x: Tensor, weight: Tensor) -> Tensor:
    """Each client's rows by its own weight: (C, M, i), (C, o, i) → (C, M, o)."""
    return _Linear.apply(x, weight)


def candidate_scores(u: Tensor, e: Tensor, rows: Tensor, down: Tensor, up: Tensor, curved: bool = True) -> Tensor:
    """u · unit(e + up · gelu(4 · down · e)) for each client's own candidates; not curved, without the gelu.

    u: (C, M, E) unit vectors; e: (N, E); rows: (C, K) of e; down: (C, R, E); up: (C, E, R). Returns (C, M, K).
    """
    return _Cosines.apply(u, e, rows, down, up, curved)


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
    def forward(ctx: Any, u: Tensor, e: Tensor, rows: Tensor, down: Tensor, up: Tensor, curved: bool) -> Tensor:
        ctx.lower = torch.is_autocast_enabled(u.device.type)
        down, up = _distinct(down), _distinct(up)
        tables = _CandidateTables.of(e, rows, down, up, curved, torch.bfloat16 if ctx.lower else e.dtype)
        v, scale = tables.at("v"), tables.at("scale")
        scores = _product(u, v.mT).mul_(scale.mT)  # (C, M, K)
        ctx.tables = tables
        ctx.save_for_backward(u, up, scores)
        return scores

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, Tensor, Tensor, None]:
        (gradient,) = gradients
        u, up, scores = ctx.saved_tensors
        at = ctx.tables.at
        v, low, scale = at("v"), at("low"), at("scale")
        with _as_forward(ctx, u):
            scaled = gradient * scale.mT  # (C, M, K): G / |v|
            radial = (scaled * scores).sum(1).unsqueeze(2) * scale  # (C, K, 1): q
            towards_up = _product(u.mT, _product(scaled, low)).sub_(_product(v.mT, radial * low))  # (C, E, R)
            towards_low = _product(scaled.mT, _by(u, up)).sub_(radial * at("onto_up"))  # (C, K, R)
            towards_down = _product(towards_low.mul_(at("slope")).mT, at("e"))  # (C, R, E)
            return _product(scaled, v), None, None, towards_down, towards_up, None


@dataclass(frozen=True, eq=False)
class _CandidateTables:
    """What is known of the candidates: of all of them once, (1, U, …), where the clients share the tower; else of each
    client's own, (C, K, …)."""

    e: Tensor  # (S, U, E)
    low: Tensor  # (S, U, R)
    slope: Tensor  # (S, U, R) of low by down · e
    v: Tensor  # (S, U, E)
    scale: Tensor  # (S, U, 1): 1 / |v|
    onto_up: Tensor  # (S, U, R): v · up
    places: Tensor | None  # (C, K) of each client's candidates in the one table

    @classmethod
    def of(
        cls, e: Tensor, rows: Tensor, down: Tensor, up: Tensor, curved: bool, narrow: torch.dtype
    ) -> "_CandidateTables":
        """Those that are only factors of products are kept in the products' own precision."""
        places = None
        if len(up) == 1:
            rows, places = rows.unique(return_inverse=True)
            rows = rows.unsqueeze(0)  # (1, U)
        e = e[rows]
        z = GELU_INPUT_SCALE * _product(e, down.mT)
        low = F.gelu(z) if curved else z
        slope = torch.ones_like(z)
        slope = GELU_INPUT_SCALE * (torch.ops.aten.gelu_backward(slope, z) if curved else slope)
        v = e + _product(low, up.mT)
        scale = v.square().sum(-1, keepdim=True).rsqrt()
        onto_up = _product(v, up)
        return cls(e.to(narrow), low.to(narrow), slope.to(narrow), v.to(narrow), scale, onto_up.to(narrow), places)

    def at(self, name: str) -> Tensor:
        """One of them for each client's candidates: (C, K, …)."""
        table: Tensor = getattr(self, name)
        return table if self.places is None else table[0][self.places]
