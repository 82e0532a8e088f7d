"""What the tests of cutting share: the exactness check, and small models with a given forward."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def run(function: Callable[..., Any], inputs: tuple[Tensor, ...]) -> tuple[Any, Tensor]:
    """Output and random state behind it, from a fixed random state, on copies of the inputs."""
    torch.manual_seed(7)
    return function(*(i.clone() for i in inputs)), torch.get_rng_state()


def assert_exact(model: nn.Module, edge: nn.Module, server: nn.Module, *inputs: Tensor) -> None:
    """Halves and model agree in outputs, statistics, random draws and keys, from the same start."""
    keys, left, right = set(model.state_dict()), set(edge.state_dict()), set(server.state_dict())
    assert left | right == keys
    assert not left & right
    start = copy.deepcopy(model.state_dict())
    for training in (False, True):
        model.load_state_dict(start)
        expected, drawn = run(model.train(training), inputs)
        statistics = copy.deepcopy(model.state_dict())
        model.load_state_dict(start)
        edge.train(training)
        server.train(training)
        result, drawn_too = run(lambda *i: server(edge(*i)), inputs)
        torch.testing.assert_close(result, expected, rtol=0, atol=0, msg=f"training={training}")
        assert torch.equal(drawn, drawn_too)
        for key, value in model.state_dict().items():
            assert torch.equal(value, statistics[key]), (training, key)
    model.load_state_dict(start)


@pytest.fixture
def exact() -> Callable[..., None]:
    return assert_exact


class Parts(nn.Module):
    """Three layers, a parameter, a buffer and a constant; tests give it its forward."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 4)
        self.b = nn.Linear(4, 4)
        self.c = nn.Linear(4, 2)
        self.weight = nn.Parameter(torch.randn(4))
        self.register_buffer("table", torch.randn(4))
        self.register_buffer("scratch", torch.randn(4), persistent=False)
        self.constant = torch.randn(4)


@pytest.fixture
def with_forward() -> Callable[[Callable[..., Any]], nn.Module]:
    """Builds a Parts model whose forward is the given function."""

    def build(forward: Callable[..., Any]) -> nn.Module:
        return type("Custom", (Parts,), {"forward": forward})()

    return build
