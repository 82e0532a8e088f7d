"""Exact biased bits, eight to a byte: random digits are compared with a threshold's, slice by slice."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from splitpriv.mechanisms.blocks import Scratch
from splitpriv.mechanisms.randomness import Source, words

Bytes = npt.NDArray[np.uint8]

DIGITS = 8
"""Binary digits that are compared before the bytes that are still tied are sought out."""

_DENSE = 1 << 15  # bytes at a time: their slices, 256 KB, stay in the cache


class BitSlices:
    r"""Bits that are 1 with probability ``threshold / 2**bits``, exactly and independently.

    A bit is 1 where a uniform number r of ``bits`` binary digits is below the threshold T. The digits
    are compared from the most significant on; the first that differs decides, so that only a share
    of :math:`2^{-8}` is still tied after eight. A *slice* holds one digit of eight numbers in
    each byte, so that one operation on bytes serves eight bits:

    .. math:: (r < T)_j = \begin{cases} \lnot r_j \lor (r < T)_{j+1} & T_j = 1 \\
                                        \lnot r_j \land (r < T)_{j+1} & T_j = 0 \end{cases}

    where index j + 1 is the comparison of the less significant digits. Slices are read as
    :math:`\lnot r_j`, which is as uniform as :math:`r_j`. Bytes in which some bit is tied after eight
    digits (3 % of them) are collected, and go on with the next eight.

    Args:
        threshold: T, an int in [0, 2**bits).
        bits: a multiple of 8.
    """

    def __init__(self, threshold: int, bits: int) -> None:
        assert bits % DIGITS == 0  # callers are this package's own
        assert 0 <= threshold < 1 << bits
        self.threshold, self.bits = threshold, bits
        self.levels = bits // DIGITS
        # For each level its eight digits of T, the most significant first.
        digits = [threshold >> place & 1 for place in reversed(range(bits))]
        self._digits = [digits[k : k + DIGITS] for k in range(0, bits, DIGITS)]
        self._rows = [_rows(level) for level in self._digits]

    def rows(self, level: int) -> list[int]:
        """Which row of a level's slices belongs to which digit, most significant digit first.

        Rows of digits where T has a 0 come first, so that both kinds lie together.
        """
        return self._rows[level]

    def decide(self, slices: Callable[[int, int], Bytes], count: int, scratch: Scratch | None = None) -> Bytes:
        """The deterministic kernel: ``count`` bytes of eight bits each, from slices of random digits.

        Args:
            slices: called with a level and a number of bytes, returns the complements of the next
                eight digits of the numbers in those bytes: first of all bytes, some at a time, then
                of those that are still tied, in order. # shape: (8, bytes), rows as :meth:`rows` says
            count: number of bytes.
            scratch: memory to work in; the result is in it until it is used again.

        Returns:
            The bits, the first one in the least significant place. # shape: (count,), uint8
        """
        scratch = scratch or Scratch()
        bits, tied = scratch("bits", count, np.uint8), scratch("tied", count, np.uint8)
        for start in range(0, count, _DENSE):
            stop = min(start + _DENSE, count)
            self._compare(0, slices(0, stop - start), bits[start:stop], tied[start:stop])
        self._resolve(1, slices, bits, tied)
        return bits

    def _resolve(self, level: int, slices: Callable[[int, int], Bytes], bits: Bytes, tied: Bytes) -> None:
        """Set the bits that are tied before this level; one that never differs is not below T."""
        where = np.flatnonzero(tied != 0)
        if level == self.levels or not where.size:
            return
        further, still = np.empty(where.size, np.uint8), np.empty(where.size, np.uint8)
        self._compare(level, slices(level, where.size), further, still)
        undecided = tied[where]
        still &= undecided
        self._resolve(level + 1, slices, further, still)
        further &= undecided
        bits[where] |= further

    def _compare(self, level: int, slices: Bytes, below: Bytes, tied: Bytes) -> None:
        """Compare eight digits: where r is below T, and where the digits are the same."""
        zeros = self._digits[level].count(0)
        tied.fill(0)
        if zeros < DIGITS:  # tied where r has a 1 at each 1 of T ...
            np.bitwise_or.reduce(slices[zeros:], axis=0, out=tied)
        np.invert(tied, out=tied)
        if zeros:  # ... and a 0 at each 0
            np.bitwise_and.reduce(slices[:zeros], axis=0, out=below)
            np.bitwise_and(tied, below, out=tied)
        below.fill(0)
        for row in reversed(self._rows[level]):
            (np.bitwise_and if row < zeros else np.bitwise_or)(below, slices[row], out=below)

    def draw(self, count: int, source: Source, scratch: Scratch) -> Bytes:
        """``count`` bytes of eight independent bits, in ``scratch``."""

        def slices(level: int, size: int) -> Bytes:
            return words(source, DIGITS * size, 8, scratch).reshape(DIGITS, size)

        return self.decide(slices, count, scratch)


def _rows(digits: list[int]) -> list[int]:
    places = sorted(range(DIGITS), key=lambda place: digits[place])
    return [places.index(place) for place in range(DIGITS)]
