"""Dominating pairs: the maximum over all ordered pairs of rows, against brute force on exact fractions."""

from __future__ import annotations

import math
import random
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from exact_composition import pair_delta
from hypothesis import given, settings
from hypothesis import strategies as st

from splitpriv.accounting import dominating as module
from splitpriv.accounting.dominating import dominating
from splitpriv.accounting.moments import Atoms
from splitpriv.mechanisms import Channel, DiscreteLaplace, RandomizedResponse
from splitpriv.mechanisms.worst_pair import WorstPair


@st.composite
def channels(draw: st.DrawFn, rows: int = 4, columns: int = 5, smallest: int = 0) -> Channel:
    """Small random tables; some with zeros, hence with infinite losses."""
    shape = draw(st.integers(1, rows)), draw(st.integers(1, columns))
    row = st.lists(st.integers(smallest, 7), min_size=shape[1], max_size=shape[1]).filter(any)
    table = draw(st.lists(row, min_size=shape[0], max_size=shape[0]))
    total = math.lcm(*map(sum, table))
    return Channel([[entry * (total // sum(row)) for entry in row] for row in table])


def curve(atoms: Atoms, alpha: Fraction) -> float:
    """The hockey-stick curve of discrete losses."""
    return float(np.sum(atoms.masses * np.maximum(0.0, 1 - float(alpha) * np.exp(-atoms.losses)))) + atoms.infinite


def worst(channel: Channel, alpha: Fraction) -> Fraction:
    rows = [[Fraction(entry, channel.total) for entry in row] for row in channel.table()]
    return max(pair_delta(a, b, alpha) for a in rows for b in rows)


def assert_curve_of_the_worst_rows(channel: Channel) -> None:
    atoms = dominating(channel)
    for alpha in (Fraction(n, 12) for n in range(0, 120, 5)):
        assert float(worst(channel, alpha)) == pytest.approx(curve(atoms, alpha), abs=1e-12)


@settings(max_examples=80, deadline=None)
@given(channels())
def test_the_curve_is_the_maximum_over_all_ordered_pairs(channel: Channel) -> None:
    assert_curve_of_the_worst_rows(channel)


def test_curves_that_cross_need_both_pairs() -> None:
    channel = Channel([[8, 1, 1], [1, 5, 4], [2, 2, 6]])
    assert_curve_of_the_worst_rows(channel)
    assert len(module._curves(channel) or []) == 6


def test_one_ordered_pair_only_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = module._curves
    monkeypatch.setattr(module, "_curves", lambda channel: (whole(channel) or [])[:1])
    dominating.cache_clear()
    with pytest.raises(AssertionError):
        assert_curve_of_the_worst_rows(Channel([[9, 1], [5, 5]]))
    dominating.cache_clear()


@pytest.mark.parametrize(("epsilon", "levels"), [(1.0, 3), (2.0, 5), (0.5, 9), (6.0, 17)])
def test_the_ends_of_a_laplace_grid_bound_all_its_rows(epsilon: float, levels: int) -> None:
    channel = DiscreteLaplace(epsilon=epsilon, levels=levels)
    found = channel.worst_pair()
    assert found is not None
    assert 0 < found.stretch < 1e-9
    kappa = Fraction(found.stretch)
    rows = [np.array(row, dtype=object) for row in channel.table()]
    p, q = (np.array(column, dtype=object) for column in zip(*found.outcomes, strict=True))
    counts = np.array(list(found.outcomes.values()), dtype=object)
    for alpha in (Fraction(n, 8) for n in (1, 3, 7, 8, 9, 11, 13, 20, 40)):
        exact = max(np.maximum(a - alpha * b, 0).sum() for a in rows for b in rows)
        # exp(k) >= 1 + k and exp(-2k) <= 1 - 2k + 2k**2 keep this on the strict side.
        closer = alpha * (1 - 2 * kappa + 2 * kappa**2)
        assert exact <= (1 + kappa) * (counts * np.maximum(p - closer * q, 0)).sum()


def test_too_coarse_a_grid_is_searched_instead() -> None:
    channel = DiscreteLaplace(epsilon=1.0, levels=3, bits=16)
    assert channel.worst_pair() is None
    assert_curve_of_the_worst_rows(channel)


def test_randomized_response_knows_its_rows() -> None:
    channel = RandomizedResponse(epsilon=1.0, bits=16)
    assert_curve_of_the_worst_rows(channel)
    assert dominating(channel).losses.max() >= math.log(channel.epsilon_ratio or 1)


def test_of_two_outputs_the_extreme_rows_are_enough() -> None:
    channel = Channel([[k, 1000 - k] for k in range(1, 600)])
    assert len(module._curves(channel) or []) == 2
    assert dominating(channel).losses.max() == pytest.approx(channel.epsilon)
    few = Channel([[k, 10 - k] for k in (3, 9, 1, 4)])
    assert_curve_of_the_worst_rows(few)


def test_what_is_too_large_becomes_randomized_response() -> None:
    draw = random.Random(0)
    cuts = [sorted(draw.sample(range(1, 10**6), 39)) for _ in range(60)]
    large = Channel([[b - a for a, b in pairwise([0, *row, 10**6])] for row in cuts])
    assert dominating(large).losses.tolist() == [-large.epsilon, large.epsilon]
    zeros = Channel([[0, *row[1:-1], row[0] + row[-1]] if x % 2 else row for x, row in enumerate(large.table())])
    assert dominating(zeros).infinite == 1.0
    cascade = DiscreteLaplace(epsilon=1.0, levels=257).cascade(Channel([[1, 1]] * 3453))
    assert dominating(cascade).losses.max() == cascade.epsilon


def test_symmetric_tables_have_one_curve() -> None:
    size = 12
    channel = Channel([[20 if x == y else 1 for y in range(size)] for x in range(size)])
    assert len(module._curves(channel) or []) == 1
    assert_curve_of_the_worst_rows(channel)


def test_a_stretch_moves_every_loss_and_every_mass() -> None:
    class Rounded(Channel):
        def worst_pair(self) -> WorstPair:
            return WorstPair.of([3, 1], [1, 3], stretch=0.25)

    atoms = dominating(Rounded([[3, 1], [1, 3]]))
    found = dict(zip(atoms.losses.tolist(), atoms.masses.tolist(), strict=True))
    for p, q in ((3, 1), (1, 3)):  # exp(k) (p - alpha exp(-2k) q)+
        loss = math.log(p / q) + 0.5
        nearest = min(found, key=lambda each: abs(each - loss))
        assert loss <= nearest <= loss + 1e-12
        assert p / 4 * math.exp(0.25) <= found[nearest] * (1 + 1e-15) <= p / 4 * math.exp(0.25) + 1e-12
    assert atoms.stretch == 0.25
