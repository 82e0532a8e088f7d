"""Exact checks by enumeration, written without the code that they check."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np

from splitpriv.mechanisms.inverse import InverseTable


def worst_ratio(table: list[list[int]]) -> Fraction | float:
    """Largest Pr[y|x] / Pr[y|x'] over all outputs and pairs of inputs, by brute force."""
    worst: Fraction | float = Fraction(1)
    for column in zip(*table, strict=True):
        for a in column:
            for b in column:
                if a and not b:
                    return math.inf
                if b:
                    worst = max(worst, Fraction(a, b))
    return worst


def exceeds(ratio: Fraction | float, epsilon: float) -> bool:
    """Whether ``ratio`` > e**epsilon, decided with 100 digits."""
    if isinstance(ratio, float):
        return math.isinf(ratio)
    with localcontext() as context:
        context.prec = 100
        return Decimal(ratio.numerator) > Decimal(ratio.denominator) * Decimal(epsilon).exp()


def kernel_counts(kernel: InverseTable) -> list[int]:
    """How many of the 2**bits words the kernel sends to each outcome.

    Every first-stage word is run. Where the kernel asks for more bits, the outcome is a step
    function of them: its steps are found by bisection, with both sides of each threshold run.
    """
    size = 1 << kernel.first_bits
    counts = [0] * (kernel.tie + 1)
    asked: list[int] = []

    def remember(count: int) -> np.ndarray:
        asked.append(count)
        return np.zeros(count, dtype=np.uint64)

    every = np.arange(size, dtype=np.uint8 if kernel.first_bits == 8 else np.uint16)
    kernel.decide(every, remember)
    ties = np.flatnonzero(kernel.decided == kernel.tie)
    assert sum(asked) == ties.size, "the kernel must read on at exactly the undecided words"
    decided = np.setdiff1d(every, ties)
    for outcome in kernel.decide(decided.astype(every.dtype), remember).tolist():
        counts[outcome] += 1 << kernel.rest_bits
    for first in ties.tolist():
        for outcome, words in steps(kernel, first):
            counts[outcome] += words
    return counts[:-1]


def run(kernel: InverseTable, first: int, rest: int) -> int:
    """The shipped kernel on one pair of words."""
    dtype = np.uint8 if kernel.first_bits == 8 else np.uint16
    return int(kernel.decide(np.array([first], dtype), lambda n: np.full(n, rest, np.uint64))[0])


def steps(kernel: InverseTable, first: int) -> list[tuple[int, int]]:
    """(outcome, number of remaining words) for one tied first word, by bisection."""
    end = 1 << kernel.rest_bits
    found, start = [], 0
    while start < end:
        outcome = run(kernel, first, start)
        low, high = start, end  # low gives this outcome, high does not (or is the end)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if run(kernel, first, middle) == outcome else (low, middle)
        assert run(kernel, first, low) == outcome
        assert high == end or run(kernel, first, high) != outcome
        found.append((outcome, high - start))
        start = high
    return found
