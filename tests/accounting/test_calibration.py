"""The epsilon of one use: never overshoots, and is the largest."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitpriv import InvalidParameterError, RandomResponseLDP
from splitpriv.accounting import calibrate, compose, epsilon_total

targets = st.floats(-15, 8).map(math.exp)


@settings(max_examples=60, deadline=None)
@given(targets, st.floats(-600, -0.01).map(math.exp), st.integers(1, 10**6))
def test_it_never_overshoots_and_is_maximal(target: float, delta: float, uses: int) -> None:
    found = calibrate(target_epsilon=target, delta=delta, uses=uses)
    assert compose([(found, uses)], delta=delta).upper <= target
    assert compose([(found * (1 + 1e-9), uses)], delta=delta).upper > target
    assert found >= calibrate(target_epsilon=target, delta=0.0, uses=uses)


@given(targets, st.integers(1, 10**9))
def test_at_delta_zero_it_is_an_even_share(target: float, uses: int) -> None:
    found = calibrate(target_epsilon=target, delta=0.0, uses=uses)
    assert compose([(found, uses)], delta=0.0).upper <= target
    assert found == pytest.approx(target / uses, rel=1e-12)


def test_a_layer_made_with_it_stays_within_the_target() -> None:
    layer = RandomResponseLDP(epsilon=calibrate(target_epsilon=8.0, delta=1e-6, uses=4096))
    assert 7.9999 < epsilon_total(layer, shape=(4096,), delta=1e-6) <= 8.0


def test_extremes() -> None:
    assert calibrate(target_epsilon=5e-324, delta=0.0, uses=3) == 0.0
    for target, delta, uses in ((1e-300, 1e-6, 1), (1e6, 1e-300, 10**7), (1e-9, 0.5, 10), (5e-324, 1e-300, 3)):
        found = calibrate(target_epsilon=target, delta=delta, uses=uses)
        assert 0 <= found < math.inf
        assert compose([(found, uses)], delta=delta).upper <= target


def test_bad_parameters() -> None:
    with pytest.raises(InvalidParameterError, match="calibrate: target_epsilon must be finite and > 0"):
        calibrate(target_epsilon=math.inf, delta=0.0, uses=1)
    with pytest.raises(InvalidParameterError, match=r"calibrate: delta must be in \[0, 1\)"):
        calibrate(target_epsilon=1.0, delta=1.0, uses=1)
    with pytest.raises(InvalidParameterError, match="calibrate: uses must be an integer >= 1"):
        calibrate(target_epsilon=1.0, delta=0.0, uses=0)
