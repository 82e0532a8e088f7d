"""Exact (epsilon, delta) composition, written without the code that it checks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from itertools import product

import mpmath as mp


def binomial_delta(epsilon0: float, uses: int, epsilon: float, digits: int = 80) -> mp.mpf:
    """Delta of repeated randomized response, term by term with many digits."""
    with mp.workdps(digits):
        flip = 1 / (1 + mp.e ** mp.mpf(epsilon0))
        total = mp.mpf(0)
        for j in range(uses + 1):
            loss = (uses - 2 * j) * mp.mpf(epsilon0)
            if loss <= epsilon:
                break
            weight = mp.mpf(math.comb(uses, j)) * flip**j * (1 - flip) ** (uses - j)
            total += weight * (1 - mp.e ** (mp.mpf(epsilon) - loss))
        return total


def pair_delta(first: Sequence[Fraction], second: Sequence[Fraction], alpha: Fraction) -> Fraction:
    """The hockey-stick divergence of two distributions at alpha = e**epsilon."""
    return sum((max(Fraction(0), p - alpha * q) for p, q in zip(first, second, strict=True)), Fraction(0))


def worst_delta(tables: Sequence[Sequence[Sequence[int]]], alpha: Fraction) -> Fraction:
    """Over all pairs of inputs to the product of these channels, by writing it out."""
    rows = [joint(choice) for choice in product(*tables)]
    return max(pair_delta(a, b, alpha) for a in rows for b in rows)


def joint(rows: Sequence[Sequence[int]]) -> list[Fraction]:
    """The joint distribution of independent outputs with these integer weights."""
    exact = [[Fraction(entry, sum(row)) for entry in row] for row in rows]
    return [math.prod(entries, start=Fraction(1)) for entries in product(*exact)]


def alpha_at_most(epsilon: float) -> Fraction:
    """A rational number just below e**epsilon: delta there is at least the one at epsilon."""
    with mp.workdps(60):
        return Fraction(str(mp.e ** mp.mpf(epsilon))) * (1 - Fraction(1, 10**40))


def alpha_at_least(epsilon: float) -> Fraction:
    """A rational number just above e**epsilon."""
    with mp.workdps(60):
        return Fraction(str(mp.e ** mp.mpf(epsilon))) * (1 + Fraction(1, 10**40))
