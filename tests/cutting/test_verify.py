"""Verification catches wrong halves, and leaves the model as it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn

from models import Transformer, resnet18
from splitpriv._errors import CutError, InvalidParameterError
from splitpriv.cutting import split, valid_cuts
from splitpriv.cutting.halves import Halves
from splitpriv.cutting.refusal import Refusal
from splitpriv.cutting.tracing import Traces
from splitpriv.cutting.verify import Verification

X = torch.linspace(-1, 1, 2 * 3 * 32 * 32).view(2, 3, 32, 32)


def verify(model: nn.Module, edge: nn.Module, server: nn.Module, x: Tensor = X) -> None:
    with Verification(model, (x,)) as verification:
        verification.check(Halves(edge, server))


class Classify(nn.Module):
    """Pool, flatten and a linear layer."""

    def __init__(self, fc: nn.Linear) -> None:
        super().__init__()
        self.fc = fc

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.mean((2, 3)))


def test_planted_children_in_a_row_lose_the_functional_relu() -> None:
    model = resnet18(width=2)
    children = list(model.children())
    edge, server = nn.Sequential(*children[:3]), nn.Sequential(*children[3:-1], Classify(model.fc))
    with pytest.raises(Refusal, match=r"in evaluation mode, server\(edge\(x\)\) and model\(x\) differ: by up to"):
        verify(model, edge, server)


def test_planted_train_only_trace_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    through = Traces.through

    def train_only(self: Traces, parent: str) -> tuple[fx.Graph, fx.Graph]:
        return through(self, parent)[1], through(self, parent)[1]

    monkeypatch.setattr(Traces, "through", train_only)
    model = Transformer(8, depth=2, heads=2)
    with pytest.raises(CutError, match=r"evaluation mode, server\(edge\(x\)\) and model\(x\) differ"):
        split(model, "blocks.0", X)
    edge, _ = split(model, "blocks.0")  # unseen without an example: dropout stays on
    assert not torch.equal(edge.eval()(X), edge(X))


def test_planted_eval_only_trace_is_caught_in_training_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    through = Traces.through

    def eval_only(self: Traces, parent: str) -> tuple[fx.Graph, fx.Graph]:
        return through(self, parent)[0], through(self, parent)[0]

    monkeypatch.setattr(Traces, "through", eval_only)
    with pytest.raises(CutError, match=r"training mode, server\(edge\(x\)\) and model\(x\) differ"):
        split(Transformer(8, depth=2, heads=2), "blocks.0", X)


class Before(nn.Module):
    """Runs something for its side effect only."""

    def __init__(self, module: nn.Module, effect: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.module, self.effect = module, effect

    def forward(self, x: Tensor) -> Any:
        self.effect(x)
        return self.module(x)


@pytest.mark.parametrize(
    ("effect", "text"),
    [
        (lambda model: lambda x: model[1](x), "training mode, .* other running statistics"),
        (lambda model: lambda x: torch.rand(()), "evaluation mode, .* other random draws"),
        (lambda model: lambda x: np.random.rand(), "evaluation mode, .* other random draws"),  # noqa: NPY002
        (lambda model: lambda x: x.no_such_method, r"evaluation mode, server\(edge\(x\)\) fails: AttributeError"),
    ],
)
def test_planted_side_effects_are_caught(effect: Callable[[nn.Module], Any], text: str) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    edge, server = split(model, "0")
    verify(model, edge, server, torch.randn(5, 4))
    with pytest.raises(Refusal, match=text):
        verify(model, edge, Before(server, effect(model)), torch.randn(5, 4))


@pytest.mark.parametrize(
    ("output", "text"),
    [
        (lambda y: (y,), "outputs of another structure"),
        (lambda y: y.double(), r"torch.float64 \(5, 2\) instead of torch.float32 \(5, 2\)"),
        (lambda y: y[:1], r"torch.float32 \(1, 2\) instead of torch.float32 \(5, 2\)"),
        (lambda y: 3, r"3 instead of tensor"),
    ],
)
def test_planted_outputs_of_another_kind_are_caught(output: Callable[[Tensor], Any], text: str) -> None:
    class Output(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return output(server(x))

    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    edge, server = split(model, "0")
    with pytest.raises(Refusal, match=text):
        verify(model, edge, Output(), torch.randn(5, 4))


def test_not_a_number_equals_itself() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    split(model, "0", torch.full((5, 4), float("nan")))


def test_everything_is_put_back_even_when_the_model_fails() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.steps, self.trace = nn.BatchNorm1d(4), 0, torch.zeros(1)
            self.code = nn.Parameter(torch.zeros(1))

        def forward(self, x: Tensor) -> Tensor:
            self.steps += 1
            self.last = x
            self.trace.add_(1)
            self.code.data.add_(1)
            torch.rand(())
            np.random.rand()  # noqa: NPY002
            if self.training and x.shape[1] != 4:
                raise RuntimeError("broken on purpose")
            return self.norm(x)

    model = nn.Sequential(nn.Linear(3, 4), Counting(), nn.Linear(4, 2)).eval()
    inner, python = model[1], np.random.get_state()[2]  # noqa: NPY002
    random, mean = torch.get_rng_state(), inner.norm.running_mean.clone()
    assert valid_cuts(model, torch.randn(5, 3, generator=torch.Generator())) == ["0", "1"]
    with pytest.raises(CutError, match="accepted by the model in evaluation mode, got RuntimeError"):
        split(model, "0", torch.ones(5, 7))
    assert (inner.steps, inner.training, hasattr(inner, "last")) == (0, False, False)
    assert inner.trace.item() == inner.code.item() == 0
    assert torch.equal(inner.norm.running_mean, mean)
    assert inner.norm.num_batches_tracked == 0
    assert torch.equal(torch.get_rng_state(), random)
    assert np.random.get_state()[2] == python  # noqa: NPY002


def test_the_input_is_left_alone() -> None:
    model = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 4), nn.Linear(4, 2))
    x = torch.full((2, 4), -1.0)
    split(model, "1", x)
    assert torch.equal(x, torch.full((2, 4), -1.0))


def test_a_single_record_is_enough_for_batch_normalisation() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    split(model, "0", torch.ones(1, 4))  # BatchNorm1d itself refuses to train on one row


@pytest.mark.parametrize(("mode", "broken"), [("evaluation", False), ("training", True)])
def test_a_model_that_fails_on_the_example_is_reported(mode: str, broken: bool) -> None:
    class Fails(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if self.training is broken:
                raise RuntimeError("no such pixel")
            return x

    model = nn.Sequential(nn.Linear(4, 4), Fails())
    text = rf"split: example_input must be accepted by the model in {mode} mode, got RuntimeError: no such pixel"
    for call in (lambda: split(model, "0", torch.ones(1, 4)), lambda: valid_cuts(model, torch.ones(1, 4))):
        with pytest.raises(CutError, match=text):
            call()


def test_a_model_that_is_not_deterministic_is_reported() -> None:
    calls: list[int] = []

    class Drifts(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            calls.append(1)
            return x + len(calls)

    with pytest.raises(CutError, match="one output for one input and one random state, got two in evaluation"):
        split(nn.Sequential(nn.Linear(4, 4), Drifts()), "0", torch.ones(2, 4))


@pytest.mark.parametrize("example", [3.0, (), [torch.ones(2), "x"], torch.tensor(1.0)])
def test_an_example_that_is_no_batch_is_refused(example: Any) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    with pytest.raises(InvalidParameterError, match="split: example_input must be a batch or a tuple of batches"):
        split(model, "0", example)
    with pytest.raises(InvalidParameterError, match="example_input must be a batch"):
        valid_cuts(model, example)
