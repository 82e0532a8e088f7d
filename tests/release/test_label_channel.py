"""The channel of released labels: there exactly where they are, and no other than the claims say."""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from splitpriv import InvalidParameterError, ShapeError
from splitpriv.release import Release


def build(lab: Any, channel: Any, given: Tensor | None = None, **changes: Any) -> Release:
    symbols, values = lab.symbols("bits")
    claims = lab.claims(**{"labels": "ldp", "label_epsilon": 0.7, "per_record": 12.7, "epsilon": 12.7, **changes})
    given = torch.arange(5) % 3 if given is None else given
    return Release.from_batches([(symbols, given)], values=values, claims=claims, label_channel=channel)


def test_it_is_kept_as_a_copy(lab: Any, tmp_path: Path) -> None:
    channel = lab.label_channel()
    release = build(lab, channel)
    channel.zero_()
    release.label_channel.zero_()
    assert torch.equal(release.label_channel, lab.label_channel())
    assert torch.equal(release.subset([0]).label_channel, lab.label_channel())
    release.save(tmp_path / "r")
    assert lab.same(Release.load(tmp_path / "r"), release)
    assert lab.make("bits", full=True).label_channel is None


def test_symbols_need_not_be_classes(lab: Any) -> None:
    wide = torch.tensor([[0.5, 0.25, 0.25, 0.0], [0.25, 0.5, 0.25, 0.0]], dtype=torch.float64)  # the last never comes
    assert build(lab, wide).label_channel.shape == (2, 4)


@pytest.mark.parametrize(
    ("channel", "error", "text"),
    [
        (None, InvalidParameterError, 'label_channel must be given exactly where claims.labels is "ldp", got'),
        (
            [[0.5, 0.5], [0.5, 0.5]],
            ShapeError,
            r"label_channel must be float64 of shape \(classes, symbols\), got list",
        ),
        (torch.full((3, 3), 1 / 3), ShapeError, "label_channel must be float64 of shape .* got torch.float32"),
        (torch.ones(3, dtype=torch.float64), ShapeError, r"label_channel must be float64 .* got torch.float64 \(3,\)"),
        (torch.ones(3, 1, dtype=torch.float64), ShapeError, r"label_channel must be float64 .* \(3, 1\)"),
        (
            torch.full((3, 3), 0.3).double(),
            InvalidParameterError,
            "label_channel must be rows of probabilities that sum",
        ),
        (torch.full((3, 3), math.nan).double(), InvalidParameterError, "label_channel must be rows of probabilities"),
        (torch.full((3, 3), math.inf).double(), InvalidParameterError, "label_channel must be rows of probabilities"),
        (
            torch.tensor([[1.5, -0.5, 0.0]] * 3, dtype=torch.float64),
            InvalidParameterError,
            "label_channel must be rows of probabilities that sum to one, got label_channel=a tensor",
        ),
        (torch.eye(3).double(), InvalidParameterError, r"label_channel must be within claims.label_epsilon=0.7, got"),
        (
            (torch.eye(3).double() + 0.9) / 3.7,
            InvalidParameterError,
            "label_channel must be within .*It costs 0.747",
        ),
    ],
)
def test_channels_that_do_not_fit(lab: Any, channel: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=f"Release: {text}"):
        build(lab, channel)


def test_labels_that_do_not_fit(lab: Any) -> None:
    channel = lab.label_channel()
    for labels in (torch.zeros(5, dtype=torch.int32), torch.zeros(5), torch.zeros(5, 1, dtype=torch.int64)):
        with pytest.raises(
            ShapeError, match=r"Release: labels must be int64 of shape \(records,\) with a label_channel"
        ):
            build(lab, channel, labels)
    for labels in (torch.full((5,), 3), torch.full((5,), -1)):
        with pytest.raises(InvalidParameterError, match=r"labels must be symbols of label_channel, in \[0, 3\), got"):
            build(lab, channel, labels)


@pytest.mark.parametrize("labels", ["public", "private"])
def test_public_and_unprotected_labels_have_none(lab: Any, labels: str) -> None:
    with pytest.raises(InvalidParameterError, match=r"must be given exactly .*It says how the labels were"):
        build(lab, lab.label_channel(), labels=labels, label_epsilon=0.0, epsilon=math.inf)


def test_files_are_checked_under_a_digest_that_fits(lab: Any, tmp_path: Path) -> None:
    path = tmp_path / "r"
    lab.make("labelled", full=True).save(path)
    tensors, document, payload = lab.taken_apart(path.read_bytes())
    at = tensors["label_channel"]["data_offsets"][0]

    def check(text: str, *, value: float | None = None, drop: bool = False, **described: Any) -> None:
        changed = {name: dict(entry) for name, entry in tensors.items()}
        content = payload
        if value is not None:
            content = payload[:at] + struct.pack("<d", value) + payload[at + 8 :]
        if drop:
            begin, end = changed.pop("label_channel")["data_offsets"]
            content = payload[:begin] + payload[end:]
            for entry in changed.values():
                entry["data_offsets"] = [o - (end - begin) * (o >= end) for o in entry["data_offsets"]]
        else:
            changed["label_channel"].update(described)
        lab.check_refused(path, lab.put_together(changed, document, content), text)

    for value in (math.nan, math.inf, -0.5, 0.6):
        check("Release: label_channel must be rows of probabilities that sum to one", value=value)
    check("Its tensor 'label_channel' cannot be torch.int64 of shape (3, 3)", dtype="I64")
    check("Its tensor 'label_channel' cannot be torch.float64 of shape (9,)", shape=[9])
    check("Release: label_channel must be float64 of shape (classes, symbols)", shape=[9, 1])
    check('Release: label_channel must be given exactly where claims.labels is "ldp"', drop=True)
    document["claims"]["label_epsilon"] = 0.69
    check("Release: label_channel must be within claims.label_epsilon=0.69")
    document["claims"].update(labels="public")
    check("Claims: label_epsilon must be 0 unless labels='ldp'")
    del document["claims"]["label_epsilon"]
    check('Release: label_channel must be given exactly where claims.labels is "ldp"')
