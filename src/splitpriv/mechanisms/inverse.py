"""Exact draws from an integer distribution: a table decides, the few ties read on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt

from splitpriv.mechanisms.randomness import Source, words

Words = npt.NDArray[Any]


class InverseTable:
    """Inverse-CDF sampling of weights that sum to ``2**bits``.

    A uniform word of ``bits`` bits picks the outcome whose stretch of the cumulative weights it
    falls in; so outcome ``k`` has probability ``weights[k] / 2**bits`` exactly. The word is read
    in two stages: its ``first_bits`` leading bits nearly always decide alone, by one look-up;
    where a stretch ends inside such a word (a tie), the remaining bits are read too.

    Args:
        weights: non-negative ints that sum to ``2**bits``, at most 2**15 of them.
        bits: 16 or 64.
        first_bits: 8 or 16, at most ``bits``.
    """

    def __init__(self, weights: Sequence[int], bits: int, first_bits: int) -> None:
        assert sum(weights) == 1 << bits  # callers are this package's own
        assert len(weights) <= 1 << 15
        assert first_bits in (8, 16)
        self.bits, self.first_bits, self.rest_bits = bits, first_bits, bits - first_bits
        # An edge at 2**bits is never reached by a word; uint64 cannot hold it.
        edges = [e for e in accumulate(weights[:-1]) if e < 1 << bits]
        self.edges = np.array(edges, dtype=np.uint64)
        starts = np.arange(1 << first_bits, dtype=np.uint64) << np.uint64(self.rest_bits)
        ends = starts + np.uint64((1 << self.rest_bits) - 1)
        low, high = self._outcome(starts), self._outcome(ends)
        self.tie = len(weights)  # never an outcome
        dtype = np.uint8 if len(weights) < 256 else np.int16
        self.decided = np.where(low == high, low, self.tie).astype(dtype)

    def _outcome(self, word: Words) -> Words:
        found: Words = np.searchsorted(self.edges, word, side="right")
        return found

    def decide(self, first: Words, rest: Callable[[int], Words]) -> Words:
        """The deterministic kernel: outcomes for given words.

        Args:
            first: uniform words of ``first_bits`` bits. # shape: (count,)
            rest: called once with the number of ties; returns as many words of ``rest_bits``.

        Returns:
            Outcomes in [0, len(weights)). # shape: (count,)
        """
        outcome: Words = np.take(self.decided, first)
        ties = np.flatnonzero(outcome == self.tie)
        if ties.size:
            leading = first[ties].astype(np.uint64) << np.uint64(self.rest_bits)
            outcome[ties] = self._outcome(leading | rest(ties.size))
        return outcome

    def draw(self, count: int, source: Source) -> Words:
        """``count`` independent outcomes."""

        def rest(ties: int) -> Words:
            tail: Words = words(source, ties, 64) >> np.uint64(64 - self.rest_bits)
            return tail

        return self.decide(words(source, count, self.first_bits), rest)
