"""Cuts along nn.Sequential containers."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import pytest
import torch
from torch import nn

from splitpriv._errors import CutError
from splitpriv.cutting import split, valid_cuts

Exact = Callable[..., None]
X = torch.linspace(-1, 2, 12).view(3, 4)


def test_nested_containers_are_sliced_and_keep_their_names(exact: Exact) -> None:
    inner = nn.Sequential(OrderedDict(one=nn.Linear(4, 4), norm=nn.BatchNorm1d(4), two=nn.Linear(4, 4)))
    model = nn.Sequential(OrderedDict(body=nn.Sequential(nn.ReLU(), inner, nn.Tanh()), head=nn.Linear(4, 2)))
    order = ["body.0", "body.1.one", "body.1.norm", "body.1.two", "body.1", "body.2", "body"]
    assert valid_cuts(model) == valid_cuts(model, X) == order
    for at in order:
        edge, server = split(model, at)
        assert isinstance(edge, nn.Sequential)
        assert isinstance(server, nn.Sequential)
        exact(model, edge, server, X)
    edge, server = split(model, "body.1.norm")
    assert list(edge.state_dict()) == [k for k in model.state_dict() if ".one." in k or ".norm." in k]
    assert list(server.state_dict()) == [k for k in model.state_dict() if ".two." in k or "head" in k]


def test_subclass_that_only_builds_is_sliced(exact: Exact) -> None:
    class Layers(nn.Sequential):
        def __init__(self, width: int) -> None:
            super().__init__(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 2))

    model = Layers(5)
    edge, server = split(model, "1")
    assert type(edge) is nn.Sequential
    exact(model, edge, server, X)


def test_module_that_stands_at_several_places() -> None:
    act, layer = nn.ReLU(), nn.Linear(4, 4)
    stateless = nn.Sequential(nn.Linear(4, 4), act, nn.Linear(4, 4), act, nn.Linear(4, 2))
    assert valid_cuts(stateless, X) == ["0", "1", "2", "3"]
    edge, server = split(stateless, "3", X)
    assert torch.equal(server(edge(X)), stateless(X))
    assert list(edge.state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    tied = nn.Sequential(layer, act, layer, act)
    assert valid_cuts(tied, X) == ["2"]
    with pytest.raises(CutError, match=r"'0\.weight' \(on the server '2\.weight'\), .* valid cut: '2' after it"):
        split(tied, "0")


def test_same_container_at_two_places(exact: Exact) -> None:
    block = nn.Sequential(nn.ReLU(), nn.Tanh())
    model = nn.Sequential(block, nn.Linear(4, 4), block, nn.Linear(4, 2))
    for at in ("0.0", "0.1", "2.0", "2.1", "2"):
        exact(model, *split(model, at, X), X)


def test_tensors_of_a_container_go_to_the_server(exact: Exact) -> None:
    model = nn.Sequential(nn.Sequential(nn.Linear(4, 4)), nn.Linear(4, 2))
    model[0].register_parameter("spare", nn.Parameter(torch.ones(1)))
    model[0].register_buffer("kept", torch.ones(1))
    model.register_buffer("passing", torch.ones(1), persistent=False)
    edge, server = split(model, "0.0", X)
    exact(model, edge, server, X)
    assert {"0.spare", "0.kept"} <= set(server.state_dict())
    assert "passing" in dict(server.named_buffers())


def test_forward_inside_a_sequential_is_traced(exact: Exact) -> None:
    class Inner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.two(self.one(x).relu())

    model = nn.Sequential(nn.Linear(4, 4), Inner(), nn.Linear(4, 2))
    assert valid_cuts(model, X) == ["0", "1.one", "1.two", "1"]
    for at in valid_cuts(model):
        exact(model, *split(model, at), X)


def test_no_valid_cut_in_a_model_of_one_step() -> None:
    assert valid_cuts(nn.Sequential(nn.Linear(4, 2))) == []
    assert valid_cuts(nn.Linear(4, 2)) == []
    assert valid_cuts(nn.Sequential()) == []
    with pytest.raises(CutError, match=r"Nothing would be left for the server\. No other cut of the model is valid"):
        split(nn.Sequential(nn.Linear(4, 2)), "0")
