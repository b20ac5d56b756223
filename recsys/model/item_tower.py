"""The item tower: item vectors from frozen text embeddings, and the scores of sampled candidates.

Shapes: C clients, c clients with the same candidates, T samples of candidates, S stacked tensors (1 if all clients
share it, else C), M user vectors of a client, K candidates of a client, N items, E embedding, R rank.
"""

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from threading import Lock
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
    paired_matmul,
    shared_matmul,
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

    def candidate_scores(self, u: Tensor, e: Tensor, candidates: "Candidates") -> Tensor:
        """Compute u · forward(e[rows]) of unit vectors u: (C, M, E), (N, E), each client's K → (C, M, K)."""
        return candidate_scores(u, e, candidates, ItemAdapter(self.down, self.up, self.gelu))


class Candidates(NamedTuple):
    """The candidates of each client: samples of items, each for some clients next to each other."""

    rows: Tensor  # (T, K) rows of the items
    sizes: tuple[int, ...]  # the number of clients that have each sample: T numbers, which add up to C
    names: tuple[Hashable, ...]  # T names: samples of one name are the same
    tables: "SharedTables | None" = None  # of the samples, if several blocks of clients share them

    def per_client(self) -> Tensor:
        """Return each client's rows: (C, K)."""
        return self.rows.repeat_interleave(torch.tensor(self.sizes, device=self.rows.device), 0)

    def clients(self) -> Iterator[slice]:
        """Iterate over the clients of each sample."""
        end = 0
        for size in self.sizes:
            yield slice(end, end := end + size)


class ItemAdapter(NamedTuple):
    """The item tower's parameters, one pair per client, and whether there is a gelu between them."""

    down: Tensor  # (C, R, E)
    up: Tensor  # (C, E, R)
    gelu: bool = True


def candidate_scores(u: Tensor, e: Tensor, candidates: Candidates, adapter: ItemAdapter) -> Tensor:
    """Compute u · unit(e + up · gelu(4 · down · e)) of each client's candidates.

    u: (C, M, E) unit vectors; e: (N, E) text embeddings. Returns (C, M, K).
    """
    return _CandidateScores.apply(u, e, candidates, adapter.down, adapter.up, adapter.gelu)


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
    def forward(ctx: Any, u: Tensor, e: Tensor, candidates: Candidates, down: Tensor, up: Tensor, gelu: bool) -> Tensor:
        ctx.lower = torch.is_autocast_enabled(u.device.type)
        adapter = ItemAdapter(distinct_tensors(down), distinct_tensors(up), gelu)
        ctx.samples = list(_samples(e, candidates, adapter, torch.bfloat16 if ctx.lower else e.dtype))
        scores = u.new_empty(*u.shape[:2], candidates.rows.shape[1])  # (C, M, K): s
        for clients, of in ctx.samples:
            torch.mul(shared_matmul(u[clients], of.v.mT), of.inverse_norm, out=scores[clients])
        ctx.save_for_backward(u, adapter.up, scores)
        return scores

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, Tensor, Tensor, None]:
        (gradient,) = gradients  # (C, M, K): G
        u, up, scores = ctx.saved_tensors
        u_gradient, up_gradient = torch.empty_like(u), u.new_empty(len(u), *up.shape[1:])
        down_gradient = torch.empty_like(up_gradient.mT, memory_format=torch.contiguous_format)
        with forward_precision(ctx, u):
            u_up = shared_matmul(u, up)  # (C, M, R)
            for clients, of in ctx.samples:
                # What all gradients share: G / |v| and q
                scaled = gradient[clients] * of.inverse_norm
                radial = (scaled * scores[clients]).sum(1, keepdim=True).mul_(of.inverse_norm)  # (c, 1, K): q
                scaled, radial = scaled.to(of.v.dtype), radial.to(of.v.dtype)
                u_gradient[clients] = shared_matmul(scaled, of.v)

                # ∂up = Σₖ (Σₘ Gₘₖ uₘ / |vₖ|) lowₖᵀ − Σₖ qₖ vₖ lowₖᵀ
                up_gradient[clients] = paired_matmul(u[clients].mT, shared_matmul(scaled, of.low.mT))
                up_gradient[clients] -= shared_matmul(radial * of.low, of.v).mT

                # ∂low, times the gelu's slope: (c, R, K); then ∂down
                low_gradient = paired_matmul(u_up[clients].mT, scaled).mul_(of.slope)
                low_gradient.addcmul_(radial, of.v_up_slope, value=-1)
                down_gradient[clients] = shared_matmul(low_gradient, of.e)
        return u_gradient, None, None, down_gradient, up_gradient, None


@dataclass(frozen=True, eq=False)
class CandidateTables:
    """The intermediate values of candidates that both passes need.

    S is 1 for a sample of clients that share the tower, else each client has candidates of its own by its own tower.
    """

    e: Tensor  # (S, K, E)
    low: Tensor  # (S, R, K)
    slope: Tensor  # (S, R, K): 4 · gelu′(z), the derivative of low by down · e
    v: Tensor  # (S, K, E)
    inverse_norm: Tensor  # (S, 1, K): 1 / |v|
    v_up_slope: Tensor  # (S, R, K): v · up, times the slope

    @classmethod
    def build(cls, e: Tensor, adapter: ItemAdapter, dtype: torch.dtype) -> "CandidateTables":
        """Compute the tables. Those that are used only inside matrix products are stored in `dtype`, the products'."""
        # Through the adapter, with the derivative of its non-linearity
        z = GELU_INPUT_SCALE * widened_matmul(adapter.down, e.mT)
        low = F.gelu(z) if adapter.gelu else z
        slope = torch.ones_like(z)
        slope = GELU_INPUT_SCALE * (torch.ops.aten.gelu_backward(slope, z) if adapter.gelu else slope)

        # Item vectors before they are normalised
        v = e + widened_matmul(low.mT, adapter.up.mT)
        inverse_norm = v.square().sum(-1).rsqrt().unsqueeze(1)
        v_up_slope = widened_matmul(adapter.up.mT, v.mT) * slope
        e, low, slope, v, v_up_slope = (tensor.to(dtype) for tensor in (e, low, slope, v, v_up_slope))
        return cls(e, low, slope, v, inverse_norm, v_up_slope)


class SharedTables:
    """The tables of samples under one item tower: each is computed at its first use, by whichever thread comes first.

    A sample's products are its own, so that they round alike whatever other samples a process needs. Tables of another
    tower are not returned: they are computed anew.
    """

    def __init__(self) -> None:
        self._turn = Lock()
        self._adapter: ItemAdapter | None = None
        self._versions: tuple[int, ...] = ()
        self._computed: dict[Hashable, CandidateTables] = {}

    def of(self, name: Hashable, adapter: ItemAdapter, compute: Callable[[], CandidateTables]) -> CandidateTables:
        """Return the tables of the sample of this name under a tower that clients share."""
        with self._turn:
            if not self._are_of(adapter):
                self._adapter, self._computed = adapter, {}
                self._versions = (adapter.down._version, adapter.up._version)
            if name not in self._computed:
                self._computed[name] = compute()
            return self._computed[name]

    def _are_of(self, adapter: ItemAdapter) -> bool:
        """Tell whether the tables are of these tensors, as they are now."""
        if self._adapter is None:
            return False
        places = [(part.data_ptr(), part.shape) for part in (adapter.down, adapter.up)]
        own = [(part.data_ptr(), part.shape) for part in (self._adapter.down, self._adapter.up)]
        return places == own and self._versions == (adapter.down._version, adapter.up._version)


def _samples(
    e: Tensor, candidates: Candidates, adapter: ItemAdapter, dtype: torch.dtype
) -> Iterator[tuple[slice, CandidateTables]]:
    """Iterate over clients with the same candidates, and the tables of these; all at once if their towers differ."""
    if len(adapter.up) > 1:
        yield slice(None), CandidateTables.build(e[candidates.per_client()], adapter, dtype)
        return
    tables = candidates.tables or SharedTables()
    for clients, rows, name in zip(candidates.clients(), candidates.rows, candidates.names, strict=True):

        def compute(rows: Tensor = rows) -> CandidateTables:
            return CandidateTables.build(e[rows].unsqueeze(0), adapter, dtype)

        yield clients, tables.of(name, adapter, compute)
