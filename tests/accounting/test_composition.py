"""``compose``: parts of any kind on one record; and the figures at which other tools go wrong."""

from __future__ import annotations

import dataclasses
import math

import pytest
from exact_composition import binomial_delta
from hypothesis import given, settings
from hypothesis import strategies as st

from splitpriv import InvalidParameterError
from splitpriv.accounting import Bounds, Spend, compose
from splitpriv.accounting.composition import divided, tight_delta
from splitpriv.mechanisms import Channel, DiscreteLaplace, RandomizedResponse

parts = st.lists(st.tuples(st.floats(1e-3, 3.0), st.integers(0, 500)), min_size=1, max_size=4)


@settings(max_examples=15, deadline=None)
@given(parts, st.floats(-30, -1).map(math.exp))
def test_never_above_the_sum_and_in_order(given_parts: list[tuple[float, int]], delta: float) -> None:
    found = compose(given_parts, delta=delta)
    assert 0 <= found.lower <= found.estimate <= found.upper
    assert found.upper <= compose(given_parts, delta=0.0).upper


@settings(max_examples=8, deadline=None)
@given(parts, st.integers(1, 50), st.floats(-25, -2).map(math.exp))
def test_it_grows_with_parts_and_falls_with_delta(
    given_parts: list[tuple[float, int]], more: int, delta: float
) -> None:
    found = compose(given_parts, delta=delta).upper
    slack = 1e-3 * found + 1e-9  # the lattices differ
    assert compose([*given_parts, (0.3, more)], delta=delta).upper >= found - slack
    assert compose(given_parts, delta=delta / 10).upper >= found - slack


@pytest.mark.parametrize(
    ("epsilon0", "uses", "expected"),
    [(0.1, 10_000, 96.572), (0.1, 1_000_000, 5469.572), (0.01, 1_000_000, 96.716), (1.0, 128, 101.824)],
)
def test_figures_that_other_accountants_miss(epsilon0: float, uses: int, expected: float) -> None:
    found = compose([(epsilon0, uses)], delta=1e-6)
    assert round(found.upper, 3) == expected
    assert found.lower == found.estimate == found.upper


def test_an_exact_sum_of_eighty_is_not_reported_as_less() -> None:
    # Few uses of a large epsilon: nearly the whole sum is lost at a small delta.
    for epsilon0, uses in ((8.0, 10), (40.0, 2), (80.0, 1), (1.0, 80)):
        found = compose([(epsilon0, uses)], delta=1e-30).upper
        assert binomial_delta(epsilon0, uses, found) <= 1e-30
        mixed = compose([(epsilon0, uses), (1e-6, 1)], delta=1e-30)
        assert mixed.upper >= found * (1 - 1e-12)
        assert mixed.upper <= 80 + 1e-6 + 1e-12


@pytest.mark.parametrize("delta", [5e-324, 1e-300, 1e-100, 1e-6, 0.999])
@pytest.mark.parametrize(
    "chosen",
    [
        [(700.0, 3), (1e4, 2)],
        [(1e-9, 10**7), (1e-3, 10)],
        [(1e-9, 1), (1e4, 1)],
        [(0.1, 10**12), (1.0, 10**6)],
        [(1.0, 2**62), (2.0, 1)],
        [(1e-300, 5), (1.0, 1)],
    ],
    ids=str,
)
def test_extremes(chosen: list[tuple[float, int]], delta: float) -> None:
    found = compose(chosen, delta=delta)
    assert 0 <= found.lower <= found.estimate <= found.upper <= compose(chosen, delta=0.0).upper
    spends = [Spend.of(epsilon, uses) for epsilon, uses in chosen]
    assert 0 <= tight_delta(spends, found.upper) <= 1


def test_parts_of_any_kind() -> None:
    bit, noise = RandomizedResponse(epsilon=0.5), DiscreteLaplace(epsilon=1.0, levels=5)
    by_hand = compose([Spend.of(bit.epsilon, 20, bit), Spend.of(noise.epsilon, 30, noise)], delta=1e-6)
    assert compose([(bit, 20), (noise, 30)], delta=1e-6) == by_hand
    assert compose([(bit.epsilon, 20), *[noise] * 30], delta=1e-6) == by_hand
    assert compose([(Spend.of(bit.epsilon, 2, bit), 10), (noise, 30)], delta=1e-6) == by_hand
    assert by_hand.upper < compose([(bit, 20), (noise.epsilon, 30)], delta=1e-6).upper  # the channel is known
    assert compose([], delta=1e-6) == Bounds(0.0, 0.0, 0.0)
    assert compose([(bit, 0), (0.0, 7)], delta=1e-6) == Bounds(0.0, 0.0, 0.0)
    assert compose([(math.inf, 1), (bit, 1)], delta=0.5).upper == math.inf


def test_a_channel_with_an_infinite_loss_is_finite_beyond_its_probability() -> None:
    gaps = Channel([[5, 4, 1, 0], [5, 4, 0, 1]])
    assert gaps.epsilon == math.inf
    assert compose([(gaps, 2)], delta=0.19).upper == math.inf
    assert compose([(gaps, 2), (1.0, 1)], delta=0.2).upper <= 1.0
    assert tight_delta([Spend.of(math.inf, 2, gaps)], 1.0) == pytest.approx(0.19)


def test_the_bounds_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Bounds(0.0, 1.0, 2.0).upper = 3.0  # type: ignore[misc]


def test_what_a_spend_is_made_of() -> None:
    features, label = Spend.of(0.5, 4), Spend.of(1.0, 1)
    assert divided(Spend.together(features, label)) == [features, label]
    assert divided(Spend.together(Spend.together(features, label), label)) == [features, label, label]
    assert divided(Spend(0.5, 4, 7.0)) == [Spend.of(7.0, 1)]  # pays more than its uses: something else happened
    assert divided(Spend(0.5, 4, 7.0, parts=(features, label))) == [Spend.of(7.0, 1)]
    assert tight_delta([], 1.0) == tight_delta([features], 2.0) == 0.0
    assert tight_delta([Spend.infinite(3)], 1e9) == 1.0


def test_bad_parts() -> None:
    for part in (3.0, "x", ("x", 2), (-1.0, 2), (True, 2), (1.0, 2, 3), None):
        with pytest.raises(
            InvalidParameterError, match=r"compose: part must be something with a cost.*Pass Spends, Chan"
        ):
            compose([part], delta=1e-6)  # type: ignore[list-item]
    with pytest.raises(InvalidParameterError, match="compose: count must be an integer >= 0"):
        compose([(1.0, -1)], delta=1e-6)
    with pytest.raises(InvalidParameterError, match=r"compose: delta must be in \[0, 1\)"):
        compose([(1.0, 1)], delta=1.0)


def test_against_dp_accounting() -> None:
    pld = pytest.importorskip("dp_accounting.pld.privacy_loss_distribution")
    mechanisms = [
        pld.from_randomized_response(2 / (1 + math.exp(e)), 2, value_discretization_interval=1e-4) for e in (1, 0.25)
    ]
    theirs = mechanisms[0].self_compose(20).compose(mechanisms[1].self_compose(100)).get_epsilon_for_delta(1e-6)
    ours = compose([(1.0, 20), (0.25, 100)], delta=1e-6)
    assert ours.lower <= theirs * (1 + 1e-6)
    assert ours.upper == pytest.approx(theirs, rel=1e-3)
