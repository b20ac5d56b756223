"""Products with one weight per client: values and gradients, shared and distinct, against autograd's own."""

from functools import partial

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fedrec.recsys.model.item_tower import (
    GELU_INPUT_SCALE,
    Candidates,
    CandidateTables,
    ItemAdapter,
    SharedTables,
    candidate_scores,
)
from fedrec.recsys.model.lora import stacked
from fedrec.recsys.model.per_client_ops import client_linear

C, M, N, E, R = 3, 5, 12, 6, 4


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def stacks(*shapes: tuple[int, ...], shared: bool) -> list[Tensor]:
    """Tensors with a leading axis of clients, as leaves: one seen C times, or C that differ."""
    if shared:
        stack = stacked({str(n): drawn(*shape, seed=n) for n, shape in enumerate(shapes)}, C)
        return [tensor.requires_grad_() for tensor in stack.values()]
    return [drawn(C, *shape, seed=n).requires_grad_() for n, shape in enumerate(shapes)]


def plain_cosines(u: Tensor, e: Tensor, rows: Tensor, down: Tensor, up: Tensor, gelu: bool) -> Tensor:
    low = GELU_INPUT_SCALE * torch.einsum("cre,cke->ckr", down, e[rows])
    low = F.gelu(low) if gelu else low
    return u @ F.normalize(e[rows] + low @ up.mT, dim=-1).mT


def same_as(plain, ours, inputs: list[Tensor]) -> None:
    expected, found = plain(*inputs), ours(*inputs)
    torch.testing.assert_close(found, expected)
    leaves = [tensor for tensor in inputs if tensor.requires_grad]
    weights = drawn(*expected.shape, seed=9)
    wanted = torch.autograd.grad((expected * weights).sum(), leaves)
    for ours_, theirs in zip(torch.autograd.grad((found * weights).sum(), leaves), wanted, strict=True):
        torch.testing.assert_close(ours_, theirs)


@pytest.mark.parametrize("shared", [True, False])
def test_linear(shared: bool) -> None:
    x = drawn(C, M, E, seed=5).requires_grad_()
    same_as(lambda x, w: x @ w.mT, client_linear, [x, *stacks((R, E), shared=shared)])


@pytest.mark.parametrize("gelu", [True, False])
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("company", ["each its own", "two share", "all share"])
def test_cosines(shared: bool, gelu: bool, company: str) -> None:
    u, e = F.normalize(drawn(C, M, E, seed=5), dim=-1).requires_grad_(), F.normalize(drawn(N, E, seed=6), dim=-1)
    sample, other, last = [0, 1, 2, 3, 4, 5, 6], [6, 5, 4, 0, 8, 10, 1], [9, 8, 7, 6, 5, 4, 2]
    drawn_rows, sizes = {
        "each its own": ([sample, other, last], (1, 1, 1)),
        "two share": ([sample, other], (1, 2)),
        "all share": ([sample], (3,)),
    }[company]
    candidates = Candidates(torch.tensor(drawn_rows), sizes, tuple(range(len(sizes))))
    inputs = [u, e, candidates.per_client(), *stacks((R, E), (E, R), shared=shared)]

    def scores(u: Tensor, e: Tensor, rows: Tensor, down: Tensor, up: Tensor) -> Tensor:
        return candidate_scores(u, e, candidates, ItemAdapter(down, up, gelu))

    same_as(partial(plain_cosines, gelu=gelu), scores, inputs)


def test_blocks_of_a_round_share_the_tables_of_a_sample() -> None:
    """Tables are of the tower that they were computed from: of another, or of a changed one, they are computed anew."""
    e, tables = F.normalize(drawn(N, E, seed=6), dim=-1), SharedTables()
    down, up = drawn(R, E, seed=1), drawn(E, R, seed=2)

    def scores(u: Tensor, name: str, of: SharedTables | None) -> Tensor:
        candidates = Candidates(torch.tensor([[0, 3, 5, 6]]), (C,), (name,), of)
        stack = ItemAdapter(down.expand(C, *down.shape), up.expand(C, *up.shape))
        return candidate_scores(u, e, candidates, stack)

    computed = []
    for seed in range(3):  # blocks
        u = F.normalize(drawn(C, M, E, seed=seed), dim=-1)
        assert torch.equal(scores(u, "a", tables), scores(u, "a", None))
        computed.append(tables.of("a", ItemAdapter(down[None], up[None]), _no_need))
    assert computed[0] is computed[1] is computed[2]
    up += 1
    assert torch.equal(scores(u, "a", tables), scores(u, "a", None))
    up = drawn(E, R, seed=3)
    assert torch.equal(scores(u, "a", tables), scores(u, "a", None))


def _no_need() -> CandidateTables:
    raise AssertionError("the tables are there")


def test_a_stack_is_a_view_until_it_is_changed() -> None:
    adapter = {"a": torch.ones(2, 3)}
    stack = stacked(adapter, 5)
    assert stack["a"].shape == (5, 2, 3)
    assert stack["a"].data_ptr() == adapter["a"].data_ptr()


def test_shared_and_distinct_weights_give_the_same_gradient_per_client() -> None:
    """A client's gradient is its own: what the others' rows hold does not enter."""
    (weight,) = stacks((R, E), shared=True)
    x = drawn(C, M, E, seed=5)
    (gradient,) = torch.autograd.grad(client_linear(x, weight).square().sum(), [weight])
    for client in range(C):
        own = weight[client].detach().requires_grad_()
        (alone,) = torch.autograd.grad((x[client] @ own.mT).square().sum(), [own])
        torch.testing.assert_close(gradient[client], alone)
