"""Exact draws from an integer distribution: a table decides, the few ties read on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt

from splitpriv.mechanisms.blocks import Scratch
from splitpriv.mechanisms.randomness import Source, words

Words = npt.NDArray[Any]


class InverseTable:
    """Inverse-CDF sampling of weights that sum to ``2**bits``.

    A uniform word of ``bits`` bits picks the outcome whose stretch of the cumulative weights it
    falls in; so outcome ``k`` has probability ``weights[k] / 2**bits`` exactly. The word is read
    in two stages: its ``first_bits`` leading bits nearly always decide alone, by one look-up;
    where a stretch ends inside such a word (a tie), the remaining bits are read too.

    Args:
        weights: non-negative ints that sum to ``2**bits``, fewer than 2**15 of them.
        bits: 16 or 64.
        first_bits: 8 or 16, at most ``bits``.
    """

    def __init__(self, weights: Sequence[int], bits: int, first_bits: int) -> None:
        assert sum(weights) == 1 << bits  # callers are this package's own
        assert len(weights) < 1 << 15
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
        # Where one edge ends inside a tied word, it alone decides; where several do, they are searched.
        self._low = low.astype(dtype)
        self._edge = np.append(self.edges, np.uint64(0))[low]
        self._many = high - low > 1

    def _outcome(self, word: Words) -> Words:
        found: Words = np.searchsorted(self.edges, word, side="right")
        return found

    def decide(self, first: Words, rest: Callable[[int], Words], scratch: Scratch | None = None) -> Words:
        """The deterministic kernel: outcomes for given words.

        Args:
            first: uniform words of ``first_bits`` bits. # shape: (count,)
            rest: called at most once, with the number of ties; returns as many words of ``rest_bits``.
            scratch: memory to work in; the result is in it until it is used again.

        Returns:
            Outcomes in [0, len(weights)). # shape: (count,)
        """
        scratch = scratch or Scratch()
        outcome = scratch("outcome", first.size, self.decided.dtype)
        # A word is never outside the table; "wrap" spares numpy a copy of the words to find that out.
        np.take(self.decided, first, out=outcome, mode="wrap")
        undecided = np.equal(outcome, self.tie, out=scratch("undecided", first.size, np.bool_))
        ties = np.flatnonzero(undecided)
        if ties.size:
            leading = first[ties]
            word = rest(ties.size) | leading.astype(np.uint64) << np.uint64(self.rest_bits)
            found = self._low[leading] + (word >= self._edge[leading])
            many = np.flatnonzero(self._many[leading])
            found[many] = self._outcome(word[many])
            outcome[ties] = found
        return outcome

    def draw(self, count: int, source: Source, scratch: Scratch | None = None) -> Words:
        """``count`` independent outcomes, in ``scratch`` where it is given."""
        first = words(source, count, self.first_bits, scratch)

        def rest(ties: int) -> Words:
            # Not into the same memory: the first words are still in use.
            tail: Words = words(source, ties, 64) >> np.uint64(64 - self.rest_bits)
            return tail

        return self.decide(first, rest, scratch)
