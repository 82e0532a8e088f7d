"""Cuts through a traced forward: what is exact, and what only looks as if it were."""

from __future__ import annotations

import math
import pickle
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize

from splitpriv._errors import CutError
from splitpriv.cutting import split, valid_cuts

Build = Callable[[Callable[..., Any]], nn.Module]
Exact = Callable[..., None]
X = torch.linspace(-1, 2, 12).view(3, 4)


def views_after_the_cut(self: Any, x: Tensor) -> Tensor:
    x = self.b(self.a(x))
    return self.c(x.view(x.size(0), -1))


def unpacked_shape(self: Any, x: Tensor) -> Tensor:
    x = self.a(x)
    batch, width = x.shape
    return self.c(self.b(x).view(batch, width))


def in_place_operators(self: Any, x: Tensor) -> Tensor:
    x = self.a(x)
    same = x
    x += self.weight
    same *= 2  # writes into x as well: torch.fx alone would lose that
    x[:, 0] = 0
    return self.c(self.b(x) + same)


def in_place_calls(self: Any, x: Tensor) -> Tensor:
    x = self.a(x)
    F.relu_(x)  # the result is not used, the effect is
    x.add_(1)
    return self.c(self.b(x).relu_())


def random_draws(self: Any, x: Tensor) -> Tensor:
    x = F.dropout(self.a(x), 0.5, self.training)
    x = F.dropout(self.b(x + torch.rand_like(x)), 0.5, self.training)
    return self.c(x) + torch.randn_like(x[:, :2])


def mode_decides(self: Any, x: Tensor) -> Tensor:
    x = self.a(x)
    if self.training:
        x = x * torch.bernoulli(torch.full_like(x, 0.5))
    return self.c(self.b(x)) if self.training else self.c(self.b(x)).softmax(-1)


def tensors_made_in_forward(self: Any, x: Tensor) -> Tensor:
    scale = torch.eye(4)[0] + torch.tensor(2.0)
    total = torch.zeros(4)
    x = self.a(x) * scale
    total += x.mean(0)  # must start from zero at every call
    return self.c(self.b(x) * scale) + total.sum()


def state_of_the_model(self: Any, x: Tensor) -> Tensor:
    early = (self.weight * 2).view(1, -1)  # computed before the cut, used behind it
    x = self.a(x)
    return self.c(self.b(x) * early + self.table + self.scratch + self.constant)


def mathematics(self: Any, x: Tensor) -> Tensor:
    x = self.a(x)
    return self.c(self.b(x) / math.sqrt(x.size(-1)))


def nested_output(self: Any, x: Tensor) -> dict[str, Any]:
    x = self.b(self.a(x))
    return {"scores": self.c(x), "more": [x, (x.sum(), None)]}


def keyword_arguments(self: Any, x: Tensor, mask: Tensor | None = None, *, scale: float = 2.0) -> Tensor:
    x = self.a(x)
    if mask is not None:
        x = x * mask
    return self.c(input=self.b(x) * scale)


@pytest.mark.parametrize(
    ("forward", "cuts"),
    [
        (views_after_the_cut, ["a", "b"]),
        (unpacked_shape, ["a"]),
        (in_place_operators, ["a"]),
        (in_place_calls, ["a", "b"]),
        (random_draws, ["a", "b"]),
        (mode_decides, ["a", "b"]),
        (tensors_made_in_forward, ["a"]),
        (state_of_the_model, ["a", "b"]),
        (mathematics, ["a"]),
        (nested_output, ["a", "b"]),
        (keyword_arguments, ["a", "b"]),
    ],
)
def test_forward_is_parted_exactly(
    forward: Callable[..., Any], cuts: list[str], with_forward: Build, exact: Exact
) -> None:
    model = with_forward(forward)
    assert [at for at in valid_cuts(model) if at != "c"] == cuts
    assert [at for at in valid_cuts(model, X) if at != "c"] == cuts
    for at in cuts:
        edge, server = split(model, at)
        exact(model, edge, server, X)
        exact(model, edge, server, X[:1])  # no size is frozen
        other_edge, other_server = pickle.loads(pickle.dumps((edge, server)))
        torch.testing.assert_close(run(other_server, other_edge), run(server, edge), rtol=0, atol=0)


def run(server: nn.Module, edge: nn.Module) -> Any:
    torch.manual_seed(5)
    return server(edge(X.clone()))


def test_planted_plain_trace_loses_in_place_operators(with_forward: Build) -> None:
    model = with_forward(in_place_operators)
    with pytest.raises(TypeError, match="item assignment"):
        fx.symbolic_trace(model)

    def aliased(self: Any, x: Tensor) -> Tensor:
        x = self.a(x)
        same = x
        same *= 2
        return self.c(self.b(x))

    model = with_forward(aliased)
    assert not torch.equal(fx.symbolic_trace(model)(X), model(X))
    edge, server = split(model, "a")
    assert torch.equal(server(edge(X)), model(X))


def test_batch_size_of_the_input_is_taken_from_the_features(with_forward: Build, exact: Exact) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        batch = x.shape[0]
        x = self.a(x)
        return self.c(self.b(x).view(batch, 2, -1).reshape(batch * 2, -1).view(batch, -1))

    model = with_forward(forward)
    with pytest.raises(CutError, match=r"take item 0 of the shape of the model input 'x' from the features"):
        split(model, "a")
    assert valid_cuts(model) == []
    assert valid_cuts(model, X) == ["a", "b"]
    for at in ("a", "b"):
        edge, server = split(model, at, X)
        exact(model, edge, server, X)
        exact(model, edge, server, X[:1])


def test_batch_size_that_the_features_do_not_have_is_refused(with_forward: Build) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        x = self.a(x.view(-1, 4))  # two rows per record
        return self.c(self.b(x).view(x.size(0) // 2, 2, 4).mean(1))

    with pytest.raises(CutError, match=r"one row per record.*shape=\(6, 4\) for an input of shape=\(3, 8\)"):
        split(with_forward(forward), "a", torch.ones(3, 8))


def test_several_inputs_work_where_the_edge_uses_all(with_forward: Build, exact: Exact) -> None:
    def forward(self: Any, x: Tensor, y: Tensor) -> Tensor:
        return self.c(self.b(self.a(x) + y))

    model = with_forward(forward)
    edge, server = split(model, "b", (X, X + 1))
    exact(model, edge, server, X, X + 1)
    with pytest.raises(CutError, match=r"cross as well: the model input 'y' \(needed by 'add'\)\. Nearest .* 'b'"):
        split(model, "a")


def test_variadic_forward_takes_one_input(with_forward: Build, exact: Exact) -> None:
    model = with_forward(lambda self, *inputs, **options: self.c(self.b(self.a(*inputs, **options))))
    exact(model, *split(model, "a", X), X)


def test_hooks_and_parametrizations_of_whole_modules_are_kept(with_forward: Build, exact: Exact) -> None:
    model = with_forward(lambda self, x: self.c(self.b(self.a(x)) * self.weight))
    model.a.register_forward_hook(lambda module, inputs, output: output + 1)
    model.b.register_forward_pre_hook(lambda module, inputs: (inputs[0] * 2,))
    parametrizations.weight_norm(model.a)
    parametrizations.spectral_norm(model.b)
    parametrize.register_parametrization(model, "weight", nn.Tanh())  # of the opened module itself
    for at in ("a", "b"):
        exact(model, *split(model, at, X), X)


def test_sequential_subclass_with_its_own_forward_is_not_sliced(exact: Exact) -> None:
    class Shifted(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + 1

    model = Shifted(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    sliced = nn.Sequential(*model.children())
    assert not torch.equal(sliced(X), model(X))
    exact(model, *split(model, "0", X), X)
    patched = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    patched.forward = lambda x: patched[1](patched[0](x)) + 1  # type: ignore[method-assign]
    with pytest.raises(CutError, match=r"keep the forward that was assigned to this instance"):
        split(patched, "0")


def test_same_stateless_module_on_both_sides_is_allowed(exact: Exact) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.three = (nn.Linear(4, 4) for _ in range(3))
            self.act = nn.Sequential(nn.ReLU(), nn.Dropout())

        def forward(self, x: Tensor) -> Tensor:
            return self.three(self.act(self.two(self.act(self.one(x)))))

    model = Net()
    assert valid_cuts(model, X) == ["one", "two"]
    for at in ("one", "two"):
        exact(model, *split(model, at), X)


def test_aliases_of_a_module_stay_with_it(exact: Exact) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.three = (nn.Linear(4, 4) for _ in range(3))
            self.first, self.last = self.one, nn.ModuleList([self.three])
            self.last[0].bias = self.three.bias

        def forward(self, x: Tensor) -> Tensor:
            return self.last[0](self.two(self.first(x)))

    model = Net()
    edge, server = split(model, "first", X)
    exact(model, edge, server, X)
    assert set(edge.state_dict()) == {f"{name}.{key}" for name in ("one", "first") for key in ("weight", "bias")}


def test_module_lists_and_odd_names_are_followed(exact: Exact) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(4, 4), nn.ReLU()) for _ in range(3))
            self.heads = nn.ModuleDict({"a-b": nn.Linear(4, 4), "c": nn.Linear(4, 2)})

        def forward(self, x: Tensor) -> Tensor:
            for block in self.blocks:
                x = block(x)
            return self.heads["c"](self.heads["a-b"](x))

    model = Net()
    inside = [f"blocks.{i}{part}" for i in range(3) for part in (".0", ".1", "")]
    assert valid_cuts(model, X) == [*inside, "heads.a-b"]
    for at in valid_cuts(model):
        exact(model, *split(model, at), X)


def test_tracing_leaves_no_proxy_and_no_draw_behind(with_forward: Build) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        self.seen = self.a(x)
        random.random()
        return self.c(self.b(self.seen))

    model, state = with_forward(forward), random.getstate()
    with pytest.raises(CutError):
        split(model, "a")
    assert not hasattr(model, "seen")
    assert random.getstate() == state
