"""Matrix products with one weight per client, and their gradients.

A stack holds one tensor per client, (C, …). Before the first local step all clients still have the same tensor, and
the stack is a view that repeats it C times (`Tensor.expand`, stride 0). The forward pass is then one product for the
whole cohort, as in central training; only the gradients are computed per client (Goodfellow 2015, arXiv:1510.01799).
Autograd does not exploit this: it would copy the tensor C times first.

Shapes: C clients, S stacked tensors (1 if all clients share it, else C), M rows of a client, i inputs, o outputs.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function


def client_linear(x: Tensor, weight: Tensor) -> Tensor:
    """Multiply each client's rows by its own weight: (C, M, i), (C, o, i) → (C, M, o), in the products' precision."""
    return _ClientLinear.apply(x, weight)


def distinct_tensors(stack: Tensor) -> Tensor:
    """Return one tensor if the stack repeats it, else all: (C, …) → (S, …)."""
    return stack[:1] if stack.stride(0) == 0 else stack


def widened_matmul(a: Tensor, b: Tensor) -> Tensor:
    """Compute a @ b, in bfloat16 under autocast, and return it in float32 at least: sums after it lose no precision."""
    return (a @ b).to(torch.promote_types(a.dtype, torch.float32))


FEW_ROWS = 8
"""Products of fewer rows may take another path through the BLAS, and round differently: their rows are repeated."""


def shared_matmul(x: Tensor, weights: Tensor) -> Tensor:
    """Multiply (C, M, i) by (S, i, o) → (C, M, o), as one product if the clients share the weight.

    The result is in the products' precision. It enters another product as it is, and a sum in float32 widens it there:
    a copy in float32 would hold the same numbers.
    """
    if len(weights) > 1:
        return x @ weights
    rows = x.flatten(0, 1)  # a product of matrices is sure not to copy the weight for each client
    if len(rows) < FEW_ROWS:
        rows = rows.repeat(FEW_ROWS, 1)
    return (rows @ weights[0])[: x.shape[0] * x.shape[1]].view(*x.shape[:2], -1)


def paired_matmul(a: Tensor, b: Tensor) -> Tensor:
    """Compute a @ b for each client, (C, i, k), (C, k, o) → (C, i, o); that of a single client is computed twice.

    A batched product of one takes another path through the BLAS than one of two or more, and may round differently.
    """
    return a @ b if len(a) > 1 else (a.expand(2, -1, -1) @ b.expand(2, -1, -1))[:1]


def forward_precision(ctx: Any, like: Tensor) -> torch.autocast:
    """Return a context manager that gives the backward pass the precision of the forward pass, `ctx.lower`."""
    return torch.autocast(like.device.type, torch.bfloat16, enabled=ctx.lower)


class _ClientLinear(Function):
    """y = x weightᵀ per client. Its gradients are ∂x = ∂y weight and ∂weight = ∂yᵀ x, each client's own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.lower = torch.is_autocast_enabled(x.device.type)
        ctx.save_for_backward(x, weight)
        return shared_matmul(x, distinct_tensors(weight).mT)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor]:
        (gradient,) = gradients
        x, weight = ctx.saved_tensors
        with forward_precision(ctx, x):
            x_gradient = shared_matmul(gradient, distinct_tensors(weight)) if ctx.needs_input_grad[0] else None
            return x_gradient, widened_matmul(gradient.mT, x.to(gradient.dtype))  # (C, o, i)
