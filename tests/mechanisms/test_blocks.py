"""Blocks: each done once, by threads that do not disturb each other, and a failure is never lost."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from splitpriv.mechanisms import RandomizedResponse, SecureSource, SeededSource
from splitpriv.mechanisms.blocks import Scratch, in_blocks
from splitpriv.mechanisms.randomness import Source

threads = pytest.mark.parametrize("threads", [1, 2, 7])


@threads
@pytest.mark.parametrize(("count", "step"), [(0, 4), (1, 4), (4, 4), (17, 4), (100, 1)])
@pytest.mark.parametrize("source", [SecureSource(), SeededSource(1)], ids=repr)
def test_every_element_is_done_once(
    threads: int, count: int, step: int, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    done = np.zeros(count, dtype=int)

    def work(start: int, stop: int, source: Source, scratch: Scratch) -> None:
        assert 0 < stop - start <= step
        done[start:stop] += 1

    in_blocks(count, step, source, work)
    assert (done == 1).all()


@threads
@pytest.mark.parametrize("bad", [0, 5, 9])
def test_an_error_in_any_block_is_raised(threads: int, bad: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)

    def work(start: int, stop: int, source: Source, scratch: Scratch) -> None:
        if start == bad:
            raise ValueError(f"block {start}")

    before = threading.active_count()
    with pytest.raises(ValueError, match=f"block {bad}"):
        in_blocks(10, 1, SecureSource(), work)
    assert threading.active_count() == before


def test_a_source_of_someone_else_is_read_in_order_by_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)

    class Counting:
        secure = False
        at = 0

        def read(self, count: int) -> np.ndarray:
            self.at += count
            return np.arange(self.at - count, self.at, dtype=np.uint8)

    seen: list[int] = []
    in_blocks(6, 2, Counting(), lambda start, stop, source, scratch: seen.extend(source.read(2).tolist()))
    assert seen == [0, 1, 2, 3, 4, 5]


def test_calls_inside_a_call_have_memory_of_their_own() -> None:
    def outer(start: int, stop: int, source: Source, scratch: Scratch) -> None:
        mine = scratch("x", 4, np.int64)
        mine[:] = 7
        in_blocks(1, 1, source, inner)
        assert mine.tolist() == [7] * 4

    def inner(start: int, stop: int, source: Source, scratch: Scratch) -> None:
        scratch("x", 4, np.int64)[:] = 0

    in_blocks(1, 1, SecureSource(), outer)


def test_no_thread_gets_the_memory_of_another() -> None:
    # Two blocks under way in one memory would be given the same noise. A thread's memory stays its own for as
    # long as it lives, so that no order of events can hand it on.
    used: list[list[Scratch]] = []
    together = threading.Barrier(4)

    def twice() -> None:
        mine: list[Scratch] = []
        used.append(mine)
        for _ in range(2):
            in_blocks(1, 1, SecureSource(), lambda start, stop, source, scratch: mine.append(scratch))
            together.wait(60)  # none starts again, or ends, before all have left theirs behind

    workers = [threading.Thread(target=twice) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert all(first is second for first, second in used)
    assert len({id(first) for first, _ in used}) == 4


def test_scratch_grows_and_is_used_again() -> None:
    scratch = Scratch()
    first = scratch("a", 8, np.uint8)
    assert np.shares_memory(first, scratch("a", 3, np.uint8))
    assert scratch("a", 9, np.uint8).size == 9
    assert scratch("a", 2, np.int16).dtype == np.int16
    assert not np.shares_memory(scratch("a", 2, np.int16), scratch("b", 2, np.int16))
    assert scratch.nbytes == 8


def test_what_was_drawn_is_not_overwritten_by_the_next_call() -> None:
    channel = RandomizedResponse(epsilon=1.0)
    zeros = torch.zeros(5000, dtype=torch.uint8)
    first = channel.sample(zeros, SeededSource(1))
    kept = first.clone()
    channel.sample(zeros, SeededSource(2))
    assert torch.equal(first, kept)
