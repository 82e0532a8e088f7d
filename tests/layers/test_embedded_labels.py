"""The label inside the vector."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from splitpriv import (
    BudgetExceeded,
    CodebookLDP,
    EmbeddedLabels,
    InvalidParameterError,
    PrivacyError,
    RandomResponseLDP,
    Release,
    ShapeError,
    SplitModel,
    accounting,
)

X = torch.nn.functional.normalize(torch.randn(40, 4, generator=torch.Generator().manual_seed(0)), dim=1)
Y = torch.arange(40) % 3


def model(labels: EmbeddedLabels | None = None, epsilon: float = 4.0) -> SplitModel:
    cut = CodebookLDP.random(12, size=32, epsilon=epsilon, generator=1)
    return SplitModel(nn.Identity(), nn.Linear(4, 3), cut, labels=labels or EmbeddedLabels(3))


def test_features_go_to_the_block_of_their_label() -> None:
    embedded = EmbeddedLabels(3)
    blocks = embedded.embed(X.reshape(40, 2, 2), Y).reshape(40, 3, 4)
    for row in range(40):
        assert torch.equal(blocks[row, Y[row]], X[row])
    assert torch.equal(blocks.norm(dim=(1, 2)), X.norm(dim=1))
    assert torch.equal(embedded.block(blocks.flatten(1), 1)[Y == 1], X[Y == 1])


def test_one_epsilon_covers_features_and_label() -> None:
    with accounting.Ledger(limit=4.0) as ledger:
        release = model().release((X, Y), progress=False)
        assert ledger.epsilon == pytest.approx(4.0)
        with pytest.raises(BudgetExceeded):
            model().release((X, Y), progress=False)
    assert (release.claims.labels, release.claims.classes, release.labels) == ("embedded", 3, None)
    assert release.epsilon == accounting.epsilon_total(model(), shape=(12,)) <= 4.0
    assert release.feature_shape == (12,)


def test_labels_do_not_show_in_the_symbols_beyond_epsilon() -> None:
    """The same features under two labels are two inputs of one channel: what is charged covers the difference."""
    layer = RandomResponseLDP(epsilon=0.5, per="record", generator=3)
    wrapped = SplitModel(nn.Identity(), nn.Identity(), layer, labels=EmbeddedLabels(2))
    assert wrapped.spend((8,)).per_record <= 0.5


def test_clean_inference_reads_the_features_alone() -> None:
    wrapped = model()
    with accounting.Ledger() as ledger:
        assert torch.allclose(wrapped.clean(X), X, atol=1e-6)
        assert torch.allclose(wrapped.local(X), wrapped.server(X), atol=1e-5)
        assert ledger.epsilon == 0


def test_the_price_is_known_from_an_example() -> None:
    network = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3))
    cut = CodebookLDP.random(12, size=32, epsilon=4.0, generator=1)
    wrapped = SplitModel.from_model(network, at="0", cut=cut, labels=EmbeddedLabels(3), example_input=torch.randn(2, 5))
    assert wrapped.feature_shape == (12,)
    assert "inside the features, covered by their ε" in repr(wrapped)


def test_it_is_saved_and_loaded(tmp_path: Path) -> None:
    release = model().release((X, Y), progress=False)
    release.save(tmp_path / "a.splitpriv")
    loaded = Release.load(tmp_path / "a.splitpriv")
    assert loaded.claims == release.claims
    assert torch.equal(loaded.batch(slice(None))[0], release.batch(slice(None))[0])


def test_a_record_without_a_label_cannot_cross() -> None:
    with pytest.raises(PrivacyError, match="labels must be there to be embedded, got records without labels"):
        model().release(X, progress=False)
    with pytest.raises(PrivacyError, match="labels must be given where they are embedded, got a call without"):
        model()(X)


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        (Y.float(), "labels must be integers of shape"),
        (Y.bool(), "labels must be integers of shape"),
        (Y[:, None], "labels must be integers of shape"),
        (Y + 1, r"labels must be in \[0, 3\), got others \(not shown\)"),
        (Y - 1, r"labels must be in \[0, 3\), got others \(not shown\)"),
    ],
)
def test_other_labels_are_refused_before_anything_is_charged(labels: Tensor, text: str) -> None:
    with accounting.Ledger() as ledger, pytest.raises(ShapeError, match=text):
        model().release((X, labels), progress=False)
    assert ledger.epsilon == 0


@pytest.mark.parametrize("classes", [1, 0, 2.5, 5000])
def test_classes_are_checked(classes: int) -> None:
    with pytest.raises(InvalidParameterError, match="EmbeddedLabels: classes must be an integer in"):
        EmbeddedLabels(classes)
