"""Labels through a mechanism: released beside the features, priced and charged with them."""

from __future__ import annotations

import copy
import math
import pickle
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from splitpriv import (
    BudgetExceeded,
    InvalidParameterError,
    LabelLDP,
    RandomResponseLDP,
    RandomVectorMask,
    Release,
    ShapeError,
    SplitModel,
    accounting,
)
from splitpriv.accounting import Ledger, Price, Spend, epsilon_total
from splitpriv.labelling import Labels
from splitpriv.mechanisms.rounding import sum_up

X = torch.randn(30, 6, generator=torch.Generator().manual_seed(0))
Y = torch.arange(30) % 3


def make(labels: object = None, cut: object = None, **options: object) -> SplitModel:
    torch.manual_seed(0)
    labels = LabelLDP(3, epsilon=1.0) if labels is None else labels
    layer = RandomResponseLDP(epsilon=2.0) if cut is None else cut
    return SplitModel(nn.Linear(6, 8), nn.Linear(8, 3), layer, labels=labels, **options)  # type: ignore[arg-type]


def test_one_charge_for_features_and_label() -> None:
    model = make()
    with Ledger() as ledger:
        release = model.release((X, Y), ids=range(30), progress=False)
    assert ledger.spent(0) == ledger.spent(29) == 17.0
    assert release.epsilon == epsilon_total(release) == epsilon_total(model) == epsilon_total() == 17.0
    claims = release.claims
    assert (claims.per_use, claims.uses, claims.per_record, claims.label_epsilon) == (2.0, 8, 17.0, 1.0)
    assert claims.labels == "ldp"
    assert claims.notes == ()  # nothing that would keep features and label from being composed tightly
    assert model.spend() == Spend(2.0, 8, 17.0, labels=1.0)
    assert model.price().tied == 17.0
    assert str(model.price()) == str(claims) == "ε 17 per record = 16 features (2 per element × 8) + 1 labels"
    assert str(claims) in repr(model)
    assert "labels: LabelLDP(ε 1 per label; randomized response over 3 classes; secure noise)" in repr(model)
    assert "labels: private, released through randomized response, ε 1" in repr(release)
    assert "noise: secure\n" in repr(release)


def test_the_sum_is_rounded_outward() -> None:
    model = make(LabelLDP(3, epsilon=0.3), RandomResponseLDP(epsilon=0.1))
    price = model.price((8,))
    assert price.spend.labels == model.label_layer.epsilon
    features = model.cut[0].spend((8,)).per_record
    assert price.per_record() == sum_up([features, price.spend.labels])
    assert model.release((X, Y), progress=False).claims.per_record == price.per_record()


def test_released_labels_travel_and_true_ones_do_not() -> None:
    model = make(LabelLDP(3, epsilon=1.0, generator=4))
    twin = LabelLDP(3, epsilon=1.0, generator=4)
    release = model.release((X, Y.to(torch.int16)), batch_size=8, progress=False)
    assert release.labels.dtype == torch.int64
    assert torch.equal(release.labels, torch.cat([twin.encode(part) for part in Y.split(8)]))
    assert not torch.equal(release.labels, Y)
    assert torch.equal(release.label_channel, twin.transition)
    again = make().release((X, Y), progress=False), make().release((X, Y), progress=False)
    assert not torch.equal(again[0].labels, again[1].labels)  # equal with probability below 1e-10
    assert not release.claims.secure
    assert again[0].claims.secure


def test_a_shuffling_loader_keeps_released_labels_beside_their_records() -> None:
    # At these epsilons a bit or a label changes with probability below 1e-13.
    model = SplitModel(nn.Identity(), nn.Identity(), RandomResponseLDP(epsilon=40.0), labels=LabelLDP(2, epsilon=40.0))
    signs = (X[:, 0] > 0).long()
    release = model.release(DataLoader(TensorDataset(X, signs), batch_size=4, shuffle=True), progress=False)
    features, labels = release.batch(range(30))
    assert torch.equal(features[:, 0].long(), labels)


def test_a_file_keeps_it_all(tmp_path: Path) -> None:
    release = make(LabelLDP(3, epsilon=1.0, prior=[0.4, 0.4, 0.2])).release((X, Y), progress=False)
    release.save(tmp_path / "r")
    loaded = Release.load(tmp_path / "r")
    assert loaded.claims == release.claims
    assert torch.equal(loaded.label_channel, release.label_channel)
    assert torch.equal(loaded.labels, release.labels)
    part = loaded.subset([3, 1])
    assert torch.equal(part.label_channel, release.label_channel)


def test_unlabelled_records_pay_for_no_label() -> None:
    release = make().release(X, progress=False)
    assert release.epsilon == epsilon_total() == 16.0
    assert (release.claims.labels, release.claims.label_epsilon, release.label_channel) == ("none", 0.0, None)


def test_a_call_sends_no_label() -> None:
    model = make()
    model(X)
    assert epsilon_total() == 16.0
    assert epsilon_total(model) == 17.0


def test_a_limit_counts_the_label() -> None:
    with Ledger(limit=16.5) as ledger, pytest.raises(BudgetExceeded, match="17 asked"):
        make().release((X, Y), progress=False)
    assert ledger.epsilon == 0.0


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        (Y + 1, r"LabelLDP: labels must be in \[0, 3\)"),
        (Y.float(), "LabelLDP: labels must have an integer dtype"),
        (Y.reshape(30, 1), r"LabelLDP: labels must be a torch.Tensor of shape \(batch,\)"),
    ],
)
def test_wrong_labels_are_refused_before_the_charge(labels: torch.Tensor, text: str) -> None:
    with pytest.raises(ShapeError, match=text):
        make().release((X, labels), progress=False)
    assert epsilon_total() == 0.0


def test_tied_rows_pay_for_every_label_too() -> None:
    release = make(edge_data="private", edge_records=10).release((X, Y), progress=False)
    assert release.epsilon == epsilon_total() == 30 * 17.0
    assert release.claims.per_record == 17.0
    joint = make(joint=True)
    joint.train()(X[:4]).sum().backward()
    before = epsilon_total()
    assert joint.release((X, Y), progress=False).epsilon == 30 * 17.0
    assert epsilon_total() == before + 30 * 17.0


def test_an_id_given_twice_pays_for_two_labels() -> None:
    release = make().release((X[:3], Y[:3]), ids=["a", "a", "b"], progress=False)
    assert release.epsilon == epsilon_total() == 34.0


def test_a_label_mechanism_bounds_nothing_else() -> None:
    with pytest.warns(UserWarning, match="released with epsilon infinite"):
        release = make(cut=RandomVectorMask()).release((X, Y), progress=False)
    assert release.epsilon == math.inf
    assert release.claims.label_epsilon == 1.0
    assert str(release.claims).startswith("ε ∞ per record")
    assert "noise: secure, on labels only" in repr(release)


def test_a_simulation_is_marked_and_charges_nothing() -> None:
    with accounting.simulation():
        assert make().release((X, Y), progress=False).claims.simulated
    assert epsilon_total() == 0.0


def test_the_declaration_is_a_word_and_the_mechanism_stands_beside_it() -> None:
    model = make()
    assert (model.labels, model.label_layer.classes) == ("ldp", 3)
    assert [name for name, _ in model.named_children()] == ["edge", "cut", "server"]
    assert not [name for name in model.state_dict() if "label" in name]
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert twin.labels == "ldp"
        assert not torch.equal(twin.label_layer.encode(Y.repeat(50)), model.label_layer.encode(Y.repeat(50)))
    model.labels = "public"
    assert (model.labels, model.label_layer) == ("public", None)
    assert torch.equal(model.release((X, Y), progress=False).labels, Y)
    model.labels = LabelLDP(3, epsilon=2.0)
    assert model.labels == "ldp"
    for wrong in ("ldp", 1, ["public"], LabelLDP):
        with pytest.raises(InvalidParameterError, match="labels must be 'public' or 'private' or None or a LabelLDP"):
            model.labels = wrong
        with pytest.raises(InvalidParameterError, match="labels must be 'public' or 'private' or None or a LabelLDP"):
            make(wrong)
    assert model.labels == "ldp"


def test_what_is_charged_is_never_below_the_parts() -> None:
    price = Price(Spend.of(0.1, 3), 0, 0.1, ())
    layer = LabelLDP(3, epsilon=0.2)
    found = Labels.of(layer).priced(price)
    assert found.spend.per_record >= sum_up([price.spend.per_record, layer.epsilon])
    assert found.per_record(5) == found.spend.per_record
    assert Labels.of("public").priced(price) is price


def test_planted_fault_labels_left_out_of_the_charge_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Labels, "priced", lambda self, price: price)
    with pytest.raises((AssertionError, InvalidParameterError)):
        test_one_charge_for_features_and_label()


def test_planted_fault_true_labels_that_travel_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Labels, "encode", lambda self, given: given.long())
    with pytest.raises(AssertionError):
        test_released_labels_travel_and_true_ones_do_not()
