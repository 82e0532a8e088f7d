"""Random bytes that a test chooses, in the place of a layer's own source."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

Bytes = npt.NDArray[np.uint8]


class Played:
    """A repeatable stream of bytes, for tests only: :class:`~splitpriv.mechanisms.Source` from a seed."""

    secure = False

    def __init__(self, seed: int) -> None:
        self._generator = np.random.default_rng(seed)

    def read(self, count: int) -> Bytes:
        """The next ``count`` bytes."""
        return self._generator.integers(0, 256, count, dtype=np.uint8)


class PlayedWords(Played):
    """Plays every 16-bit word once, as the leading bits of what the first elements draw.

    How a sampler takes its bytes is its own affair. Two ways are known here: a word per element, and
    planes of one bit per element (leading bits first); each read is taken for whichever fits its
    size. Whatever else is read is uniform. So this *proves* something where the counts that come out
    are those of the table, which they can hardly be by accident; where they are not, it proves nothing.

    Args:
        elements: how many elements are drawn in one call, at least 2**16.
        planes: whether reads are planes.
        seed: of all the other bits.
    """

    WORDS = 1 << 16

    def __init__(self, elements: int, planes: bool, seed: int) -> None:
        super().__init__(seed)
        self._elements, self._planes = elements, planes
        self._first = True
        self._plane = 0  # how many planes have been played

    def read(self, count: int) -> Bytes:
        """The next ``count`` bytes, with the enumerated words in them where the size fits."""
        stream = super().read(count)
        if self._planes:
            self._play_planes(stream)
        elif self._first:
            self._play_words(stream, self._elements)
        elif count % 8 == 0:  # ties: the words that decide them are spread evenly
            self._play_words(stream, count // 8)
        self._first = False
        return stream

    def _play_words(self, stream: Bytes, elements: int) -> None:
        width, rest = divmod(stream.size, elements)
        if rest or width not in (1, 2, 4, 8):
            return
        number = min(elements, self.WORDS)
        leading = (np.arange(number, dtype=np.uint64) * np.uint64(self.WORDS) // np.uint64(number)).astype(np.uint64)
        if elements >= self.WORDS and width == 1:  # the low byte of the number is the word, the rest decides ties
            stream[:number] = (np.arange(number) & 255).astype(np.uint8)
            return
        lanes = stream.reshape(elements, width)
        lanes[:number, -1] = (leading >> np.uint64(8)).astype(np.uint8)
        if width > 1:
            lanes[:number, -2] = (leading & np.uint64(255)).astype(np.uint8)

    def _play_planes(self, stream: Bytes) -> None:
        size = -(-self._elements // 8)
        number = np.arange(self.WORDS, dtype=np.uint32)
        for start in range(0, stream.size - size + 1, size):
            if self._plane < 16:
                bits = (number >> np.uint32(15 - self._plane)) & np.uint32(1)
                stream[start : start + self.WORDS // 8] = np.packbits(bits.astype(bool), bitorder="little")
            self._plane += 1


def _places(layer: nn.Module) -> list[tuple[nn.Module, str]]:
    return [
        (module, name)
        for module in layer.modules()
        for name, value in vars(module).items()
        if callable(getattr(value, "read", None)) and hasattr(value, "secure")
    ]


def has_source(layer: nn.Module) -> bool:
    """Whether a layer keeps its source of random bytes in an attribute, where a test can replace it."""
    return bool(_places(layer))


@contextmanager
def playing(layer: nn.Module, source: Any) -> Iterator[bool]:
    """Replace every source that a layer holds; yields whether there was one. Its own come back afterwards.

    A source is found by what it offers, ``read`` and ``secure``, whatever the attribute is called.
    """
    kept = [(module, name, vars(module)[name]) for module, name in _places(layer)]
    try:
        for module, name, _ in kept:
            setattr(module, name, source)
        yield bool(kept)
    finally:
        for module, name, own in kept:
            setattr(module, name, own)
