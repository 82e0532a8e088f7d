"""Random models: a cut that is not refused is exact, and one that one tensor crosses is not refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from splitpriv._errors import CutError
from splitpriv.cutting import split, valid_cuts

WIDTH = 4
# name -> effect on the values so far; the first value is the input.
PURE = ("layer", "relu", "add", "dropout", "view", "weight")
WRITING = ("relu_", "iadd", "setitem", "alias", "add_", "inplace", "norm")


class Program(nn.Module):
    """Runs a list of (operation, first operand, second operand), each appending a value."""

    def __init__(self, steps: list[tuple[str, int, int]]) -> None:
        super().__init__()
        self.steps = steps
        for i, (name, _, _) in enumerate(steps):
            made = {"layer": nn.Linear(WIDTH, WIDTH), "inplace": nn.ReLU(inplace=True), "norm": nn.BatchNorm1d(WIDTH)}
            if name in made:
                self.add_module(f"m{i}", made[name])
        self.weight = nn.Parameter(torch.randn(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        values = [x]
        for i, (name, first, second) in enumerate(self.steps):
            a, b = values[first % len(values)], values[second % len(values)]
            values.append(self.step(i, name, a, b))
        return values[-1]

    def step(self, i: int, name: str, a: Any, b: Any) -> Any:
        if name in ("layer", "inplace", "norm"):
            return self.get_submodule(f"m{i}")(a)
        if name == "iadd":
            a += b
            return a
        if name == "setitem":
            a[:, i % WIDTH] = 0
            return b
        return {
            "relu": lambda: F.relu(a),
            "add": lambda: a + b,
            "dropout": lambda: F.dropout(a, 0.5, self.training),
            "view": lambda: a.view(b.size(0), 2, -1).flatten(1),
            "weight": lambda: a * self.weight[:1],
            "relu_": lambda: a.relu_(),
            "add_": lambda: (a.add_(b), b)[1],  # the result is not used, the effect may be
            "alias": lambda: a,
        }[name]()


def steps_of(names: tuple[str, ...]) -> st.SearchStrategy[list[tuple[str, int, int]]]:
    operand = st.sampled_from((-1, -1, -1, -2, -2, -3, 0, 1))  # mostly the newest values
    return st.lists(st.tuples(st.sampled_from(names), operand, operand), min_size=3, max_size=9)


def outcome(function: Any, x: Tensor) -> Tensor:
    torch.manual_seed(3)
    with torch.no_grad():
        result: Tensor = function(x.clone())
    return result


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(steps_of((*PURE, *WRITING, "layer", "layer")))
def test_a_cut_that_is_not_refused_is_exact(steps: list[tuple[str, int, int]]) -> None:
    torch.manual_seed(0)
    model, x = Program(steps), torch.randn(3, WIDTH)
    valid = valid_cuts(model, x)
    for at, _ in model.named_children():
        if at not in valid:
            with pytest.raises(CutError):
                split(model, at, x)
    for at in valid_cuts(model):
        assert at in valid, "refused only once an example was there to tell"
        edge, server = split(model, at)
        keys = [*edge.state_dict(), *server.state_dict()]
        assert sorted(keys) == sorted(model.state_dict())
        for training in (False, True):
            for module in (model, edge, server):
                module.train(training)
            assert torch.equal(outcome(lambda x, e=edge, s=server: s(e(x)), x), outcome(model, x))


def one_tensor_crosses(steps: list[tuple[str, int, int]], at: int) -> bool:
    """Liveness by hand: behind step ``at`` only its value is read, and no parameter on both sides.

    The second operand of a view gives the batch size only, which the features have as well.
    """
    needed, weight_after = set(), False
    for i, (name, first, second) in enumerate(steps):
        operands = {first % (i + 1), *({second % (i + 1)} if name == "add" else set())}
        if i > at:
            needed |= {operand for operand in operands if operand <= at + 1}
            weight_after |= name == "weight"
    weight_before = any(name == "weight" for name, _, _ in steps[:at])
    return needed == {at + 1} and not (weight_before and weight_after)


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(steps_of((*PURE, "layer", "layer")))
def test_a_cut_that_one_tensor_crosses_is_not_refused(steps: list[tuple[str, int, int]]) -> None:
    model = Program(steps)
    valid = valid_cuts(model, torch.randn(3, WIDTH))
    for i, (name, _, _) in enumerate(steps):
        if name == "layer" and one_tensor_crosses(steps, i):
            assert f"m{i}" in valid
