"""Every refusal says what is in the way and which cuts are near."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models import UNet, resnet18, vgg16
from splitpriv._errors import CutError, InvalidParameterError
from splitpriv.cutting import split, valid_cuts

Build = Callable[[Callable[..., Any]], nn.Module]
X = torch.linspace(-1, 2, 12).view(3, 4)


def refused(model: nn.Module, at: str, text: str, example: Any = None) -> None:
    with pytest.raises(CutError, match=text):
        split(model, at, example)


def test_inside_a_residual_block() -> None:
    refused(
        resnet18(width=2),
        "layer2.0.conv1",
        r"^split: at must be where one tensor holds all that is needed later, got at='layer2\.0\.conv1'\. "
        r"These would cross as well: the output of 'layer1' \(needed by the output of 'layer2\.0\.downsample'\)\. "
        r"Nearest valid cuts: 'layer1' before it, 'layer2\.0' after it\.$",
    )


def test_across_u_net_skips() -> None:
    refused(
        UNet(width=2),
        "bottom.2",
        r"cross as well: the output of 'down2' \(needed by 'cat'\), the output of 'down1' \(needed by 'cat_1'\)\. "
        r"Nearest valid cuts: 'down1' before it, 'merge1\.0' after it\.$",
    )


def test_the_model_input_used_again(with_forward: Build) -> None:
    model = with_forward(lambda self, x: self.c(self.b(self.a(x)) + x))
    refused(model, "a", r"cross as well: the model input 'x' \(needed by 'add'\)\. No other cut")


def test_sizes_types_and_values_that_cross(with_forward: Build) -> None:
    model = with_forward(lambda self, x: self.c(self.b(self.a(x)).view(-1, x.shape[1])))
    refused(model, "a", r"cross as well: item 1 of the shape of the model input 'x' \(needed by 'view'\)", X)
    model = with_forward(lambda self, x: self.c(self.b(self.a(x)).view(-1, x.size(1))))
    refused(model, "a", r"cross as well: size\(1\) of the model input 'x' \(needed by 'view'\)", X)
    model = with_forward(lambda self, x: self.c(self.b(self.a(x)).to(x.dtype)))
    refused(model, "a", r"cross as well: the dtype of the model input 'x' \(needed by 'to'\)")

    def early(self: Any, x: Tensor) -> Tensor:
        size, weight = x.shape, self.weight * 1
        weight.add_(1)  # so the server could not make it again
        return self.c(self.b(self.a(x)).view(-1, size[1]) * weight + F.softplus(self.table))

    text = r"cross as well: item 1 of the shape of the model input 'x' \(needed by 'view'\), 'mul' \(needed"
    refused(with_forward(early), "a", text)


def test_many_crossing_tensors_are_counted(with_forward: Build) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        parts = [x * i for i in range(7)]
        return self.c(torch.cat([self.a(x), *parts])[:3])

    refused(with_forward(forward), "a", r"'mul' \(needed by 'cat'\), .*'mul_3' \(needed by 'cat'\) and 3 more\.")


@pytest.mark.parametrize("kind", ["module", "parameter", "memory", "buffer", "functional"])
def test_tied_weights(kind: str, with_forward: Build) -> None:
    model = with_forward(lambda self, x: self.c(self.b(self.a(x))))
    names = r"'a\.weight' \(on the server 'b\.weight'\)"
    if kind == "module":
        model.b = model.a
        refused(model, "a", r"called 2 times in forward")
        model.b = nn.Sequential(model.a)
        names = r"'a\.weight' \(on the server 'b\.0\.weight'\), 'a\.bias' \(on the server 'b\.0\.bias'\)"
    elif kind == "parameter":
        model.b.weight = model.a.weight
    elif kind == "memory":
        model.b.weight.data = model.a.weight.data
    elif kind == "buffer":
        model = with_forward(lambda self, x: self.c(self.b(self.a(x) * self.scratch) * self.scratch))
        refused(model, "b", r"Edge and server would both use 'scratch': what is tied .* valid cut: 'a' before it\.$")
        return
    else:
        model = with_forward(lambda self, x: self.c(F.linear(self.b(self.a(x)), self.a.weight)))
        names = r"'a\.weight'"
    refused(
        model,
        "a",
        r"^split: at must be a cut with no parameter or buffer on both sides, got at='a'\. "
        rf"Edge and server would both use {names}: what is tied across the cut",
    )


def test_tied_weights_on_one_side_are_fine(with_forward: Build, exact: Callable[..., None]) -> None:
    model = with_forward(lambda self, x: self.c(self.b(self.a(x))))
    model.b.weight = model.a.weight
    exact(model, *split(model, "b", X), X)


def test_a_module_called_twice() -> None:
    refused(
        UNet(width=2),
        "pool",
        r"^split: at must be a module that is called once, got at='pool'\. It is called 2 times in forward, so the "
        r"place behind it is ambiguous\. Nearest valid cuts: 'down1' before it, 'merge1\.0' after it\.$",
    )


@pytest.mark.parametrize("at", ["layer22", "", "layer2.", "layer2.7", "forward"])
def test_unknown_names(at: str) -> None:
    text = r"^split: at must be the name of a module in the model, got at='.*'\. (Did you mean|There is no such)"
    refused(resnet18(width=2), at, text)


def test_unknown_names_list_close_matches_and_valid_cuts() -> None:
    refused(resnet18(width=2), "layer22", r"Did you mean 'layer2' or .*Valid cuts: 'conv1', 'bn1', 'layer1\.0', ")
    refused(vgg16(width=1), "zzz", r"There is no such module\. Valid cuts: 'features\.0', .*' and 28 more\.$")


def test_an_uncalled_container_lists_what_is_inside_first() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.blocks, self.head = nn.Linear(4, 4), nn.ModuleList([nn.Linear(4, 4)]), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.blocks[0](self.stem(x)))

    refused(
        Net(),
        "blocks",
        r"^split: at must be a module that forward calls, got at='blocks'\. It is not called by itself in both "
        r"training and evaluation mode\. Valid cuts: 'blocks\.0', 'stem'\.$",
    )


def test_a_module_called_in_one_mode_only(with_forward: Build) -> None:
    model = with_forward(lambda self, x: self.c(self.b(self.a(x)) if self.training else self.a(x)))
    refused(model, "b", r"not called by itself in both training and evaluation mode\. Nearest valid cut: 'a'")


@pytest.mark.parametrize(
    ("model", "at"),
    [
        (resnet18(width=2), "fc"),
        (vgg16(width=1), "classifier.3"),
        (nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4), nn.ReLU())), "1.1"),
        (nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4), nn.ReLU())), "1"),
    ],
)
def test_the_last_module(model: nn.Module, at: str) -> None:
    refused(model, at, r"^split: at must be before the last module, got .*\. Nothing would be left for the server\.")


def test_a_module_that_the_output_does_not_depend_on(with_forward: Build) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        self.a(torch.ones_like(self.weight))
        return self.c(self.b(torch.ones_like(self.table)))

    refused(with_forward(forward), "a", r"a module that the output depends on, .* Nothing behind it uses its output")


def test_several_outputs() -> None:
    class Pair(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x, x

    class First(nn.Module):
        def forward(self, pair: tuple[Tensor, Tensor]) -> Tensor:
            return pair[0]

    recurrent = nn.Sequential(nn.Linear(4, 4), nn.LSTM(4, 4), First(), nn.Linear(4, 2))
    text = r"at must be a module whose output is a single tensor, got at='1'\. LSTM returns several\. "
    refused(recurrent, "1", text + r"Nearest valid cuts: '0' before it, '2' after it\.")
    custom = nn.Sequential(Pair(), First(), nn.Linear(4, 2))
    assert valid_cuts(custom, X) == ["1"]
    refused(custom, "0", r"a single tensor with one row per record, got at='0'\. It returns type=tuple\.", X)


def test_features_without_a_row_per_record() -> None:
    class Mean(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mean(0)

    model = nn.Sequential(nn.Linear(4, 4), Mean(), nn.Linear(4, 2))
    refused(model, "1", r"It returns shape=\(4,\) for an input of shape=\(3, 4\)\. Nearest valid cut: '0'", X)


def test_lazy_modules() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.LazyLinear(4), nn.Linear(4, 2))
    for call in (lambda: split(model, "0"), lambda: valid_cuts(model)):
        with pytest.raises(
            CutError, match=r"split: model must be initialised, got the uninitialised '1\.weight'\. Run"
        ):
            call()
    model(X)
    assert valid_cuts(model, X) == ["0", "1"]


def test_arguments_of_the_wrong_type() -> None:
    with pytest.raises(InvalidParameterError, match=r"split: model must be a torch\.nn\.Module, got model='dict'"):
        split({}, "a")  # type: ignore[arg-type]
    with pytest.raises(InvalidParameterError, match=r"split: model must be a torch\.nn\.Module, got model='function'"):
        valid_cuts(lambda x: x)  # type: ignore[arg-type]
    with pytest.raises(InvalidParameterError, match=r"split: at must be the name of a module, got at=2"):
        split(nn.Sequential(), 2)  # type: ignore[arg-type]
