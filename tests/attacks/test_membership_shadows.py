"""Shadow models: balanced, resumable, and the same by vmap as one after another."""

from __future__ import annotations

import copy
import dataclasses
import importlib.util
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from cases_membership import DIM, records, training
from torch import Tensor, nn

from splitpriv import InvalidParameterError, NonFiniteError, ShapeError
from splitpriv.attacks.membership_inference import ServerTraining, ShadowPool, train_shadows
from splitpriv.attacks.membership_inference import store as stores
from splitpriv.attacks.membership_inference.identity import identity
from splitpriv.attacks.membership_inference.vectorised import is_faster_stacked


def quick(**changed: Any) -> ServerTraining:
    return training(**{"epochs": 2, "batch_size": 16, **changed})


def cnn() -> nn.Module:
    return nn.Sequential(nn.Unflatten(1, (1, 4, 5)), nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(24, 5))


# Halves ---------------------------------------------------------------------------------------------


def test_each_record_is_in_one_model_of_each_pair() -> None:
    x, y = records(41, 0)
    pool = train_shadows(quick(), x, y, shadows=6, held_out=10)
    assert pool.outputs.shape == (6, 41, 5)
    assert bool((pool.membership[0::2, :31] ^ pool.membership[1::2, :31]).all())
    assert not bool(pool.membership[:, 31:].any())
    assert pool.membership.sum(1).tolist() == [15, 16] * 3
    assert not torch.equal(pool.membership[0], pool.membership[2])
    assert (len(pool), pool.pairs, repr(pool)) == (6, 3, "ShadowPool(6 shadow models on 41 records)")
    rest = pool.without(1)
    assert torch.equal(rest.outputs, pool.outputs[[0, 1, 4, 5]])
    more = train_shadows(quick(), x, y, shadows=8, held_out=10)  # the first models do not depend on how many follow
    assert torch.equal(more.membership[:6], pool.membership)


def test_models_know_their_own_half_and_no_other() -> None:
    seen: list[tuple[Tensor, Tensor, int]] = []

    def train(x: Tensor, y: Tensor, seed: int) -> Any:
        seen.append((x, y, seed))
        return lambda asked: (
            (asked[:, None, :] == x[None]).all(-1).any(-1)[:, None].float() * torch.tensor([1.0, 0, 0, 0, 0])
        )

    x, y = records(30, 0)
    pool = train_shadows(train, x, y, shadows=4)
    assert torch.equal(pool.outputs[:, :, 0].bool(), pool.membership)
    assert len({seed for _, _, seed in seen}) == 4
    for (features, labels, _), mask in zip(seen, pool.membership, strict=True):
        assert torch.equal(features, x[mask])
        assert torch.equal(labels, y[mask])


# vmap -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [None, cnn], ids=["mlp", "cnn"])
@pytest.mark.parametrize("count", [60, 61])
def test_all_at_once_is_as_one_after_another(make: Any, count: int) -> None:
    with torch.random.fork_rng(devices=[]):
        changed = {} if make is None else {"server": make()}
    how = (
        quick(weight_decay=0.1, **changed) if make is None else dataclasses.replace(quick(weight_decay=0.1), **changed)
    )
    x, y = records(count, 0)
    loop, vmap = (train_shadows(how, x, y, shadows=4, vectorised=v) for v in (False, True))
    assert float((loop.outputs - vmap.outputs).abs().max()) < 1e-4
    untrained = dataclasses.replace(how, lr=1e-12)
    before = train_shadows(untrained, x, y, shadows=4)
    assert float((loop.outputs - before.outputs).abs().max()) > 1e-2  # it did train


def test_a_large_stack_is_trained_in_parts(monkeypatch: Any) -> None:
    from splitpriv.attacks.membership_inference import vectorised

    x, y = records(40, 0)
    whole = train_shadows(quick(), x, y, shadows=6, vectorised=True)
    monkeypatch.setattr(vectorised, "_ELEMENTS", 2 * 20 * DIM)
    parts = train_shadows(quick(), x, y, shadows=6, vectorised=True)
    assert torch.allclose(whole.outputs, parts.outputs, atol=1e-5)


def test_auto_takes_what_was_measured_to_be_faster(monkeypatch: Any) -> None:
    assert is_faster_stacked(training().server)
    assert not is_faster_stacked(cnn())
    assert not is_faster_stacked(nn.Sequential(nn.Linear(500, 500)))
    assert not is_faster_stacked(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)))
    taken = []
    monkeypatch.setattr(
        ServerTraining, "many", lambda self, x, y, seeds: taken.append("vmap") or [lambda z: z[:, :5]] * len(seeds)
    )
    monkeypatch.setattr(
        ServerTraining, "__call__", lambda self, x, y, seed: taken.append("loop") or (lambda z: z[:, :5])
    )
    for server in (training().server, cnn()):
        train_shadows(ServerTraining(server=server), *records(8, 0), shadows=2)
    assert taken == ["vmap", "loop", "loop"]


@pytest.mark.parametrize("layer", [nn.Dropout(), nn.BatchNorm1d(DIM)])
def test_networks_with_state_are_trained_one_after_another(layer: nn.Module) -> None:
    how = ServerTraining(server=nn.Sequential(layer, nn.Linear(DIM, 5)), epochs=1)
    assert len(train_shadows(how, *records(20, 0), shadows=2)) == 2
    with pytest.raises(
        InvalidParameterError, match="server must have neither dropout nor buffers to be trained vectorised"
    ):
        train_shadows(how, *records(20, 0), shadows=2, vectorised=True)


# Training -------------------------------------------------------------------------------------------


def test_training_leaves_server_and_random_numbers_alone() -> None:
    how = quick()
    how.server.eval().requires_grad_(False)
    before = {name: value.clone() for name, value in how.server.state_dict().items()}
    torch.manual_seed(3)
    state = torch.random.get_rng_state()
    first, second, third = (how(*records(30, 0), seed)(records(5, 1)[0]) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in how.server.state_dict().items())
    assert not how.server.training
    assert torch.equal(first, second)
    assert not torch.allclose(first, third)


def test_training_starts_from_given_weights_where_asked() -> None:
    x, y = records(30, 0)
    still: dict[str, Any] = {"lr": 1e-12, "epochs": 1}
    kept, drawn = quick(reset=False, **still), quick(**still)
    assert torch.allclose(kept(x, y, 0)(x), kept.server(x), atol=1e-6)
    assert not torch.allclose(drawn(x, y, 1)(x), drawn.server(x), atol=1e-2)


def test_what_is_released_is_trained_on_and_what_is_queried_asked() -> None:
    given = []
    how = quick(
        release=lambda x: given.append(len(x)) or x * 0,
        release_labels=lambda y: y * 0,
        query=lambda x: x + 1,
        epochs=30,
        through="nothing but zeros",
    )
    x, y = records(300, 0)
    outputs = how(x, y, 0)
    assert given == [256, 44]
    assert bool((outputs(x * 0 - 1).argmax(1) == 0).all())
    assert torch.equal(outputs(x[:1] * 0), outputs(x[:1] * 0))


def test_what_of_a_start_is_frozen_stays_so() -> None:
    x, y = records(40, 0)
    with torch.random.fork_rng(devices=[]):
        start = nn.Sequential(nn.Linear(DIM, 8), nn.ReLU(), nn.Linear(8, 5))
    start[0].requires_grad_(False)
    for vectorised in (False, True):
        trained: list[nn.Module] = []
        how = ServerTraining(server=start, epochs=3, lr=0.1, reset=False)

        def keep(self: Any, server: nn.Module, trained: list[nn.Module] = trained) -> Any:
            trained.append(server)
            return server.eval()

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ServerTraining, "_outputs", keep)
            train_shadows(how, x, y, shadows=2, vectorised=vectorised)
        for server in trained:
            assert torch.equal(server[0].weight, start[0].weight)
            assert not torch.allclose(server[2].weight, start[2].weight, atol=0.05)
    assert [p.requires_grad for p in start.parameters()] == [False, False, True, True]
    start.requires_grad_(False)
    with pytest.raises(InvalidParameterError, match="server must be a module with parameters that require grad"):
        ServerTraining(server=start, reset=False)
    drawn = ServerTraining(server=start, epochs=20, lr=0.1)  # frozen after it was trained
    assert float(F.cross_entropy(drawn(x, y, 0)(x), y)) < float(F.cross_entropy(drawn.untrained(0)(x), y)) - 0.3


class Gated(nn.Linear):
    """Inherits a reset that does not know of its own parameter."""

    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes)
        self.gate = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.gate


class Averaging(nn.Module):
    """Keeps a running mean that no reset knows of."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))

    def forward(self, x: Tensor) -> Tensor:
        return x - self.mean


@pytest.mark.parametrize(
    ("make", "left"),
    [
        (lambda: nn.Sequential(Gated(DIM, 5)), "0.gate"),
        (lambda: nn.Sequential(Averaging(DIM), nn.Linear(DIM, 5)), "0.mean"),
        (lambda: nn.Sequential(nn.utils.spectral_norm(nn.Linear(DIM, 5))), "0.weight_orig, 0.weight_u, 0.weight_v"),
    ],
)
def test_a_reset_that_keeps_what_was_learned_is_refused(make: Any, left: str) -> None:
    with torch.random.fork_rng(devices=[]):
        server = make()
        before = {name: value.clone() for name, value in server.state_dict().items()}
    torch.manual_seed(3)
    state = torch.random.get_rng_state()
    text = f"server must draw each parameter and floating-point buffer anew in reset_parameters, got {left} left"
    with pytest.raises(InvalidParameterError, match=f"ServerTraining: {text}"):
        ServerTraining(server=server)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in server.state_dict().items())


def test_usual_modules_are_drawn_anew() -> None:
    with torch.random.fork_rng(devices=[]):
        layers = [
            *(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.PReLU(), nn.GroupNorm(2, 4), nn.Flatten(2), nn.GRU(9, 8)),
            *(nn.MultiheadAttention(8, 2), nn.TransformerEncoderLayer(8, 2), nn.LayerNorm(8), nn.Embedding(5, 8)),
        ]
        assert ServerTraining(server=nn.Sequential(*layers)).reset


def test_a_server_that_cannot_be_copied_is_refused() -> None:
    with torch.random.fork_rng(devices=[]):
        server = nn.Linear(DIM, 5)
    server.normed = server.weight / server.weight.norm()  # as the hook of weight_norm does
    text = r"server must be a module that copy\.deepcopy can copy, got Linear\. Copying it failed: Only Tensors created"
    with pytest.raises(InvalidParameterError, match=text):
        ServerTraining(server=server, reset=False)


class Scale(nn.Module):
    """Has a parameter, and no way to draw it anew."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x


def test_trainings_that_cannot_be_are_refused() -> None:
    server = nn.Sequential(nn.Linear(DIM, 5), Scale())
    with pytest.raises(InvalidParameterError, match="server must have reset_parameters in each module with parameters"):
        ServerTraining(server=server)
    assert ServerTraining(server=server, reset=False).server is server
    for option, text in (
        ({"epochs": 0}, "ServerTraining: epochs must be an integer >= 1"),
        ({"batch_size": 0}, "ServerTraining: batch_size must be an integer >= 1"),
        ({"lr": 0.0}, "ServerTraining: lr must be finite and > 0"),
        ({"weight_decay": -1.0}, "ServerTraining: weight_decay must be >= 0"),
        ({"reset": 1}, "ServerTraining: reset must be True or False"),
        ({"release": 3}, "ServerTraining: release must be a callable, or None, got release=3"),
        ({"query": "x"}, "ServerTraining: query must be a callable, or None, got query='x'"),
        ({"through": 3}, "ServerTraining: through must be text, got through=3"),
        ({"device": "gpu"}, "ServerTraining: device must be a device that this machine has, or None"),
    ):
        with pytest.raises(InvalidParameterError, match=text):
            quick(**option)
    with pytest.raises(InvalidParameterError, match=r"server must be an nn\.Module"):
        ServerTraining(server=len)


# Files ----------------------------------------------------------------------------------------------


@pytest.fixture
def counted(monkeypatch: Any) -> list[int]:
    """The seeds of the models that were really trained."""
    trained: list[int] = []
    original = ServerTraining.__call__

    def call(self: Any, x: Tensor, y: Tensor, seed: int) -> Any:
        trained.append(seed)
        return original(self, x, y, seed)

    monkeypatch.setattr(ServerTraining, "__call__", call)
    return trained


def shadows(folder: Path | None, **changed: Any) -> ShadowPool:
    how = {"shadows": 6, "vectorised": False, "folder": folder, **changed}
    data = how.pop("data", records(40, 0))
    return train_shadows(how.pop("train", quick()), *data, **how)


def test_resumed_from_disk_gives_the_same_as_in_one_go(tmp_path: Path, counted: list[int], monkeypatch: Any) -> None:
    whole = shadows(None)
    del counted[:]

    # Cut off while the third file is being renamed.
    replace, done = stores.os.replace, []

    def cut_off(source: Any, goal: Any) -> None:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(replace(source, goal))

    monkeypatch.setattr(stores.os, "replace", cut_off)
    with pytest.raises(KeyboardInterrupt):
        shadows(tmp_path)
    monkeypatch.setattr(stores.os, "replace", replace)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["shadow-00000.npz", "shadow-00001.npz"]
    del counted[:]
    resumed = shadows(tmp_path)
    assert len(counted) == 4
    assert torch.equal(resumed.outputs, whole.outputs)
    del counted[:]
    assert torch.equal(shadows(tmp_path).outputs, whole.outputs)
    assert counted == []
    more = shadows(tmp_path, shadows=8)
    assert len(counted) == 2
    assert torch.equal(more.outputs[:6], whole.outputs)
    fewer = shadows(tmp_path, shadows=4)
    assert torch.equal(fewer.outputs, whole.outputs[:4])


DAMAGE = ["truncated", "empty", "text", "pickle", "array", "method", "encrypted", "shape", "dtype"]


@pytest.mark.parametrize("damage", DAMAGE)
def test_files_that_cannot_be_read_are_made_anew(tmp_path: Path, counted: list[int], damage: str) -> None:
    whole = shadows(tmp_path)
    path = tmp_path / "shadow-00003.npz"
    content = path.read_bytes()
    if damage == "pickle":
        np.savez(path, outputs=np.array([{"x": 1}], dtype=object), fingerprint=np.array("x", dtype=object))
    elif damage == "array":
        with path.open("wb") as file:
            np.save(file, np.zeros(3))
    elif damage in ("method", "encrypted"):  # one byte of the directory of the zip file
        at = content.index(b"PK\x01\x02") + {"method": 10, "encrypted": 8}[damage]
        path.write_bytes(content[:at] + {"method": b"\x63", "encrypted": b"\x01"}[damage] + content[at + 1 :])
    elif damage in ("shape", "dtype"):
        stored = dict(np.load(path))
        other = stored["outputs"].ravel() if damage == "shape" else stored["outputs"].astype(np.float64)
        np.savez(path, outputs=other, fingerprint=stored["fingerprint"])
    else:
        path.write_bytes({"truncated": content[: len(content) // 2], "empty": b"", "text": b"shadow"}[damage])
    del counted[:]
    assert torch.equal(shadows(tmp_path).outputs, whole.outputs)
    assert len(counted) == 1
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "changed",
    [
        {"seed": 1},
        {"held_out": 2},
        {"tag": "another"},
        {"train": quick(epochs=3)},
        {"train": quick(lr=0.5)},
        {"train": quick(reset=False)},
        {"train": quick(release=lambda x: x + 1, through="plus one")},
        {"train": ServerTraining(server=nn.Linear(DIM, 5), epochs=2, lr=1e-2, batch_size=16)},
        {"data": records(40, 1)},
        {"data": (records(40, 0)[0], (records(40, 0)[1] + 1) % 5)},
        {"data": records(44, 0)},
    ],
)
def test_files_of_something_else_are_refused(tmp_path: Path, changed: dict[str, Any]) -> None:
    shadows(tmp_path, shadows=2)
    kept = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(InvalidParameterError, match="folder must hold shadows of this configuration and these records"):
        shadows(tmp_path, **changed)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == kept


def test_files_need_to_know_what_made_them(tmp_path: Path) -> None:
    def train(x: Tensor, y: Tensor, seed: int) -> Any:
        return lambda asked: asked[:, :5]

    with pytest.raises(InvalidParameterError, match="tag must say in words what train does when a folder is given"):
        shadows(tmp_path, train=train)
    assert len(shadows(tmp_path, train=train, tag="the first five columns", vectorised="auto")) == 6
    with pytest.raises(
        InvalidParameterError, match="through must say what release and query are when shadows are kept"
    ):
        shadows(tmp_path / "other", train=quick(query=lambda x: x))


def test_a_start_of_other_weights_is_another_training() -> None:
    one, other = nn.Linear(DIM, 5), nn.Linear(DIM, 5)
    drawn = [ServerTraining(server=server).fingerprint() for server in (one, other)]
    kept = [ServerTraining(server=server, reset=False).fingerprint() for server in (one, other)]
    assert drawn[0] == drawn[1]
    assert kept[0] != kept[1]


class Scaled(nn.Module):
    """Multiplies by what the reset writes into its buffer."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self._scale = scale
        self.register_buffer("scale", torch.tensor(scale))

    def reset_parameters(self) -> None:
        self.scale.fill_(self._scale)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


class Activated(nn.Module):
    """Has a setting, a function or a tensor as a plain attribute."""

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        self.__dict__.update(settings)

    def forward(self, x: Tensor) -> Tensor:
        return x


def sources(tmp_path: Path, body: str) -> nn.Module:
    """A module whose class is written into a file: its name is the same, its code may be another."""
    path = tmp_path / f"coded_{len(list(tmp_path.iterdir()))}.py"
    path.write_text(
        f"from torch import nn\nclass Coded(nn.Module):\n    def forward(self, x):\n        return {body}\n"
    )
    spec = importlib.util.spec_from_file_location("coded", path)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "coded", module)
        spec.loader.exec_module(module)  # type: ignore[union-attr]
        identity(module.Coded())  # its source is read while the module is there
    made: nn.Module = module.Coded()
    return made


def test_servers_are_told_apart_by_all_that_they_compute(tmp_path: Path, counted: list[int]) -> None:
    pairs: list[tuple[Any, Any]] = [
        (Scaled(1.0), Scaled(100.0)),
        (Activated(slope=0.1), Activated(slope=0.2)),
        (Activated(act=F.relu), Activated(act=torch.tanh)),
        (Activated(act=partial(F.leaky_relu, negative_slope=0.1)), Activated(act=partial(F.leaky_relu))),
        (Activated(table=torch.ones(2)), Activated(table=torch.zeros(2))),
        (nn.LeakyReLU(0.1), nn.LeakyReLU(0.2)),
        (sources(tmp_path, "x"), sources(tmp_path, "-x")),
    ]
    for number, (one, other) in enumerate(pairs):
        for reset in (True, False):
            same, first, second = (
                ServerTraining(server=nn.Sequential(part, nn.Linear(DIM, 5)), epochs=1, reset=reset)
                for part in (copy.deepcopy(one), one, other)
            )
            if not reset:
                for how in (same, second):
                    how.server.load_state_dict(first.server.state_dict(), strict=False)
                    if isinstance(one, Scaled):
                        how.server[0].reset_parameters()
            assert same.fingerprint() == first.fingerprint(), number
            assert second.fingerprint() != first.fingerprint(), number
    del counted[:]
    shadows(tmp_path / "kept", train=ServerTraining(server=nn.Sequential(pairs[0][0], nn.Linear(DIM, 5)), epochs=1))
    with pytest.raises(InvalidParameterError, match="folder must hold shadows of this configuration"):
        shadows(tmp_path / "kept", train=ServerTraining(server=nn.Sequential(pairs[0][1], nn.Linear(DIM, 5)), epochs=1))


def test_values_that_are_drawn_anew_do_not_tell_servers_apart() -> None:
    with torch.random.fork_rng(devices=[]):
        one = nn.Sequential(nn.Linear(DIM, 8), nn.BatchNorm1d(8), nn.Dropout(0.1), nn.Linear(8, 5))
        other = copy.deepcopy(one)
        other[0].reset_parameters()
        other(torch.randn(10, DIM))  # moves the running mean
    first, second = (ServerTraining(server=server).fingerprint() for server in (one, other))
    assert first == second
    frozen = copy.deepcopy(one)
    frozen[0].requires_grad_(False)
    assert ServerTraining(server=frozen).fingerprint() != first


# Refusals -------------------------------------------------------------------------------------------


def test_arguments_out_of_range_are_refused() -> None:
    x, y = records(10, 0)
    for options, text in (
        ({"shadows": 1}, "train_shadows: shadows must be an integer >= 2"),
        ({"shadows": 3}, "train_shadows: shadows must be even: they come in pairs"),
        ({"held_out": 9}, r"train_shadows: held_out must be an integer in \[0, 8\]"),
        ({"seed": -1}, "train_shadows: seed must be an integer >= 0"),
        ({"batch_size": 0}, "train_shadows: batch_size must be an integer >= 1"),
        ({"vectorised": "always"}, "train_shadows: vectorised must be True or False or 'auto'"),
        ({"folder": 3}, "train_shadows: folder must be the path of a folder, or None, got folder=3"),
        ({"folder": __file__}, "train_shadows: folder must be the path of a folder, or None"),
        ({"tag": 3}, "train_shadows: tag must be text, got tag=3"),
        ({"progress": "x"}, "train_shadows: progress must be True or False"),
    ):
        with pytest.raises(InvalidParameterError, match=text):
            train_shadows(quick(), x, y, **options)
    with pytest.raises(ShapeError, match="train_shadows: records and labels must be tensors of as many rows"):
        train_shadows(quick(), x, y[:9])
    with pytest.raises(InvalidParameterError, match="train_shadows: train must be a callable from"):
        train_shadows(3, x, y)
    with pytest.raises(InvalidParameterError, match="train_shadows: outputs must be a callable from records to logits"):
        train_shadows(lambda x, y, seed: None, x, y)
    constraint = 'vectorised must be False or "auto" for a training without a method many'
    with pytest.raises(InvalidParameterError, match=constraint):
        train_shadows(lambda x, y, seed: quick()(x, y, seed), x, y, vectorised=True)
    with pytest.raises(NonFiniteError, match="train_shadows: outputs must be finite logits"):
        train_shadows(lambda x, y, seed: lambda z: z * torch.inf, x, y, shadows=2)


@pytest.mark.parametrize(
    ("membership", "text"),
    [
        (torch.tensor([[1, 0, 1]]), "got 1 rows"),
        (torch.tensor([[1, 0, 1], [1, 1, 0]]), "got 2 rows"),
        (torch.tensor([[1, 0, 1], [0, 1, 0], [1, 0, 0], [0, 1, 0]]), "got 4 rows"),
        (torch.zeros(0, 3), "got 0 rows"),
    ],
)
def test_a_pool_that_is_not_in_pairs_is_refused(membership: Tensor, text: str) -> None:
    with pytest.raises(ShapeError, match=f"membership must come in pairs of rows in which .*, {text}"):
        ShadowPool(torch.zeros(len(membership), 3, 2), membership.bool(), torch.zeros(3).long())
    with pytest.raises(ShapeError, match=r"ShadowPool: outputs must be \(shadows, records, classes\) with membership"):
        ShadowPool(torch.zeros(2, 3), membership.bool(), torch.zeros(3).long())
