"""Optimal composition of equal pure mechanisms: the binomial tail of repeated randomized response."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from splitpriv.accounting.hockey_stick import SMALLEST, divergence, solve
from splitpriv.accounting.moments import Atoms, bound_delta, bound_epsilon
from splitpriv.mechanisms.rounding import round_up, scale_up

Array = npt.NDArray[np.float64]

LARGEST = 1 << 30
"""Above so many uses the sum is bounded by its moments instead of being written out."""

_U = 2.0**-53
_DEEP = 760.0  # exp(-_DEEP) is below the smallest float
_NEGLIGIBLE = 45.0  # exp(-45) is below the rounding of what it is added to


def optimal_delta(epsilon0: float, uses: int, epsilon: float) -> float:
    r"""The smallest delta of ``uses`` mechanisms that are each ``epsilon0``-private, rounded up.

    .. math:: \delta(\epsilon) = \sum_{j} \binom{k}{j} q^j (1-q)^{k-j}
              \bigl(1 - e^{\epsilon - (k - 2j)\epsilon_0}\bigr)_+, \qquad q = \frac{1}{1 + e^{\epsilon_0}}

    Every term is positive, so no digit is lost in their sum, and each carries a bound on its error.

    Source: Kairouz, Oh, Viswanath 2015, theorem 3.3: every ``epsilon0``-private mechanism is
    randomized response at ``epsilon0``, processed further, also where mechanisms are chosen adaptively.
    """
    if uses == 0 or epsilon >= scale_up(epsilon0, uses):
        return 0.0
    if math.isinf(epsilon0):
        return 1.0
    if uses > LARGEST:
        return bound_delta([(Atoms.randomized_response(epsilon0), uses)], epsilon)
    # The fewest and most flips, j, at which the loss (k - 2j) epsilon0 is above epsilon.
    last = math.ceil((uses - Fraction(epsilon) / Fraction(epsilon0)) / 2) - 1
    if last < 0:
        return 0.0
    depth = _rarity(last, uses, epsilon0) if last < uses * _flip(epsilon0) else 0.0
    if depth > _DEEP:
        return SMALLEST
    flips = _Flips.between(epsilon0, uses, depth + 2 * _NEGLIGIBLE)
    if last < flips.first:
        return SMALLEST
    gap = round_up((uses - 2 * last) * Fraction(epsilon0) - Fraction(epsilon))
    top = min(last, flips.last)
    logs = flips.logs[: top - flips.first + 1]
    peak = float(logs.max())
    gaps = gap + 2 * epsilon0 * np.arange(last - flips.first, last - top - 1, -1, dtype=np.float64)
    total = divergence(np.exp(logs - peak), gaps) * (1 + flips.error)
    outside = math.exp(-flips.rest - peak) if flips.first else 0.0
    if last > flips.last:
        outside += math.exp(-_NEGLIGIBLE - peak)
    return min(1.0, max(SMALLEST, math.exp(peak) * (total + 2 * outside) * (1 + 1e-12)))


def optimal_epsilon(epsilon0: float, uses: int, delta: float) -> float:
    """The smallest epsilon at ``delta`` of ``uses`` mechanisms, each ``epsilon0``-private, rounded up.

    The continuous inverse of :func:`optimal_delta`: not only the multiples of ``epsilon0`` that the
    theorem's statement lists.
    """
    pure = scale_up(epsilon0, uses)
    if delta == 0 or pure == 0 or math.isinf(pure):
        return pure
    if uses > LARGEST:
        return min(pure, bound_epsilon([(Atoms.randomized_response(epsilon0), uses)], delta))
    flips = _Flips.between(epsilon0, uses, -math.log(delta) + _NEGLIGIBLE)
    masses = np.exp(np.minimum(flips.logs - math.log(delta), 600.0)) * (1 + flips.error)
    beyond = 2 * math.exp(-flips.rest - math.log(delta)) if flips.first else 0.0
    position, gap = solve(masses, 2 * epsilon0, beyond)
    reached = Fraction(epsilon0) * (uses - 2 * (flips.first + position)) - Fraction(gap)
    return min(pure, round_up(max(reached, Fraction(0))))


@dataclass(frozen=True)
class _Flips:
    """ln of the binomial probabilities of j flips, first <= j <= last, each too large by ``error`` at most.

    Fewer flips than ``first`` have probability at most exp(-rest).
    """

    first: int
    last: int
    logs: Array
    error: float
    rest: float

    @classmethod
    def between(cls, epsilon0: float, uses: int, rest: float) -> _Flips:
        middle = min(int((uses + 1) * _flip(epsilon0)), uses)
        first = _where_rare(0, middle, rest, uses, epsilon0)
        last = _where_rare(uses, middle, _NEGLIGIBLE, uses, epsilon0)
        # Ratios of neighbours are exact but for rounding; their sum is 1, which fixes the scale.
        j = np.arange(first + 1, last + 1, dtype=np.float64)
        odds = np.log((uses - j + 1) / j)
        steps = odds - epsilon0
        split = middle - first
        down = -_running(steps[:split][::-1])[::-1]
        logs = np.concatenate([down, [0.0], _running(steps[split:])])
        each = 4 * _U * (1 + epsilon0 + float(np.abs(odds).max(initial=0.0)))
        heights = float(np.abs(logs).max())
        error = j.size * each + (2 * math.isqrt(j.size) + 8) * _U * (heights + 1)
        # What lies outside is missing from the sum, which makes the others larger.
        logs -= math.log(float(np.exp(logs).sum()))
        return cls(first, last, logs, 3 * error + 1e-13, rest)


def _running(steps: Array) -> Array:
    """Cumulative sums in two levels: the error grows with the root of their number."""
    width = max(1, math.isqrt(steps.size))
    padded = np.zeros(-(-steps.size // width) * width)
    padded[: steps.size] = steps
    rows = np.cumsum(padded.reshape(-1, width), axis=1)
    rows[1:] += np.cumsum(rows[:-1, -1])[:, None]
    return rows.reshape(-1)[: steps.size]


def _flip(epsilon0: float) -> float:
    odds = math.exp(-epsilon0)
    return odds / (1 + odds)


def _rarity(flips: int, uses: int, epsilon0: float) -> float:
    """k KL(j/k, q): that many flips, or further from the mean, have probability at most exp(-that).

    Source: Chernoff 1952. A little is taken off for rounding.
    """
    log_keep = -math.log1p(math.exp(-epsilon0))
    exponent = 0.0
    if flips:
        exponent += flips * (math.log(flips / uses) - log_keep + epsilon0)
    if flips < uses:
        exponent += (uses - flips) * (math.log1p(-flips / uses) - log_keep)
    return exponent * (1 - 1e-9) - 1e-9 - uses * 1e-14 * (1 + epsilon0)


def _where_rare(end: int, middle: int, rest: float, uses: int, epsilon0: float) -> int:
    """The number of flips nearest to ``middle`` that is this rare; ``end`` if none is."""
    if _rarity(end, uses, epsilon0) < rest:
        return end
    far, near = end, middle
    while abs(far - near) > 1:
        half = (far + near) // 2
        far, near = (half, near) if _rarity(half, uses, epsilon0) >= rest else (far, half)
    return far
