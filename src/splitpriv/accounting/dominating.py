"""The privacy-loss distribution that dominates a channel: of all ordered pairs of its rows at once."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise, permutations

import numpy as np

from splitpriv.accounting.moments import Atoms
from splitpriv.mechanisms import Channel
from splitpriv.mechanisms.channel import MAX_ENTRIES, Cascade
from splitpriv.mechanisms.rounding import round_up

Outcomes = Mapping[tuple[int, int], int]
Line = tuple[int, int]  # (p, q): the function p - alpha q

MAX_STEPS = 1 << 18
"""Comparisons after which randomized response at the channel's epsilon is taken instead."""


@lru_cache(maxsize=64)
def dominating(channel: Channel) -> Atoms:
    r"""A discrete distribution of losses whose hockey-stick curve is at least that of all pairs of rows.

    .. math:: H(\alpha) = \max_{x, x'} \sum_y \bigl(\Pr[y|x] - \alpha \Pr[y|x']\bigr)_+

    is a maximum of convex piecewise linear functions of α, hence one itself; its kinks are the
    losses, its changes of slope their masses. Computed on the channel's integers and exact but for
    the last rounding to floats, which is outward. Where that would take too long, randomized response at
    the channel's epsilon, which dominates every mechanism of that epsilon.

    Source: Zhu, Dong, Wang 2022, proposition 8 (every such curve is that of some pair) and theorem 10
    (dominating pairs compose, adaptively); Kairouz, Oh, Viswanath 2015 for randomized response.
    """
    known = channel.worst_pair()
    if known is not None:
        return _of_pair(known.outcomes, channel.total, known.stretch)
    curves = _curves(channel)
    if curves is not None:
        if len(curves) == 1:
            return _of_pair(curves[0], channel.total, 0.0)
        kinks = {p / q for curve in curves for p, q in curve if p and q}
        if len(kinks) * len(curves) <= MAX_STEPS:
            return _Envelope(curves, channel.total).atoms()
    if math.isinf(channel.epsilon):
        return Atoms(np.array([0.0]), np.array([0.0]), infinite=1.0)
    return Atoms.randomized_response(channel.epsilon)


def _curves(channel: Channel) -> list[Outcomes] | None:
    """The different curves of all ordered pairs of rows; None where there are too many."""
    if channel.inputs * channel.outputs > MAX_ENTRIES or (isinstance(channel, Cascade) and not channel.writable):
        return None
    rows = sorted({tuple(row) for row in channel.table()})
    if channel.outputs == 2:
        # Each row mixes the first and the last, and the curve is convex in the pair of rows.
        rows = [rows[0], rows[-1]]
    if len(rows) == 1:
        rows *= 2
    if len(rows) ** 2 * channel.outputs > MAX_STEPS:
        return None
    pairs = {frozenset(Counter(zip(a, b, strict=True)).items()) for a, b in permutations(rows, 2)}
    return [dict(sorted(pair)) for pair in sorted(pairs, key=sorted)]


def _of_pair(outcomes: Outcomes, total: int, stretch: float) -> Atoms:
    weighted = [(Fraction(p, q), p * n) for (p, q), n in outcomes.items() if p and q]
    infinite = sum(p * n for (p, q), n in outcomes.items() if p and not q)
    return _atoms([(ratio, Fraction(mass, total)) for ratio, mass in weighted], Fraction(infinite, total), stretch)


def _atoms(finite: list[tuple[Fraction, Fraction]], infinite: Fraction, stretch: float) -> Atoms:
    finite = finite or [(Fraction(1), Fraction(0))]
    losses = np.array([_loss_up(ratio) for ratio, _ in finite]) + 2 * stretch * (1 + 1e-15)
    grown = math.exp(stretch) * (1 + 1e-15) if stretch else 1.0
    masses = np.array([round_up(mass) for _, mass in finite]) * grown
    return Atoms(losses, masses, round_up(infinite) * grown, stretch)


def _loss_up(ratio: Fraction) -> float:
    """ln(ratio), rounded up, to a few units in the last place."""
    if Fraction(1, 2) < ratio < 2:
        loss = math.log1p(float(ratio - 1))
        return loss + 2.0**-51 * abs(loss)
    loss = math.log(ratio.numerator / ratio.denominator)
    return loss + 2.0**-51 * (1 + abs(loss))


class _Envelope:
    """The maximum of several curves, each the sum of (p - alpha q)_+ over its outcomes."""

    def __init__(self, curves: list[Outcomes], total: int) -> None:
        self._total = total
        self._kinks: list[list[Fraction]] = []
        self._lines: list[list[Line]] = []  # the line that a curve follows after each of its kinks
        for curve in curves:
            kinks = sorted({Fraction(p, q) for p, q in curve if p and q})
            steps = dict.fromkeys(kinks, (0, 0))
            infinite = 0
            for (p, q), n in curve.items():
                if q and p:
                    above = steps[Fraction(p, q)]
                    steps[Fraction(p, q)] = above[0] + p * n, above[1] + q * n
                elif p:
                    infinite += p * n
            line = infinite, 0
            lines = [line]
            for kink in reversed(kinks):
                line = line[0] + steps[kink][0], line[1] + steps[kink][1]
                lines.append(line)
            self._kinks.append(kinks)
            self._lines.append(lines[::-1])
        self._knots = sorted({kink for kinks in self._kinks for kink in kinks})

    def atoms(self) -> Atoms:
        pieces = list(self._pieces())
        finite = []
        for (_, before), (start, after) in pairwise(pieces):
            change = before[1] - after[1]
            if change:
                finite.append((start, start * change / self._total))
        return _atoms(finite, Fraction(pieces[-1][1][0], self._total), 0.0)

    def _pieces(self) -> Iterator[tuple[Fraction, Line]]:
        """(where it begins, line) of each linear piece, from alpha = 0 on."""
        for start, end in zip([Fraction(0), *self._knots], [*self._knots, None], strict=True):
            here = {lines[bisect_right(k, start)] for k, lines in zip(self._kinks, self._lines, strict=True)}
            at = start
            while True:
                # The highest line at this point; of several, the one that falls least.
                line = max(here, key=lambda line: (line[0] - at * line[1], -line[1]))
                yield at, line
                crossings = [Fraction(line[0] - p, line[1] - q) for p, q in here if q < line[1]]
                if not crossings or (end is not None and min(crossings) >= end):
                    break
                at = min(crossings)
