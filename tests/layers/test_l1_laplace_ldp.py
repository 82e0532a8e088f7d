"""L1LaplaceLDP: the norm on the grid, the price from the integers that run."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import pytest
import torch
from exact import exceeds
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from splitpriv import InvalidParameterError, L1LaplaceLDP
from splitpriv.mechanisms import DiscreteLaplace


def norms(layer: L1LaplaceLDP, x: Tensor) -> Tensor:
    return (layer.quantize(x) - layer.steps).abs().flatten(1).sum(dim=1)


@given(
    st.integers(0, 10**6),
    st.integers(1, 400),
    st.sampled_from([1, 3, 64, 128]),
    st.sampled_from([torch.float16, torch.float32, torch.float64]),
    st.floats(1e-3, 1e3),
)
def test_the_norm_on_the_grid_never_passes_the_steps(
    seed: int, elements: int, steps: int, dtype: torch.dtype, scale: float
) -> None:
    layer = L1LaplaceLDP(epsilon=4.0, radius=1.7, steps=steps)
    x = (scale * torch.randn(5, elements, generator=torch.Generator().manual_seed(seed))).to(dtype)
    x = torch.nan_to_num(x)
    assert int(norms(layer, x).max()) <= steps


def test_the_norm_holds_whatever_the_floats_did(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = L1LaplaceLDP(epsilon=4.0, radius=1.0, steps=10)
    monkeypatch.setattr(layer, "_position", lambda x: x * 1.3 * 10)  # a scaling that lets too much pass
    assert norms(layer, torch.tensor([[0.5, -0.3, 0.2], [2.0, 0.0, 0.0], [0.1, 0.1, 0.1]])).tolist() == [10, 10, 3]


def test_rounding_is_toward_zero_and_the_direction_is_kept() -> None:
    layer = L1LaplaceLDP(epsilon=4.0, radius=1.0, steps=10)
    x = torch.tensor([[0.19, -0.19, 0.0], [5.0, -5.0, 0.0], [1.0, 0.0, 0.0], [3e38, -3e38, 3e38], [1e-45, 0, 0]])
    assert (layer.quantize(x) - 10).tolist() == [[1, -1, 0], [5, -5, 0], [10, 0, 0], [3, -3, 3], [0, 0, 0]]


@pytest.mark.parametrize("epsilon", [0.5, 2.0, 8.0])
def test_the_price_bounds_every_pair_of_records(epsilon: float) -> None:
    layer = L1LaplaceLDP(epsilon=epsilon, radius=1.0, steps=2)
    table = layer.noise.table()
    points = [p for p in itertools.product(range(-2, 3), repeat=2) if sum(map(abs, p)) <= 2]
    worst = Fraction(1)
    for one, other in itertools.product(points, repeat=2):
        loss = Fraction(1)
        for a, b in zip(one, other, strict=True):
            loss *= max(Fraction(p, q) for p, q in zip(table[a + 2], table[b + 2], strict=True))
        worst = max(worst, loss)
    assert not exceeds(worst, layer.epsilon)
    assert layer.epsilon <= epsilon
    assert math.log(worst) > 0.99 * epsilon  # and next to nothing is given away


def test_planted_fault_noise_for_half_the_diameter_is_too_dear() -> None:
    # K steps instead of 2K: what a record pays who moves from one element to another, and not just to zero.
    half = DiscreteLaplace(epsilon=4.0, levels=5)
    assert not exceeds(half.adjacent_ratio**2, 2.0 * (1 + 1e-9))
    assert exceeds(half.adjacent_ratio**4, 2.0)


@pytest.mark.parametrize(("epsilon", "levels"), [(1.0, 5), (20.0, 9), (0.1, 3)])
def test_adjacent_ratio_is_that_of_the_table(epsilon: float, levels: int) -> None:
    channel = DiscreteLaplace(epsilon=epsilon, levels=levels)
    rows = itertools.pairwise(channel.table())
    pairs = [pair for one, other in rows for pair in zip(one, other, strict=True)]
    assert channel.adjacent_ratio == max(Fraction(max(p), min(p)) for p in pairs)


@given(st.floats(0.01, 64.0))
def test_calibration_meets_epsilon_and_never_passes_it(epsilon: float) -> None:
    layer = L1LaplaceLDP(epsilon=epsilon, radius=3.0)
    assert 0.99 * epsilon <= layer.epsilon <= epsilon
    assert layer.spend((100,)).per_record == layer.epsilon
    assert layer.spend((100,)).uses == 1


def test_expected_is_what_the_noise_is_around() -> None:
    layer = L1LaplaceLDP(epsilon=8.0, radius=2.0, generator=3)
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    released = layer(x.repeat(20_000, 1)).reshape(20_000, 3, 4).double()
    # 12 means of 20,000 draws, 5.5 standard errors each; clamping to the range moves a mean by far less.
    error = 5.5 * released.std(dim=0) / math.sqrt(20_000)
    assert bool(((released.mean(dim=0) - layer.expected(x)).abs() < error).all())


def test_log_prob_is_the_channel_s_on_the_grid() -> None:
    layer = L1LaplaceLDP(epsilon=4.0, radius=1.0, steps=16)
    x = torch.tensor([[4.0, -2.0, 1.0], [0.0, 7.0, -9.0]]) / 16  # on the grid, and within the radius
    symbols = layer.encode(x)
    exact = layer.noise.log_prob(symbols, layer.quantize(x))
    torch.testing.assert_close(layer.log_prob(symbols, x.double()), exact)
    between = (x.double() + 0.3 / 16).requires_grad_()
    layer.log_prob(symbols, between).sum().backward()
    assert bool((between.grad != 0).any())


def test_bad_parameters_are_refused() -> None:
    with pytest.raises(InvalidParameterError, match="L1LaplaceLDP: radius must be finite and > 0"):
        L1LaplaceLDP(epsilon=1.0, radius=0.0)
    with pytest.raises(
        InvalidParameterError, match=r"radius must be in \[1e-30, 1e30\].*largest L1 norm that a record"
    ):
        L1LaplaceLDP(epsilon=1.0, radius=1e31)
    with pytest.raises(InvalidParameterError, match=r"L1LaplaceLDP: steps must be an integer in \[1, 128\]"):
        L1LaplaceLDP(epsilon=1.0, radius=1.0, steps=0)
    with pytest.raises(InvalidParameterError, match=r"one that 64 steps can meet \(realised .*\). Use fewer steps"):
        L1LaplaceLDP(epsilon=64.0, radius=1.0, steps=64)
