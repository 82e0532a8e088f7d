"""What one release of one record costs, in numbers and in words."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitpriv.accounting import Spend
from splitpriv.mechanisms import RandomizedResponse
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


def test_mechanisms_together_on_one_record() -> None:
    features, label = Spend.of(0.25, 4), Spend.of(0.5, 1)
    both = Spend.together(features, label)
    assert both.per_record == 1.5
    assert Spend.together(Spend.of(0.1, 1), Spend.of(0.2, 1)).per_record == 0.30000000000000004  # outward
    assert both.parts == (features, label)
    assert str(both) == "ε 0.25 per element × 4 = 1 per record + ε 0.5 per record = ε 1.5 per record"
    assert Spend.together(features) is features
    assert Spend.together().per_record == 0.0
    assert Spend.together(features, Spend.infinite(1)).per_record == math.inf


def test_the_channel_is_carried_along_and_does_not_count_in_comparisons() -> None:
    bit = RandomizedResponse(epsilon=1.0)
    spend = Spend.of(bit.epsilon, 5, bit)
    assert spend.channel is bit
    assert spend == Spend.of(bit.epsilon, 5)
    assert "channel" not in repr(spend)


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
