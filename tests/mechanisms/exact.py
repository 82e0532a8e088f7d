"""Exact checks by enumeration, written without the code that they check."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

from splitpriv.mechanisms.bit_slices import DIGITS, BitSlices
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


def differing(found: Sequence[object], expected: Sequence[object], most: int = 5) -> list[tuple[int, object, object]]:
    """The first few places where two long sequences differ, with what stands there.

    pytest explains ``==`` of two lists by a full diff where the variable CI is set, which takes hours at 65,536.
    """
    assert len(found) == len(expected)
    places = (place for place, pair in enumerate(zip(found, expected, strict=True)) if pair[0] != pair[1])
    return [(place, found[place], expected[place]) for place in itertools.islice(places, most)]


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


def below(kernel: BitSlices, words: Iterable[int]) -> list[bool]:
    """The shipped kernel on given words: whether each is below the threshold.

    The slices of later levels are those of the words that are still tied, whichever these are: the
    kernel says how many bytes it asks for, and a byte goes on if one of its words does.
    """
    listed = list(words)
    padded = listed + [0] * (-len(listed) % 8)
    drawn = kernel.decide(Drawn(kernel, padded), len(padded) // 8)
    return np.unpackbits(drawn, count=len(listed), bitorder="little").astype(bool).tolist()


class Drawn:
    """Slices for a ``BitSlices``, from the words that they are digits of."""

    def __init__(self, kernel: BitSlices, words: list[int]) -> None:
        self.kernel, self.words, self.given = kernel, np.array(words, dtype=object).reshape(-1, 8), 0

    def __call__(self, level: int, count: int) -> np.ndarray:
        kernel, rest = self.kernel, self.kernel.bits - DIGITS * level
        if level == 0:
            here = self.words[self.given : self.given + count]
            self.given += count
        else:  # those whose digits up to here are all the threshold's
            tied = (self.words >> rest) == kernel.threshold >> rest
            here = self.words[tied.any(axis=1)]
        assert len(here) == count, "the kernel must go on with exactly the bytes that are tied"
        slices = np.empty((DIGITS, count), dtype=np.uint8)
        for place, row in enumerate(kernel.rows(level)):
            digit = (here >> (rest - 1 - place)) & 1
            slices[row] = np.packbits(digit.astype(bool) ^ True, axis=1, bitorder="little")[:, 0]
        return slices


def keystream_blocks(key: bytes, counters: Iterable[int], stream: int) -> bytes:
    """ChaCha20 from ``cryptography``, block by block: it refuses to pass 2**32 on the way."""
    found = b""
    for counter in counters:
        nonce = counter.to_bytes(8, "little") + stream.to_bytes(8, "little")
        found += Cipher(algorithms.ChaCha20(key, nonce), None).encryptor().update(bytes(64))
    return found
