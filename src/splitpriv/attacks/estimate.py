"""A figure with its confidence interval, and the few ways to get one."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import betainccinv, betaincinv

from splitpriv import _validation as check
from splitpriv._errors import InvalidParameterError

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Estimate:
    """A figure measured on a sample, and an interval that covers the truth with a stated confidence.

    Attributes:
        value: what was measured.
        low: lower end of the interval.
        high: upper end of the interval.
        confidence: in (0, 1); two-sided.
        count: number of records (or draws) that it rests on.
        method: how the interval was made.
    """

    value: float
    low: float
    high: float
    confidence: float
    count: int
    method: str

    def __str__(self) -> str:
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}]"

    def to_dict(self) -> dict[str, Any]:
        """The attributes, for JSON."""
        return asdict(self)


def lower_bound(hits: int, draws: int, alpha: float) -> float:
    """Clopper-Pearson: below the probability of a hit, except with probability ``alpha``."""
    return float(betaincinv(hits, draws - hits + 1, alpha)) if hits else 0.0


def upper_bound(hits: int, draws: int, alpha: float) -> float:
    """Clopper-Pearson: above the probability of a hit, except with probability ``alpha``."""
    return float(betainccinv(hits + 1, draws - hits, alpha)) if hits < draws else 1.0


def proportion(hits: int, draws: int, *, confidence: float = 0.95) -> Estimate:
    """A share of draws, with its Clopper-Pearson interval (exact for independent draws).

    Args:
        hits: number of hits, in [0, draws].
        draws: number of draws, >= 1.
        confidence: of the two-sided interval, in (0, 1).

    Raises:
        InvalidParameterError: an argument is outside its range.

    Source: Clopper, Pearson 1934.

    Example:
        >>> print(proportion(95, 100))
        0.95 [0.887, 0.984]
    """
    check.integer("proportion", "draws", draws, 1)
    check.integer("proportion", "hits", hits, 0, draws)
    alpha = (1 - level_of("proportion", confidence)) / 2
    low, high = lower_bound(hits, draws, alpha), upper_bound(hits, draws, alpha)
    return Estimate(hits / draws, low, high, confidence, draws, "Clopper-Pearson")


def bootstrap(
    statistic: Callable[..., float],
    *groups: Array,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """A statistic of one or more groups of records, with a percentile bootstrap interval.

    Each group is resampled by itself, records with replacement. The interval is approximate; it is narrower than it
    should be for few records, and says nothing of how the model or the attack would vary in another run.

    Args:
        statistic: called with one array per group.
        groups: each with one row per record, >= 1.
        confidence: of the two-sided interval, in (0, 1).
        resamples: >= 100.
        seed: of the resampling.

    Raises:
        InvalidParameterError: an argument is outside its range.

    Source: Efron 1979.

    Example:
        >>> bootstrap(np.mean, np.arange(9.0)).value
        4.0
    """
    level = level_of("bootstrap", confidence)
    check.integer("bootstrap", "resamples", resamples, 100)
    check.integer("bootstrap", "seed", seed, 0)
    if not groups or any(len(group) < 1 for group in groups):
        sizes = [len(group) for group in groups]
        raise InvalidParameterError(check.message("bootstrap", "groups", "one or more non-empty arrays", sizes))
    rng = np.random.default_rng(seed)
    drawn = [
        statistic(*(group[rng.integers(len(group), size=len(group))] for group in groups)) for _ in range(resamples)
    ]
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    value = float(statistic(*groups))
    return Estimate(value, float(low), float(high), level, sum(map(len, groups)), "bootstrap")


def mean(values: Array, *, confidence: float = 0.95, seed: int = 0) -> Estimate:
    """The mean over records, with a percentile bootstrap interval; NaN where every value is.

    Values that are NaN (undefined for that record) are left out, and do not count.

    Args:
        values: one per record, at least one.
        confidence: of the two-sided interval, in (0, 1).
        seed: of the resampling.

    Raises:
        InvalidParameterError: there are no values, or an argument is outside its range.
    """
    values = np.asarray(values, dtype=np.float64)
    defined = values[~np.isnan(values)]
    if values.size and not defined.size:
        return Estimate(math.nan, math.nan, math.nan, level_of("mean", confidence), 0, "undefined")
    return bootstrap(np.mean, defined, confidence=confidence, seed=seed)


def level_of(owner: str, confidence: float) -> float:
    """A confidence, checked."""
    level = check.positive(owner, "confidence", confidence)
    if level >= 1:
        raise InvalidParameterError(check.message(owner, "confidence", "below 1", confidence))
    return level
