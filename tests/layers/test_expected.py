"""What the noise of the element-wise mechanisms is around: the exact mean of what they release."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from splitpriv import LaplaceLDP, NonFiniteError, RandomResponseLDP, ShapeError

Make = Callable[[], nn.Module]
MAKERS: list[Make] = [
    lambda: RandomResponseLDP(epsilon=1.0, generator=1),
    lambda: RandomResponseLDP(epsilon=0.5, threshold=torch.tensor([0.5, -0.5, 0.0]), debias=True, generator=1),
    lambda: RandomResponseLDP(epsilon=8.0, per="record", generator=1),
    lambda: LaplaceLDP(epsilon=2.0, sensitivity=3.0, generator=1),
    lambda: LaplaceLDP(epsilon=0.1, sensitivity=3.0, levels=3, outside="clamp", generator=1),
    lambda: LaplaceLDP(epsilon=8.0, sensitivity=3.0, per="record", outside="clamp", generator=1),
]
mechanisms = pytest.mark.parametrize("make", MAKERS, ids=[repr(make()) for make in MAKERS])


def batch(n: int = 2) -> Tensor:
    return torch.randn(n, 3, 2, generator=torch.Generator().manual_seed(0))


@mechanisms
def test_the_mean_of_many_draws(make: Make) -> None:
    # 12 elements, 20,000 draws of each; 5.5 standard errors (of the exact variance): failure probability
    # below 1e-6 a layer for correct ones; fixed seed.
    layer, x, draws = make(), batch(), 20_000
    drawn = layer.decode(layer.encode(x.repeat(draws, 1, 1))).reshape(draws, *x.shape).double()
    channel, values = layer.channel((3, 2)), layer.decode_table((3, 2)).double()
    chances = channel.log_prob(torch.arange(channel.outputs), layer.quantize(x).long().unsqueeze(-1)).exp()
    spread = (chances @ values.square() - (chances @ values).square()).sqrt()
    assert ((drawn.mean(0) - layer.expected(x)).abs() <= 5.5 * spread / math.sqrt(draws)).all()


def test_planted_fault_the_quantised_value_in_place_of_the_mean_is_caught() -> None:
    class Naive(RandomResponseLDP):
        def expected(self, features: Tensor) -> Tensor:
            return self.quantize(features).float()

    with pytest.raises(AssertionError):
        test_the_mean_of_many_draws(lambda: Naive(epsilon=1.0, generator=1))


@mechanisms
def test_it_is_the_mean_of_the_table_of_integers(make: Make) -> None:
    layer, x = make(), batch()
    channel, values = layer.channel((3, 2)), layer.decode_table((3, 2)).double()
    table = torch.tensor([[float(n) for n in row] for row in channel.table()], dtype=torch.float64)
    means = table / float(channel.total) @ values
    found = layer.expected(x)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), means[layer.quantize(x).long()], rtol=1e-6, atol=1e-6)


def test_randomized_response() -> None:
    layer, x = RandomResponseLDP(epsilon=1.0), torch.tensor([[-1.0, 2.0]])
    q = float(layer.channel((2,)).flip_probability)
    torch.testing.assert_close(layer.expected(x), torch.tensor([[q, 1 - q]]))
    debiased = RandomResponseLDP(epsilon=1.0, debias=True)
    torch.testing.assert_close(debiased.expected(x), torch.tensor([[0.0, 1.0]]))


def test_laplace_is_near_the_grid_point() -> None:
    layer = LaplaceLDP(epsilon=4.0, sensitivity=4.0)
    x = torch.linspace(-1.9, 1.9, 101).reshape(1, -1)
    assert float((layer.expected(x) - x).abs().max()) < 0.02  # half a step of 4 / 256, and the clamped tail
    far = LaplaceLDP(epsilon=0.05, sensitivity=4.0, levels=257)  # a range too narrow for its noise pulls inward
    assert 0.01 < float(far.expected(torch.tensor([[1.9]]))) < 1.9 - 0.01


@mechanisms
def test_it_draws_nothing_and_changes_nothing(make: Make) -> None:
    layer, twin, x = make(), make(), batch()
    assert torch.equal(layer.expected(x), layer.expected(x))
    assert layer.feature_shape is None
    assert torch.equal(layer.encode(x), twin.encode(x))
    assert len(pickle.dumps(layer)) < 5000
    assert torch.equal(pickle.loads(pickle.dumps(layer)).expected(x), layer.expected(x))


def test_the_mean_follows_the_channel_of_the_shape() -> None:
    layer = RandomResponseLDP(epsilon=2.0, per="record")
    few, many = layer.expected(torch.ones(1, 2))[0, 0], layer.expected(torch.ones(1, 200))[0, 0]
    assert few > many > 0.5
    assert layer.expected(torch.ones(1, 2))[0, 0] == few


@mechanisms
def test_gradients_are_those_of_forward(make: Make) -> None:
    layer = make()
    one, two = batch().requires_grad_(), batch().requires_grad_()
    layer(one).sum().backward()
    layer.expected(two).sum().backward()
    assert torch.equal(one.grad, two.grad)


def test_dtypes_and_wrong_input() -> None:
    layer = RandomResponseLDP(epsilon=1.0)
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        assert layer.expected(batch().to(dtype)).dtype == torch.float32
    with pytest.raises(NonFiniteError, match="features must be finite"):
        layer.expected(batch() / 0)
    with pytest.raises(ShapeError, match="features must have a floating-point dtype"):
        layer.expected(batch().long())
