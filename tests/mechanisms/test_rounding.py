"""Outward rounding: never below the truth, and never further than one float above it."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from splitpriv.mechanisms.rounding import log_up, round_down, round_up, scale_up, share_down, sum_up

fractions = st.fractions(min_value=0, max_value=10**9)
losses = st.floats(0, 1e9)


@given(fractions)
def test_round_up_and_down_bracket_the_value(value: Fraction) -> None:
    assert Fraction(round_down(value)) <= value <= Fraction(round_up(value))
    assert round_up(value) <= math.nextafter(round_down(value), math.inf)


@given(st.lists(losses, max_size=20))
def test_sums_are_never_below_the_exact_sum(terms: list[float]) -> None:
    assert Fraction(sum_up(terms)) >= sum(map(Fraction, terms))


@given(st.lists(st.floats(0, allow_infinity=False), max_size=2))
def test_short_sums_are_the_smallest_float_that_is_not_below(terms: list[float]) -> None:
    assert sum_up(terms) == round_up(sum(map(Fraction, terms), Fraction(0)))
    assert sum_up([0.0, *terms, 0]) == sum_up(terms)
    assert sum_up([*terms, math.inf]) == math.inf


@given(losses, st.integers(0, 10**7))
def test_products_are_never_below_the_exact_product(loss: float, times: int) -> None:
    assert Fraction(scale_up(loss, times)) >= Fraction(loss) * times


@given(st.floats(1e-9, 1e9), st.integers(1, 10**7))
def test_shares_never_add_up_to_more_than_the_whole(loss: float, parts: int) -> None:
    assert Fraction(share_down(loss, parts)) * parts <= Fraction(loss)


@given(st.integers(1, 2**64), st.integers(0, 2**64))
def test_log_is_rounded_outward_by_at_most_one_float(low: int, more: int) -> None:
    ratio = Fraction(low + more, low)
    reported = log_up(ratio)
    with localcontext() as context:
        context.prec = 120
        exact = (Decimal(ratio.numerator) / Decimal(ratio.denominator)).ln()
        assert Decimal(reported) >= exact
        assert ratio == 1 or Decimal(math.nextafter(reported, 0)) <= exact * (1 + Decimal(10) ** -50)


def test_log_of_a_ratio_next_to_one_is_rounded_outward_too() -> None:
    for power in (41, 60, 64, 128, 200):
        excess = Fraction(1, 2**power) * (1 + Fraction(1, 10**22))
        lower = excess - excess**2 / 2  # ln(1 + t) lies between this and t
        assert lower < Fraction(log_up(1 + excess)) <= excess * (1 + Fraction(1, 2**51))


def test_infinities() -> None:
    assert log_up(None) == math.inf
    assert log_up(Fraction(1)) == 0.0
    assert sum_up([1.0, math.inf]) == math.inf
    assert scale_up(math.inf, 0) == 0.0
    assert scale_up(math.inf, 2) == math.inf
    assert round_up(Fraction(10) ** 400) == math.inf
    assert sum_up([]) == 0.0
