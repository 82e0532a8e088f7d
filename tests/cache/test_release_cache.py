"""Memoised releases: by id and never by content, paid once, and another key for another edge or layer."""

from __future__ import annotations

import copy
import math
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from splitpriv import (
    BudgetExceeded,
    CodebookLDP,
    InvalidParameterError,
    LabelLDP,
    LaplaceLDP,
    LedgerFileError,
    NonFiniteError,
    PrivacyError,
    PrivacyWarning,
    RandomCodebookLDP,
    RandomResponseLDP,
    RandomVectorMask,
    ReleaseCache,
    ShapeError,
    SplitModel,
    accounting,
)
from splitpriv.accounting import Ledger, epsilon_total
from splitpriv.cache.fingerprint import fingerprint
from splitpriv.mechanisms import KClosest

X = torch.randn(12, 6, generator=torch.Generator().manual_seed(0))
Y = torch.arange(12)
IDS = [f"r{k}" for k in range(12)]


def make(cut: Any = None, **options: Any) -> SplitModel:
    torch.manual_seed(0)
    layer = RandomResponseLDP(epsilon=2.0) if cut is None else cut
    return SplitModel(nn.Sequential(nn.Linear(6, 8), nn.ReLU()), nn.Linear(8, 3), layer, **options)


@pytest.fixture
def cache(tmp_path: Path) -> ReleaseCache:
    return ReleaseCache(tmp_path / "spent.db")


def sent(model: SplitModel, cache: ReleaseCache, x: Any = X, ids: Any = IDS, **options: Any) -> Any:
    return model.release(x, ids=ids, cache=cache, progress=False, batch_size=5, **options)


def symbols(release: Any) -> Tensor:
    return release.symbols(range(len(release)))


def test_the_same_id_sends_the_same_whatever_its_content_and_pays_once(cache: ReleaseCache) -> None:
    model = make()
    first = sent(model, cache)
    assert (epsilon_total(), cache.ledger.epsilon, first.epsilon) == (16.0, 16.0, 16.0)
    for content in (X, -X, X * math.nan, torch.zeros(12, 6)):
        assert torch.equal(symbols(sent(model, cache, content)), symbols(first))
    backwards = sent(model, cache, X[:7], IDS[6::-1])
    assert torch.equal(symbols(backwards), symbols(first)[:7].flip(0))
    assert (epsilon_total(), cache.ledger.epsilon) == (16.0, 16.0)
    assert "memoised: releases of one record are equal, and so linkable" in first.claims.notes
    assert not torch.equal(symbols(model.release(X, progress=False)), symbols(first))  # 2**-96 without a cache


def test_forward_and_release_share_what_is_stored(cache: ReleaseCache) -> None:
    model = make().eval()
    output = model(X[:3], ids=IDS[:3], cache=cache)
    assert torch.equal(model(-X[:3], ids=IDS[:3], cache=cache), output)
    release = sent(model, cache)
    assert torch.equal(model.server(release.batch(range(3))[0]), output)
    assert cache.ledger.spent("r0") == cache.ledger.spent("r11") == 16.0
    assert len(cache) == 12
    assert repr(cache) == f"ReleaseCache(path={cache.ledger.path!r}, rows=12)"


def test_an_empty_batch_sends_nothing(cache: ReleaseCache) -> None:
    assert make()(X[:0], ids=[], cache=cache).shape == (0, 3)
    assert (len(cache), cache.ledger.epsilon) == (0, 0.0)


def test_an_id_given_twice_is_one_record(cache: ReleaseCache) -> None:
    release = sent(make(), cache, X[:4], ["a", "b", "a", "a"])
    rows = symbols(release)
    assert torch.equal(rows[0], rows[2])
    assert torch.equal(rows[0], rows[3])
    assert cache.ledger.spent("a") == release.epsilon == 16.0


def test_data_sets_are_told_apart(cache: ReleaseCache) -> None:
    model = make()
    first, other = sent(model, cache, dataset="x"), sent(model, cache, dataset="y")
    assert not torch.equal(symbols(first), symbols(other))
    assert cache.ledger.spent("r0", "x") == cache.ledger.spent("r0", "y") == 16.0


def test_another_process_finds_it(cache: ReleaseCache) -> None:
    first = sent(make(), cache)
    cache.ledger.close()
    again = ReleaseCache(cache.ledger.path or "")
    model = make()  # the same edge and layer, made anew; not used yet
    assert torch.equal(symbols(sent(model, again)), symbols(first))
    assert again.ledger.epsilon == 16.0
    assert model.feature_shape == (8,)


def change_weight(model: SplitModel) -> None:
    with torch.no_grad():
        model.edge[0].weight[0, 0] += 1e-6  # type: ignore[index]


def change_layer(model: SplitModel) -> None:
    model.cut = RandomResponseLDP(epsilon=2.0, threshold=0.5)  # type: ignore[assignment]


def change_epsilon(model: SplitModel) -> None:
    model.cut = RandomResponseLDP(epsilon=2.0000001)  # type: ignore[assignment]


def change_noise(model: SplitModel) -> None:
    model.cut = RandomResponseLDP(epsilon=2.0, generator=0)  # type: ignore[assignment]


def change_structure(model: SplitModel) -> None:
    model.edge[1] = nn.LeakyReLU()  # type: ignore[operator]


@pytest.mark.parametrize("change", [change_weight, change_layer, change_epsilon, change_noise, change_structure])
def test_a_changed_edge_or_layer_is_charged_again(cache: ReleaseCache, change: Any) -> None:
    model = make()
    first = sent(model, cache)
    change(model)
    other = sent(model, cache)
    assert not torch.equal(symbols(first), symbols(other))
    assert cache.ledger.epsilon == pytest.approx(32.0)
    assert torch.equal(symbols(sent(make(), cache)), symbols(first))


def test_the_number_of_closest_codewords_is_part_of_the_key(cache: ReleaseCache) -> None:
    # Symbols drawn for one m and decoded for another are wrong, and their epsilon is that of the other channel.
    for closest, spent in ((1, 2.0), (3, 4.0), (1, 4.0)):
        model = make(CodebookLDP(torch.eye(8), epsilon=2.0, closest=closest, decode="membership"))
        sent(model, cache)
        assert cache.ledger.epsilon == pytest.approx(spent, rel=1e-9)


@pytest.mark.parametrize(
    "others",
    [
        LabelLDP(4, epsilon=1.0000001, prior=[0.05, 0.05, 0.45, 0.45]),  # the repr of both says "2 of 4 classes"
        LabelLDP(4, epsilon=1.0000009, prior=[0.45, 0.45, 0.05, 0.05]),  # and six digits of epsilon, rounded up
    ],
)
def test_labels_are_stored_under_their_own_mechanism(cache: ReleaseCache, others: LabelLDP) -> None:
    assert repr(others) == "LabelLDP(ε 1.00001 per label; randomized response over 2 of 4 classes; secure noise)"
    first = LabelLDP(4, epsilon=1.0000001, prior=[0.45, 0.45, 0.05, 0.05])
    for labels, spent in ((first, 17.0), (others, 18.0), (first, 18.0)):
        release = sent(make(labels=labels), cache, (X, Y % 4))
        assert set(release.labels.tolist()) <= set(labels.kept)
        assert cache.ledger.epsilon == pytest.approx(spent, rel=1e-6)


def test_use_mode_and_device_do_not_change_the_key() -> None:
    model = make(LaplaceLDP(epsilon=1.0, sensitivity=2.0))
    before = fingerprint([model.edge, model.cut])
    model.release(X, progress=False)
    model.train()
    assert fingerprint([model.edge, model.cut]) == before
    assert fingerprint(["a"]) != fingerprint(["b"])
    assert fingerprint([nn.Linear(2, 2).double()]) != fingerprint([nn.Linear(2, 2)])
    whole = SplitModel.from_model(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)), at="1", cut=None)
    traced = torch.fx.symbolic_trace(whole.edge)
    assert fingerprint([traced]) != fingerprint([whole.edge])


def test_labels_are_memoised_beside_the_symbols(cache: ReleaseCache) -> None:
    model = make(labels="public")
    plain = model(X[:2], ids=IDS[:2], cache=cache)
    first = sent(model, cache, (X, Y))
    again = sent(model, cache, (X, Y + 1))
    assert torch.equal(first.labels, Y)
    assert torch.equal(again.labels, Y)
    assert torch.equal(model(X[:2], ids=IDS[:2], cache=cache), plain)
    assert cache.ledger.epsilon == 16.0
    with pytest.raises(PrivacyError, match="labels must be declared"):
        sent(make(), cache, (X, Y))
    with pytest.raises(ShapeError, match="stored symbols must be alike under one key, got float32"):
        sent(model, cache, (X[:2], torch.rand(2)), ["new", "newer"])


def test_private_labels_cost_infinity_and_a_limit_refuses_them(tmp_path: Path) -> None:
    Ledger(limit=100.0, path=tmp_path / "spent.db")
    cache, model = ReleaseCache(tmp_path / "spent.db"), make(labels="private")
    with pytest.raises(BudgetExceeded, match="∞ asked"):
        sent(model, cache, (X, Y))
    assert (len(cache), cache.ledger.epsilon) == (0, 0.0)
    free = ReleaseCache(tmp_path / "free.db")
    assert sent(model, free, (X, Y)).epsilon == free.ledger.epsilon == math.inf


def test_floats_and_wide_symbols_come_back_bit_for_bit(cache: ReleaseCache) -> None:
    for layer in (LaplaceLDP(epsilon=1.0, sensitivity=2.0), LaplaceLDP(epsilon=0.01, sensitivity=9.0)):
        model = make(layer)
        assert torch.equal(symbols(sent(model, cache)), symbols(sent(model, cache)))
    mask = make(RandomVectorMask(b"sixteen bytes at least"))
    with pytest.warns(PrivacyWarning, match="epsilon infinite"):
        first = sent(mask, cache)
    with torch.no_grad():
        assert torch.allclose(first.batch(range(12))[0], mask.cut(mask.edge(X)), atol=1e-6)
    assert torch.equal(symbols(sent(mask, cache)), symbols(first))
    bare = SplitModel(nn.Identity(), nn.Identity())
    with pytest.warns(PrivacyWarning, match="epsilon infinite"):
        assert torch.equal(bare(X, ids=IDS, cache=cache), X)


def test_a_limit_refuses_before_anything_is_drawn_or_reserved(tmp_path: Path) -> None:
    Ledger(limit=20.0, path=tmp_path / "spent.db")
    cache, model = ReleaseCache(tmp_path / "spent.db"), make()
    sent(model, cache)
    change_weight(model)
    model.cut.encode = None  # type: ignore[assignment,method-assign]
    with Ledger() as memory, pytest.raises(BudgetExceeded, match="16 spent and 16 asked"):
        sent(model, cache)
    assert (memory.epsilon, len(cache), cache.ledger.epsilon) == (0.0, 12, 16.0)


def test_a_release_that_fails_half_way_is_not_charged_again(cache: ReleaseCache) -> None:
    model, bad = make(), X.clone()
    bad[11, 0] = math.nan
    with Ledger() as memory:
        with pytest.raises(NonFiniteError):
            sent(model, cache, bad)
        assert (len(cache), memory.epsilon, cache.ledger.epsilon) == (10, 16.0, 16.0)
        kept = model(X[:10], ids=IDS[:10], cache=cache)
        release = sent(model, cache)
        assert torch.equal(model.server(release.batch(range(10))[0]), kept)
        assert (len(cache), memory.epsilon, cache.ledger.epsilon) == (12, 16.0, 16.0)


def test_a_ledger_that_has_not_paid_for_a_reserved_row_pays_when_it_is_drawn(cache: ReleaseCache) -> None:
    model, bad = make(), torch.full_like(X, math.nan)
    bad[0] = X[0]
    with Ledger(), pytest.raises(NonFiniteError):
        model.release(bad, ids=IDS, cache=cache, progress=False, batch_size=1)
    with Ledger() as later:
        sent(model, cache)
        assert (later.epsilon, cache.ledger.epsilon) == (16.0, 16.0)
        assert later.spent("r0") == 0.0  # it was stored: sending it again tells nothing new
        sent(model, cache)
        assert later.epsilon == 16.0


def test_the_first_to_store_a_row_wins(cache: ReleaseCache) -> None:
    memo = cache.memo(["edge"])
    memo.charge(["a"], 1.0, uses=1, shape=(3,))
    memo.store(["a"], torch.tensor([[1, 0, 1]], dtype=torch.uint8))
    memo.store(["a"], torch.tensor([[0, 0, 0]], dtype=torch.uint8))
    assert memo.load(["a"]).tolist() == [[1, 0, 1]]
    memo.charge(["a", "b"], 1.0, uses=1, shape=(3,))
    memo.store(["b"], torch.tensor([[7, 0, 1]], dtype=torch.uint8))
    assert memo.load(["b", "a"]).tolist() == [[7, 0, 1], [1, 0, 1]]
    assert cache.ledger.epsilon == 1.0
    with pytest.raises(LedgerFileError, match="must be stored before it is sent, got one that is not"):
        memo.load(["c"])
    with pytest.raises(LedgerFileError, match="must be charged before they are stored"):
        cache.memo(["other"]).store(["a"], torch.zeros(1, 3))


def test_nothing_is_handed_on_where_it_cannot_be_stored(cache: ReleaseCache, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make()
    reserve = type(cache.memo(["x"])).charge

    def then_full(self: Any, *arguments: Any, **options: Any) -> None:
        reserve(self, *arguments, **options)
        connection = self._ledger._book.database._connect()
        connection.execute("PRAGMA query_only = ON")

    monkeypatch.setattr("splitpriv.cache.memo.Memo.charge", then_full)
    model.server.forward = None  # type: ignore[assignment,method-assign]
    with pytest.raises(LedgerFileError, match="readonly"):
        model(X, ids=IDS, cache=cache)
    cache.ledger.close()
    assert (len(cache), cache.ledger.epsilon) == (0, 16.0)


def test_what_a_cache_is_not_for_is_refused(cache: ReleaseCache, tmp_path: Path) -> None:
    with pytest.raises(InvalidParameterError, match="ids must be given with a cache, got ids=None"):
        sent(make(), cache, ids=None)
    with pytest.raises(InvalidParameterError, match="ids must be given with a cache"):
        make()(X, cache=cache)
    with pytest.raises(InvalidParameterError, match="cache must be a ReleaseCache, got cache="):
        make()(X, ids=IDS, cache="spent.db")  # type: ignore[arg-type]
    with pytest.raises(PrivacyError, match="cache must be None in joint training"):
        make(joint=True)(X, ids=IDS, cache=cache)
    private = make(edge_data="private", edge_records=3)
    with pytest.raises(PrivacyError, match=r"cache must be None where rows are tied together.*fitted on 3 private"):
        sent(private, cache)
    with accounting.simulation(), pytest.raises(PrivacyError, match="a simulation must not read or fill a cache"):
        sent(make(), cache)
    model = make()
    model(X, ids=IDS, cache=cache)
    with pytest.raises(ShapeError, match=r"features of one edge and layer must have one shape, got \(5, 8\) after"):
        model(torch.zeros(1, 5, 6), ids=["long"], cache=cache)
    assert cache.ledger.spent("long") == 0.0
    other = sqlite3.connect(tmp_path / "other.db")
    other.execute("CREATE TABLE t (x)")
    other.close()
    with pytest.raises(LedgerFileError, match="another program's file"):
        ReleaseCache(tmp_path / "other.db")


def test_the_ledger_of_the_file_pays_whether_or_not_it_is_in_force(tmp_path: Path) -> None:
    path = tmp_path / "spent.db"
    with Ledger(limit=40.0, path=path) as ledger:
        cache, model = ReleaseCache(path), make()
        sent(model, cache)
        assert ledger.epsilon == 16.0
    change_weight(model)
    sent(model, cache)
    assert ledger.epsilon == 32.0
    change_weight(model)
    with pytest.raises(BudgetExceeded):
        sent(model, cache)


def test_label_mechanisms_that_read_alike_have_keys_of_their_own(cache: ReleaseCache) -> None:
    priors = ([0.45, 0.45, 0.05, 0.05], [0.05, 0.05, 0.45, 0.45])
    first, second = (make(labels=LabelLDP(4, epsilon=1.0, prior=prior)) for prior in priors)
    assert str(first.label_layer) == str(second.label_layer)
    for model, kept in ((first, {0, 1}), (second, {2, 3})):
        release = sent(model, cache, (X, Y % 4))
        assert {int(release[k][1]) for k in range(12)} <= kept


def test_the_number_of_close_codewords_is_part_of_the_key() -> None:
    fixed = CodebookLDP(torch.eye(8), epsilon=2.0, closest=1), RandomCodebookLDP(8, size=16, epsilon=2.0, closest=1)
    for layer in fixed:
        other = copy.deepcopy(layer)
        other.mechanism = KClosest(layer.size, 3, epsilon=2.0)
        assert fingerprint([layer]) != fingerprint([other])


class _Secretive(nn.Module):
    """A layer of one's own whose epsilon is in no public attribute."""

    secure = True

    def __init__(self, epsilon: float) -> None:
        super().__init__()
        object.__setattr__(self, "_inner", RandomResponseLDP(epsilon=epsilon))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_inner"], name)


def test_what_is_stored_is_not_sold_at_another_price(cache: ReleaseCache) -> None:
    layers = _Secretive(8.0), _Secretive(0.5)
    assert fingerprint([layers[0]]) == fingerprint([layers[1]])
    dear, cheap = (make(layer) for layer in layers)
    assert sent(dear, cache, X[:6], IDS[:6]).epsilon == 64.0
    for ids in (IDS[:6], IDS[6:]):  # stored, and not
        with pytest.raises(
            PrivacyError, match=r"price must be the one that was paid under a key, got epsilon 0\.5 x 8"
        ):
            sent(cheap, cache, X[:6], ids)
    assert cache.ledger.epsilon == 64.0
    assert cache.ledger.spent(IDS[6]) == 0.0
