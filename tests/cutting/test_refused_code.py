"""Refusals of code that cannot be traced, and of modules that cannot be taken apart."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models import resnet18
from splitpriv._errors import CutError
from splitpriv.cutting import split, valid_cuts

Build = Callable[[Callable[..., Any]], nn.Module]


def refused(model: nn.Module, at: str, text: str) -> None:
    with pytest.raises(CutError, match=text):
        split(model, at)


def data_dependent(self: Any, x: Tensor) -> Tensor:
    x = self.a(x)
    if x.sum() > 0:
        x = -x
    return self.c(self.b(x))


def without_gradient(self: Any, x: Tensor) -> Tensor:
    with torch.no_grad():
        x = self.a(x)
    return self.c(self.b(x))


def autocast(self: Any, x: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        x = self.a(x)
    return self.c(self.b(x))


def from_parameters(self: Any, x: Tensor) -> Tensor:
    return self.c(self.b(self.a(x))) + sum(p.sum() for p in self.parameters())


def required_keyword(self: Any, x: Tensor, *, scale: float) -> Tensor:
    return self.c(self.b(self.a(x))) * scale


@pytest.mark.parametrize(
    ("forward", "reason"),
    [
        (data_dependent, "TraceError: symbolically traced variables cannot be used as inputs to control flow"),
        (without_gradient, r"TypeError: forward computes under torch\.no_grad, inference_mode or autocast"),
        (autocast, r"TypeError: forward computes under torch\.no_grad, inference_mode or autocast"),
        (from_parameters, r"TypeError: forward computes with parameters where torch\.fx does not see it"),
        (required_keyword, "TypeError: forward has a required keyword-only argument 'scale'"),
    ],
)
def test_code_that_cannot_be_traced(forward: Callable[..., Any], reason: str, with_forward: Build) -> None:
    model = with_forward(forward)
    assert valid_cuts(model) == []
    refused(
        model,
        "a",
        r"^split: at must be inside modules that torch\.fx can trace, got at='a'\. Tracing Custom\.forward in "
        rf"evaluation mode failed: {reason}.*\. No cut of the model is valid\. "
        r"Or write the two halves as modules and pass them to SplitModel\(edge, server\) yourself\.$",
    )
    whole = nn.Sequential(model, nn.Linear(2, 2))  # a whole module keeps its control flow
    refused(whole, "0.a", r"Tracing Custom\.forward \('0'\).* Nearest valid cut: '0' after it\. Or write")


def draws(self: Any, x: Tensor) -> Tensor:
    return self.c(self.b(self.a(x)) + torch.randn(4))


def decides_at_random(self: Any, x: Tensor) -> Tensor:
    return self.c(self.b(self.a(x)) if random.random() < 0.5 else self.a(x))


def remembers(self: Any, x: Tensor) -> Tensor:
    self.seen = self.a(x)
    return self.c(self.b(self.seen))


@pytest.mark.parametrize(
    ("forward", "reason"),
    [
        (draws, "draws random numbers outside tensor operations on its input"),
        (decides_at_random, "draws random numbers outside tensor operations on its input"),
        (remembers, r"sets attributes \(Custom\.seen\)"),
    ],
)
def test_what_a_trace_would_freeze_or_lose(forward: Callable[..., Any], reason: str, with_forward: Build) -> None:
    text = rf"A forward that the cut goes through {reason}, which the halves would lose\. .* Or write the two"
    refused(with_forward(forward), "a", text)


def hooked(model: nn.Module) -> None:
    model.register_forward_hook(lambda module, inputs, output: output)


def state_hooked(model: nn.Module) -> None:
    model.register_state_dict_post_hook(lambda *arguments: None)


@pytest.mark.parametrize(
    ("change", "kept"),
    [(hooked, r"its hooks \(forward_hooks\)"), (state_hooked, r"its hooks \(state_dict_hooks\)")],
)
def test_hooks_of_opened_modules(change: Callable[[nn.Module], None], kept: str) -> None:
    text = (
        rf"^split: at must be outside modules that the halves could not reproduce, .* neither half would keep {kept}\."
    )
    model = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4), nn.ReLU()), nn.Linear(4, 2))
    change(model[1])
    refused(model, "1.0", text)
    assert valid_cuts(model) == ["0", "1"]
    net = resnet18(width=2)
    change(net)
    refused(net, "layer1", text)


def test_own_train_method_and_own_state() -> None:
    class Frozen(nn.Sequential):
        def train(self, mode: bool = True) -> Frozen:
            super().train(mode)
            self[0].eval()
            return self

    class Extra(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.two(self.one(x))

        def get_extra_state(self) -> int:
            return 1

    layers = nn.BatchNorm1d(4), nn.Linear(4, 2)
    refused(Frozen(*layers), "0", r"goes through the model \(Frozen\), and neither half would keep its own train\(\)\.")
    refused(nn.Sequential(Frozen(*layers), nn.ReLU()), "0.0", r"goes through '0' \(Frozen\)")
    refused(Extra(), "one", r"at must be a cut that keeps the state_dict keys, .* doubled: '_extra_state'\.")
