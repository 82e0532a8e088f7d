"""Work in blocks that stay in the cache, spread over threads."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from splitpriv.mechanisms.randomness import Source

_KEPT_BYTES = 1 << 23  # a thread keeps its arrays from call to call up to here
_kept = threading.local()


class Scratch:
    """Arrays that one thread uses for block after block.

    Memory fresh from the system costs more than the arithmetic that is done in it. What a name gave
    is overwritten when it is asked for again.
    """

    def __init__(self) -> None:
        self._arrays: dict[str, npt.NDArray[Any]] = {}

    def __call__(self, name: str, count: int, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """An array of ``count`` elements, with the values that were left in it."""
        held = self._arrays.get(name)
        if held is None or held.size < count or held.dtype != np.dtype(dtype):
            held = self._arrays[name] = np.empty(count, dtype=dtype)
        return held[:count]

    @property
    def nbytes(self) -> int:
        """Memory in all arrays together."""
        return sum(array.nbytes for array in self._arrays.values())


Work = Callable[[int, int, Source, Scratch], None]
"""Does the elements from start to stop, with noise from a source that no other thread reads meanwhile."""


def in_blocks(count: int, step: int, source: Source, work: Work) -> None:
    """``work(start, stop, source, scratch)`` for each block of ``step`` among ``count`` elements.

    ``torch.get_num_threads()`` threads share the blocks, where the source can be read by several.
    What is drawn from a seeded source depends on the blocks, not on the number of threads. An
    exception in any block is raised, after the blocks under way have ended.

    Args:
        count: number of elements.
        step: elements per block; the last one may be shorter.
        source: where noise comes from. One without ``branches`` is read block after block.
        work: writes its results to memory of its own block.
    """
    starts = range(0, count, step)
    branches = getattr(source, "branches", None)
    if len(starts) < 2 or branches is None:
        _run(work, [(start, min(start + step, count), source) for start in starts])
        return
    sources = branches(len(starts))
    blocks = [(start, min(start + step, count), own) for start, own in zip(starts, sources, strict=True)]
    threads = min(torch.get_num_threads(), len(blocks))
    if threads < 2:
        _run(work, blocks)
        return
    # Threads that live for one call: none is lost in a fork, and starting one takes microseconds.
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(_run, work, blocks[first::threads]) for first in range(threads)]:
            done.result()


def _run(work: Work, blocks: list[tuple[int, int, Source]]) -> None:
    scratch = getattr(_kept, "scratch", None) or Scratch()
    _kept.scratch = None  # a call inside this one gets another
    try:
        for start, stop, source in blocks:
            work(start, stop, source, scratch)
    finally:
        if scratch.nbytes <= _KEPT_BYTES:
            _kept.scratch = scratch
