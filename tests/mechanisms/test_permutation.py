"""A random order: every one equally likely, by enumeration."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import permutations, product

import numpy as np
import pytest

from splitpriv.mechanisms import SecureSource, SeededSource
from splitpriv.mechanisms.randomness import Source, permutation

Order = Callable[[Source, int], np.ndarray]


class Scripted:
    """Reads out given words, and fails beyond them."""

    secure = False

    def __init__(self, *words: int) -> None:
        self.words = list(words)

    def read(self, count: int) -> np.ndarray:
        taken, self.words = self.words[: count // 8], self.words[count // 8 :]
        if len(taken) < count // 8:
            raise EOFError
        return np.array(taken, dtype="<u8").view(np.uint8)


def check_uniform(order: Order) -> None:
    """Over all triples of words from an alphabet of four, each order of three things comes equally often."""
    found: Counter[tuple[int, ...]] = Counter()
    for triple in product(range(4), repeat=3):
        try:
            found[tuple(order(Scripted(*triple), 3).tolist())] += 1
        except EOFError:  # asked for other words
            assert len(set(triple)) < 3
    assert found == dict.fromkeys(permutations(range(3)), 4)


def test_all_orders_are_equally_likely() -> None:
    check_uniform(permutation)


def test_planted_fault_ties_broken_by_position_are_caught() -> None:
    def careless(source: Source, count: int) -> np.ndarray:
        return np.argsort(source.read(8 * count).view("<u8"), kind="stable")

    with pytest.raises(AssertionError):
        check_uniform(careless)


def test_words_that_tie_are_drawn_again() -> None:
    assert permutation(Scripted(7, 7, 5, 2**64 - 1, 0, 9), 3).tolist() == [1, 2, 0]


def test_it_is_a_permutation_and_fresh() -> None:
    source = SecureSource()
    first, second = permutation(source, 1000), permutation(source, 1000)
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(1000))
    assert first.tolist() != second.tolist()  # equal with probability 1 / 1000!
    assert permutation(SeededSource(1), 0).tolist() == []
    assert permutation(SeededSource(1), 1).tolist() == [0]
