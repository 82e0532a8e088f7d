"""Which records an audit compares: the example's, and extremes around them, as far as the layer takes them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from splitpriv._errors import NonFiniteError, ShapeError, SplitPrivError

MOST = 16
"""Records of an example, or labels, that are compared."""


def example_of(
    owner: str,
    example: Any,  # shape: (batch, *feature), or (batch,) of integers
) -> Tensor:
    """Return the example, detached, if it is finite features, or labels.

    Raises:
        ShapeError: it is neither.
        NonFiniteError: it holds NaN or infinity.
    """
    if not isinstance(example, Tensor):
        raise ShapeError(f"{owner}: example must be a torch.Tensor, got example of type {type(example).__name__}.")
    if not _labels(example) and (not example.is_floating_point() or example.ndim < 2):
        raise ShapeError(
            f"{owner}: example must be features, floating-point of shape (batch, *feature), or labels, integers of "
            f"shape (batch,), got dtype={example.dtype}, shape={tuple(example.shape)}."
        )
    if not bool(torch.isfinite(example).all()):
        raise NonFiniteError(f"{owner}: example must be finite, got NaN or infinity in shape={tuple(example.shape)}.")
    return example.detach()


def _labels(example: Tensor) -> bool:
    whole = not (example.is_floating_point() or example.is_complex() or example.dtype == torch.bool)
    return whole and example.ndim == 1


def copies(
    record: Tensor,  # shape: (*feature)
    count: int,
) -> Tensor:  # shape: (count, *feature)
    """One record, ``count`` times."""
    return record.expand(count, *record.shape).contiguous()


def refusal(layer: Any, features: Tensor) -> Exception | None:
    """The layer's reason not to encode these features; None where it does."""
    try:
        layer.encode(features)
    except (SplitPrivError, ValueError) as error:
        return error
    return None


def accepts(layer: Any, features: Tensor) -> bool:
    """Whether the layer encodes these features at all."""
    return refusal(layer, features) is None


def records(
    layer: Any,
    example: Tensor,  # shape: (batch, *feature), or (batch,) of labels
) -> list[Tensor]:  # shapes: (*feature)
    """A few records that lie far apart and that the layer takes: some of the example's, and extremes.

    Of labels: the example's, and the layer's other classes.
    """
    tried = _classes(layer, example) if _labels(example) else _extremes(example)
    distinct = [r for i, r in enumerate(tried) if not any(torch.equal(r, other) for other in tried[:i])]
    return [record for record in distinct[:MOST] if accepts(layer, record[None])]


def _classes(layer: Any, example: Tensor) -> list[Tensor]:
    classes = torch.arange(getattr(layer, "classes", 0), dtype=example.dtype, device=example.device)
    return [*example[:MOST], *classes[: 2 * MOST]]


def _extremes(example: Tensor) -> list[Tensor]:
    reach = float(example.abs().max()) or 1.0
    first, most = example[0], torch.finfo(example.dtype).max
    tried = [*example[:3], -first, torch.zeros_like(first)]
    sizes = [min(most, scale * reach) for scale in (0.25, 1, 1e3)]
    tried += [torch.full_like(first, sign * size) for size in sizes for sign in (1, -1)]
    peak = torch.zeros_like(first).flatten()
    peak[0] = reach
    peak[-1] = -reach
    return [*tried, peak.reshape(first.shape), -peak.reshape(first.shape)]
