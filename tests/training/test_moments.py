"""Class moments: unbiased whatever way the labels took."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from splitpriv import (
    CodebookLDP,
    EmbeddedLabels,
    InvalidParameterError,
    LabelLDP,
    RandomResponseLDP,
    Release,
    ShapeError,
    SplitModel,
    accounting,
    class_moments,
)

CLASSES, DIM = 3, 6


def records(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Unit vectors around three directions, with unequal shares of the classes."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.multinomial(torch.tensor([0.5, 0.3, 0.2]), count, replacement=True, generator=generator)
    centres = F.normalize(torch.randn(CLASSES, DIM, generator=generator), dim=1)
    return F.normalize(centres[y] + 0.3 * torch.randn(count, DIM, generator=generator), dim=1), y


def released(x: Tensor, y: Tensor, labels: object, epsilon: float = 6.0) -> Release:
    dim = DIM * (CLASSES if isinstance(labels, EmbeddedLabels) else 1)
    cut = CodebookLDP.random(dim, size=64, epsilon=epsilon, generator=1, nonce=bytes(16))
    model = SplitModel(nn.Identity(), nn.Identity(), cut, labels=labels)  # type: ignore[arg-type]
    with accounting.simulation():
        return model.release((x, y), progress=False)


def true_means(x: Tensor, y: Tensor) -> Tensor:
    return torch.stack([x[y == c].double().mean(0) for c in range(CLASSES)])


WAYS = {
    "public": "public",
    "ldp": LabelLDP(CLASSES, epsilon=1.5, generator=2),
    "embedded": EmbeddedLabels(CLASSES),
}


@pytest.mark.parametrize("way", list(WAYS))
def test_means_and_their_variance_are_right(way: str) -> None:
    """Each coordinate within 5 of its own stated standard deviations.

    18 coordinates, Gaussian to good approximation: fails by chance with probability below 2e-5. And the
    errors are not much smaller than stated: their mean square is at least 1/3 of it (18 degrees of freedom:
    probability of less about 1e-3, seed fixed).
    """
    x, y = records(20000)
    prior = torch.bincount(y).double() if way == "embedded" else None
    found = class_moments(released(x, y, WAYS[way]), classes=CLASSES, prior=prior)
    errors = (found.means - true_means(x, y)) / found.variance.sqrt()[:, None]
    assert float(errors.abs().max()) < 5
    assert 1 / 3 < float(errors.square().mean()) < 3
    assert torch.allclose(found.share, torch.bincount(y).double() / len(y), atol=0.05)


def test_taking_released_labels_for_true_ones_would_show() -> None:
    x, y = records(20000)
    release = released(x, y, WAYS["ldp"])
    assert release.labels is not None
    naive = torch.stack([release.batch((release.labels == c).nonzero()[:, 0])[0].double().mean(0) for c in range(3)])
    found = class_moments(release, classes=CLASSES)
    errors = (naive - true_means(x, y)) / found.variance.sqrt()[:, None]
    assert float(errors.abs().max()) > 5


def test_a_prior_is_taken_as_it_is() -> None:
    x, y = records(2000)
    found = class_moments(released(x, y, "public"), classes=CLASSES, prior=torch.tensor([2.0, 1.0, 1.0]))
    assert found.share.tolist() == [0.5, 0.25, 0.25]


def test_shrinking_draws_noisy_means_together_and_leaves_clear_ones() -> None:
    x, y = records(3000)
    for epsilon, least, most in ((0.2, 0.0, 0.7), (12.0, 0.95, 1.0)):
        found = class_moments(released(x, y, "public", epsilon), classes=CLASSES)
        centre = found.share @ found.means
        kept = float((found.shrunk() - centre).norm() / (found.means - centre).norm())
        assert least <= kept <= most


def test_wrong_arguments_are_named() -> None:
    x, y = records(50)
    public = released(x, y, "public")
    for release, options, text in (
        (public, {"classes": 1}, "classes must be an integer >= 2"),
        (public, {"classes": 2}, r"release must be one with labels in \[0, 2\)"),
        (public, {"classes": 3, "prior": torch.tensor([1.0, 0.0, 1.0])}, "prior must be 3 finite numbers > 0"),
        (released(x, y, WAYS["embedded"]), {"classes": 4}, "classes must be 3, as embedded, got classes=4"),
        (
            released(x, y % 2, LabelLDP(CLASSES, epsilon=1.0, prior=[0.48, 0.48, 0.04], generator=0)),
            {"classes": 3},
            "one whose label channel can be inverted for 3 classes",
        ),
    ):
        with pytest.raises(InvalidParameterError, match=text):
            class_moments(release, **options)  # type: ignore[arg-type]
    unlabelled = SplitModel(nn.Identity(), nn.Identity(), RandomResponseLDP(epsilon=1.0, generator=1))
    with accounting.simulation(), pytest.raises(InvalidParameterError, match="one with labels"):
        class_moments(unlabelled.release(x, progress=False), classes=3)
    images = SplitModel(nn.Identity(), nn.Identity(), RandomResponseLDP(epsilon=1.0, generator=1), labels="public")
    with accounting.simulation(), pytest.raises(ShapeError, match="one vector per record, got release="):
        class_moments(images.release((x.reshape(-1, 2, 3), y), progress=False), classes=3)
