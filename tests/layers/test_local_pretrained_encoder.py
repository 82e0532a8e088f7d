"""The encoder: its start, its shape, and what it remembers of the fits behind it."""

from __future__ import annotations

import copy
import math
import pickle

import pytest
import torch
from torch import Tensor, nn

from splitpriv._errors import InvalidParameterError, ShapeError
from splitpriv.layers.local_pretrained_encoder import LocalPretrainedEncoder
from splitpriv.layers.public_vector import derive_key, expand

NONCE = b"Kx7-nonce-in-the-clear"
FEW = {"epochs": 2, "progress": False, "seed": 0}


def encoder(nonce: bytes = NONCE) -> LocalPretrainedEncoder:
    return LocalPretrainedEncoder((1, 4, 4), 3, nonce=nonce, channels=2)


def weights(layer: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in layer.parameters()])


# Start and shape -------------------------------------------------------------------------------


def test_every_weight_starts_from_the_nonce() -> None:
    layer, key = encoder(), derive_key(NONCE)
    shapes = {name: tuple(parameter.shape) for name, parameter in layer.network.named_parameters()}
    assert shapes == {
        "first.weight": (2, 1, 3, 3),
        "first.bias": (2,),
        "dense.weight": (3, 8),
        "dense.bias": (3,),
    }
    fan_in = {"first": 9, "dense": 8}
    for name, parameter in layer.network.named_parameters():
        part, kind = name.split(".")
        uniform = expand(key, f"encoder {part} {kind}", "uniform", tuple(parameter.shape))
        assert torch.equal(parameter, uniform * torch.tensor(1 / math.sqrt(fan_in[part])))


def test_pinned_start() -> None:
    layer = LocalPretrainedEncoder((4,), 2, nonce=bytes(range(16)), channels=2)
    scaled = layer.network.first.weight.flatten().double() * 2 * 2**24  # fan-in 4
    pinned = [-11649779, 11088967, -16403869, 13005915, -7888559, -16101749, -7819651, -5275283]
    assert scaled.tolist() == pinned


def test_one_nonce_one_start_and_torch_is_left_alone() -> None:
    before = torch.random.get_rng_state()
    assert torch.equal(weights(encoder()), weights(encoder()))
    assert not torch.equal(weights(encoder()), weights(encoder(bytes(16))))
    fresh = [LocalPretrainedEncoder((5,), 2) for _ in range(2)]
    assert not torch.equal(weights(fresh[0]), weights(fresh[1]))
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu", "elu"])
def test_is_convolution_activation_dense(activation: str, data: tuple[Tensor, Tensor]) -> None:
    layer = LocalPretrainedEncoder((1, 4, 4), 3, channels=2, kernel_size=2, activation=activation)
    hidden = nn.functional.conv2d(data[0], layer.network.first.weight, layer.network.first.bias)
    hidden = getattr(nn.functional, activation)(hidden) if activation != "tanh" else hidden.tanh()
    expected = hidden.flatten(1) @ layer.network.dense.weight.T + layer.network.dense.bias
    assert torch.allclose(layer(data[0]), expected, atol=1e-6)


def test_has_a_dense_form_for_vectors(data: tuple[Tensor, Tensor]) -> None:
    layer = LocalPretrainedEncoder((16,), 3, channels=5)
    vectors = data[0].flatten(1)
    hidden = (vectors @ layer.network.first.weight.T + layer.network.first.bias).relu()
    expected = hidden @ layer.network.dense.weight.T + layer.network.dense.bias
    assert torch.allclose(layer(vectors), expected, atol=1e-6)
    assert layer.output_shape([16]) == (3,)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"feature_shape": (3, 4)}, r"feature_shape must be \(channels, height, width\) or \(elements,\), got"),
        ({"feature_shape": (0,)}, "shape must be a non-empty sequence of positive integers"),
        ({"feature_shape": 3}, "shape must be a sequence of positive integers"),
        ({"out_features": 0}, "out_features must be an integer >= 1, got out_features=0"),
        ({"channels": 1.5}, "channels must be an integer >= 1, got channels=1.5"),
        ({"kernel_size": 5}, r"kernel_size must be an integer in \[1, 4\], got kernel_size=5"),
        ({"activation": "sine"}, "activation must be 'relu' or 'tanh' or 'gelu' or 'elu', got activation='sine'"),
        ({"nonce": NONCE[:5]}, r"nonce must be bytes, at least 16 of them, got 5 bytes \(value not shown\)"),
    ],
)
def test_bad_parameters_are_refused(arguments: dict[str, object], text: str) -> None:
    good: dict[str, object] = {"feature_shape": (1, 4, 4), "out_features": 3}
    with pytest.raises((InvalidParameterError, ShapeError), match=f"^LocalPretrainedEncoder: {text}") as caught:
        LocalPretrainedEncoder(**{**good, **arguments})  # type: ignore[arg-type]
    assert "Kx7" not in str(caught.value)


def test_other_shapes_are_refused(data: tuple[Tensor, Tensor]) -> None:
    text = r"^LocalPretrainedEncoder: features must have shape \(1, 4, 4\) after the batch, got shape=\(16,\)\."
    with pytest.raises(ShapeError, match=text):
        encoder()(data[0].flatten(1))
    with pytest.raises(ShapeError, match=text):
        encoder().spend((16,))


# What it remembers -----------------------------------------------------------------------------


def test_counts_private_records_over_all_fits(data: tuple[Tensor, Tensor]) -> None:
    layer = encoder()
    assert layer.fitted_records == 0
    layer.fit(data, public=True, **FEW)
    assert layer.fitted_records == 0
    layer.fit(data, **FEW)
    layer.fit((data[0][:1].repeat(2, 1, 1, 1) + torch.tensor([0.0, 1.0]).reshape(2, 1, 1, 1), data[1][:2]), **FEW)
    assert layer.fitted_records == 66
    assert "fitted on 66 private records" in repr(layer)
    assert layer.half().fitted_records == 66


def test_the_count_travels_with_the_weights(data: tuple[Tensor, Tensor]) -> None:
    layer = encoder()
    layer.fit(data, **FEW)
    assert layer.state_dict()["fitted_count"].dtype == torch.int64
    assert copy.deepcopy(layer).fitted_records == 64
    assert pickle.loads(pickle.dumps(layer)).fitted_records == 64
    for assign in (False, True):
        other = nn.Sequential(encoder(bytes(16)))
        other.load_state_dict(nn.Sequential(layer).state_dict(), assign=assign)
        assert other[0].fitted_records == 64
        assert torch.equal(weights(other), weights(layer))


def test_weights_without_their_count_make_it_unknown_for_good(data: tuple[Tensor, Tensor]) -> None:
    state = {name: value for name, value in encoder().state_dict().items() if name != "fitted_count"}
    layer = encoder()
    layer.load_state_dict(state)
    assert layer.fitted_records is None
    assert "fitted on an unknown number of private records" in repr(layer)
    layer.fit(data, **FEW)
    assert layer.fitted_records is None
    part = nn.Sequential(nn.Linear(1, 1), encoder())
    part.load_state_dict({"1.network.dense.bias": torch.zeros(3)}, strict=False)
    assert part[1].fitted_records is None


def test_a_state_dict_about_others_leaves_the_count_alone() -> None:
    model = nn.Sequential(nn.Linear(1, 1), encoder())
    model.load_state_dict(model[0].state_dict(prefix="0."), strict=False)
    assert model[1].fitted_records == 0
    with pytest.raises(RuntimeError, match=r"Missing key\(s\).*network"):
        encoder().load_state_dict({"fitted_count": torch.tensor(0)})


def test_is_unknown_while_somebody_may_be_training_it(data: tuple[Tensor, Tensor]) -> None:
    layer = encoder()
    next(layer.parameters()).requires_grad_()
    assert layer.fitted_records is None
    layer.fit(data, **FEW)  # freezes it again, but what happened before is not known
    assert not any(parameter.requires_grad for parameter in layer.parameters())
    assert layer.fitted_records is None


def test_no_gradient_reaches_the_weights(data: tuple[Tensor, Tensor]) -> None:
    layer, features = encoder().requires_grad_(), data[0].clone().requires_grad_()
    layer(features).sum().backward()
    assert features.grad is not None
    assert bool((features.grad != 0).any())
    assert all(parameter.grad is None for parameter in layer.parameters())


def test_the_nonce_is_not_kept() -> None:
    layer = encoder()
    printed = repr(layer) + repr(nn.Sequential(layer)) + repr(vars(layer)) + str(layer.state_dict())
    assert "Kx7" not in printed
    assert NONCE not in pickle.dumps(layer)
    assert sorted(layer.state_dict()) == [
        "fitted_count",
        "network.dense.bias",
        "network.dense.weight",
        "network.first.bias",
        "network.first.weight",
    ]
