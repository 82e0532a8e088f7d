"""The area under a ROC, and an interval for it that few records or few errors do not make too narrow."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import betainccinv, betaincinv

Scores = npt.NDArray[np.float64]
Counts = npt.NDArray[Any]


def area(members: Scores, non_members: Scores) -> float:
    """The chance that a member's score is above a non-member's, a tie counting one half."""
    higher, lower = _counts(members, non_members)
    return float(higher @ _below(lower) / len(members))


def area_interval(members: Scores, non_members: Scores, *, confidence: float) -> tuple[float, float]:
    """That of a share of so many independent pairs as would vary as much as the area does.

    The variance is DeLong's, with one more record in each group that speaks against what was found: without, it is zero
    where nothing was. Whatever the distributions, the area varies no more than the share among as many pairs as the
    smaller group has records (van Dantzig 1951), and it is 1 no more often than that: fewer pairs are never taken.
    """
    higher, lower = _counts(members, non_members)
    found, smaller = float(higher @ _below(lower) / len(members)), min(len(members), len(non_members))
    first, last = (1, 0) if found >= 0.5 else (0, 1)
    higher, lower = np.r_[first, higher, last], np.r_[last, lower, first]
    below, above = _below(lower), 1 - _below(higher)  # of a score: the share of others that it is on the right side of
    centre = float(higher @ below / higher.sum())
    variance = higher @ (below - centre) ** 2 / higher.sum() / len(members)
    variance += lower @ (above - centre) ** 2 / lower.sum() / len(non_members)
    alike = centre * (1 - centre) / variance * smaller / (smaller + 1)  # less what the two records add
    pairs = max(smaller, alike) if 0 < found < 1 else smaller
    hits, alpha = pairs * found, (1 - confidence) / 2
    low = float(betaincinv(hits, pairs - hits + 1, alpha)) if found > 0 else 0.0
    return low, float(betainccinv(hits + 1, pairs - hits, alpha)) if found < 1 else 1.0


def _counts(members: Scores, non_members: Scores) -> tuple[Counts, Counts]:
    """How many of each group have each score that occurs, ascending."""
    levels, codes = np.unique(np.concatenate([members, non_members]), return_inverse=True)
    groups = codes[: len(members)], codes[len(members) :]
    higher, lower = (np.bincount(group, minlength=len(levels)) for group in groups)
    return higher, lower


def _below(counts: Counts) -> Scores:
    """The share of a group that is below each score, half of those at it included."""
    shares: Scores = (np.cumsum(counts) - 0.5 * counts) / counts.sum()
    return shares
