"""Sources that play every 16-bit word once, in the layouts in which samplers are known to read."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from splitpriv.mechanisms.bit_slices import DIGITS, BitSlices
from splitpriv.testing.sources import Bytes, Played

WORDS = 1 << 16
_DENSE = 1 << 15  # bytes whose slices are read at once


class PlayedWords(Played):
    """Plays every 16-bit word once, as the leading bits of what the first elements draw, a word per element.

    Each read is taken for words where its size fits; whatever else is read is uniform. So this *proves*
    something where the counts that come out are those of the table, which they can hardly be by accident; where they
    are not, it proves nothing.

    Args:
        elements: how many elements are drawn in one call, at least 2**16.
        seed: of all the other bits.
    """

    def __init__(self, elements: int, seed: int) -> None:
        super().__init__(seed)
        self._elements, self._first = elements, True

    def read(self, count: int) -> Bytes:
        """The next ``count`` bytes, with the enumerated words in them where the size fits."""
        stream = super().read(count)
        if self._first:
            self._play(stream, self._elements)
        elif count % 8 == 0:  # ties: the words that decide them are spread evenly
            self._play(stream, count // 8)
        self._first = False
        return stream

    def _play(self, stream: Bytes, elements: int) -> None:
        width, rest = divmod(stream.size, elements)
        if rest or width not in (1, 2, 4, 8):
            return
        number = min(elements, WORDS)
        leading = (np.arange(number, dtype=np.uint64) * np.uint64(WORDS) // np.uint64(number)).astype(np.uint64)
        if elements >= WORDS and width == 1:  # the low byte of the number is the word, the rest decides ties
            stream[:number] = (np.arange(number) & 255).astype(np.uint8)
            return
        lanes = stream.reshape(elements, width)
        lanes[:number, -1] = (leading >> np.uint64(8)).astype(np.uint8)
        if width > 1:
            lanes[:number, -2] = (leading & np.uint64(255)).astype(np.uint8)


class PlayedSlices(Played):
    """Plays every 16-bit word once to :class:`~splitpriv.mechanisms.bit_slices.BitSlices`.

    It reads eight rows of n <= 2**15 bytes, a row the complement of one binary digit of eight numbers per byte, rows
    in the order that the kernel states; then, for the bytes in which some number is still tied, eight rows more. Which
    bytes these are follows from the threshold.

    Args:
        kernel: what the channel draws with.
        batch: records that are drawn in one call.
        elements: of a record; batch * elements is at least 2**16.
        seed: of all the other bits.
        step: -1 for the words in descending order.
    """

    def __init__(self, kernel: BitSlices, batch: int, elements: int, seed: int, step: int = 1) -> None:
        super().__init__(seed)
        self._kernel, self._batch, self._elements = kernel, batch, elements
        self._step = step
        self._words: npt.NDArray[np.uint16] | None = None  # of each bit. # shape: (bytes, 8)
        self._reads: list[tuple[int, npt.NDArray[Any]]] = []  # those to come: level, and the words of the bytes
        self._odd = False

    def backwards(self, seed: int) -> PlayedSlices:
        """A fresh one that plays the words in the other order, and other bits beside them."""
        return PlayedSlices(self._kernel, self._batch, self._elements, seed, -self._step)

    @property
    def read_as_played(self) -> bool:
        """Whether all digits that were played have been read, in reads of the sizes that follow."""
        return self._words is not None and not self._reads and not self._odd

    def read(self, count: int) -> Bytes:
        """The next ``count`` bytes: slices of the words, where they are due."""
        stream = super().read(count)
        if self._words is None:
            self._begin(count)
        if not self._reads:
            return stream
        level, words = self._reads.pop(0)
        if count != DIGITS * len(words):
            self._odd, self._reads = True, []
            return stream
        rows = stream.reshape(DIGITS, len(words))
        for digit, row in enumerate(self._kernel.rows(level)):
            bits = words >> (15 - DIGITS * level - digit) & 1
            rows[row] = np.packbits(bits == 0, axis=1, bitorder="little")[:, 0]
        return stream

    def _begin(self, count: int) -> None:
        """Give each bit its word, as records lie in bytes: one after the other, or each in bytes of its own."""
        drawn = np.arange(self._batch * self._elements, dtype=np.uint32).astype(np.uint16)
        drawn[:WORDS] = drawn[:WORDS][:: self._step]
        width = -(-self._elements // 8)
        apart = np.zeros((self._batch, width * 8), dtype=np.uint16)
        apart[:, : self._elements] = drawn.reshape(self._batch, self._elements)
        together = np.zeros(-(-drawn.size // 8) * 8, dtype=np.uint16)
        together[: drawn.size] = drawn
        fits = [w.reshape(-1, 8) for w in (together, apart) if count == DIGITS * min(w.size // 8, _DENSE)]
        self._words = words = fits[0] if fits else np.zeros((0, 8), np.uint16)
        self._odd = not fits
        self._reads = [(0, words[start : start + _DENSE]) for start in range(0, len(words), _DENSE)]
        leading = self._kernel.threshold >> self._kernel.bits - DIGITS
        tied = words[(words >> DIGITS == leading).any(axis=1)]
        if self._kernel.levels > 1 and len(tied):
            self._reads.append((1, tied))
