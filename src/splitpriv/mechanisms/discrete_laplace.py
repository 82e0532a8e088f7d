"""Laplace noise on an integer grid, with a fixed public output range."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from splitpriv._errors import InvalidParameterError
from splitpriv._validation import choice, message, positive
from splitpriv.mechanisms.blocks import Scratch
from splitpriv.mechanisms.channel import Channel, log_ratio, worst_ratio
from splitpriv.mechanisms.inverse import InverseTable
from splitpriv.mechanisms.randomness import Source
from splitpriv.mechanisms.rounding import exp_decimal, log_up, precise, show
from splitpriv.mechanisms.worst_pair import WorstPair

MAX_OUTPUTS = 4096
MAX_LEVELS = 257
_VARIANCE_CHANGE = 0.01


class DiscreteLaplace(Channel):
    r"""Adds two-sided geometric noise to a grid point and clamps the sum to a fixed range.

    Inputs are the ``levels = 2m + 1`` grid points -m..m (symbols 0..2m), outputs the points
    -R..R (symbols 0..2R). Noise n has weight proportional to :math:`\alpha^{|n|}`,
    :math:`\alpha = e^{-\epsilon/(2m)}`, so the two ends of the grid are epsilon apart. The whole
    tail beyond R + m is folded onto its ends *before* the weights are rounded to integers (cutting
    it off would give some outputs probability zero under one input alone), and a sum outside the
    range becomes its end. Epsilon is then read off those integers, and the nominal value lowered
    until the outward-rounded result is at most the one asked.

    The range is the narrowest for which clamping changes the variance of the noise, at the input
    where it changes most, by under 1 %; where that needs more than 4,096 outputs even on the
    coarsest grid, as wide as those allow.

    Args:
        epsilon: the privacy loss asked for, per symbol (natural log), > 0.
        levels: odd number of grid points, 3 to 257; None takes the finest of 3, 5, 9, ..., 257
            whose range meets the 1 % within 4,096 outputs (3 where none does).
        bits: 64, or 16 to make every random word enumerable (small grids only).

    Raises:
        InvalidParameterError: a parameter is out of range, or epsilon cannot be met with this many bits.

    Attributes:
        reach: R, the largest output grid point.
        variance_change: relative change of the noise variance by clamping, at the worst input.

    Does not protect: which side of a wide range a record lies on after many releases (losses add).

    Source: Ghosh, Roughgarden, Sundararajan 2012 (geometric mechanism); folding the tail keeps
    the ratio of every column, since a sum of terms with bounded ratios has the same bound.

    Example:
        >>> channel = DiscreteLaplace(epsilon=1.0, levels=5)
        >>> channel.inputs, channel.outputs, channel.epsilon <= 1.0
        (5, 55, True)
    """

    def __init__(self, *, epsilon: float, levels: int | None = None, bits: int = 64) -> None:
        self.asked = positive("DiscreteLaplace", "epsilon", epsilon)
        if self.asked < 2.0**-60:
            constraint = "large enough to be expressed in 64 bits"
            raise InvalidParameterError(message("DiscreteLaplace", "epsilon", constraint, epsilon))
        if levels is None:
            levels = _finest_levels(self.asked)
        if not isinstance(levels, int) or levels % 2 == 0 or not 3 <= levels <= MAX_LEVELS:
            constraint = f"an odd int in [3, {MAX_LEVELS}]"
            raise InvalidParameterError(message("DiscreteLaplace", "levels", constraint, levels))
        self.bits: int = choice("DiscreteLaplace", "bits", bits, (16, 64))
        self.inputs = levels
        self.half = levels // 2
        self.reach = _reach(self.asked, levels)
        self.outputs = 2 * self.reach + 1
        self.total = 1 << bits
        self._tails, self._weights, ratio = _calibrate(self.asked, self.half, self.reach, bits)
        self._ratio = ratio

    @cached_property
    def epsilon_ratio(self) -> Fraction | None:
        """exp(epsilon), exactly, from the integers that run."""
        return self._ratio

    @cached_property
    def adjacent_ratio(self) -> Fraction | None:
        """exp of the worst privacy loss between two neighbouring grid points, from the integers that run.

        What noise on several elements costs follows from it: its logarithm times the L1 distance in steps.
        """
        inside = [(max(pair), min(pair)) for pair in pairwise(self._weights[: self.reach + self.half])]
        ends = pairwise(self._tails[self.reach - self.half : self.reach + self.half + 1])
        return worst_ratio([*inside, *ends])

    @property
    def variance_change(self) -> float:
        """Relative change of the noise variance by clamping, at the input where it is largest."""
        return _variance_change(self.asked / (2 * self.half), self.reach - self.half, 2 * self.half)

    def worst_pair(self) -> WorstPair | None:
        """The two ends of the grid, with the stretch that covers the rounding of the weights.

        Unrounded geometric noise is log-concave, and clamping keeps its likelihood ratios monotone. The
        best test of x < x' is then "y <= t"; its two error probabilities are the tails of x and of x',
        and at every t those are furthest apart for the two ends. If each integer is within a factor
        1 +- η of such a family, the curves of both differ by ln((1+η)/(1-η)) in loss and in mass.
        """
        stretch = _stretch(self._tails, self._weights, self.half, self.reach)
        if stretch is None:
            return None
        return WorstPair.of(self._row(-self.half), self._row(self.half), stretch)

    def _table(self) -> list[list[int]]:
        return [self._row(x) for x in range(-self.half, self.half + 1)]

    def _row(self, x: int) -> list[int]:
        weights, reach = self._weights, self.reach
        inside = [weights[abs(y - x)] for y in range(1 - reach, reach)]
        return [self._tails[x + reach], *inside, self._tails[reach - x]]

    @cached_property
    def kernel(self) -> InverseTable:
        """Draws the noise, shifted by R + m so that it is never negative."""
        return InverseTable([*self._weights[:0:-1], *self._weights], self.bits, first_bits=16)

    def _draw(self, symbols: npt.NDArray[Any], source: Source) -> npt.NDArray[Any]:
        return self.draw_block(symbols, source, Scratch())

    def _draw_block(self, symbols: npt.NDArray[Any], source: Source, scratch: Scratch) -> npt.NDArray[Any]:
        return self.draw_block(symbols, source, scratch)

    def draw_block(self, symbols: npt.NDArray[Any], source: Source, scratch: Scratch) -> npt.NDArray[Any]:
        """One draw per input symbol, unchecked; the outputs lie in ``scratch`` until it is used again."""
        noise = self.kernel.draw(symbols.size, source, scratch)
        return self.decide_output(symbols, noise, noise if noise.dtype == np.int16 else None)

    def decide_output(
        self, symbols: npt.NDArray[Any], noise: npt.NDArray[Any], out: npt.NDArray[Any] | None = None
    ) -> npt.NDArray[Any]:
        """The output symbol for an input symbol and a draw of ``kernel``: add and clamp.

        Args:
            symbols: in [0, levels).
            noise: outcomes of ``kernel``.
            out: int16, where to write the output symbols; None for memory of their own.
        """
        # symbol - m is the grid point, noise - (R + m) the noise, and + R the output's symbol. None of
        # the sums passes 2**13, so 16 bits hold them.
        shifted = np.add(symbols, noise, out=out, dtype=np.int16, casting="unsafe")
        shifted -= np.int16(2 * self.half)
        clamped: npt.NDArray[Any] = np.clip(shifted, np.int16(0), np.int16(2 * self.reach), out=shifted)
        return clamped

    def _log_prob(self, outputs: Tensor, inputs: Tensor) -> Tensor:
        y, x = outputs - self.reach, inputs - self.half
        inner = self._log_weights.to(outputs.device)[(y - x).abs()]
        ends = self._log_tails.to(outputs.device)[self.reach - x * y.sign()]
        return torch.where(y.abs() == self.reach, ends, inner)

    @cached_property
    def _log_weights(self) -> Tensor:
        return torch.tensor([log_ratio(w, self.total) for w in self._weights], dtype=torch.float64)

    @cached_property
    def _log_tails(self) -> Tensor:
        logs = [log_ratio(t, self.total) for t in self._tails]
        return torch.tensor(logs, dtype=torch.float64)

    def __repr__(self) -> str:
        return (
            f"DiscreteLaplace(epsilon={show(self.epsilon)}, levels={self.inputs}, outputs={self.outputs}, "
            f"clamping changes the variance by {100 * self.variance_change:.3g} %)"
        )


def _variance_change(step_epsilon: float, room: int, far: int) -> float:
    """Relative variance change at a grid end: ``room`` steps to the near end, ``room + far`` to the other."""
    a = math.exp(-step_epsilon)
    gap = -math.expm1(-step_epsilon)  # 1 - a, without cancellation

    def cut(c: int) -> tuple[float, float]:
        # Sums over n > c of (n**2 - c**2) p(n) and (n - c) p(n), p(n) = gap / (1 + a) * a**n.
        scale = gap / (1 + a) * math.exp(-step_epsilon * c)
        return scale * (2 * c * a / gap**2 + a * (1 + a) / gap**3), scale * a / gap**2

    near, near_mean = cut(room)
    other, other_mean = cut(room + far)
    return (near + other + (near_mean - other_mean) ** 2) / (2 * a / gap**2)


def _needed_reach(epsilon: float, levels: int) -> int:
    """The smallest R >= m for which clamping changes the variance by under 1 %."""
    step, far = epsilon / (levels - 1), levels - 1
    low, high = 0, 1
    while _variance_change(step, high, far) >= _VARIANCE_CHANGE:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _variance_change(step, middle, far) >= _VARIANCE_CHANGE else (low, middle)
    return levels // 2 + high


def _reach(epsilon: float, levels: int) -> int:
    return min(_needed_reach(epsilon, levels), (MAX_OUTPUTS - 1) // 2)


def _finest_levels(epsilon: float) -> int:
    for levels in (257, 129, 65, 33, 17, 9, 5):
        if 2 * _needed_reach(epsilon, levels) + 1 <= MAX_OUTPUTS:
            return levels
    return 3


@lru_cache(maxsize=256)
def _calibrate(asked: float, half: int, reach: int, bits: int) -> tuple[list[int], list[int], Fraction]:
    """Integer tails and weights whose outward-rounded epsilon is at most ``asked``."""
    nominal = Fraction(asked)
    for attempt in range(64):
        tails, weights = _integers(nominal, half, reach, bits)
        ratio = _grid_ratio(tails, weights, half, reach)
        realised = log_up(ratio)
        if ratio is not None and realised <= asked:
            return tails, weights, ratio
        excess = Fraction(realised) - Fraction(asked) if ratio is not None else nominal / 2
        nominal -= excess * (1 + attempt) + Fraction(asked) / 2**52
        if nominal <= 0:
            break
    constraint = f"one that a grid of {2 * half + 1} levels can meet with {bits} bits"
    raise InvalidParameterError(message("DiscreteLaplace", "epsilon", constraint, asked))


def _integers(nominal: Fraction, half: int, reach: int, bits: int) -> tuple[list[int], list[int]]:
    """tails[k]: words whose noise is >= k. weights[n]: words whose noise is n (or -n)."""
    context = precise()
    decay = exp_decimal(-nominal / (2 * half))
    size = reach + half
    tail = context.divide(1 << bits, context.add(1, decay))
    exact = []
    for _ in range(size):
        tail = context.multiply(tail, decay)
        exact.append(int(tail.to_integral_value()))
    tails = [0] * (size + 1)
    floor = 0
    for k in range(size, 0, -1):
        # At least one word each: an output that one input alone can reach would cost infinity.
        floor = tails[k] = max(exact[k - 1], floor + 1)
    tails[0] = (1 << bits) - tails[1]
    weights = [tails[k] - tails[k + 1] for k in range(size)] + [tails[size]]
    return tails, weights


def _grid_ratio(tails: list[int], weights: list[int], half: int, reach: int) -> Fraction | None:
    """exp(epsilon) of the channel, from its distances: columns are windows of the weights."""
    if tails[reach - half] <= 0 or any(w <= 0 for w in weights):
        return None
    columns = [(tails[reach - half], tails[reach + half])]
    falling = all(a >= b for a, b in pairwise(weights[:-1]))
    for y in range(reach):
        near, far = max(0, y - half), y + half
        window = [weights[near], weights[far]] if falling else weights[near : far + 1]
        columns.append((max(window), min(window)))
    return worst_ratio(columns)


def _stretch(tails: list[int], weights: list[int], half: int, reach: int) -> float | None:
    """ln((1+η)/(1-η)), rounded up, η the largest relative distance from unrounded geometric noise.

    None where the weights are too coarse for that to be a useful bound.
    """
    context = precise()
    decay = context.divide(tails[2], tails[1])
    ideal_tail = context.divide(tails[1], decay)  # of noise >= 0, if it were geometric there too
    farthest = Decimal(0)
    for n in range(reach + half + 1):
        used = [(weights[n], context.multiply(ideal_tail, 1 - decay))] if n < reach + half else []
        if n >= reach - half:
            used.append((tails[n], ideal_tail))
        for integer, ideal in used:
            farthest = max(farthest, abs(context.divide(integer, ideal) - 1))
        ideal_tail = context.multiply(ideal_tail, decay)
    return None if farthest > Decimal("0.001") else 2.01 * float(farthest) + 1e-60
