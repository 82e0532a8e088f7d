"""Plaintexts on a grid: multiples of a known step betray the vector without any statistics."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_CLOSE = 0.98  # of a perfect fit, 1; entries that are wrong are at about 0 once a few records differ
_BLOCK = 1 << 22


def grid_fit(
    released: Tensor,  # shape: (records, elements), float64
    entries: Tensor,  # shape: (entries,), float64
    step: float,
    offset: Tensor,  # shape: (elements,), float64
) -> tuple[Tensor, Tensor]:  # shapes: (elements, entries), (elements,)
    r"""Sums over what is not zero, and how many that are, of

    .. math:: \cos \frac{2 \pi}{\text{step}} \left( \frac{s}{a} - \text{offset} \right),

    1 for each record where a is the entry, if x = offset + an integer times step.
    """
    fit = torch.zeros(released.shape[1], len(entries), dtype=released.dtype, device=released.device)
    for part in torch.split(released, max(1, _BLOCK // released.shape[1])):
        for column, entry in enumerate(entries.tolist()):
            phase = (part / entry - offset) * (2 * math.pi / step)
            fit[:, column] += torch.where(part != 0, phase.cos(), 0.0).sum(0)
    return fit, (released != 0).sum(0).to(released.dtype)


def on_grid(
    fit: Tensor,  # shape: (elements, entries)
    count: Tensor,  # shape: (elements,)
    phase: float,
) -> Tensor:  # shape: (elements, entries), bool
    """Which entries put everything on the grid as well as the best one does; all where none does, or nothing was seen.

    Args:
        fit: see :func:`grid_fit`.
        count: see :func:`grid_fit`.
        phase: what float32 rounding does to the angle, in radians.
    """
    mean = fit / count.clamp_min(1).unsqueeze(1)
    best = mean.amax(1, keepdim=True)
    return (mean >= best - 4 * phase**2) | (best < _CLOSE) | (count == 0).unsqueeze(1)


def rounding(released: Tensor, step: float) -> float:
    """What float32 rounding of the largest element does to an angle, in radians."""
    return 2 * math.pi / step * float(released.abs().max()) * 2.0**-23
