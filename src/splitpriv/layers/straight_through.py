"""Gradients past a mechanism, and the cast to the dtype that the next module wants."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def straight_through(
    features: Tensor,  # shape: (batch, *feature)
    released: Tensor,  # shape: (batch, *feature)
    passes: Tensor | None = None,  # shape: (batch, *feature)
) -> Tensor:  # shape: (batch, *feature)
    """``released``, whose gradient goes to ``features`` (times ``passes``, where given)."""
    straight: Tensor = _StraightThrough.apply(features, released, passes)  # type: ignore[no-untyped-call]
    return straight


def cast(released: Tensor, dtype: torch.dtype) -> Tensor:
    """``released`` in ``dtype``; what a narrow dtype cannot hold becomes its largest value."""
    if dtype in (torch.float32, torch.float64):
        return released.to(dtype)
    ends = torch.finfo(dtype)
    return released.clamp(ends.min, ends.max).to(dtype)


class _StraightThrough(torch.autograd.Function):
    """Returns the released tensor itself.

    The usual ``x + (released - x).detach()`` would not: its rounding error depends on x, and so
    leaks low-order bits of x into what is released.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, released: Tensor, passes: Tensor | None) -> Tensor:
        ctx.save_for_backward(*([] if passes is None else [passes]))
        ctx.dtype = features.dtype
        return released.view_as(released)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (grad,) = grads
        return (grad * ctx.saved_tensors[0] if ctx.saved_tensors else grad).to(ctx.dtype), None, None
