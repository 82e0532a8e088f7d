"""Sums of different privacy losses: discretised from above, tilted, convolved by FFT, with every error counted."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from splitpriv.accounting.hockey_stick import SMALLEST, divergence, solve
from splitpriv.accounting.moments import (
    Atoms,
    Powers,
    best_tilt,
    bound_delta,
    bound_epsilon,
    log_moment,
    log_peak,
    rounding,
)
from splitpriv.mechanisms.rounding import round_down, round_up

Array = npt.NDArray[np.float64]

SIZE = 1 << 18
"""Points of the lattice: a power of two, for the FFT. Twice as many halve the lattice's step."""

MOST_USES = 1 << 36
"""Beyond so many uses rounding in the FFTs outweighs what they gain over the bound by moments."""

_U = 2.0**-53
_OUTSIDE = 45.0  # what the window leaves out is below exp(-_OUTSIDE) of the tilted sum
_SLIP = 1e-3  # share of delta that the lower bound gives away, so that its shift is small


@dataclass(frozen=True)
class Bounds:
    """Bounds on one number; the true one is between ``lower`` and ``upper``.

    Attributes:
        lower: never above the true number; may be loose.
        estimate: what a computation without error bounds would give.
        upper: never below the true number: the one to rely on.
    """

    lower: float
    estimate: float
    upper: float


def epsilon_of_sum(powers: Powers, delta: float) -> Bounds:
    """Bounds on epsilon at ``delta`` > 0 for independent losses, each repeated so many times."""
    infinite = infinite_mass(powers)
    finite = round_down(Fraction(delta) - Fraction(infinite))
    if finite <= 0:
        return Bounds(math.inf, math.inf, math.inf)
    tilt = best_tilt(powers, lambda t: (log_moment(powers, t) + log_peak(t) - math.log(finite)) / t)
    # A valid epsilon whatever the lattice gives: it also holds where numbers are too large for one.
    coarse = bound_epsilon(powers, finite)
    if sum(count for _, count in powers) > MOST_USES:
        return Bounds(0.0, coarse, coarse)
    found = Tilted(powers, tilt).epsilon(finite)
    return Bounds(found.lower, min(found.estimate, coarse), min(found.upper, coarse))


def delta_of_sum(powers: Powers, epsilon: float) -> float:
    """An upper bound on delta at ``epsilon`` >= 0 for independent losses, each repeated so many times."""
    infinite = infinite_mass(powers)
    if infinite >= 1:
        return 1.0
    tilt = best_tilt(powers, lambda t: log_moment(powers, t) + log_peak(t) - t * epsilon)
    finite = bound_delta(powers, epsilon)
    if sum(count for _, count in powers) <= MOST_USES:
        finite = min(finite, Tilted(powers, tilt).delta(epsilon))
    return min(1.0, round_up(Fraction(finite) + Fraction(infinite)))


def infinite_mass(powers: Powers) -> float:
    """Probability that any loss is infinite, rounded up."""
    if any(atoms.infinite >= 1 for atoms, count in powers if count):
        return 1.0
    log = sum(count * math.log1p(-atoms.infinite) for atoms, count in powers)
    return min(1.0, -math.expm1(log) * (1 + 1e-14))


class Tilted:
    r"""The distribution of a sum of losses on a lattice, each mass times :math:`e^{t \cdot loss}`.

    The tilt t moves the bulk of the distribution to the epsilon that is asked for, so that the errors
    below are relative to delta and not to 1. Four things are counted, all toward a larger epsilon:

    * A loss between two lattice points is split over both so that its probabilities under *either* input
      are kept; that only raises the hockey-stick curve, and by the square of the step.
    * Sums beyond the lattice's top have tilted mass at most ``stray`` (Chernoff); those below its
      bottom wrap around, which only adds.
    * The FFTs' rounding moves at most ``stray`` of tilted mass.
    * Sums and exponentials of floats.

    Source: Doroshenko, Ghazi, Kamath, Kumar, Manurangsi 2022 for the splitting; Koskela, Jälkö,
    Honkela 2020 for the Fourier accountant; Esscher 1932 for the tilt. That the splitting adds
    independent errors of mean at most h²/8 each gives the lower bound (Hoeffding 1963), as in Gopi, Lee,
    Wutschitz 2021.
    """

    def __init__(self, powers: Powers, tilt: float, size: int = SIZE) -> None:
        self.tilt = tilt
        self.uses = sum(count for _, count in powers)
        bottom, top = _window(powers, tilt)
        finest = max((top - bottom) / (size - 64), 1e-300, 2.0**-40 * max(abs(top), abs(bottom)))
        self.step = _snapped(powers, finest)
        gridded = [
            (Atoms(self.step * grid.astype(np.float64), masses), count, grid)
            for grid, masses, count in self._split(powers)
        ]
        split = [(atoms, count) for atoms, count, _ in gridded]
        self.log_moment = log_moment(split, tilt)
        self.first = math.floor(bottom / self.step) - 16
        self.last = self.first + size - 1
        self.masses, error = self._convolved(gridded, size)
        beyond = _tail(split, tilt, self.last * self.step)
        self.stray = error + beyond
        self.wrapped = beyond + _tail(split, tilt, self.first * self.step, upper=False)
        self._rounded_up = 2 * rounding(split, tilt) + 3e-13 * self.uses
        self._excess = sum(count * atoms.stretch for atoms, count in powers)

    def _split(self, powers: Powers) -> list[tuple[npt.NDArray[np.int64], Array, int]]:
        """(lattice points, masses, count): each loss over the two points around it."""
        found = []
        for atoms, count in powers:
            low = np.floor(atoms.losses / self.step)
            above = atoms.losses - low * self.step  # wrong by a rounding of the loss: covered by the next line
            blur = 4 * _U * (np.abs(atoms.losses) + self.step)
            width = -math.expm1(-self.step)
            up = -np.expm1(-np.clip(above + blur, 0, self.step)) / width
            stays = np.clip(above - blur, 0, self.step)
            down = np.exp(-stays) * -np.expm1(stays - self.step) / width
            points = np.concatenate([low, low + 1]).astype(np.int64)
            masses = np.concatenate([atoms.masses * down, atoms.masses * up]) * (1 + 16 * _U)
            grid, where = np.unique(points, return_inverse=True)
            joined: Array = np.bincount(where, masses).astype(np.float64)
            found.append((grid, joined * (1 + 1e-13), count))
        return found

    def _convolved(self, gridded: list[tuple[Atoms, int, npt.NDArray[np.int64]]], size: int) -> tuple[Array, float]:
        """The tilted masses of the sum, from the lattice's top downward, and a bound on their L1 error."""
        log_size = np.zeros(size // 2 + 1)
        phase = np.zeros(size // 2 + 1)
        log_bound, share = np.zeros(size // 2 + 1), np.zeros(size // 2 + 1)
        for atoms, count, grid in gridded:
            weights = atoms.masses * np.exp(self.tilt * atoms.losses - atoms.log_moment(self.tilt))
            wrapped = np.bincount(np.mod(grid, size), weights, minlength=size)
            factor = np.fft.rfft(wrapped)
            spread = 1 + self.tilt * float(np.abs(atoms.losses).max())
            each = _U * (16 * math.log2(size) + 32 * spread) * float(weights.sum())
            absolute = np.maximum(np.abs(factor), 1e-300)
            log_size += count * np.log(absolute)
            phase += np.mod(count * np.angle(factor), 2 * math.pi)
            log_bound += count * np.log(absolute + 2 * each)
            share += count * each / (absolute + each)
        product = np.exp(log_size + 1j * phase)
        bound = np.exp(np.minimum(log_bound, 300.0))  # at so many uses the bound by moments is the better one
        moved = math.sqrt(2 * float(np.sum((bound * share) ** 2)))
        moved += 16 * _U * math.log2(size) * 2 * float(np.sum(bound))
        cyclic = np.fft.irfft(product, size)
        ordered = np.roll(cyclic, -(self.first % size))[::-1]
        return np.maximum(ordered, 0.0), moved * (1 + 1e-9)

    # Read off --------------------------------------------------------------------------------

    def _logs(self) -> Array:
        """ln of what turns tilted masses into masses, from the top downward."""
        losses = self.step * np.arange(self.last, self.first - 1, -1, dtype=np.float64)
        slack = 1e-13 + 4 * _U * float(np.abs(losses).max()) * self.tilt
        return self.log_moment + slack - self.tilt * losses

    def _stray_at(self, epsilon: float) -> float:
        """ln of the most that one unit of tilted mass, wherever it lies, adds to delta."""
        exponent = self.log_moment - self.tilt * epsilon
        return exponent + log_peak(self.tilt) + 1e-13 + 4 * _U * abs(self.tilt * epsilon)

    def _solved(self, logs: Array, extra: float) -> float:
        masses = self.masses * np.exp(np.clip(logs, -745.0, 600.0))
        position, gap = solve(masses, self.step, extra)
        if gap == -math.inf:
            return math.inf
        return round_up((self.last - position) * Fraction(self.step) - Fraction(gap))

    def epsilon(self, delta: float) -> Bounds:
        """Bounds on epsilon at this delta; the upper one holds for all that the masses dominate."""
        logs = self._logs() - math.log(delta)
        raw = self._solved(logs, 0.0)
        astray = math.exp(min(600.0, self._stray_at(raw) - math.log(delta))) * self.stray
        upper = self._solved(logs, astray)
        return Bounds(self._lower(logs, raw, delta), max(0.0, raw), max(0.0, upper))

    def _lower(self, logs: Array, raw: float, delta: float) -> float:
        # The lattice's sum is the true one plus independent errors; those rarely pass ``shift``.
        rarely = -math.log(_SLIP) - math.log(delta)
        shift = self.uses * self.step**2 / 8 + self.step * math.sqrt(self.uses * rarely / 2)
        for margin in (1e-3, 1e-2, 1e-1):
            floor = raw - margin * max(1.0, abs(raw))
            lost = math.exp(min(600.0, self._stray_at(floor) - math.log(delta))) * (self.stray + self.wrapped)
            found = self._solved(logs - math.log1p(_SLIP + lost) - self._excess - self._rounded_up - 1e-9, 0.0)
            if found >= floor:
                return max(0.0, found - (shift + 2 * self._excess) * (1 + 1e-9) - 1e-9 * abs(found))
        return 0.0

    def delta(self, epsilon: float) -> float:
        """An upper bound on delta at this epsilon, infinite losses not counted."""
        last = math.ceil(epsilon / self.step)  # lattice points below add nothing
        above = min(self.last - last + 2, self.masses.size)
        if above <= 0:
            return self._capped(self._stray_at(epsilon) + math.log(self.stray))
        points = np.arange(self.last, self.last - above, -1, dtype=np.float64)
        gaps = np.maximum(0.0, points * self.step - epsilon + 4 * _U * (abs(epsilon) + np.abs(points * self.step)))
        logs = self._logs()[:above]
        peak = float(logs.max())
        total = divergence(self.masses[:above] * np.exp(logs - peak), gaps)
        astray = math.exp(min(600.0, self._stray_at(epsilon) - peak)) * self.stray
        return self._capped(peak + math.log(total + astray)) if total + astray else SMALLEST

    @staticmethod
    def _capped(log: float) -> float:
        return min(1.0, max(SMALLEST, math.exp(min(0.0, log)) * (1 + 1e-12)))


def _window(powers: Powers, tilt: float) -> tuple[float, float]:
    """An interval that holds nearly all of the tilted sum."""
    top = sum(count * float(atoms.losses.max()) for atoms, count in powers)
    bottom = sum(count * float(atoms.losses.min()) for atoms, count in powers)
    base = log_moment(powers, tilt)
    high = _least(powers, lambda s: (log_moment(powers, tilt + s) - base + _OUTSIDE) / s)
    low = -_least(powers, lambda s: (log_moment(powers, tilt - s) - base + _OUTSIDE) / s)
    return max(bottom, low), min(top, high)


def _least(powers: Powers, cost: Callable[[float], float]) -> float:
    return cost(best_tilt(powers, cost))


def _snapped(powers: Powers, step: float) -> float:
    """A step not below this one of which the loss that matters most is a multiple: it is then not split."""
    weights = [(n * a.masses * a.losses**2, a.losses) for a, n in powers]
    heaviest = max(((float(w.max()), abs(float(losses[w.argmax()]))) for w, losses in weights))[1]
    return heaviest / math.floor(heaviest / step) if heaviest >= step else step


def _tail(powers: Powers, tilt: float, edge: float, upper: bool = True) -> float:
    """An upper bound on the tilted mass above (or below) an edge."""
    sign = 1 if upper else -1
    extreme = sum(count * float((sign * atoms.losses).max()) for atoms, count in powers)
    if extreme <= sign * edge:
        return 0.0
    base = log_moment(powers, tilt)

    def exponent(s: float) -> float:
        return log_moment(powers, tilt + sign * s) - base - sign * s * edge

    least = exponent(best_tilt(powers, exponent))
    return math.exp(min(0.0, least + 1e-10 * (1 + abs(base))))
