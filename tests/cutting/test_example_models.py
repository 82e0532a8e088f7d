"""Every valid cut of the example models is exact, and every other named module is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from models import Transformer, UNet, mlp, resnet18, vgg16
from splitpriv._errors import CutError
from splitpriv.cutting import split, valid_cuts

IMAGE = (2, 3, 32, 32)
MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "resnet18": (lambda: resnet18(width=2), IMAGE),
    "vgg16": (lambda: vgg16(width=1), IMAGE),
    "unet": (lambda: UNet(width=2), (2, 3, 8, 8)),
    "transformer": (lambda: Transformer(8, depth=2, heads=2), IMAGE),
    "mlp": (lambda: mlp(8, inputs=16), (3, 4, 4)),
}
BLOCKS = [f"layer{stage}{block}" for stage in range(1, 5) for block in (".0", ".1", "")]
CUTS = {
    "resnet18": ["conv1", "bn1", *BLOCKS],
    "vgg16": [*(f"features.{i}" for i in range(44)), "features", *(f"classifier.{i}" for i in range(3))],
    "unet": [
        *(f"down1.{i}" for i in range(6)), "down1", *(f"merge1.{i}" for i in range(6)), "merge1",
    ],
    "transformer": ["patches", "blocks.0", "blocks.1", "norm"],
    "mlp": [str(i) for i in range(7)],
}  # fmt: skip


def build(name: str) -> tuple[nn.Module, Tensor]:
    make, shape = MODELS[name]
    return make(), torch.randn(shape)


@pytest.mark.parametrize("name", MODELS)
def test_valid_cuts_are_known_and_in_execution_order(name: str) -> None:
    model, _ = build(name)
    assert valid_cuts(model) == CUTS[name]


@pytest.mark.parametrize("name", MODELS)
def test_verification_confirms_every_valid_cut(name: str) -> None:
    model, x = build(name)
    assert valid_cuts(model, x) == CUTS[name]


@pytest.mark.parametrize("name", MODELS)
def test_every_valid_cut_is_exact(name: str, exact: Callable[..., None]) -> None:
    model, x = build(name)
    for at in CUTS[name]:
        edge, server = split(model, at)
        exact(model, edge, server, x)


@pytest.mark.parametrize("name", MODELS)
def test_every_other_module_is_refused_with_the_nearest_valid_cut(name: str) -> None:
    model, _ = build(name)
    for at, _ in model.named_modules():
        if at and at not in CUTS[name] and not at.startswith(("layer3", "layer4")):  # those are like layer2
            with pytest.raises(CutError, match=rf"^split: at must be .*, got at='{at}'\. .*[Vv]alid cut"):
                split(model, at)


@pytest.mark.parametrize("name", MODELS)
def test_gradients_are_those_of_the_model(name: str) -> None:
    model, x = build(name)
    model.eval()
    model(x).square().sum().backward()
    expected = {key: p.grad.clone() for key, p in model.named_parameters()}
    edge, server = split(model, CUTS[name][len(CUTS[name]) // 2])
    model.zero_grad()
    features = edge(x)
    received = features.detach().requires_grad_()  # what a server gets over a network
    server(received).square().sum().backward()
    features.backward(received.grad)
    for key, parameter in model.named_parameters():
        assert torch.equal(parameter.grad, expected[key]), key


def test_default_cut_is_layer2() -> None:
    edge, server = split(resnet18(width=2))
    assert {key.split(".")[0] for key in edge.state_dict()} == {"conv1", "bn1", "layer1", "layer2"}
    assert {key.split(".")[0] for key in server.state_dict()} == {"layer3", "layer4", "fc"}


def test_transformer_encoder_of_torch_in_a_sequential(exact: Callable[..., None]) -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)  # its fast path cannot be traced
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    model, x = nn.Sequential(nn.Linear(3, 8), encoder, nn.Flatten(), nn.Linear(40, 2)), torch.randn(2, 5, 3)
    assert valid_cuts(model, x) == ["0", "1", "2"]
    for at in ("0", "1", "2"):
        exact(model, *split(model, at), x)
    with pytest.raises(CutError, match=r"TransformerEncoder\.forward \('1'\).* Nearest valid cuts: '0' before"):
        split(model, "1.layers.0")


def test_transformer_encoder_of_torch_behind_a_traced_forward(exact: Callable[..., None]) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True)
            self.embed = nn.Embedding(11, 8)
            self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
            self.head = nn.Linear(8, 3)

        def forward(self, tokens: Tensor) -> Tensor:
            return self.head(self.encoder(self.embed(tokens) * 8**0.5).mean(1))

    model, tokens = Model(), torch.randint(11, (2, 5))
    assert valid_cuts(model, tokens) == ["embed", "encoder"]
    for at in ("embed", "encoder"):
        exact(model, *split(model, at), tokens)
