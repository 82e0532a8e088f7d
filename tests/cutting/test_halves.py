"""What the halves are: ordinary modules that share the model's state and survive what modules go through."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models import Transformer, mlp, resnet18
from splitpriv._errors import CutError
from splitpriv.cutting import split

CASES: dict[str, tuple[Callable[[], nn.Module], str, tuple[int, ...]]] = {
    "sliced": (lambda: mlp(8, inputs=16), "2", (3, 16)),
    "traced": (lambda: resnet18(width=2), "layer1", (2, 3, 32, 32)),
    "two programs": (lambda: Transformer(8, depth=2, heads=2), "blocks.0", (2, 3, 32, 32)),
}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> tuple[nn.Module, nn.Module, nn.Module, Tensor]:
    make, at, shape = CASES[request.param]
    model = make()
    return model, *split(model, at), torch.randn(shape)


def test_parameters_are_shared_with_the_model(case: tuple[nn.Module, nn.Module, nn.Module, Tensor]) -> None:
    model, edge, server, _ = case
    halves = {**dict(edge.named_parameters()), **dict(server.named_parameters())}
    assert halves.keys() == dict(model.named_parameters()).keys()
    assert all(halves[name] is parameter for name, parameter in model.named_parameters())


def test_each_half_loads_its_share_of_a_state_dict(
    case: tuple[nn.Module, nn.Module, nn.Module, Tensor],
) -> None:
    model, edge, server, x = case
    other = copy.deepcopy(model)
    for parameter in other.parameters():
        nn.init.normal_(parameter)
    state = other.state_dict()
    for half in (edge, server):
        half.load_state_dict({k: v for k, v in state.items() if k in half.state_dict()})
    assert torch.equal(server.eval()(edge.eval()(x)), other.eval()(x))


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda halves: pickle.loads(pickle.dumps(halves))])
def test_copies_are_exact_and_apart(
    case: tuple[nn.Module, nn.Module, nn.Module, Tensor],
    clone: Callable[[object], tuple[nn.Module, nn.Module]],
) -> None:
    model, edge, server, x = case
    edge_copy, server_copy = clone((edge, server))
    reference = copy.deepcopy(model)
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    for training in (False, True):
        for module in (reference, edge_copy, server_copy):
            module.train(training)
        torch.manual_seed(1)
        expected = reference(x)
        torch.manual_seed(1)
        assert torch.equal(server_copy(edge_copy(x)), expected)


def test_dtype_moves_all_state(case: tuple[nn.Module, nn.Module, nn.Module, Tensor]) -> None:
    model, edge, server, x = case
    model.eval()
    edge.double().eval()
    server.double().eval()
    assert torch.equal(server(edge(x.double())), model(x.double()))


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # raised inside dynamo
def test_compiles_without_graph_breaks(case: tuple[nn.Module, nn.Module, nn.Module, Tensor]) -> None:
    model, edge, server, x = case
    for training in (False, True):
        model.train(training)
        edge.train(training)
        server.train(training)
        compiled = [torch.compile(half, backend="eager", fullgraph=True) for half in (edge, server)]
        torch.manual_seed(1)
        expected = model(x)
        torch.manual_seed(1)
        assert torch.equal(compiled[1](compiled[0](x)), expected)


def test_halves_follow_train_and_eval_at_once() -> None:
    model = Transformer(8, depth=2, heads=2, dropout=0.5)
    edge, _ = split(model.eval(), "blocks.0")
    x = torch.randn(2, 3, 32, 32)
    still = edge(x)
    assert torch.equal(edge(x), still)
    assert not torch.equal(edge.train()(x), edge(x))
    assert torch.equal(edge.eval()(x), still)


@pytest.mark.parametrize("mode", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_model_mode_and_state_are_left_as_found(name: str, mode: bool) -> None:
    make, at, shape = CASES[name]
    model = make().train(mode)
    list(model.modules())[-1].train(not mode)
    modes = [module.training for module in model.modules()]
    state, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    attributes = [dict(vars(module)) for module in model.modules()]
    edge, server = split(model, at, torch.randn(shape, generator=torch.Generator().manual_seed(0)))
    assert edge.training == server.training == mode
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    for before, module in zip(attributes, model.modules(), strict=True):
        assert before.keys() == vars(module).keys()
        assert all(vars(module)[key] is value for key, value in before.items())


class InPlace(nn.Module):
    """Overwrites the output of its first layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(F.relu_(self.first(x)))


@pytest.mark.parametrize(
    ("model", "at"),
    [(nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True), nn.Linear(4, 2)), "0"), (InPlace(), "first")],
)
def test_server_does_not_write_into_the_features(model: nn.Module, at: str) -> None:
    edge, server = split(model, at)
    features = edge(torch.randn(3, 4)).detach().requires_grad_()  # a leaf: in-place layers would fail
    held = features.detach().clone()
    server(features).sum().backward()
    assert torch.equal(features, held)
    assert features.grad is not None
    if isinstance(model, nn.Sequential):  # the planted fault: a plain slice does write
        plain = features.detach().clone()
        model[1:](plain)
        assert not torch.equal(plain, held)


def test_parts_in_different_modes_are_refused_when_the_mode_matters() -> None:
    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.two(F.dropout(self.one(x), 0.5, self.training))

    model = nn.Sequential(Head(), nn.Linear(4, 2))
    edge, server = split(model, "0.one")
    exactly = edge(torch.ones(2, 4))
    server.get_submodule("0").eval()
    with pytest.raises(CutError, match=r"TracedServer: modules that the cut goes through must be in one mode"):
        server(exactly)
    server.eval()(exactly)


def test_what_forward_never_uses_goes_to_the_server() -> None:
    class Spare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.unused, self.two = nn.Linear(4, 4), nn.Linear(1, 1), nn.Linear(4, 2)
            self.register_buffer("seen", torch.zeros(1))

        def forward(self, x: Tensor) -> Tensor:
            return self.two(self.one(x))

    edge, server = split(Spare(), "one")
    assert set(edge.state_dict()) == {"one.weight", "one.bias"}
    assert {"unused.weight", "unused.bias", "seen"} <= set(server.state_dict())


def test_frozen_parameters_stay_frozen() -> None:
    model = resnet18(width=2)
    model.layer1.requires_grad_(False)
    edge, _ = split(model, "layer2")
    trainable = {name for name, parameter in edge.named_parameters() if parameter.requires_grad}
    assert trainable == {name for name, _ in edge.named_parameters() if not name.startswith("layer1")}


@pytest.mark.parametrize("name", CASES)
def test_halves_can_be_cut_again(name: str) -> None:
    make, at, shape = CASES[name]
    model, x = make().eval(), torch.randn(shape)
    later = {"sliced": "4", "traced": "layer2", "two programs": "blocks.1"}[name]
    edge, rest = split(model, at)
    middle, server = split(rest, later, edge(x))
    assert torch.equal(server(middle(edge(x))), model(x))
    assert set(rest.state_dict()) == set(middle.state_dict()) | set(server.state_dict())


def test_halves_say_where_they_were_cut() -> None:
    edge, server = split(resnet18(width=2), "layer3.0")
    assert "up to and with 'layer3.0'" in repr(edge)
    assert "behind 'layer3.0'" in repr(server)
    assert "(layer3): Sequential[part](" in repr(edge)


def test_server_refuses_what_is_no_tensor() -> None:
    _, server = split(mlp(8, inputs=16), "1")
    with pytest.raises(CutError, match=r"server: features must be a single tensor, got type=tuple\. Cut after"):
        server((torch.ones(1, 8), None))
