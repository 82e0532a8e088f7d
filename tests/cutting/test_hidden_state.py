"""State that passes the cut by, and what a trace would lose without a word."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

from splitpriv._errors import CutError
from splitpriv.cutting import split, valid_cuts

Build = Callable[[Callable[..., Any]], nn.Module]
X = torch.linspace(-1, 2, 12).view(3, 4)


def refused(model: nn.Module, at: str, text: str, example: Any = None) -> None:
    with pytest.raises(CutError, match=text):
        split(model, at, example)


class Hook:
    """Keeps the output of a module, as fastai's U-Net does."""

    stored: Tensor

    def __init__(self, module: nn.Module, only_in_training: bool) -> None:
        self.only = only_in_training
        module.register_forward_hook(self.keep)

    def keep(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        self.stored = output if module.training or not self.only else torch.zeros_like(output)


class Skip(nn.Module):
    def __init__(self, hook: Hook) -> None:
        super().__init__()
        self.hook = hook

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.hook.stored], 1)


@pytest.mark.parametrize(("mode", "only"), [("evaluation", False), ("training", True)])
@pytest.mark.parametrize("traced", [False, True])
def test_a_hook_that_carries_raw_features_past_the_cut(
    mode: str, only: bool, traced: bool, with_forward: Build
) -> None:
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    layers = first, second, Skip(Hook(first, only)), nn.Linear(8, 2)
    model: nn.Module = nn.Sequential(*layers)
    if traced:
        model = with_forward(lambda self, x: self.d(self.c(self.b(self.a(x)))))
        model.a, model.b, model.c, model.d = layers
    at, valid = ("b", ["c"]) if traced else ("1", ["2"])
    text = rf"nothing but the features reaches the server.* State outside the cut .* in {mode} mode, .* by structure"
    refused(model, at, text, X)
    assert valid_cuts(model, X) == valid


def test_a_tensor_that_two_layers_share_is_state_too() -> None:
    class Writes(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            shared.copy_(x)
            return x

    class Reads(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + shared

    shared = torch.zeros(3, 4)
    model = nn.Sequential(Writes(), nn.Linear(4, 4), Reads(), nn.Linear(4, 2))
    refused(model, "1", "State outside the cut", X)


def test_integer_inputs_are_checked_too() -> None:
    first = nn.Embedding(5, 4)
    model = nn.Sequential(first, nn.Linear(4, 4), Skip(Hook(first, False)), nn.Linear(4, 2))
    refused(model, "1", "State outside the cut", torch.zeros(1, 3, dtype=torch.long))
    split(model, "2", torch.ones(1, 3, dtype=torch.long))


def test_an_edge_that_takes_only_some_values() -> None:
    class Positive(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if x.min() <= 0:
                raise ValueError("positive inputs only")
            return x.log()

    split(nn.Sequential(Positive(), nn.Linear(4, 2)), "0", torch.full((50, 4), 0.01))


def test_sizes_of_parameters_are_not_the_batch(with_forward: Build, exact: Callable[..., None]) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        n = self.table.size(0)
        return self.c(self.b(self.a(x)) * n)

    model = with_forward(forward)
    exact(model, *split(model, "a", torch.randn(4, 4)), X)


def test_a_size_that_is_the_batch_by_chance(with_forward: Build) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        n = x.flatten()[:4].size(0)
        return self.c(self.b(self.a(x)) * n)

    refused(with_forward(forward), "a", r"On example_input with one row more in evaluation", torch.randn(4, 4))


def test_the_batch_is_checked_with_another_number_of_rows(with_forward: Build) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        n = x.size(0)
        return self.c(self.b(self.a(x)) + self.wide[:3].view(n, 4))

    model = with_forward(forward)
    model.wide = nn.Parameter(torch.randn(3, 4))
    text = r"with another number of rows, .* With one row more than example_input has, the model fails: "
    refused(model, "a", text, X)


def test_the_mode_of_unopened_children(with_forward: Build, exact: Callable[..., None]) -> None:
    class Child(nn.Linear):
        def features(self, x: Tensor) -> Tensor:
            return x * 2 if self.training else x

    model = with_forward(lambda self, x: self.c(self.b.features(self.a(x))))
    model.b = Child(4, 4)
    exact(model, *split(model, "a", X), X)
    assert model.b.training


def set_item(self: Any, h: Tensor) -> Tensor:
    m = torch.zeros(4, 4)
    m[0] = h[0]
    return h @ m


def method(self: Any, h: Tensor) -> Tensor:
    m = torch.ones(4)
    m.mul_(h.mean())
    return h + m


def out(self: Any, h: Tensor) -> Tensor:
    o = torch.zeros(3, 4)
    torch.add(h, 1, out=o)
    return h + o


def data(self: Any, h: Tensor) -> Tensor:
    h.data = h * 2
    return h


def parts(self: Any, h: Tensor) -> Tensor:
    self.b.cond = h.mean()
    return h + self.b.cond


def container(self: Any, h: Tensor) -> Tensor:
    self.kept["h"] = h
    self.row.append(h)
    return h + self.kept["h"]


@pytest.mark.parametrize(
    ("middle", "text"),
    [
        (set_item, "forward writes a traced value into a tensor of its own"),
        (method, "forward writes a traced value into a tensor of its own"),
        (out, "forward writes a traced value into a tensor of its own"),
        (data, r"forward assigns to an attribute of a tensor \('data'\)"),
        (parts, r"sets attributes \(Linear\.cond\)"),
        (container, r"sets attributes \(Custom\.kept, Custom\.row\)"),
    ],
)
def test_writes_that_a_trace_would_lose(middle: Callable[..., Any], text: str, with_forward: Build) -> None:
    model = with_forward(lambda self, x: self.c(self.b(middle(self, self.a(x)))))
    model.kept, model.row = {"h": 1}, [2]
    refused(model, "a", text)
    assert (model.kept, model.row) == ({"h": 1}, [2])
    assert not any(isinstance(v, fx.Proxy) for m in model.modules() for v in vars(m).values())


def test_in_place_on_attributes_and_shifts(with_forward: Build, exact: Callable[..., None]) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        h = self.b(self.a(x))
        y = h.T
        y += 1
        k = h.long()
        other = k
        k <<= 1
        return self.c(h + other)

    model = with_forward(forward)
    exact(model, *split(model, "a", X), X)


def test_overlapping_buffers_and_dataclass_outputs() -> None:
    @dataclass
    class Output:
        y: Tensor

    class Wraps(nn.Module):
        def __init__(self, kind: Any) -> None:
            super().__init__()
            self.kind = kind
            self.register_buffer("ones", torch.ones(1).expand(4))

        def forward(self, x: Tensor) -> Any:
            return self.kind(x + self.ones)

    class Odd:
        def __init__(self, y: Tensor) -> None:
            pass

        def __eq__(self, other: object) -> bool:
            raise ValueError

        __hash__ = None  # type: ignore[assignment]

    split(nn.Sequential(nn.Linear(4, 4), Wraps(Output)), "0", X)
    model = nn.Sequential(nn.Linear(4, 4), Wraps(Odd))
    refused(model, "0", "split: model must return outputs that can be compared, got type=Odd", X)
