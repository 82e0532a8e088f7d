"""Sums over losses on a lattice: delta at an epsilon, and epsilon at a delta."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

SMALLEST = math.nextafter(0.0, 1.0)
"""What a positive delta too small for a float is rounded up to."""

_SLACK = 1e-13  # covers the rounding of exp, expm1 and of NumPy's pairwise sums


def divergence(masses: Array, gaps: Array) -> float:
    """The sum of mass (1 - exp(-gap)), rounded up; ``gaps`` >= 0 are losses less epsilon."""
    return float(np.sum(masses * -np.expm1(-gaps))) * (1 + _SLACK)


def solve(masses: Array, step: float, beyond: float) -> tuple[int, float]:
    """Where on a lattice of losses the divergence reaches 1.

    Args:
        masses: of losses top, top - step, top - 2 step, ...; in units of the delta sought.
        step: distance of two losses, > 0.
        beyond: mass of losses above the top.

    Returns:
        (i, gap), 0 <= gap <= step: epsilon is top - i step - gap. Both are rounded so that
        epsilon is never too small; (0, -inf) where what is beyond the top is already too much.
    """
    if beyond > 1:
        return 0, -math.inf
    low, high = 0, masses.size  # at low the divergence is at most 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _at(masses, step, middle) + beyond <= 1 else (low, middle)
    near = float(np.sum(masses[: low + 1] * np.exp(-_distances(low + 1, step)))) * (1 + _SLACK)
    room = 1 - _at(masses, step, low) - beyond - 4 * _SLACK
    if room <= 0 or near == 0:
        return low, 0.0 if near else step
    share = room / near * (1 - _SLACK)
    gap = -math.log1p(-share) if share < 1 else math.inf
    return low, min(gap * (1 - _SLACK), step)


def _at(masses: Array, step: float, position: int) -> float:
    """The divergence at epsilon = top - position step."""
    return divergence(masses[:position], _distances(position + 1, step)[:-1])


def _distances(count: int, step: float) -> Array:
    return step * np.arange(count - 1, -1, -1, dtype=np.float64)
