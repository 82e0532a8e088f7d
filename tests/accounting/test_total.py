"""``epsilon_total`` for everything that can cost privacy."""

from __future__ import annotations

import math

import pytest

from splitpriv import InvalidParameterError, LaplaceLDP, PrivacyError, RandomResponseLDP, ShapeError
from splitpriv.accounting import Ledger, charge, epsilon_total


def test_nothing_released_is_zero() -> None:
    with Ledger():
        assert epsilon_total() == 0.0
    assert epsilon_total(Ledger()) == 0.0


def test_layers_are_priced_by_shape() -> None:
    layer = RandomResponseLDP(epsilon=2.0)
    assert epsilon_total(layer, shape=(64, 8, 8)) == 8192.0
    assert epsilon_total(RandomResponseLDP(epsilon=2.0, per="record"), shape=(64, 8, 8)) <= 2.0
    with pytest.raises(PrivacyError, match="RandomResponseLDP: shape must be known to price a record"):
        epsilon_total(layer)


def test_several_of_one_record_add() -> None:
    parts = [RandomResponseLDP(epsilon=1.0), LaplaceLDP(epsilon=2.0, sensitivity=1.0)]
    assert epsilon_total(parts, shape=(10,)) == pytest.approx(30.0)
    assert epsilon_total(parts, shape=(10,)) <= 30.0
    assert epsilon_total([]) == 0.0
    assert epsilon_total([parts[0], Ledger()], shape=(10,)) == 10.0


def test_ledgers() -> None:
    with Ledger() as ledger:
        charge(3.0)
        assert epsilon_total() == epsilon_total(ledger) == 3.0


def test_pure_sums_hold_for_every_delta() -> None:
    assert epsilon_total(RandomResponseLDP(epsilon=2.0), shape=(4,), delta=1e-6) == 8.0


@pytest.mark.parametrize("delta", [-0.1, 1.0, math.nan, True])
def test_bad_delta(delta: float) -> None:
    wanted = r"delta must be in \[0, 1\), got delta=.*It is a probability; 0 asks for pure"
    with pytest.raises(InvalidParameterError, match=wanted):
        epsilon_total(delta=delta)


def test_bad_input() -> None:
    with pytest.raises(InvalidParameterError, match=r"what must be something with a cost, got int\. Pass a layer"):
        epsilon_total(3)
    with pytest.raises(InvalidParameterError, match="what must be an instance, not a class"):
        epsilon_total(RandomResponseLDP)
    with pytest.raises(InvalidParameterError, match="shape must be None here"):
        epsilon_total(Ledger(), shape=(3,))
    for shape in ((), (0,), (2.5,), 7, (-1, 2), "123"):
        with pytest.raises(ShapeError, match="shape must be a"):
            epsilon_total(RandomResponseLDP(epsilon=1.0), shape=shape)  # type: ignore[arg-type]
