"""Anonymous releases: what tells rows apart is refused, the rest is put in a secret order."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from splitpriv import (
    InvalidParameterError,
    LabelLDP,
    LaplaceLDP,
    PrivacyError,
    RandomResponseLDP,
    RandomVectorMask,
    Release,
    ReluSanitizer,
    SplitModel,
    anonymity,
)
from splitpriv.accounting import epsilon_total
from splitpriv.mechanisms import SeededSource

X = torch.randn(30, 6, generator=torch.Generator().manual_seed(0))


class Places(RandomResponseLDP):
    """A layer whose symbols show where in the release they stand."""

    positions_public = True


def exact(labels: object = None) -> SplitModel:
    """Bits of the number of a record, and labels, that are released as they are with probability above 1 - 1e-11."""
    return SplitModel(nn.Identity(), nn.Identity(), RandomResponseLDP(epsilon=40.0), labels=labels)  # type: ignore[arg-type]


def numbers(n: int) -> Tensor:
    return (torch.arange(n).unsqueeze(1) >> torch.arange(10)) % 2 - 0.5


def read(release: Release) -> list[int]:
    features, _ = release.batch(slice(None))
    return [int(row.long() @ 2 ** torch.arange(10)) for row in features]


def check_order_is_secret(n: int = 200) -> None:
    """No two releases of the same records have the same order (probability 1 / n!), nor the order of the data."""
    orders = [read(exact().release(numbers(n), batch_size=7, progress=False, anonymous=True)) for _ in range(3)]
    assert all(sorted(order) == list(range(n)) for order in orders)
    assert len({tuple(order) for order in [*orders, list(range(n))]}) == 4


def test_the_order_is_secret() -> None:
    check_order_is_secret()


def test_planted_fault_a_fixed_order_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    fixed = torch.randperm(200, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(anonymity, "permutation", lambda source, count: fixed.numpy())
    with pytest.raises(AssertionError):
        check_order_is_secret()


def test_rows_leave_their_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first of 16 records, released in batches of 1, ends anywhere: four quarters, 200 times."""
    source = SeededSource(0)
    monkeypatch.setattr(anonymity, "SecureSource", lambda: source)
    places = Counter(
        read(exact().release(numbers(16), batch_size=1, progress=False, anonymous=True)).index(0) // 4
        for _ in range(200)
    )
    # Each quarter has 50 of 200 on average; fewer than 15 or more than 100 has probability below 1e-9; fixed seed.
    assert all(15 <= places[quarter] <= 100 for quarter in range(4))


def test_symbols_and_labels_stay_together() -> None:
    data = numbers(200)
    labels = torch.arange(200) % 7
    release = exact(LabelLDP(7, epsilon=40.0)).release((data, labels), progress=False, anonymous=True)
    assert [number % 7 for number in read(release)] == release.labels.tolist()
    assert release.labels.tolist() != labels.tolist()


def test_a_seed_does_not_fix_the_order() -> None:
    def order() -> list[int]:
        model = SplitModel(nn.Identity(), nn.Identity(), RandomResponseLDP(epsilon=40.0, generator=1))
        return read(model.release(numbers(200), progress=False, anonymous=True))

    assert order() != order()


def test_it_is_claimed_charged_and_kept(tmp_path: Path) -> None:
    release = exact(LabelLDP(3, epsilon=1.0)).release((X, torch.arange(30) % 3), progress=False, anonymous=True)
    assert release.claims.anonymous
    assert release.epsilon == epsilon_total() == release.claims.per_record
    assert "order: secret and random" in repr(release)
    assert release.ids is None
    release.save(tmp_path / "r")
    assert Release.load(tmp_path / "r").claims.anonymous
    assert not exact().release(X, progress=False).claims.anonymous


def test_ids_are_refused() -> None:
    with pytest.raises(InvalidParameterError, match=r"release: ids must be None where anonymous=True, got 30\."):
        exact().release(X, ids=range(30), progress=False, anonymous=True)
    release = exact().release(X, progress=False, anonymous=True)
    with pytest.raises(InvalidParameterError, match=r"Release: ids must be None where claims\.anonymous is True"):
        Release.from_batches(
            [(release.symbols(slice(None)), None)], values=release.values, claims=release.claims, ids=range(30)
        )


def rr() -> RandomResponseLDP:
    return RandomResponseLDP(epsilon=1.0)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"labels": "public"}, "with labels='public', which tell rows apart, got anonymous=True"),
        ({"labels": "private"}, "with labels='private', which tell rows apart"),
        ({"joint": True}, "where the edge or an encoder has learned from records, which ties rows together"),
        ({"edge_data": "private"}, "where the edge or an encoder has learned from records"),
        ({"edge_data": "private", "edge_records": 3}, "where the edge or an encoder has learned from records"),
        ({"cut": None}, "where no mechanism stands at the cut"),
        ({"cut": RandomVectorMask()}, "with the defence RandomVectorMask, by whose parameters"),
        ({"cut": [ReluSanitizer(), rr()]}, "with the defence ReluSanitizer, by whose parameters"),
        ({"cut": [rr(), RandomVectorMask()]}, "with the defence RandomVectorMask"),
        ({"cut": Places(epsilon=1.0)}, "with Places, whose symbols show their place in the release"),
        ({"cut": [Places(epsilon=1.0), rr()]}, "with Places, whose symbols show their place in the release"),
    ],
)
def test_what_tells_rows_apart_is_refused_before_the_charge(options: dict[str, object], text: str) -> None:
    model = SplitModel(nn.Linear(6, 8), nn.Linear(8, 3), **{"cut": rr(), "labels": "public", **options})  # type: ignore[arg-type]
    labelled = (X, torch.arange(30)) if "labels" in options else X
    with pytest.raises(PrivacyError, match=f"release: anonymous must be False {text}"):
        model.release(labelled, progress=False, anonymous=True)
    assert epsilon_total() == 0.0


def test_an_edge_that_once_learned_is_refused() -> None:
    joint = SplitModel(nn.Linear(6, 8), nn.Linear(8, 3), cut=rr(), joint=True)
    joint(X).sum().backward()
    frozen = SplitModel(joint.edge, nn.Linear(8, 3), cut=rr())
    with pytest.raises(PrivacyError, match="anonymous must be False where the edge or an encoder has learned"):
        frozen.release(X, progress=False, anonymous=True)


def test_mechanisms_in_a_row_are_fine() -> None:
    model = SplitModel(nn.Linear(6, 8), nn.Linear(8, 3), cut=[LaplaceLDP(epsilon=1.0, sensitivity=4.0), rr()])
    assert model.release(X, progress=False, anonymous=True).epsilon < math.inf


def test_bad_arguments() -> None:
    with pytest.raises(InvalidParameterError, match="release: anonymous must be True or False, got anonymous='yes'"):
        exact().release(X, anonymous="yes", progress=False)  # type: ignore[arg-type]
