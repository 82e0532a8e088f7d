"""What the three defences promise alike."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from splitpriv._errors import InvalidParameterError, NonFiniteError, ShapeError
from splitpriv.accounting.spend import Spend
from splitpriv.layers.defence import Defence
from splitpriv.layers.local_pretrained_encoder import LocalPretrainedEncoder
from splitpriv.layers.protocol import PrivacyLayer
from splitpriv.layers.random_vector_mask import RandomVectorMask
from splitpriv.layers.relu_sanitizer import ReluSanitizer

NONCE = b"a nonce of twenty-five b."
SHAPE = (2, 6, 5)
LAYERS: dict[str, Callable[[bytes | None], Defence]] = {
    "sign mask": lambda nonce: RandomVectorMask(nonce),
    "dyadic mask": lambda nonce: RandomVectorMask(nonce, entries="dyadic"),
    "relu": lambda nonce: ReluSanitizer(nonce, threshold=0.25),
    "encoder": lambda nonce: LocalPretrainedEncoder(SHAPE, 7, nonce=nonce, channels=3),
}


@pytest.fixture(params=LAYERS)
def make(request: pytest.FixtureRequest) -> Callable[[bytes | None], Defence]:
    return LAYERS[request.param]


@pytest.fixture
def layer(make: Callable[[bytes | None], Defence]) -> Defence:
    return make(NONCE)


@pytest.fixture
def features(generator: torch.Generator) -> Tensor:
    return torch.randn(4, *SHAPE, generator=generator)


def test_costs_infinity_and_says_so(layer: Defence) -> None:
    assert isinstance(layer, PrivacyLayer)
    released = layer.output_shape(SHAPE)
    assert layer.epsilon == math.inf
    assert layer.spend(SHAPE) == Spend(math.inf, math.prod(released), math.inf)
    assert layer.channel(SHAPE) is None
    assert repr(layer).startswith(f"{type(layer).__name__}(defence, ε ∞; ")
    assert "\n" not in repr(layer)


@pytest.mark.parametrize("shape", [(), (2, 0), "ab", 3, (2, -1, 5)])
def test_spend_refuses_what_is_no_shape(layer: Defence, shape: object) -> None:
    with pytest.raises(ShapeError, match=f"^{type(layer).__name__}: shape must be a"):
        layer.spend(shape)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_encode_is_float32_and_forward_keeps_the_dtype(layer: Defence, features: Tensor, dtype: torch.dtype) -> None:
    given = features.to(dtype)
    encoded = layer.encode(given)
    assert encoded.dtype == torch.float32
    assert encoded.shape == (4, *layer.output_shape(SHAPE))
    assert torch.equal(layer.decode(encoded), encoded)
    assert layer(given).dtype == dtype
    assert torch.equal(layer(given), encoded.to(dtype))
    assert torch.equal(encoded, layer.encode(given.float()))
    assert layer.encode(given[:0]).shape == (0, *layer.output_shape(SHAPE))


def test_a_module_cast_to_another_dtype_still_works(layer: Defence, features: Tensor) -> None:
    expected = layer.encode(features)
    for dtype in (torch.float64, torch.bfloat16):
        encoded = layer.to(dtype).encode(features)
        assert encoded.dtype == torch.float32
        assert torch.allclose(encoded, expected, atol=0.05)


def test_train_and_eval_and_autocast_change_nothing(layer: Defence, features: Tensor) -> None:
    expected = layer.eval().encode(features)
    assert torch.equal(layer.train().encode(features), expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(layer.encode(features), expected)


def test_gradients_reach_the_features(layer: Defence, features: Tensor) -> None:
    with torch.inference_mode():  # leaves nothing behind that autograd cannot use
        layer(features)
    given = features.clone().requires_grad_()
    layer(given).sum().backward()
    step = 1e-3
    along = torch.randn(features.shape, generator=torch.Generator().manual_seed(1))
    difference = layer.encode(features + step * along).sum() - layer.encode(features - step * along).sum()
    assert given.grad is not None
    assert float((given.grad * along).sum()) == pytest.approx(float(difference) / (2 * step), rel=0.05, abs=0.05)


def test_bad_features_are_refused(layer: Defence, features: Tensor) -> None:
    name = type(layer).__name__
    with pytest.raises(ShapeError, match=f"^{name}: features must have a floating-point dtype, got dtype=torch.int64"):
        layer(features.long())
    with pytest.raises(ShapeError, match=f"^{name}: features must be a torch.Tensor, got list"):
        layer.encode([[1.0]])  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match=f"^{name}: features must have shape \\(batch"):
        layer(features[0, 0, 0])
    with pytest.raises(ShapeError, match=f"^{name}: "):
        layer(features[:, :, :0])
    for bad in (math.nan, math.inf, -math.inf):
        spoiled = features.clone()
        spoiled[3, 1, 2, 2] = bad
        with pytest.raises(NonFiniteError, match=f"^{name}: features must be finite, got NaN or infinity"):
            layer(spoiled)


def test_a_result_beyond_float32_is_refused(layer: Defence, features: Tensor) -> None:
    huge = features.double() * 1e300
    text = f"^{type(layer).__name__}: features must stay within float32, got a result beyond it"
    with pytest.raises(NonFiniteError, match=text):
        layer(huge)


def test_decode_refuses_what_is_not_float(layer: Defence) -> None:
    name = type(layer).__name__
    with pytest.raises(ShapeError, match=f"^{name}: symbols must be a floating-point tensor, got dtype=torch.uint8"):
        layer.decode(torch.zeros(2, 3, dtype=torch.uint8))
    with pytest.raises(ShapeError, match=f"^{name}: symbols must be a floating-point tensor, got list"):
        layer.decode([1.0])  # type: ignore[arg-type]


def test_log_prob_is_a_squared_distance_with_a_slope(layer: Defence, features: Tensor) -> None:
    encoded = layer.encode(features)
    assert torch.equal(layer.log_prob(encoded, features), torch.zeros_like(encoded))
    scored = layer.log_prob(encoded + 3, features, temperature=2.0)
    assert torch.allclose(scored, torch.full_like(encoded, -9 / 8))
    guess = torch.zeros_like(features).add_(0.5).requires_grad_()
    layer.log_prob(encoded, guess).sum().backward()
    assert guess.grad is not None
    assert bool((guess.grad != 0).any())


def test_log_prob_refuses_a_bad_temperature_and_shape(layer: Defence, features: Tensor) -> None:
    name = type(layer).__name__
    encoded = layer.encode(features)
    for bad in (0.0, -1.0, math.inf, "1"):
        with pytest.raises(InvalidParameterError, match=rf"^{name}\.log_prob: temperature must be finite and > 0"):
            layer.log_prob(encoded, features, temperature=bad)  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match=rf"^{name}\.log_prob: symbols must have the shape that features encode to"):
        layer.log_prob(encoded[:2], features)


def test_copies_and_state_dicts_restore_the_map(
    make: Callable[[bytes | None], Defence], layer: Defence, features: Tensor
) -> None:
    expected = layer.encode(features)
    assert torch.equal(copy.deepcopy(layer).encode(features), expected)
    assert torch.equal(pickle.loads(pickle.dumps(layer)).encode(features), expected)
    for assign in (False, True):
        other = make(bytes(1000))
        assert not torch.equal(other.encode(features), expected)  # fills its cache
        other.load_state_dict(layer.state_dict(), assign=assign)
        assert torch.equal(other.encode(features), expected)
    assert not torch.equal(make(None).encode(features), make(None).encode(features))


class Cut(nn.Module):
    """An edge, a layer and a server, one after the other."""

    def __init__(self, edge: nn.Module, layer: nn.Module, server: nn.Module) -> None:
        super().__init__()
        self.edge, self.layer, self.server = edge, layer, server

    def forward(self, x: Tensor) -> Tensor:
        return self.server(self.layer(self.edge(x)))


# torch provokes this one itself and hides it, though not from a filter that makes errors of warnings.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.parametrize("around", [nn.Sequential, Cut])
def test_works_inside_a_compiled_model(
    layer: Defence, features: Tensor, around: Callable[[nn.Module, nn.Module, nn.Module], nn.Module]
) -> None:
    flat = math.prod(layer.output_shape(SHAPE))
    edge = nn.Conv2d(2, 2, 1)
    model = around(edge, layer, nn.Sequential(nn.Flatten(), nn.Linear(flat, 3)))
    graphs: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, _: list[Tensor]) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    torch.compiler.reset()  # or an earlier case's graphs would be reused
    compiled = torch.compile(model, backend=backend)
    for size in (4, 4, 2):
        expected, got = model(features[:size]), compiled(features[:size])
        assert torch.equal(got, expected)
        got.sum().backward()
    # One before the layer, one after. Sequential is a loop, which torch does not resume after a break.
    assert len(graphs) >= 2 or around is nn.Sequential
    assert edge.weight.grad is not None


@pytest.mark.parametrize("name", ["_defend", "_claim"])
def test_the_base_defends_nothing(name: str) -> None:
    with pytest.raises(NotImplementedError):
        getattr(Defence(), name)(*[torch.ones(1, 1)][: name == "_defend"])
