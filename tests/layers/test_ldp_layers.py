"""LaplaceLDP and RandomResponseLDP: what is their own."""

from __future__ import annotations

import math
import pickle
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from splitpriv import InvalidParameterError, LaplaceLDP, PrivacyError, RandomResponseLDP, ShapeError


def test_bits_follow_the_threshold() -> None:
    x = torch.tensor([[-1.0, 0.0, 1e-30, 2.0]])
    assert RandomResponseLDP(epsilon=1.0).quantize(x).tolist() == [[0, 0, 1, 1]]
    assert RandomResponseLDP(epsilon=1.0, threshold=1.5).quantize(x).tolist() == [[0, 0, 0, 1]]


def test_thresholds_by_channel() -> None:
    layer = RandomResponseLDP(epsilon=1.0, threshold=torch.tensor([0.0, 10.0]))
    assert layer.quantize(torch.full((1, 2, 2, 2), 5.0)).flatten(2).tolist() == [[[1] * 4, [0] * 4]]
    assert layer.quantize(torch.full((3, 2), 5.0)).tolist() == [[1, 0]] * 3
    assert list(layer.state_dict()) == ["threshold"]
    with pytest.raises(ShapeError, match="features must have 2 channels in dimension 1"):
        layer(torch.zeros(1, 3, 2, 2))


def test_debiased_values_are_unbiased() -> None:
    layer = RandomResponseLDP(epsilon=1.0, debias=True)
    q = float(layer.channel((1,)).flip_probability)
    zero, one = layer.decode_table((1,)).double().tolist()
    assert (1 - q) * zero + q * one == pytest.approx(0.0, abs=1e-7)
    assert q * zero + (1 - q) * one == pytest.approx(1.0, abs=1e-7)


def test_debiasing_uses_the_channel_of_the_shape() -> None:
    layer = RandomResponseLDP(epsilon=2.0, per="record", debias=True)
    small, large = layer.decode_table((2,)), layer.decode_table((200,))
    assert large[1] > small[1] > 1
    layer(torch.randn(4, 200))
    assert torch.equal(layer.decode(torch.ones(1, 2, dtype=torch.uint8)), small[1].expand(1, 2))


def test_what_lies_outside_the_interval() -> None:
    x = torch.tensor([[-9.0, -2.0, -1.0, 0.0, 1.9, 2.0, 9.0]])
    zero = LaplaceLDP(epsilon=1.0, sensitivity=4.0, levels=5)
    clamp = LaplaceLDP(epsilon=1.0, sensitivity=4.0, levels=5, outside="clamp")
    assert zero.quantize(x).tolist() == [[2, 2, 1, 2, 4, 2, 2]]  # the ends of the open interval are outside
    assert clamp.quantize(x).tolist() == [[0, 0, 1, 2, 4, 4, 4]]


@given(st.floats(0.01, 1e6), st.floats(-1e6, 1e6), st.sampled_from([torch.float16, torch.float32, torch.float64]))
def test_every_finite_feature_reaches_a_grid_point(width: float, value: float, dtype: torch.dtype) -> None:
    x = torch.tensor([[value]], dtype=dtype).clamp(-60000, 60000)
    for outside in ("zero", "clamp"):
        layer = LaplaceLDP(epsilon=1.0, sensitivity=width, outside=outside, levels=33)
        assert 0 <= int(layer.quantize(x)) <= 32


def test_huge_features_stay_on_the_grid() -> None:
    x = torch.tensor([[3e38, -3e38, 1e-45]])
    assert LaplaceLDP(epsilon=1.0, sensitivity=1e-30, levels=3, outside="clamp").quantize(x).tolist() == [[2, 0, 1]]


def test_decoded_values_are_grid_points_around_zero() -> None:
    layer = LaplaceLDP(epsilon=1.0, sensitivity=4.0, levels=5)
    table = layer.decode_table((1,))
    assert torch.equal(table, -table.flip(0))
    assert float(table[1] - table[0]) == 1.0


@given(st.floats(0.001, 50.0), st.integers(1, 10**6))
def test_a_record_budget_is_never_passed(epsilon: float, elements: int) -> None:
    for layer in (
        RandomResponseLDP(epsilon=epsilon, per="record"),
        LaplaceLDP(epsilon=epsilon, sensitivity=1.0, per="record"),
    ):
        spend = layer.spend((elements,))
        assert Fraction(spend.per_use) * elements <= Fraction(spend.per_record) <= Fraction(epsilon)
        assert spend.per_record > 0


def test_epsilon_waits_for_a_shape() -> None:
    layer = RandomResponseLDP(epsilon=1.0, per="record")
    with pytest.raises(PrivacyError, match=r"shape must be known to price a record.*Encode a batch first"):
        _ = layer.epsilon
    assert "ε 1 per record" in repr(layer)
    layer(torch.randn(2, 50))
    assert layer.epsilon == pytest.approx(0.02)
    assert "ε 0.02 per element × 50 = 1 per record" in repr(layer)
    assert layer.feature_shape == (50,)
    element = LaplaceLDP(epsilon=1.0, sensitivity=1.0)
    assert element.epsilon <= 1.0
    with pytest.raises(PrivacyError, match="shape must be known"):
        element.spend()


def test_a_refused_batch_leaves_no_trace() -> None:
    layer = RandomResponseLDP(epsilon=1.0, threshold=torch.zeros(3))
    with pytest.raises(ShapeError):
        layer(torch.zeros(1, 5))
    assert layer.feature_shape is None


def test_a_seed_repeats_and_other_seeds_do_not() -> None:
    x = torch.randn(4, 100)
    first, again, other = (RandomResponseLDP(epsilon=1.0, generator=seed).encode(x) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_channels_of_many_lengths_are_not_kept_for_ever() -> None:
    layer = RandomResponseLDP(epsilon=1.0, per="record")
    for n in range(1, 40):
        layer(torch.randn(1, n))
    assert len(layer._channels) <= 16
    assert len(pickle.dumps(layer)) < 5000


def test_reprs_state_the_range_and_the_threshold() -> None:
    text = repr(LaplaceLDP(epsilon=2.0, sensitivity=4.0, outside="clamp"))
    assert "outside becomes the nearer end, 257 levels to 1799, clamping changes the variance by 1 %" in text
    assert "its channel's threshold (2), debiased" in repr(
        RandomResponseLDP(epsilon=1.0, threshold=torch.zeros(2), debias=True)
    )
    assert "bit = x > 0.5" in repr(RandomResponseLDP(epsilon=1.0, threshold=0.5))


@pytest.mark.parametrize("epsilon", [0.0, -1.0, math.nan, math.inf, "2", None, True])
def test_bad_epsilon(epsilon: object) -> None:
    for make in (RandomResponseLDP, lambda epsilon: LaplaceLDP(epsilon=epsilon, sensitivity=1.0)):
        with pytest.raises(
            InvalidParameterError, match=r"epsilon must be finite and > 0, got epsilon=.*Remove the layer to release"
        ):
            make(epsilon=epsilon)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"sensitivity": 0.0}, "sensitivity must be finite and > 0, got sensitivity=0.0. It is the width"),
        ({"sensitivity": 1e39}, r"sensitivity must be in \[1e-30, 1e30\], where float32 can work with it"),
        ({"sensitivity": math.inf}, "sensitivity must be finite and > 0"),
        ({"sensitivity": 1.0, "per": "batch"}, "per must be 'element' or 'record', got per='batch'"),
        ({"sensitivity": 1.0, "outside": "drop"}, "outside must be 'zero' or 'clamp', got outside='drop'"),
        ({"sensitivity": 1.0, "levels": 4}, "levels must be odd, got levels=4. The grid needs a middle"),
        ({"sensitivity": 1.0, "levels": 999}, r"levels must be an integer in \[3, 257\], got levels=999"),
        ({"sensitivity": 1.0, "generator": -1}, "generator must be an int in"),
    ],
)
def test_bad_laplace(options: dict[str, object], text: str) -> None:
    with pytest.raises(InvalidParameterError, match=text):
        LaplaceLDP(epsilon=1.0, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "threshold", [math.nan, "0", torch.zeros(2, 2), torch.tensor([math.inf]), torch.zeros(0), True, None]
)
def test_bad_threshold(threshold: object) -> None:
    with pytest.raises(InvalidParameterError, match="RandomResponseLDP: threshold must be a finite number"):
        RandomResponseLDP(epsilon=1.0, threshold=threshold)  # type: ignore[arg-type]


def test_bad_debias_and_temperature() -> None:
    with pytest.raises(InvalidParameterError, match="debias must be True or False, got debias=1"):
        RandomResponseLDP(epsilon=1.0, debias=1)  # type: ignore[arg-type]
    layer, x = RandomResponseLDP(epsilon=1.0), torch.zeros(1, 2)
    with pytest.raises(InvalidParameterError, match="temperature must be finite and > 0"):
        layer.log_prob(layer.encode(x), x, temperature=0.0)


def test_an_epsilon_that_cannot_be_met_is_refused_at_construction() -> None:
    with pytest.raises(InvalidParameterError, match="large enough to be expressed in 64 bits"):
        RandomResponseLDP(epsilon=1e-20)
