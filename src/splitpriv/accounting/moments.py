"""Exponential moments of privacy losses: a bound at any number of uses, and the tilt for exact sums."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

_SLACK = 1e-12  # relative and absolute, for sums of a few thousand positive floats in logarithms


@dataclass(frozen=True)
class Atoms:
    """A discrete privacy-loss distribution: masses at finite losses, and the mass at infinity.

    Masses need not sum to one: what bounds a hockey-stick curve from above may be larger. ``stretch``
    says by how much: that in the logarithm of each mass and twice that in each loss.
    """

    losses: Array
    masses: Array
    infinite: float = 0.0
    stretch: float = 0.0

    @classmethod
    def randomized_response(cls, epsilon: float) -> Atoms:
        """What dominates every ``epsilon``-private mechanism."""
        keep = 1 / (1 + math.exp(-epsilon))
        # What underflows is rounded up, like all the rest.
        masses = np.maximum(np.array([math.exp(-epsilon) * keep, keep]) * (1 + 1e-15), math.nextafter(0.0, 1.0))
        return cls(np.array([-epsilon, epsilon]), masses)

    def log_moment(self, tilt: float) -> float:
        """ln of the sum of mass exp(tilt loss), finite losses only."""
        exponents = self.losses * tilt
        peak = float(exponents.max())
        total = float(np.sum(self.masses * np.exp(exponents - peak)))
        if total > 0:
            return peak + math.log(total)
        with np.errstate(divide="ignore"):  # the largest exponent meets a mass that underflows
            exponents = exponents + np.log(self.masses)
        peak = float(exponents.max())
        return peak + math.log(float(np.sum(np.exp(exponents - peak))))


Powers = Sequence[tuple[Atoms, int]]


def log_moment(powers: Powers, tilt: float) -> float:
    """ln of the moment of the sum of all losses, rounded up."""
    return sum(count * atoms.log_moment(tilt) for atoms, count in powers) + rounding(powers, tilt)


def rounding(powers: Powers, tilt: float) -> float:
    """A bound on the rounding errors of :func:`log_moment`."""
    sizes = (n * (abs(a.log_moment(tilt)) + abs(tilt) * float(np.abs(a.losses).max())) for a, n in powers)
    return _SLACK * (1 + sum(sizes)) + 1e-14 * sum(n for _, n in powers)


def log_peak(tilt: float) -> float:
    """ln of the largest exp(-tilt x) (1 - exp(-x)) over x > 0."""
    return tilt * (math.log(tilt) - math.log1p(tilt)) - math.log1p(tilt) + _SLACK * (1 + tilt)


def bound_epsilon(powers: Powers, delta: float) -> float:
    r"""An epsilon that holds at ``delta`` for what has only finite losses, rounded up.

    .. math:: \delta(\epsilon) \le e^{K(t) - t \epsilon} \, \frac{t^t}{(1 + t)^{1 + t}}

    for every t > 0, where K is the logarithm of the loss's moment; the best t is taken.

    Source: Canonne, Kamath, Steinke 2020, proposition 12.
    """
    tilt = best_tilt(powers, lambda t: (_exponent(powers, t) - math.log(delta)) / t)
    found = (_exponent(powers, tilt) - math.log(delta)) / tilt
    return max(0.0, found + 1e-12 * abs(found))


def bound_delta(powers: Powers, epsilon: float) -> float:
    """The other way round: a delta that holds at ``epsilon``. See :func:`bound_epsilon`."""
    tilt = best_tilt(powers, lambda t: _exponent(powers, t) - t * epsilon)
    exponent = _exponent(powers, tilt) - tilt * epsilon + _SLACK * tilt * epsilon
    return min(1.0, max(math.nextafter(0.0, 1.0), math.exp(min(0.0, exponent)) * (1 + 1e-12)))


def _exponent(powers: Powers, tilt: float) -> float:
    return log_moment(powers, tilt) + log_peak(tilt)


def best_tilt(powers: Powers, cost: Callable[[float], float]) -> float:
    """The tilt at which ``cost`` is about least, by golden section on its logarithm.

    Any tilt gives a valid bound, so nothing rests on how good it is.
    """
    spread = math.sqrt(sum(n * float(np.sum(a.masses * a.losses**2)) for a, n in powers))
    low, high = math.log(1e-6 / (1 + spread)), math.log(1e3 * (1 + 1 / max(spread, 1e-12)))
    golden = (math.sqrt(5) - 1) / 2
    for _ in range(60):
        left, right = high - golden * (high - low), low + golden * (high - low)
        low, high = (low, right) if cost(math.exp(left)) <= cost(math.exp(right)) else (left, high)
    return math.exp((low + high) / 2)
