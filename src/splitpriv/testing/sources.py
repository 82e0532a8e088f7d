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


def _places(layer: Any) -> list[tuple[Any, str]]:
    return [
        (module, name)
        for module in (layer.modules() if isinstance(layer, nn.Module) else [layer])
        for name, value in vars(module).items()
        if callable(getattr(value, "read", None)) and hasattr(value, "secure")
    ]


def has_source(layer: nn.Module) -> bool:
    """Whether a layer keeps its source of random bytes in an attribute, where a test can replace it."""
    return bool(_places(layer))


@contextmanager
def playing(layer: Any, source: Any) -> Iterator[bool]:
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
