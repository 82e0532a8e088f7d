"""Sums of different losses: never below brute force, close to what is known exactly, in bounded memory."""

from __future__ import annotations

import math
import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
from exact_composition import alpha_at_least, alpha_at_most, binomial_delta, joint, pair_delta, worst_delta
from hypothesis import given, settings
from hypothesis import strategies as st
from test_dominating import channels

from splitpriv.accounting import pld
from splitpriv.accounting.dominating import dominating
from splitpriv.accounting.kov import optimal_epsilon
from splitpriv.accounting.moments import Atoms, bound_delta, bound_epsilon
from splitpriv.accounting.pld import Tilted, delta_of_sum, epsilon_of_sum
from splitpriv.mechanisms import Channel, DiscreteLaplace

COIN = Channel([[3, 1], [1, 3]])
BITS = [COIN, Channel([[5, 2], [2, 5]]), Channel([[7, 4], [4, 7]])]
SKEW = Channel([[8, 1, 1], [1, 5, 4], [2, 2, 6]])
GAPS = Channel([[5, 4, 1, 0], [5, 4, 0, 1]])  # one output in ten is possible under one input alone


def assert_never_below(channels: list[Channel], epsilon: float) -> None:
    """Both directions, against all pairs of inputs of the product channel, written out."""
    powers = [(dominating(channel), 1) for channel in channels]
    exact = worst_delta([channel.table() for channel in channels], alpha_at_most(epsilon))
    slight = 1 + Fraction(1, 10**30)  # of the rational number in the place of e**epsilon
    assert exact <= Fraction(delta_of_sum(powers, epsilon)) * slight
    for size in (256, 1000):  # coarse enough for the discretisation to matter
        coarse = Tilted(powers, 1.0, size).delta(epsilon) + pld.infinite_mass(powers)
        assert exact <= Fraction(coarse) * slight
    delta = float(exact) * (1 - 1e-9)
    if 0 < delta < 1:
        found = epsilon_of_sum(powers, delta)
        assert found.lower <= found.estimate <= found.upper
        if math.isfinite(found.upper):
            assert worst_delta([channel.table() for channel in channels], alpha_at_most(found.upper)) <= delta


@settings(max_examples=20, deadline=None)
@given(st.lists(channels(rows=2, columns=3), min_size=1, max_size=3), st.floats(0, 3))
def test_never_below_the_enumerated_product(parts: list[Channel], epsilon: float) -> None:
    assert_never_below(parts, epsilon)


@pytest.mark.parametrize("epsilon", [0.0, 0.3, 1.0, 2.0])
@pytest.mark.parametrize("parts", [[COIN, SKEW], [SKEW, SKEW], [GAPS, COIN], [SKEW, GAPS, COIN], BITS], ids=str)
def test_chosen_products(parts: list[Channel], epsilon: float) -> None:
    assert_never_below(parts, epsilon)


def test_it_is_tight_where_one_pair_of_rows_is_worst() -> None:
    powers = [(dominating(COIN), 3), (dominating(GAPS), 2)]
    table = [COIN.table()] * 3 + [GAPS.table()] * 2
    first, second = joint([rows[0] for rows in table]), joint([rows[1] for rows in table])
    for epsilon in (0.0, 0.5, 1.7, 2.5):
        exact = pair_delta(first, second, alpha_at_least(epsilon))
        assert exact <= delta_of_sum(powers, epsilon) <= float(exact) * (1 + 1e-6)


def rounded_to_nearest(self: Tilted, powers: list[tuple[Atoms, int]]) -> list[tuple[np.ndarray, np.ndarray, int]]:
    return [(np.round(a.losses / self.step).astype(np.int64), a.masses, n) for a, n in powers]


def test_planted_faults_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as planted:
        planted.setattr(Tilted, "_split", rounded_to_nearest)
        with pytest.raises(AssertionError):
            assert_never_below(BITS, 0.7)
    with monkeypatch.context() as planted:
        planted.setattr(pld, "infinite_mass", lambda powers: 0.0)
        with pytest.raises(AssertionError):
            assert_never_below([GAPS, COIN], 1.0)
    with monkeypatch.context() as planted:  # one ordered pair only
        planted.setitem(globals(), "dominating", lambda c: Atoms(np.log([9 / 5, 1 / 5]), np.array([0.9, 0.1])))
        with pytest.raises(AssertionError):
            assert_never_below([Channel([[9, 1], [5, 5]])], 0.3)


@pytest.mark.parametrize(
    ("epsilon0", "uses", "delta", "tolerance"),
    [
        *((0.1, 10**4, 1e-6, 1e-8), (0.1, 10**6, 1e-6, 1e-6), (0.01, 10**6, 1e-6, 1e-6), (1.0, 128, 1e-6, 1e-8)),
        *((1e-3, 10**7, 1e-6, 1e-5), (0.1, 10**4, 1e-30, 1e-7), (0.1, 10**4, 1e-290, 1e-7), (5.0, 65536, 1e-6, 1e-8)),
        *(
            (20.0, 10, 1e-6, 1e-9),
            (1e-9, 10**7, 1e-6, 1e-4),
            (1e4, 5, 1e-6, 1e-9),
            (700.0, 5, 0.3, 1e-9),
            (1, 1, 0.1, 1e-8),
        ),
    ],
)
def test_against_the_exact_optimum(epsilon0: float, uses: int, delta: float, tolerance: float) -> None:
    exact = optimal_epsilon(epsilon0, uses, delta)
    powers = [(Atoms.randomized_response(epsilon0), uses)]
    found = epsilon_of_sum(powers, delta)
    assert found.lower <= exact * (1 + 1e-12)
    assert exact * (1 - 1e-12) <= found.upper <= exact * (1 + tolerance)
    assert delta_of_sum(powers, exact) >= delta * (1 - 1e-6) or exact > 1e4
    assert exact <= bound_epsilon(powers, delta) * (1 + 1e-12)
    assert bound_delta(powers, exact) >= delta * (1 - 1e-6) or exact > 1e4


def test_different_epsilons_are_between_the_same_at_the_least_and_at_the_greatest() -> None:
    powers = [(Atoms.randomized_response(e), 50) for e in (0.1, 0.15, 0.21)]
    for delta in (1e-3, 1e-9, 1e-40):
        found = epsilon_of_sum(powers, delta)
        assert optimal_epsilon(0.1, 150, delta) < found.upper < optimal_epsilon(0.21, 150, delta)
        assert found.lower <= found.upper
        if delta > 1e-10:
            assert found.lower > 0.98 * found.upper
    halves = [(Atoms.randomized_response(0.1), 70), (Atoms.randomized_response(0.1), 80)]
    assert epsilon_of_sum(halves, 1e-9).upper == pytest.approx(optimal_epsilon(0.1, 150, 1e-9), rel=1e-9)


def test_a_coarse_lattice_is_less_tight_and_still_valid() -> None:
    powers = [(Atoms.randomized_response(0.37), 20), (Atoms.randomized_response(0.51), 11)]
    fine = Tilted(powers, 2.0).epsilon(1e-6)
    for size in (256, 1024, 8192):
        coarse = Tilted(powers, 2.0, size).epsilon(1e-6)
        assert coarse.lower <= fine.upper <= coarse.upper * (1 + 1e-8)
        assert coarse.lower <= fine.lower or size > 1000


def test_any_tilt_is_valid() -> None:
    powers = [(Atoms.randomized_response(0.5), 30)]
    for tilt in (1e-3, 0.1, 1.0, 5.0, 30.0):
        lattice = Tilted(powers, tilt)
        for epsilon in (0.2, 3.0, 9.0):
            assert binomial_delta(0.5, 30, epsilon) <= lattice.delta(epsilon)


def test_infinite_losses_are_part_of_delta() -> None:
    powers = [(dominating(GAPS), 2)]  # infinite with probability 1 - 0.9**2
    assert epsilon_of_sum(powers, 0.19).upper == math.inf
    assert epsilon_of_sum(powers, 0.2).upper < 1e-6
    assert 0.19 <= delta_of_sum(powers, 50.0) <= 0.19 + 1e-12
    assert delta_of_sum([(dominating(Channel([[1, 0], [0, 1]])), 1)], 50.0) == 1.0


def test_memory_does_not_grow_with_the_uses() -> None:
    powers = [(dominating(DiscreteLaplace(epsilon=1.0)), 10**6), (Atoms.randomized_response(0.1), 10**6)]
    tracemalloc.start()
    epsilon_of_sum(powers, 1e-6)
    assert tracemalloc.get_traced_memory()[1] < 100e6
    tracemalloc.stop()
