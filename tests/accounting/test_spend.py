"""What one release of one record costs, in numbers and in words."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitpriv.accounting import Spend
from splitpriv.mechanisms.rounding import show


def test_the_claim_names_both_numbers() -> None:
    assert str(Spend.of(2.0, 32768)) == "ε 2 per element × 32,768 = 65,536 per record"
    assert str(Spend.of(4.0, 1)) == "ε 4 per record"
    assert str(Spend.infinite(8)) == "ε ∞ per record (no mechanism bounds it)"


@pytest.mark.parametrize(
    ("spend", "line"),
    [
        (Spend(3.0, 1, 4.0, labels=1.0), "ε 4 per record = 3 features + 1 labels"),
        (Spend(2.0, 8, 17.0, labels=1.0), "ε 17 per record = 16 features (2 per element × 8) + 1 labels"),
        (Spend(2.0, 8, 170.0, labels=1.0), "ε 2 per element × 8 and 1 for labels, in all 170 per record"),
        (Spend(math.inf, 8, math.inf, labels=1.0), "ε ∞ per record (no mechanism bounds it)"),
    ],
)
def test_labels_are_named_beside_the_features(spend: Spend, line: str) -> None:
    assert str(spend) == line


def test_it_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Spend.of(1.0, 1).uses = 2  # type: ignore[misc]


@given(st.floats(1e-9, 1e12))
def test_what_is_shown_is_never_below_what_is_meant(epsilon: float) -> None:
    shown = float(show(epsilon).replace(",", ""))
    assert epsilon <= shown <= epsilon * (1 + 1.1e-5)


def test_a_round_number_is_shown_as_one() -> None:
    assert [show(e) for e in (0.1, 0.2, 0.05, 2.2, 1e-3)] == ["0.1", "0.2", "0.05", "2.2", "0.001"]


def test_infinity_is_shown_as_a_sign() -> None:
    assert show(math.inf) == "∞"
    assert show(0.0) == "0"
    assert show(1.9999999999999953) == "2"
