"""Keeps what draws noise or checks values out of compiled graphs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import torch

F = TypeVar("F", bound=Callable[..., object])


def eager(function: F) -> F:
    """Run ``function`` eagerly inside a compiled model: a graph break there, and no other effect."""
    return cast(F, torch.compiler.disable(function))  # type: ignore[no-untyped-call]
