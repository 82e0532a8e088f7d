"""The checks that every constructor and every ``encode`` shares."""

from __future__ import annotations

import math
from collections.abc import Collection
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor, nn

from splitpriv._errors import InvalidParameterError, NonFiniteError, PrivacyError, ShapeError


def message(owner: str, name: str, constraint: str, value: object, fix: str = "") -> str:
    """One wording for all errors: owner, parameter, constraint, value, what to do."""
    # Of a tensor its shape: it may hold data that must not reach a log.
    shown = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
    return f"{owner}: {name} must be {constraint}, got {name}={shown}. {fix}".rstrip()


def positive(owner: str, name: str, value: Any, fix: str = "") -> float:
    """Return ``value`` as a float if it is a finite number above zero."""
    if not isinstance(value, Real) or isinstance(value, bool) or not 0 < float(value) < math.inf:
        raise InvalidParameterError(message(owner, name, "finite and > 0", value, fix))
    return float(value)


def finite(owner: str, name: str, value: Any, fix: str = "") -> float:
    """Return ``value`` as a float if it is a finite number."""
    if not isinstance(value, Real) or isinstance(value, bool) or not math.isfinite(value):
        raise InvalidParameterError(message(owner, name, "a finite number", value, fix))
    return float(value)


def integer(owner: str, name: str, value: Any, low: int, high: int | None = None, fix: str = "") -> int:
    """Return ``value`` as an int if it is a whole number in [low, high]."""
    whole = int(value) if isinstance(value, Integral) and not isinstance(value, bool) else low - 1
    if whole < low or (high is not None and whole > high):
        bound = f"an integer >= {low}" if high is None else f"an integer in [{low}, {high}]"
        raise InvalidParameterError(message(owner, name, bound, value, fix))
    return whole


def choice(owner: str, name: str, value: Any, choices: Collection[Any], fix: str = "") -> Any:
    """Return ``value`` if it is one of ``choices``."""
    if not any(value is c or (type(value) is type(c) and value == c) for c in choices):
        options = " or ".join(repr(c) for c in choices)
        raise InvalidParameterError(message(owner, name, options, value, fix))
    return value


def module(owner: str, name: str, value: Any) -> nn.Module:
    """Return ``value`` if it is a module."""
    if not isinstance(value, nn.Module):
        raise InvalidParameterError(message(owner, name, "an nn.Module", value))
    return value


def features(
    owner: str,
    value: Any,  # shape: (batch, *feature)
    name: str = "features",
) -> Tensor:
    """Return ``value`` if it is a finite floating-point batch."""
    found: Tensor = batch(owner, value, name)
    # Both ends are NaN where any element is; one pass, where isfinite(...).all() takes several.
    if found.numel() and not bool(torch.isfinite(torch.stack(torch.aminmax(found.detach()))).all()):
        raise not_finite(owner, found, name)
    return found


def not_finite(owner: str, value: Tensor, name: str = "features") -> NonFiniteError:
    """The error for features, or another argument, that hold NaN or infinity."""
    text = f"{owner}: {name} must be finite, got NaN or infinity in shape={tuple(value.shape)}."
    fix = " Find the edge layer that produces them; no guarantee covers them." if name == "features" else ""
    return NonFiniteError(text + fix)


def batch(
    owner: str,
    value: Any,  # shape: (batch, *feature)
    name: str = "features",
) -> Tensor:
    """Return ``value`` if it is a floating-point batch; that it is finite remains to be checked."""
    if not isinstance(value, Tensor):
        got = type(value).__name__
        raise ShapeError(f"{owner}: {name} must be a torch.Tensor, got {got}. Use torch.as_tensor.")
    if not value.is_floating_point():
        raise ShapeError(
            f"{owner}: {name} must have a floating-point dtype, got dtype={value.dtype}. Convert with {name}.float()."
        )
    if value.ndim < 2:
        raise ShapeError(
            f"{owner}: {name} must have shape (batch, *feature) with at least one feature dimension, "
            f"got shape={tuple(value.shape)}. A batch of scalars is (batch, 1)."
        )
    if torch.jit.is_tracing():  # type: ignore[attr-defined,no-untyped-call]
        raise PrivacyError(f"{owner}: {name} must not be traced by torch.jit or exported: noise would be frozen in.")
    return value


def feature_shape(owner: str, shape: Any) -> tuple[int, ...]:
    """Return ``shape`` as a tuple of positive ints: a feature shape without the batch."""
    try:
        dims = () if isinstance(shape, (str, bytes)) else tuple(int(d) for d in shape)
    except (TypeError, ValueError):
        raise ShapeError(
            f"{owner}: shape must be a sequence of positive integers (no batch dimension), got shape={shape!r}."
        ) from None
    if not dims or any(d < 1 for d in dims) or any(isinstance(d, (bool, float)) for d in shape):
        raise ShapeError(
            f"{owner}: shape must be a non-empty sequence of positive integers (no batch dimension), "
            f"got shape={shape!r}."
        )
    return dims


def symbols(owner: str, value: Tensor, outputs: int) -> Tensor:
    """Return ``value`` if it holds integers in [0, outputs): symbols that have crossed, so they may be shown."""
    if value.is_floating_point() or value.is_complex():
        raise ShapeError(f"{owner}: symbols must have an integer dtype, got dtype={value.dtype}.")
    low, high = (int(v) for v in torch.aminmax(value)) if value.numel() else (0, 0)
    if low < 0 or high >= outputs:
        raise ShapeError(f"{owner}: symbols must be in [0, {outputs}), got values in [{low}, {high}].")
    return value
