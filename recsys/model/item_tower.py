"""The item tower: item vectors from frozen text embeddings, and the scores of sampled candidates.

Shapes: C clients, S stacked tensors (1 if all clients share it, else C), M user vectors of a client, K candidates of a
client, N items, U distinct candidates, E embedding, R rank.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional as F

from fedrec.recsys.model.config import ModelConfig
from fedrec.recsys.model.lora import kaiming_uniform
from fedrec.recsys.model.per_client_ops import (
    client_linear,
    distinct_tensors,
    forward_precision,
    stack_matmul,
    widened_matmul,
)

GELU_INPUT_SCALE = 4.0
"""The scale of the gelu's input. It brings coordinates of unit-length embeddings into the gelu's non-linear range."""


class ItemTower(nn.Module):
    """Item vector = unit(e + up · gelu(4 · down · e)): the text embedding e plus a low-rank change of it.

    `item_tower = "linear"` leaves out the gelu.
    """

    def __init__(self, config: ModelConfig, width: int, generator: torch.Generator) -> None:
        super().__init__()
        self.gelu = config.item_tower == "gelu"
        self.down = kaiming_uniform((config.item_rank, width), generator)
        self.up = nn.Parameter(torch.zeros(1, width, config.item_rank))

    def forward(self, e: Tensor) -> Tensor:
        """Compute item vectors: (C, n, E) → (C, n, E)."""
        low = GELU_INPUT_SCALE * client_linear(e, self.down)
        return F.normalize(e + client_linear(F.gelu(low) if self.gelu else low, self.up), dim=-1)

    def candidate_scores(self, u: Tensor, e: Tensor, rows: Tensor) -> Tensor:
        """Compute u · forward(e[rows]) of unit vectors u: (C, M, E), (N, E), each client's (C, K) → (C, M, K)."""
        return candidate_scores(u, e, rows, ItemAdapter(self.down, self.up, self.gelu))


class ItemAdapter(NamedTuple):
    """The item tower's parameters, one pair per client, and whether there is a gelu between them."""

    down: Tensor  # (C, R, E)
    up: Tensor  # (C, E, R)
    gelu: bool = True


def candidate_scores(u: Tensor, e: Tensor, rows: Tensor, adapter: ItemAdapter) -> Tensor:
    """Compute u · unit(e + up · gelu(4 · down · e)) of each client's own candidates.

    u: (C, M, E) unit vectors; e: (N, E) text embeddings; rows: (C, K) candidates, as rows of e. Returns (C, M, K).
    """
    return _CandidateScores.apply(u, e, rows, adapter.down, adapter.up, adapter.gelu)


class _CandidateScores(Function):
    """Cosines of user vectors with candidates' item vectors, and their gradients.

    Forward, for user vector m and candidate k of one client:
        zₖ = 4 · down · eₖ;  lowₖ = gelu(zₖ);  vₖ = eₖ + up · lowₖ;  sₘₖ = uₘ · vₖ / |vₖ|.

    Backward, with G = ∂loss/∂s. The quotient rule gives ∂sₘₖ/∂vₖ = (uₘ − sₘₖ vₖ / |vₖ|) / |vₖ|, hence
        ∂uₘ   = Σₖ Gₘₖ vₖ / |vₖ|
        ∂vₖ   = Σₘ Gₘₖ uₘ / |vₖ| − qₖ vₖ,  qₖ = Σₘ Gₘₖ sₘₖ / |vₖ|²  (the part along vₖ, which changes no cosine)
        ∂up   = Σₖ ∂vₖ lowₖᵀ
        ∂lowₖ = upᵀ ∂vₖ = Σₘ Gₘₖ upᵀuₘ / |vₖ| − qₖ upᵀvₖ
        ∂down = Σₖ (∂lowₖ ⊙ 4 · gelu′(zₖ)) eₖᵀ
    ∂vₖ, (C, K, E), is never formed: each sum over it is a product of matrices. e is frozen and has no gradient.
    """

    @staticmethod
    def forward(ctx: Any, u: Tensor, e: Tensor, rows: Tensor, down: Tensor, up: Tensor, gelu: bool) -> Tensor:
        ctx.lower = torch.is_autocast_enabled(u.device.type)
        adapter = ItemAdapter(distinct_tensors(down), distinct_tensors(up), gelu)
        tables = _CandidateTables.build(e, rows, adapter, torch.bfloat16 if ctx.lower else e.dtype)
        v, inverse_norm = tables.per_client("v"), tables.per_client("inverse_norm")
        scores = widened_matmul(u, v.mT).mul_(inverse_norm.mT)  # (C, M, K): s
        ctx.tables = tables
        ctx.save_for_backward(u, adapter.up, scores)
        return scores

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, Tensor, Tensor, None]:
        (gradient,) = gradients  # (C, M, K): G
        u, up, scores = ctx.saved_tensors
        per_client = ctx.tables.per_client
        v, low, inverse_norm = per_client("v"), per_client("low"), per_client("inverse_norm")
        with forward_precision(ctx, u):
            # What all gradients share: G / |v| and q
            scaled = gradient * inverse_norm.mT  # (C, M, K): G / |v|
            radial = (scaled * scores).sum(1).unsqueeze(2) * inverse_norm  # (C, K, 1): q

            # ∂up = Σₖ (Σₘ Gₘₖ uₘ / |vₖ|) lowₖᵀ − Σₖ qₖ vₖ lowₖᵀ
            up_gradient = widened_matmul(u.mT, widened_matmul(scaled, low))  # (C, E, R)
            up_gradient.sub_(widened_matmul(v.mT, radial * low))

            # ∂low, then ∂down through the gelu
            low_gradient = widened_matmul(scaled.mT, stack_matmul(u, up)).sub_(radial * per_client("v_up"))  # (C, K, R)
            down_gradient = widened_matmul(low_gradient.mul_(per_client("slope")).mT, per_client("e"))  # (C, R, E)

            return widened_matmul(scaled, v), None, None, down_gradient, up_gradient, None


@dataclass(frozen=True, eq=False)
class _CandidateTables:
    """The candidates' intermediate values that both passes need.

    If the clients share the tower (S = 1), each distinct candidate is computed once, (1, U, …), and `places` maps
    each client's candidates to it. Otherwise each client's candidates are computed by its own tower: (C, K, …).
    """

    e: Tensor  # (S, U, E)
    low: Tensor  # (S, U, R)
    slope: Tensor  # (S, U, R): 4 · gelu′(z), the derivative of low by down · e
    v: Tensor  # (S, U, E)
    inverse_norm: Tensor  # (S, U, 1): 1 / |v|
    v_up: Tensor  # (S, U, R): v · up
    places: Tensor | None  # (C, K), or None if the tables are each client's own

    @classmethod
    def build(cls, e: Tensor, rows: Tensor, adapter: ItemAdapter, dtype: torch.dtype) -> "_CandidateTables":
        """Compute the tables. Those that are used only inside matrix products are stored in `dtype`, the products'."""
        # Which candidates: the distinct ones of all clients, or each client's
        places = None
        if len(adapter.up) == 1:
            rows, places = rows.unique(return_inverse=True)
            rows = rows.unsqueeze(0)  # (1, U)
        e = e[rows]

        # Through the adapter, with the derivative of its non-linearity
        z = GELU_INPUT_SCALE * widened_matmul(e, adapter.down.mT)
        low = F.gelu(z) if adapter.gelu else z
        slope = torch.ones_like(z)
        slope = GELU_INPUT_SCALE * (torch.ops.aten.gelu_backward(slope, z) if adapter.gelu else slope)

        # Item vectors before they are normalised
        v = e + widened_matmul(low, adapter.up.mT)
        inverse_norm = v.square().sum(-1, keepdim=True).rsqrt()
        v_up = widened_matmul(v, adapter.up)
        return cls(e.to(dtype), low.to(dtype), slope.to(dtype), v.to(dtype), inverse_norm, v_up.to(dtype), places)

    def per_client(self, name: str) -> Tensor:
        """Return the table `name` of each client's candidates: (C, K, …)."""
        table: Tensor = getattr(self, name)
        return table if self.places is None else table[0][self.places]
