"""The front door: a SplitModel both ways, a callable, and what is left as it was."""

from __future__ import annotations

import dataclasses
import inspect
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from cases_membership import CLASSES, DIM, pool, records, target, training
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import splitpriv as sp
from splitpriv import InvalidParameterError, ShapeError
from splitpriv.attacks.membership_inference import (
    RMIA,
    LiRA,
    MembershipReport,
    ServerTraining,
    ShadowMembership,
    ThresholdMembership,
    membership,
)

OWNER: dict[str, Any] = {"epochs": 40, "lr": 1e-2, "train_batch_size": 50}
FEATURES = 32


def drawn(*modules: nn.Module, seed: int = 0) -> nn.Sequential:
    """Modules with parameters that are the same in each run."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for module in modules:
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
    return nn.Sequential(*modules)


def groups() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    x, y = records(200, 0)
    return (x[:100], y[:100]), (x[100:], y[100:])


def trained(cut: nn.Module | None = None, labels: Any = "public") -> sp.SplitModel:
    """A server that was trained on what 100 members released, by the owner."""
    edge = drawn(nn.Linear(DIM, FEATURES), nn.Tanh(), seed=1)
    server = drawn(nn.Linear(FEATURES, 32), nn.ReLU(), nn.Linear(32, CLASSES), seed=2)
    model = sp.SplitModel(edge, server, cut=cut, labels=labels)
    (x, y), _ = groups()
    with sp.accounting.simulation(), torch.no_grad():
        features = model.cut.decode(model.cut.encode(model.edge(x)))
        given = y if model.label_layer is None else model.label_layer.encode(y)
    optimizer, order = torch.optim.AdamW(server.parameters(), lr=OWNER["lr"]), torch.Generator().manual_seed(77)
    for _ in range(OWNER["epochs"]):
        for rows in torch.randperm(len(y), generator=order).split(OWNER["train_batch_size"]):
            optimizer.zero_grad()
            F.cross_entropy(server(features[rows]), given[rows]).backward()
            optimizer.step()
    return model


# Both ways ------------------------------------------------------------------------------------------


def test_an_undefended_server_gives_its_members_away() -> None:
    model = trained()
    model.train()
    model.server[1].eval()
    modes = [module.training for module in model.modules()]
    torch.manual_seed(9)
    state = torch.random.get_rng_state()
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    report = membership(model, *groups(), shadows=8, **OWNER)
    assert isinstance(report, MembershipReport)
    assert list(report.results) == [
        *("threshold on loss", "threshold on modified entropy", "shadow models, mlp"),
        *("LiRA, online", "LiRA, offline", "RMIA, offline"),
    ]
    for result in report.results.values():
        assert result.auc.low > 0.8
        assert result.balanced_accuracy.low > 0.6
    assert report.best.auc.value == max(result.auc.value for result in report.results.values())
    # Left as it was: modes, weights, torch's random numbers, the ledger.
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), state)
    assert sp.accounting.epsilon_total() == 0
    again = membership(model, *groups(), shadows=8, **OWNER)
    assert again.to_dict() == report.to_dict()


@pytest.mark.parametrize("query", ["clean", "released"])
def test_behind_much_noise_everyone_is_at_chance(query: str) -> None:
    # ε = 0.01 per element, 0.32 for the record: no attacker's AUC can exceed 0.58, and these have 32 nearly fair coins
    # to go by. 99.9 % intervals, 12 in all: failing by chance has a probability below 1.2 %. Fixed seeds.
    model = trained(sp.RandomResponseLDP(epsilon=0.01, generator=3))
    attacks = [ThresholdMembership(confidence=0.999), LiRA(confidence=0.999), RMIA(confidence=0.999)]
    report = membership(model, *groups(), query=query, shadows=8, attacks=attacks, **OWNER)
    for result in report.results.values():
        assert result.auc.low <= 0.5 <= result.auc.high
        assert result.balanced_accuracy.low <= 0.5 <= result.balanced_accuracy.high
    assert report.query == query
    assert "RandomResponseLDP" in report.layer


def test_little_noise_hides_little_and_more_queries_find_more() -> None:
    model = trained(sp.RandomResponseLDP(epsilon=3.0, generator=3))
    clean = membership(model, *groups(), shadows=0)
    once = membership(model, *groups(), shadows=0, query="released")
    often = membership(model, *groups(), shadows=0, query="released", queries=20)
    name = "threshold on loss"
    assert clean[name].auc.low > 0.7
    # Fixed seeds. Measured: clean .876, one noisy query .844, the mean of twenty .868.
    assert clean[name].auc.value > once[name].auc.value
    assert often[name].auc.value > once[name].auc.value
    several = membership(model, *groups(), shadows=4, query="released", queries=3, attacks=[LiRA()], **OWNER)
    assert several["LiRA, online"].auc.value > 0.55


# Shadow models --------------------------------------------------------------------------------------


def test_what_was_kept_is_used_again(tmp_path: Path) -> None:
    how: dict[str, Any] = {"folder": tmp_path, "shadows": 4, "attacks": [RMIA()], **OWNER}
    model = trained(sp.RandomResponseLDP(epsilon=2.0, generator=3))
    first = membership(model, *groups(), **how)
    times = [path.stat().st_mtime_ns for path in sorted(tmp_path.iterdir())]
    assert len(times) == 4
    again = membership(model, *groups(), **how)  # another draw of noise would give other shadows
    assert [path.stat().st_mtime_ns for path in sorted(tmp_path.iterdir())] == times
    assert again.to_dict() == first.to_dict()
    text = "folder must hold shadows of this configuration"
    with pytest.raises(InvalidParameterError, match=text):
        membership(model, *groups(), **{**how, "query": "released"})
    with pytest.raises(InvalidParameterError, match=text):
        membership(model, *groups(), **{**how, "query": "released", "queries": 2})
    other = trained(sp.RandomResponseLDP(epsilon=2.5, generator=3))
    with pytest.raises(InvalidParameterError, match=text):
        membership(other, *groups(), **how)


def test_labels_of_another_prior_are_of_other_shadows(tmp_path: Path) -> None:
    prior = [0.4, 0.4, 0.1, 0.05, 0.05]
    one, other = (sp.LabelLDP(CLASSES, epsilon=1.0, prior=p, generator=4) for p in (prior, prior[::-1]))
    assert repr(one) == repr(other)
    how: dict[str, Any] = {"folder": tmp_path, "shadows": 2, "attacks": [RMIA()], "epochs": 1}
    membership(trained(labels=one), *groups(), **how)
    membership(trained(labels=one), *groups(), **how)
    with pytest.raises(InvalidParameterError, match="folder must hold shadows of this configuration"):
        membership(trained(labels=other), *groups(), **how)


def test_the_default_training_is_that_of_fit() -> None:
    owner = {name: one.default for name, one in inspect.signature(sp.fit).parameters.items()}
    front = {name: one.default for name, one in inspect.signature(membership).parameters.items()}
    shadow = {field.name: field.default for field in dataclasses.fields(ServerTraining)}
    for name in ("epochs", "lr", "weight_decay", "batch_size"):
        assert owner[name] == shadow[name] == front[f"train_{name}" if name == "batch_size" else name]


def test_shadows_are_trained_on_releases_with_labels_as_they_travel() -> None:
    asked: list[int] = []
    model = trained(
        sp.RandomResponseLDP(epsilon=2.0, generator=3), labels=sp.LabelLDP(CLASSES, epsilon=0.5, generator=4)
    )
    layer: Any = model.label_layer
    encode = layer.encode

    def counted(labels: Tensor) -> Tensor:
        asked.append(len(labels))
        return encode(labels)

    object.__setattr__(layer, "encode", counted)
    membership(model, *groups(), shadows=2, attacks=[RMIA()], epochs=1)
    assert asked == [100, 100]


def test_a_known_start_and_public_records_are_used() -> None:
    model = trained()
    start = drawn(nn.Linear(FEATURES, 32), nn.ReLU(), nn.Linear(32, CLASSES), seed=5)
    report = membership(
        model, *groups(), shadows=4, start=start, public=records(150, 4), attacks=[LiRA(), RMIA()], **OWNER
    )
    assert report["LiRA, online"].auc.low > 0.7
    assert report["RMIA, offline"].auc.low > 0.7
    assert len(report.best.scores) == 200
    alone = membership(model, *groups(), shadows=0, public=records(150, 4))
    assert list(alone.results) == ["threshold on loss", "threshold on modified entropy"]
    assert alone["threshold on loss"].source == "150 public records"


def test_a_callable_and_ones_own_training() -> None:
    used: list[int] = []

    def train(x: Tensor, y: Tensor, seed: int) -> Any:
        used.append(len(x))
        return training()(x, y, seed)

    report = membership(target().outputs, *groups(), train=train, shadows=4, attacks=[LiRA(), LiRA(), RMIA()])
    assert used == [100] * 4
    assert list(report.results) == ["LiRA, online", "LiRA, online #2", "RMIA, offline"]
    assert (report.query, report.layer, report.shadows) == ("outputs", "unknown layer", 4)
    assert report.best.auc.low > 0.7
    direct = RMIA()(target(), pool(4))
    assert report["RMIA, offline"].auc.value == pytest.approx(direct.auc.value, abs=0.02)


# Reports and refusals -------------------------------------------------------------------------------


def test_a_report_tells_each_and_the_best() -> None:
    report = membership(trained(), *groups(), shadows=0)
    text = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert set(text["results"]) == set(report.results)
    assert text["best"] == report.best.attack
    shown = str(report)
    assert "membership, queries: clean; 100 members, 100 non-members, 0 shadow models" in shown
    assert "largest AUC; chosen on these records" in shown
    assert "nan" not in shown
    assert max(map(len, shown.splitlines())) <= 160
    assert len(report.plot().axes[0].get_lines()) == 3  # two attacks, and guessing


def test_what_was_not_run_is_named() -> None:
    none, two = (membership(trained(), *groups(), shadows=count, epochs=1) for count in (0, 2))
    needs = {"shadow models, mlp": 2, "LiRA, online": 4, "LiRA, offline": 4, "RMIA, offline": 2}
    assert none.skipped == {name: f"it needs {count} shadow models or more" for name, count in needs.items()}
    assert set(two.skipped) == {"LiRA, online", "LiRA, offline"}
    assert none.to_dict()["skipped"] == none.skipped
    assert "not run: RMIA, offline: it needs 2 shadow models or more" in str(none)
    text = "MembershipReport: no attack 'LiRA, online' was run: it needs 4 shadow models or more"
    with pytest.raises(KeyError, match=text):
        two["LiRA, online"]
    with pytest.raises(KeyError, match="it was not asked for"):
        two["LiRA"]
    assert membership(trained(), *groups(), shadows=0, attacks=[ThresholdMembership()]).skipped == {}


def test_the_columns_of_the_report_are_in_line() -> None:
    attacks = [ShadowMembership(model="logistic", per_class=True), ThresholdMembership(score="confidence")]
    report = membership(trained(), *groups(), shadows=2, attacks=attacks, epochs=1)
    head, *rows = str(report).splitlines()[2:5]
    for row, result in zip(rows, report.results.values(), strict=True):
        assert row.index(str(result.auc)) == head.index("AUC")
    assert head.index("F1") > head.index("AUC") + len(str(report.best.auc))


@pytest.fixture
def untrained(monkeypatch: Any) -> None:
    """Fails where a shadow model is trained: what can be refused is refused before."""

    def refuse(*_: Any) -> Any:
        raise AssertionError("a shadow model was trained")

    monkeypatch.setattr(ServerTraining, "__call__", refuse)
    monkeypatch.setattr(ServerTraining, "many", refuse)


@pytest.mark.usefixtures("untrained")
@pytest.mark.parametrize(
    ("options", "text"),
    [
        *(({"attacks": wrong}, "attacks must be a list of one or more membership attacks, got attacks=")
          for wrong in ("lira", [LiRA], [sp.attacks.GradientInversion()], [], RMIA(), 3)),
        ({"attacks": [RMIA(), LiRA()], "shadows": 2}, "shadows must be 4 or more for LiRA, got shadows=2"),
        ({"train": 3}, "train must be a callable, or None, got train=3"),
        ({"start": 3}, r"start must be an nn\.Module, got start=3"),
        ({"start": nn.Linear(3, 5)}, "start must take what the server takes and give its 5 classes, got an error: mat"),
        ({"start": nn.Linear(FEATURES, 6)}, "start must take what the server takes and give its 5 classes, got 6"),
        ({"folder": 3}, "folder must be the path of a folder, or None, got folder=3"),
        ({"batch_size": 0}, "batch_size must be an integer >= 1, got batch_size=0"),
        ({"device": "gpu"}, "device must be a device that this machine has, or None, got device='gpu'"),
        ({"tag": 3}, "tag must be text, got tag=3"),
        ({"progress": "x"}, "progress must be True or False, got progress='x'"),
        ({"vectorised": 3}, "vectorised must be True or False or 'auto', got vectorised=3"),
        ({"seed": -1}, "seed must be an integer >= 0, got seed=-1"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_refused_before_anything_is_trained(options: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidParameterError, match=f"membership: {text}"):
        membership(trained(), *groups(), **{"shadows": 4, **options})


@pytest.mark.usefixtures("untrained")
def test_groups_that_are_none_are_refused_before_anything_is_trained() -> None:
    (x, y), other = groups()
    data = "a tensor of records and a tensor of labels, or a data set of"
    for members, text in (
        (None, f"members must be {data} .*, got NoneType"),
        (x, f"members must be {data} .*, got Tensor"),
        ((x[:0], y[:0]), "members must be one record or more"),
        ((x, y - 9), "members must have labels >= 0"),
        ((x, y.float()), "members must have one integer label per record, got torch.float32"),
    ):
        with pytest.raises(ShapeError, match=f"MembershipTarget: {text}"):
            membership(trained(), members, other)
    with pytest.raises(ShapeError, match=f"MembershipTarget: public must be {data}"):
        membership(trained(), (x, y), other, public=x)
    with pytest.raises(ShapeError, match=r"membership: labels must be in \[0, 5\), one of the classes of the outputs"):
        membership(trained(), (x, y + 50), other)


def test_data_sets_are_groups() -> None:
    given = [TensorDataset(*group) for group in groups()]
    found = membership(trained(), *given, public=TensorDataset(*records(50, 3)), shadows=0)
    plain = membership(trained(), *groups(), public=records(50, 3), shadows=0)
    assert found.to_dict() == plain.to_dict()


class NoMean(nn.Module):
    """A mechanism that cannot say what its noise is around."""

    epsilon = 1.0

    def encode(self, features: Tensor) -> Tensor:
        return features.detach()

    def decode(self, symbols: Tensor) -> Tensor:
        return symbols

    def log_prob(self, symbols: Tensor, features: Tensor) -> Tensor:
        return torch.zeros(len(symbols))

    def spend(self, shape: Any) -> sp.accounting.Spend:
        return sp.accounting.Spend(per_element=1.0, elements=shape[0])


def test_what_does_not_fit_is_refused() -> None:
    model, both = trained(), groups()
    for options, text in (
        ({"query": "dirty"}, "membership: query must be 'clean' or 'released'"),
        ({"queries": 0}, "membership: queries must be an integer >= 1"),
        ({"queries": 2}, 'membership: queries must be 1 with query="clean"'),
        ({"shadows": -2}, "membership: shadows must be an integer >= 0"),
        ({"shadows": 5}, "membership: shadows must be even: they come in pairs"),
        ({"epochs": 0}, "ServerTraining: epochs must be an integer >= 1"),
    ):
        with pytest.raises(InvalidParameterError, match=text):
            membership(model, *both, **options)
    with pytest.raises(InvalidParameterError, match="membership: model must be a SplitModel or a callable, got int"):
        membership(3, *both)
    with pytest.raises(InvalidParameterError, match="train must be given for shadow models of a callable"):
        membership(target().outputs, *both)
    embedded = sp.SplitModel(model.edge, model.server, cut=model.cut, labels=sp.EmbeddedLabels(CLASSES))
    with pytest.raises(InvalidParameterError, match="model must not send labels inside the features"):
        membership(embedded, *both)
    blind = sp.SplitModel(model.edge, model.server, cut=NoMean(), labels="public")
    with pytest.raises(InvalidParameterError, match='query must be "released" where a mechanism at the cut has no'):
        membership(blind, *both)
    assert membership(blind, *both, query="released", shadows=0).best.auc.value > 0.8
