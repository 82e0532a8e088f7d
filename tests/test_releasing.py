"""SplitModel.release: each record once, charged before it is drawn, packed, decoded."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    Dataset,
    DistributedSampler,
    RandomSampler,
    SequentialSampler,
    Subset,
    TensorDataset,
    WeightedRandomSampler,
)

from splitpriv import (
    BudgetExceeded,
    InvalidParameterError,
    LaplaceLDP,
    NonFiniteError,
    PrivacyError,
    PrivacyWarning,
    RandomResponseLDP,
    RandomVectorMask,
    Release,
    ShapeError,
    SplitModel,
    accounting,
)
from splitpriv.accounting import Ledger, Spend, epsilon_total

X = torch.randn(30, 6, generator=torch.Generator().manual_seed(0))
Y = torch.arange(30) % 3
TENSORS = TensorDataset(X)


def make(cut: object = None, labels: str | None = "public", **options: object) -> SplitModel:
    torch.manual_seed(0)
    layer = RandomResponseLDP(epsilon=2.0) if cut is None else cut
    return SplitModel(nn.Sequential(nn.Linear(6, 8), nn.Dropout()), nn.Linear(8, 3), layer, labels=labels, **options)  # type: ignore[arg-type]


class Pairs(Dataset[tuple[Tensor, int]]):
    """Labels as Python ints, as most data sets have them."""

    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return X[index], int(Y[index])


@pytest.mark.parametrize(
    "data",
    [(X, Y), TensorDataset(X, Y), Pairs(), Subset(Pairs(), range(30)), DataLoader(Pairs(), batch_size=7)],
    ids=["pair", "tensors", "dataset", "subset", "loader"],
)
def test_all_kinds_of_data(data: object) -> None:
    release = make().release(data, batch_size=8, progress=False)
    assert len(release) == 30
    assert torch.equal(release.labels, Y)
    features, label = release[4]
    assert features.shape == (8,)
    assert label == 1
    assert release.epsilon == epsilon_total() == epsilon_total(release) == 16.0


def test_a_shuffling_loader_keeps_labels_beside_their_records() -> None:
    model = SplitModel(nn.Identity(), nn.Identity(), RandomResponseLDP(epsilon=40.0), labels="public")
    signs = (X[:, 0] > 0).float()
    loader = DataLoader(TensorDataset(X, signs), batch_size=4, shuffle=True)
    features, labels = model.release(loader, progress=False).batch(range(30))
    assert torch.equal(features[:, 0], labels)  # a flip has probability 30 * 4e-18
    assert not torch.equal(labels, signs)  # 30 records in their old order: probability below 1e-6


def test_unlabelled_records_need_no_declaration() -> None:
    release = make(labels=None).release(X, progress=False)
    assert release.labels is None
    assert release.claims.labels == "none"
    assert release[0].shape == (8,)


def test_what_is_decoded_is_what_the_layer_decodes() -> None:
    for layer in (
        RandomResponseLDP(epsilon=1.0, debias=True),
        RandomResponseLDP(epsilon=1.0, per="record", debias=True),
        LaplaceLDP(epsilon=1.0, sensitivity=3.0),
    ):
        release = make(layer).release((X, Y), batch_size=7, progress=False)
        symbols = release.symbols(range(30))
        assert torch.equal(release.batch(range(30))[0], layer.decode(symbols))


def test_defences_release_float32_as_it_is() -> None:
    mask = RandomVectorMask()
    model = make(mask)
    with pytest.warns(PrivacyWarning, match="epsilon infinite"):
        release = model.release((X, Y), progress=False)
    with torch.no_grad():
        assert torch.allclose(release.batch(range(30))[0], mask(model.edge(X)), atol=1e-6)
    assert release.bytes_per_record == 32
    assert release.epsilon == math.inf


def test_bytes_on_the_wire() -> None:
    rr = make().release(X, progress=False)
    laplace = make(LaplaceLDP(epsilon=2.0, sensitivity=1.0)).release(X, progress=False)
    assert (rr.bytes_per_record, laplace.bytes_per_record) == (1, 11)


def test_claims_say_what_made_it(tmp_path: Path) -> None:
    model = make([RandomVectorMask(), RandomResponseLDP(epsilon=1.0, generator=5)])
    with accounting.simulation():
        release = model.release((X, Y), progress=False)
    assert release.claims.simulated
    assert not release.claims.secure
    assert [text.split("(")[0] for text in release.claims.layers] == ["RandomVectorMask", "RandomResponseLDP"]
    assert (release.claims.per_use, release.claims.uses, release.claims.per_record) == (1.0, 8, 8.0)
    assert "simulated" in repr(release)
    release.save(tmp_path / "train.splitpriv")
    loaded = Release.load(tmp_path / "train.splitpriv")
    assert loaded.claims == release.claims
    assert torch.equal(loaded.batch([3, 1])[0], release.batch([3, 1])[0])
    assert epsilon_total(loaded) == 8.0
    assert epsilon_total() == 0.0


def test_a_second_release_is_a_second_charge() -> None:
    model = make()
    model.release((X, Y), progress=False)
    model.release((X, Y), progress=False)
    assert epsilon_total() == 32.0


def test_ids_are_charged_by_data_set() -> None:
    model = make()
    model.release((X, Y), ids=range(30), progress=False, dataset="a")
    model.release((X, Y), ids=range(30), progress=False, dataset="b")
    assert epsilon_total() == 16.0
    model.release((X, Y), ids=range(30), progress=False, dataset="a")
    assert epsilon_total() == 32.0
    release = model.release((X, Y), ids=["same"] * 2 + [str(i) for i in range(28)], progress=False)
    assert release.epsilon == 32.0
    assert release.ids[:3] == ["same", "same", "0"]


def test_a_limit_refuses_before_anything_is_drawn() -> None:
    model = make(RandomResponseLDP(epsilon=2.0, generator=9))
    with Ledger(limit=15.0) as ledger, pytest.raises(BudgetExceeded, match="16 asked"):
        model.release((X, Y), progress=False)
    assert ledger.epsilon == 0.0
    twin = RandomResponseLDP(epsilon=2.0, generator=9)
    with torch.no_grad():
        assert torch.equal(model.cut[0].encode(model.edge(X)), twin.encode(model.edge(X)))


def test_undeclared_labels_are_refused_before_anything_is_charged() -> None:
    with pytest.raises(PrivacyError, match="labels must be declared to release labelled data, got labels=None"):
        make(labels=None).release((X, Y), progress=False)
    assert epsilon_total() == 0.0


def test_private_labels_cost_infinity() -> None:
    model = make(labels="private")
    release = model.release((X, Y), progress=False)
    assert release.epsilon == epsilon_total() == epsilon_total(model) == math.inf
    assert release.claims.per_record == 16.0
    assert "labels travel unprotected" in release.claims.notes
    assert make(labels="private").release(X, progress=False).epsilon == 16.0  # none travelled


def test_a_private_edge_makes_every_row_count() -> None:
    release = make(edge_data="private", edge_records=10).release((X, Y), progress=False)
    assert release.epsilon == epsilon_total() == 30 * 16.0
    assert release.claims.per_record == 16.0


def test_a_joint_edge_that_has_learned_makes_every_row_count() -> None:
    model = make(joint=True)
    model.train()(X[:4]).sum().backward()
    assert model.edge[1].training
    before = epsilon_total()
    release = model.release((X, Y), progress=False)
    assert release.epsilon == 30 * 16.0
    assert epsilon_total() == before + 30 * 16.0
    assert model.edge[1].training  # the mode is restored
    assert any("jointly" in note for note in release.claims.notes)


def test_the_edge_runs_in_eval_mode() -> None:
    model = make(LaplaceLDP(epsilon=20.0, sensitivity=8.0, generator=0), joint=True).train()
    again = make(LaplaceLDP(epsilon=20.0, sensitivity=8.0, generator=0), joint=True).eval()
    first, second = (m.release(X, progress=False).batch(range(30))[0] for m in (model, again))
    assert torch.equal(first, second)


@pytest.mark.parametrize(
    "loader",
    [
        DataLoader(TensorDataset(X), sampler=RandomSampler(X, replacement=True, num_samples=30)),
        DataLoader(TensorDataset(X), sampler=RandomSampler(X, num_samples=60)),
        DataLoader(TensorDataset(X), sampler=WeightedRandomSampler(torch.ones(30), 30)),
        DataLoader(TensorDataset(X), batch_sampler=[[0, 1], [0, 1]]),
        DataLoader(TensorDataset(X), sampler=DistributedSampler(X, num_replicas=7, rank=0)),
        DataLoader(TensorDataset(X), batch_sampler=BatchSampler(WeightedRandomSampler(torch.ones(30), 30), 3, False)),
        DataLoader(TensorDataset(X), sampler=SequentialSampler(range(20))),
    ],
    ids=["replacement", "repeated", "weighted", "batches", "distributed", "inside", "part"],
)
def test_loaders_that_may_repeat_a_record_are_refused(loader: DataLoader[object]) -> None:
    with pytest.raises(PrivacyError, match="data must visit each record exactly once, got a DataLoader with"):
        make().release(loader, progress=False)


def test_a_batch_sampler_says_itself_whether_it_shuffles() -> None:
    data = TensorDataset(X, Y)
    shuffled = DataLoader(data, batch_sampler=BatchSampler(RandomSampler(data), 4, drop_last=True))
    with pytest.raises(InvalidParameterError, match="ids must follow the order of data"):
        make().release(shuffled, ids=range(28), progress=False)
    assert len(make().release(shuffled, progress=False)) == 28
    plain = DataLoader(data, batch_sampler=BatchSampler(SequentialSampler(data), 4, drop_last=False))
    assert torch.equal(make().release(plain, ids=range(30), progress=False).labels, Y)


@pytest.mark.parametrize(
    "data",
    [
        Subset(TensorDataset(X), [0, 1, 0]),
        ConcatDataset([TENSORS, TENSORS]),
        ConcatDataset([Subset(TENSORS, [1, 2]), Subset(Subset(TENSORS, [5, 2]), [1])]),
        DataLoader(Subset(TENSORS, [3, 3])),
    ],
    ids=["subset", "concatenation", "nested", "loader"],
)
def test_a_record_that_is_there_twice_is_refused(data: object) -> None:
    with pytest.raises(PrivacyError, match=r"data must hold each record once, got record . of one data set . times"):
        make(labels=None).release(data, progress=False)
    assert epsilon_total() == 0.0


def test_different_records_of_nested_data_sets_are_fine() -> None:
    data = ConcatDataset([Subset(TENSORS, [1, 2]), Subset(Subset(TENSORS, [5, 7]), [1]), TensorDataset(X)])
    assert len(make(labels=None).release(data, progress=False)) == 33


def test_a_list_of_tensors_is_a_list_of_records() -> None:
    release = make().release([X[0], X[1]], progress=False)
    assert (len(release), release.labels) == (2, None)


def test_dropped_records_are_not_counted() -> None:
    loader = DataLoader(TensorDataset(X, Y), batch_size=8, drop_last=True)
    assert len(make().release(loader, progress=False)) == 24


class Endless(Dataset[Tensor]):
    """Says 4 records, gives more."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Tensor:
        return X[index]

    def __getitems__(self, indices: list[int]) -> list[Tensor]:
        return [X[0]] * 9


@pytest.mark.parametrize(
    ("data", "error", "text"),
    [
        ("records", InvalidParameterError, "data must be a Dataset with a length.*got str"),
        ({"x": X}, InvalidParameterError, "data must be a Dataset"),
        (X[:0], InvalidParameterError, "data must hold at least one record"),
        (X.numpy(), InvalidParameterError, r"data must be a tensor, got ndarray. Use torch.as_tensor"),
        ([(X[0], {"y": 1})] * 1, InvalidParameterError, "labels must be numbers or tensors, got dict"),
        ((X, Y, Y), InvalidParameterError, "data must be two tensors where it is a tuple, got .Tensor, Tensor, Tensor"),
        ([(X[0], "cat"), (X[1], "dog")], InvalidParameterError, "labels must be numbers or tensors, got str"),
        ((X, Y[:3]), InvalidParameterError, "data must have one label per record, got 30 records and 3 labels"),
        (TensorDataset(X, Y, Y), InvalidParameterError, "data must yield records or .record, label. pairs, got list"),
        (Endless(), PrivacyError, "data must yield 4 records as its length says, got more"),
        (X / 0, NonFiniteError, "features must be finite"),
    ],
)
def test_bad_data(data: object, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        make().release(data, progress=False)
    assert epsilon_total() == 0.0


def test_bad_arguments() -> None:
    with pytest.raises(InvalidParameterError, match="batch_size must be an integer >= 1, got batch_size=0"):
        make().release(X, batch_size=0)
    with pytest.raises(InvalidParameterError, match="release: ids must be 30, one per record, got 2"):
        make().release(X, ids=[1, 2])
    with pytest.raises(InvalidParameterError, match=r"batch_size must be .* got batch_size=a tensor of shape \(30,\)"):
        make().release(X, Y)  # type: ignore[arg-type]
    with pytest.raises(InvalidParameterError, match="release: ids must be all non-empty strings"):
        make().release(X, ids=[1, "a"] * 15)
    with pytest.raises(ShapeError, match="release: labels must be a tensor of one of"):
        make().release((X, Y.to(torch.complex64)), progress=False)
    assert epsilon_total() == 0.0
    with pytest.raises(InvalidParameterError, match="ids must follow the order of data, got a shuffling DataLoader"):
        make().release(DataLoader(TensorDataset(X), shuffle=True), ids=range(30))


class Uneven(Dataset[object]):
    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return X[index], 1


def test_labels_that_do_not_fit_their_batch() -> None:
    loader = DataLoader(Uneven(), batch_size=2, collate_fn=lambda rows: (torch.stack([r[0] for r in rows]), [1]))
    with pytest.raises(ShapeError, match=r"release: labels must have shape \(2, \*label\), got torch.int64 \(1,\)"):
        make().release(loader, progress=False)


class Plain(nn.Module):
    """A mechanism that forgot its decode table."""

    def encode(self, features: Tensor) -> Tensor:
        return (features > 0).long()

    def decode(self, symbols: Tensor) -> Tensor:
        return symbols.float()

    def log_prob(self, symbols: Tensor, features: Tensor) -> Tensor:
        return symbols * 0.0

    def spend(self, shape: object) -> Spend:
        return Spend.of(1.0, 8)


def test_a_mechanism_without_a_decode_table_is_refused_before_the_charge() -> None:
    with pytest.raises(InvalidParameterError, match="the last layer must offer decode_table, got Plain"):
        make(Plain()).release(X, progress=False)
    assert epsilon_total() == 0.0


def test_features_of_another_shape_are_not_drawn() -> None:
    model = SplitModel(nn.Identity(), nn.Identity(), RandomResponseLDP(epsilon=1.0))
    with pytest.raises(ShapeError, match=r"features must have one shape in all batches, got \(9,\) after \(6,\)"):
        model.release([X[0], torch.ones(9)], batch_size=1, progress=False)


def test_private_labels_do_not_hide_what_tied_rows_cost() -> None:
    model = make(labels="private", edge_data="private", edge_records=30)
    with Ledger() as ledger:
        model.release((X[:6], Y[:6]), ids=["a", "b", "c", "d", "e", "f"], progress=False)
    assert ledger.spent("a") == math.inf
    assert ledger.spent("z", "another set") >= 30 * 16.0


def test_a_mechanism_that_does_not_say_counts_as_insecure() -> None:
    class Silent(RandomResponseLDP):
        secure = None  # type: ignore[assignment]

    with accounting.simulation():
        assert not make(Silent(epsilon=1.0)).release(X, progress=False).claims.secure
        assert make(RandomVectorMask()).release(X, progress=False).claims.secure


def test_progress_is_shown_when_asked(capsys: pytest.CaptureFixture[str]) -> None:
    make().release(X)
    assert "30/30" in capsys.readouterr().err
    make().release(X, progress=False)
    assert capsys.readouterr().err == ""


class Unpacked(RandomResponseLDP):
    """Makes the symbols of ``encode`` another's."""

    def encode(self, features: Tensor) -> Tensor:
        return torch.ones_like(features, dtype=torch.uint8)


def test_a_layer_that_packs_is_released_without_symbols_of_a_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RandomResponseLDP, "_encode", None)  # what makes unpacked symbols
    release = make(RandomResponseLDP(epsilon=2.0, generator=1)).release(X, batch_size=7, progress=False)
    monkeypatch.undo()
    model = make(RandomResponseLDP(epsilon=2.0, generator=1))
    batches = [model.cut.encode(model._features(part)) for part in X.split(7)]
    assert torch.equal(release.symbols(slice(None)), torch.cat(batches))


def test_what_another_encode_draws_is_what_is_released() -> None:
    replaced = RandomResponseLDP(epsilon=2.0)
    replaced.encode = lambda features: torch.ones_like(features, dtype=torch.uint8)  # type: ignore[method-assign]
    for layer in (Unpacked(epsilon=2.0), replaced):
        assert make(layer).release(X, progress=False).symbols(slice(None)).bool().all()


def test_packed_symbols_that_do_not_fit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RandomResponseLDP, "encode_packed", lambda self, x: torch.zeros(len(x), 2, dtype=torch.uint8))
    with pytest.raises(
        ShapeError, match=r"packed symbols must be uint8 of shape \(batch, 1\), got torch.uint8 \(30, 2\)"
    ):
        make().release(X, progress=False)
    stray = torch.full((30, 1), 255, dtype=torch.uint8)
    monkeypatch.setattr(RandomResponseLDP, "encode_packed", lambda self, x: stray)
    with pytest.raises(InvalidParameterError, match="padding bits must be zero, got stray bits in record 0"):
        SplitModel(nn.Linear(6, 5), nn.Linear(5, 3), RandomResponseLDP(epsilon=2.0)).release(X, progress=False)


def test_what_ties_rows_is_charged_as_one_use_also_where_the_record_s_own_uses_cost_as_much() -> None:
    # The record whose rows are tied may owe them to another mechanism than the one that is cheapest for its own row.
    with Ledger() as ledger:
        make(edge_data="private", edge_records=1).release(X[:1], progress=False)
        assert ledger._book.common.uses == ((ledger.epsilon, 1),)
