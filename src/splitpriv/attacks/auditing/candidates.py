"""Which records an audit compares: the example's, and extremes around them, as far as the layer takes them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from splitpriv._errors import SplitPrivError


def copies(
    record: Tensor,  # shape: (*feature)
    count: int,
) -> Tensor:  # shape: (count, *feature)
    """One record, ``count`` times."""
    return record.expand(count, *record.shape).contiguous()


def accepts(layer: Any, features: Tensor) -> bool:
    """Whether the layer encodes these features at all."""
    try:
        layer.encode(features)
    except (SplitPrivError, ValueError):
        return False
    return True


def records(
    layer: Any,
    example: Tensor,  # shape: (batch, *feature)
) -> list[Tensor]:  # shapes: (*feature)
    """A few records that lie far apart and that the layer takes: some of the example's, and extremes."""
    reach = float(example.abs().max()) or 1.0
    first, most = example[0], torch.finfo(example.dtype).max
    tried = [*example[:3], -first, torch.zeros_like(first)]
    sizes = [min(most, scale * reach) for scale in (0.25, 1, 1e3)]
    tried += [torch.full_like(first, sign * size) for size in sizes for sign in (1, -1)]
    peak = torch.zeros_like(first).flatten()
    peak[0] = reach
    peak[-1] = -reach
    tried += [peak.reshape(first.shape), -peak.reshape(first.shape)]
    distinct = [r for i, r in enumerate(tried) if not any(torch.equal(r, other) for other in tried[:i])]
    return [record for record in distinct if accepts(layer, record[None])]
