"""The front door of inversion: what it refuses, what it counts, and what its report says."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from cases_inversion import LABELS, PRIVATE, PUBLIC, conv_edge, open_view, smooth_images
from torch import Tensor, nn

import splitpriv as sp
from splitpriv import InvalidParameterError, NonFiniteError, ShapeError
from splitpriv.attacks import DecoderInversion, GradientInversion, QueryFreeInversion, invert

QUICK = GradientInversion(steps=150, learning_rate=0.1, eps=1e-8, decay=True)
DECODER = DecoderInversion(epochs=5, width=8, minibatch=16, learning_rate=0.01)


def test_a_mean_that_is_not_known_is_not_taken_for_the_features() -> None:
    class Odd(nn.Module):
        """A mechanism that does not say what it releases on average."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = sp.RandomResponseLDP(epsilon=1.0, generator=1)

        def forward(self, features: Tensor) -> Tensor:
            return self.decode(self.encode(features))

        def encode(self, features: Tensor) -> Tensor:
            return self.inner.encode(features)

        def decode(self, symbols: Tensor) -> Tensor:
            return 3 - self.inner.decode(symbols)

        def log_prob(self, symbols: Tensor, features: Tensor) -> Tensor:
            return self.inner.log_prob(symbols, features)

        def spend(self, shape: Any = None) -> Any:
            return self.inner.spend(shape)

    report = invert(
        sp.SplitModel(conv_edge(), nn.Flatten(), cut=Odd()), PRIVATE, public=PUBLIC, attacks=[QUICK, DECODER]
    )
    assert report.skipped == {"GradientInversion": "it needs the mean of what the layer releases (its expected)"}
    assert [one.name for one in report.results] == ["DecoderInversion"]
    view = dataclasses.replace(open_view(), clean=None, server=nn.Flatten())
    lacking = QueryFreeInversion(shadow=conv_edge).lacks(view, public=PUBLIC, public_labels=LABELS)
    assert lacking == report.skipped["GradientInversion"]


def test_a_tie_identifies_nobody_and_an_original_is_one_candidate() -> None:
    pair = invert(open_view(), PRIVATE[:2], attacks=[])
    assert pair.baseline.summary["identification"].value == 0
    assert float(pair.baseline.reconstructions.mean()) == 0.5
    wide = invert(open_view(), 2 * PRIVATE[:2] - 1, public=2 * PUBLIC - 1, attacks=[], data_range=2.0)
    assert abs(float(wide.baseline.reconstructions.mean())) < 0.2
    again = invert(open_view(), PRIVATE, attacks=[QUICK], candidates=torch.cat([PRIVATE, PUBLIC[:4]]))
    assert again.baseline.candidates == len(PRIVATE) + 4


def test_a_report_names_attacks_of_one_kind_apart_and_leaves_undefined_columns_out() -> None:
    small = smooth_images(3, seed=5, size=8)
    report = invert(
        open_view(), small, attacks=[dataclasses.replace(QUICK, steps=2), dataclasses.replace(QUICK, steps=3)]
    )
    assert [one.name for one in report.results] == ["GradientInversion", "GradientInversion #2"]
    assert report["GradientInversion #2"].attack.to_dict()["steps"] == 3  # type: ignore[union-attr]
    assert "SSIM is undefined here" in str(report)
    assert "nan" not in str(report)
    assert "ssim" not in str(report.results[0])


def test_what_a_record_pays_is_said_in_the_first_report() -> None:
    model = sp.SplitModel(conv_edge(), nn.Flatten(), cut=sp.RandomResponseLDP(epsilon=1.0))
    assert "per record" in str(invert(model, PRIVATE[:2], attacks=[]))


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"images": PRIVATE.numpy()}, ShapeError, "images must be a torch.Tensor, got ndarray"),
        ({"images": (255 * PRIVATE).byte()}, ShapeError, "images must have a floating-point dtype"),
        ({"images": PRIVATE[0], "public": None}, ShapeError, "attacks.invert: images must be inputs of the edge"),
        (
            {"images": PRIVATE.expand(-1, 3, -1, -1), "public": None},
            ShapeError,
            "attacks.invert: images must be inputs of the edge",
        ),
        ({"public": "x"}, ShapeError, "public must be a torch.Tensor, got str"),
        ({"public": PUBLIC[:0]}, InvalidParameterError, "public must be one record or more"),
        ({"public": PUBLIC * math.nan}, NonFiniteError, "public must be finite"),
        ({"public": PUBLIC[..., :9]}, ShapeError, "public must have the shape of images"),
        ({"candidates": PUBLIC[..., :9]}, ShapeError, "candidates must have shape"),
        ({"confidence": 2.0}, InvalidParameterError, "confidence must be"),
        ({"data_range": -1.0}, InvalidParameterError, "data_range must be"),
        ({"attacks": "all"}, InvalidParameterError, "attacks must be None or a list of inversion attacks"),
        ({"attacks": [GradientInversion]}, InvalidParameterError, "must be inversion attacks, got GradientInversion"),
        ({"attacks": [], "seed": -1}, InvalidParameterError, "seed must be"),
        ({"attacks": [], "progress": 3}, InvalidParameterError, "progress must be"),
        ({"attacks": [], "device": "gpu"}, InvalidParameterError, "device must be"),
    ],
)
def test_arguments_of_invert_are_refused_by_name_before_anything_runs(
    arguments: dict[str, Any], error: type[Exception], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any) -> Any:
        raise AssertionError("an attack was run")

    monkeypatch.setattr(GradientInversion, "_reconstruct", never)
    given = {"images": PRIVATE, "public": PUBLIC, "attacks": [QUICK], **arguments}
    images = given.pop("images")
    with pytest.raises(error, match=text):
        invert(open_view(), images, **given)


def test_one_attack_need_not_be_a_list_and_embedded_labels_are_refused() -> None:
    assert len(invert(open_view(), PRIVATE[:1], attacks=dataclasses.replace(QUICK, steps=1)).results) == 1
    cut = sp.CodebookLDP.random(8, size=4, epsilon=1.0)
    model = sp.SplitModel(nn.Linear(3, 4), nn.Linear(4, 2), cut=cut, labels=sp.EmbeddedLabels(2))
    with pytest.raises(InvalidParameterError, match=r"labels inside the features \(EmbeddedLabels\)"):
        invert(model, torch.rand(4, 3), attacks=[])
