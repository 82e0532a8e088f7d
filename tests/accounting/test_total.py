"""``epsilon_total`` for everything that can cost privacy."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from splitpriv import InvalidParameterError, LaplaceLDP, PrivacyError, RandomResponseLDP, ShapeError, SplitModel
from splitpriv.accounting import Ledger, Spend, charge, compose, delta_total, epsilon_total


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


def test_delta_composes_what_a_layer_uses() -> None:
    layer = RandomResponseLDP(epsilon=0.1)
    assert epsilon_total(layer, shape=(4,), delta=0.0) == epsilon_total(layer, shape=(4,))
    assert 96.571 < epsilon_total(layer, shape=(100, 100), delta=1e-6) <= 96.5719
    noise = LaplaceLDP(epsilon=1.0, sensitivity=1.0)  # its channel is known, and better than its epsilon
    alike = epsilon_total(RandomResponseLDP(epsilon=1.0), shape=(100,), delta=1e-6)
    assert epsilon_total(noise, shape=(100,), delta=1e-6) < 0.9 * alike


def test_a_list_is_composed_and_not_added() -> None:
    layer = RandomResponseLDP(epsilon=0.1)
    together = epsilon_total([layer, layer], shape=(5000,), delta=1e-6)
    assert together == epsilon_total(layer, shape=(10_000,), delta=1e-6)
    assert together == epsilon_total([[layer], (layer,)], shape=(5000,), delta=1e-6)
    assert together < 2 * epsilon_total(layer, shape=(5000,), delta=1e-6)
    mixed = [layer, LaplaceLDP(epsilon=1.0, sensitivity=1.0), Ledger()]
    assert epsilon_total(layer, shape=(30,), delta=1e-6) < epsilon_total(mixed, shape=(30,), delta=1e-6) < 33


def test_a_ledger_is_pure_unless_it_composes_itself() -> None:
    with Ledger() as ledger:
        charge(3.0)
        assert 2.99 < epsilon_total(ledger, delta=1e-6) <= 3.0
        assert epsilon_total(delta=1e-6) == epsilon_total(ledger, delta=1e-6)

    class Composing(Ledger):
        def epsilon_at(self, delta: float) -> float:
            return 1.0 - math.log10(delta) / 10  # 1.6 at 1e-6

    composing = Composing()
    with composing:
        charge(3.0)
        assert epsilon_total(composing) == 3.0
        assert epsilon_total(composing, delta=1e-6) == epsilon_total(delta=1e-6) == 1.6
        assert delta_total(composing, epsilon=1.6) == pytest.approx(1e-6, rel=1e-6)
        assert composing.epsilon_at(delta_total(composing, epsilon=1.7)) <= 1.7
        assert delta_total(composing, epsilon=3.0) == 0.0
        assert 0 < delta_total(composing, epsilon=0.5) <= 1  # epsilon_at never gives so little: pure bound


def model(**options: object) -> SplitModel:
    edge, server = nn.Linear(8, 50), nn.Linear(50, 2)
    return SplitModel(edge, server, cut=RandomResponseLDP(epsilon=0.1), **options)  # type: ignore[arg-type]


def test_models_and_their_releases() -> None:
    tight = epsilon_total(RandomResponseLDP(epsilon=0.1), shape=(50,), delta=1e-6)
    assert epsilon_total(model(), shape=(50,), delta=1e-6) == tight < 5.0
    with Ledger():
        released = model().release(torch.randn(3, 8), progress=False)
        labelled = model(labels="public").release((torch.randn(3, 8), torch.zeros(3).long()), progress=False)
    for release in (released, labelled):
        assert epsilon_total(release) == pytest.approx(5.0)
        assert epsilon_total(release, delta=1e-6) == tight
    twice = epsilon_total([released, labelled], delta=1e-6)
    assert twice == epsilon_total(RandomResponseLDP(epsilon=0.1), shape=(100,), delta=1e-6) < 2 * tight


def test_rows_tied_together_are_not_composed() -> None:
    for options in ({"edge_data": "private", "edge_records": 1}, {"edge_data": "private", "edge_records": 7}):
        tied = model(**options)
        pure = epsilon_total(tied, shape=(50,))
        assert pure * (1 - 1e-4) < epsilon_total(tied, shape=(50,), delta=1e-6) <= pure
        with Ledger():
            release = tied.release(torch.randn(3, 8), progress=False)
        pure = epsilon_total(release)
        assert pure * (1 - 1e-4) < epsilon_total(release, delta=1e-6) <= pure
    assert epsilon_total(model(labels="private"), shape=(50,), delta=1e-6) == math.inf
    assert delta_total(model(labels="private"), shape=(50,), epsilon=1e9) == 1.0


def test_a_cascade_is_composed_by_its_product() -> None:
    noise, bits = LaplaceLDP(epsilon=1.0, sensitivity=4.0, levels=9), RandomResponseLDP(epsilon=1.0)
    chain = SplitModel(nn.Linear(8, 50), nn.Linear(50, 2), cut=[noise, bits])
    pure = epsilon_total(chain, shape=(5000,))
    assert epsilon_total(chain, shape=(5000,), delta=1e-6) < pure / 2


def test_claims_with_a_label_part_are_composed_with_it() -> None:
    features = Spend.of(0.1, 50)
    told = {"joint": False, "edge_data": "public", "notes": (), "labels": "ldp", "per_use": 0.1, "uses": 50}
    total = Spend.together(features, Spend.of(2.0, 1)).per_record
    claims = SimpleNamespace(**told, per_record=total, label_epsilon=2.0)
    release = SimpleNamespace(claims=claims, epsilon=total)
    joint = compose([features, Spend.of(2.0, 1)], delta=1e-6).upper
    assert epsilon_total(release, delta=1e-6) == joint < total
    claims.label_epsilon = 0.0  # does not add up: one unknown mechanism
    assert epsilon_total(release, delta=1e-6) > total - 1e-4


@settings(max_examples=25, deadline=None)
@given(st.floats(0.01, 5), st.integers(1, 300), st.floats(0, 1))
def test_delta_is_the_inverse_of_epsilon(epsilon0: float, uses: int, share: float) -> None:
    layer = RandomResponseLDP(epsilon=epsilon0)
    epsilon = share * epsilon_total(layer, shape=(uses,))
    delta = delta_total(layer, shape=(uses,), epsilon=epsilon)
    if 1e-290 < delta < 1:
        assert epsilon_total(layer, shape=(uses,), delta=delta) <= epsilon * (1 + 1e-9) + 1e-12
    if 1e-290 < delta < 1:
        assert epsilon_total(layer, shape=(uses,), delta=delta * (1 - 1e-6)) >= epsilon * (1 - 1e-9)


@pytest.mark.parametrize("epsilon", [-1.0, math.nan, True, "1"])
def test_bad_epsilon(epsilon: float) -> None:
    with pytest.raises(InvalidParameterError, match="delta_total: epsilon must be a number >= 0"):
        delta_total(epsilon=epsilon)


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
