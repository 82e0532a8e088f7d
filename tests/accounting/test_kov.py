"""Optimal composition of equal pure mechanisms: exact, at any size, never below the truth."""

from __future__ import annotations

import math
import time
import tracemalloc

import pytest
from exact_composition import binomial_delta
from hypothesis import given, settings
from hypothesis import strategies as st

from splitpriv.accounting import kov
from splitpriv.accounting.kov import LARGEST, optimal_delta, optimal_epsilon

epsilons = st.floats(math.log(1e-9), math.log(50)).map(math.exp)
deltas = st.floats(-690, -1e-3).map(math.exp)


@pytest.mark.parametrize(
    ("epsilon0", "uses", "expected"),
    [(0.1, 10**4, 96.572), (0.1, 10**6, 5469.572), (0.01, 10**6, 96.7158), (1, 128, 101.8)],
)
def test_reference_values(epsilon0: float, uses: int, expected: float) -> None:
    digits = 4 if expected == 96.7158 else 1 if expected == 101.8 else 3
    assert round(optimal_epsilon(epsilon0, uses, 1e-6), digits) == expected


@settings(max_examples=60, deadline=None)
@given(epsilons, st.integers(1, 60), st.floats(0, 1))
def test_delta_is_the_binomial_tail_and_never_below_it(epsilon0: float, uses: int, share: float) -> None:
    epsilon = share * epsilon0 * uses
    exact, found = binomial_delta(epsilon0, uses, epsilon), optimal_delta(epsilon0, uses, epsilon)
    assert exact <= found
    if found > 1e-300:
        assert found <= exact * (1 + 1e-10)


@settings(max_examples=60, deadline=None)
@given(epsilons, st.integers(1, 60), deltas)
def test_epsilon_holds_and_nothing_smaller_does(epsilon0: float, uses: int, delta: float) -> None:
    found = optimal_epsilon(epsilon0, uses, delta)
    assert 0 <= found <= epsilon0 * uses * (1 + 1e-15)
    assert binomial_delta(epsilon0, uses, found) <= delta
    if found > 0:
        assert binomial_delta(epsilon0, uses, found * (1 - 1e-9)) > delta


@pytest.mark.parametrize(("epsilon0", "uses"), [(0.1, 2000), (1e-3, 1000), (1.0, 1500)])
def test_many_uses_are_exact_too(epsilon0: float, uses: int) -> None:
    epsilon = optimal_epsilon(epsilon0, uses, 1e-6)
    exact = binomial_delta(epsilon0, uses, epsilon)
    assert 1e-6 * (1 - 1e-9) < exact <= 1e-6
    assert exact <= optimal_delta(epsilon0, uses, epsilon) <= exact * (1 + 1e-9)


@settings(max_examples=60, deadline=None)
@given(epsilons, st.integers(1, 10**7), deltas, st.floats(1, 2), st.integers(1, 100))
def test_it_grows_with_uses_and_epsilon_and_falls_with_delta(
    epsilon0: float, uses: int, delta: float, factor: float, more: int
) -> None:
    found = optimal_epsilon(epsilon0, uses, delta)
    assert found <= optimal_epsilon(epsilon0 * factor, uses, delta) * (1 + 1e-9) + 1e-300
    assert found <= optimal_epsilon(epsilon0, uses + more, delta) * (1 + 1e-9) + 1e-300
    assert found >= optimal_epsilon(epsilon0, uses, min(0.9999, delta * factor)) * (1 - 1e-9) - 1e-300
    inverse = optimal_delta(epsilon0, uses, found)
    assert inverse <= delta * (1 + 1e-6) + 1e-300


@pytest.mark.parametrize("epsilon0", [1e-9, 1e-3, 0.1, 1.0, 30.0, 700.0, 1e4])
@pytest.mark.parametrize("delta", [5e-324, 1e-300, 1e-6, 0.5, 1 - 2**-53])
@pytest.mark.parametrize("uses", [0, 1, 2, 10**6, 10**7, 10**12, 2**62])
def test_extremes_neither_overflow_nor_turn_negative(epsilon0: float, delta: float, uses: int) -> None:
    found = optimal_epsilon(epsilon0, uses, delta)
    assert 0 <= found <= epsilon0 * uses * (1 + 1e-15)
    assert 0 <= optimal_delta(epsilon0, uses, found) <= 1
    assert 0 < optimal_delta(epsilon0, max(uses, 1), 0.0) <= 1


def test_ends() -> None:
    assert optimal_epsilon(0.125, 80, 0.0) == 10.0
    assert optimal_epsilon(0.0, 100, 1e-6) == optimal_epsilon(1.0, 0, 1e-6) == 0.0
    assert optimal_epsilon(math.inf, 1, 1e-6) == math.inf
    assert optimal_delta(math.inf, 1, 5.0) == 1.0
    assert optimal_delta(0.125, 80, 10.0) == optimal_delta(1.0, 0, 0.0) == 0.0
    assert optimal_epsilon(0.125, 80, 1e-300) == 10.0


def test_under_50_ms_at_ten_million_uses_and_little_memory() -> None:
    optimal_epsilon(0.1, 1000, 1e-6)
    for epsilon0 in (1e-9, 1e-3, 0.1, 2.0):
        seconds = []
        for _ in range(3):
            start = time.perf_counter()
            optimal_epsilon(epsilon0, 10**7, 1e-6)
            seconds.append(time.perf_counter() - start)
        assert min(seconds) < 0.05
    tracemalloc.start()
    optimal_epsilon(0.1, 10**6, 1e-6)
    assert tracemalloc.get_traced_memory()[1] < 16e6
    tracemalloc.stop()


def test_the_bound_by_moments_takes_over_without_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    exact, at = optimal_epsilon(0.01, 10**6, 1e-6), optimal_delta(0.01, 10**6, 90.0)
    monkeypatch.setattr(kov, "LARGEST", 1)
    assert exact <= optimal_epsilon(0.01, 10**6, 1e-6) <= 1.05 * exact
    assert at <= optimal_delta(0.01, 10**6, 90.0) <= 20 * at
    monkeypatch.undo()
    assert optimal_epsilon(1e-5, LARGEST, 1e-6) <= optimal_epsilon(1e-5, LARGEST + 1, 1e-6)


def test_forgotten_terms_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    # A window that is too narrow and does not count what it leaves out.
    def narrow(end: int, middle: int, rest: float, uses: int, epsilon0: float) -> int:
        return middle - 1 if end < middle else min(middle + 1, uses)

    monkeypatch.setattr(kov, "_where_rare", narrow)
    assert optimal_delta(0.1, 50, 1.0) < binomial_delta(0.1, 50, 1.0)
