"""``recover_mask`` and what it returns."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from cases_recovery import digits, normal
from torch import nn

import splitpriv as sp
from splitpriv import InvalidParameterError, NonFiniteError, ShapeError
from splitpriv.attacks.recovery import RecoveryReport, recover_mask

NONCE = b"sixteen bytes at least"


class Scaled(nn.Module):
    """An edge with a dropout, which must be off."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * self.dropout(x)


def model(cut: object, **options: object) -> sp.SplitModel:
    return sp.SplitModel(Scaled(), nn.Linear(64, 2), cut=cut, **options)  # type: ignore[arg-type]


def small() -> tuple[torch.Tensor, torch.Tensor]:
    data = digits()
    return data.private[:80], data.public[:150]


@pytest.mark.parametrize("entries", ["sign", "dyadic"])
def test_a_mask_falls_to_one_pair(entries: str) -> None:
    records, public = small()
    report = recover_mask(model(sp.RandomVectorMask(NONCE, entries=entries)), records, public=public, pairs=(1, 8))
    assert [type(result.attack).__name__ for result in report.results] == ["KnownPlaintextMask", "CiphertextOnlyMask"]
    assert report["KnownPlaintextMask"].last.exact.value > 0.99
    assert report["KnownPlaintextMask"].attack.entries == entries
    assert report["CiphertextOnlyMask"].last.identified.value > 0.95
    assert [point.count for point in report["CiphertextOnlyMask"].points] == [4, 16, 64, 72]
    assert report.skipped == {}
    assert report.best is report["KnownPlaintextMask"]


def test_without_public_records_pairs_alone() -> None:
    report = recover_mask(model(sp.RandomVectorMask(NONCE)), small()[0], pairs=(1,))
    assert [type(result.attack).__name__ for result in report.results] == ["KnownPlaintextMask"]
    assert report.skipped == {"CiphertextOnlyMask": "it needs public records"}
    assert str(report).endswith("not run: CiphertextOnlyMask: it needs public records")
    assert report.to_dict()["skipped"] == report.skipped
    with pytest.raises(KeyError, match="CiphertextOnlyMask did not run on this cut: it needs public records; these"):
        report["CiphertextOnlyMask"]


def test_a_relu_sanitizer() -> None:
    records, public = small()
    cut = sp.ReluSanitizer(NONCE, threshold=0.1, entries="dyadic")
    options = {"step": 1 / 8, "offset": -2 * digits().mean}  # the edge doubles
    report = recover_mask(model(cut), records, public=public, pairs=(1, 16), released=(40,), **options)
    known, alone = report["KnownPlaintextRelu"], report["CiphertextOnlyMask"]
    assert (known.attack.threshold, alone.attack.threshold, alone.attack.step) == (0.1, 0.1, 1 / 8)
    assert known.at(16).recovered.value > known.at(1).recovered.value > 0.2
    assert known.last.relative.value < 0.3
    assert alone.last.recovered.value > 0.5


def test_an_encoder() -> None:
    records, public = digits().private[:160], digits().public
    cut = sp.LocalPretrainedEncoder((64,), 16, nonce=NONCE, channels=32)
    own = [sp.LocalPretrainedEncoder((64,), 16, nonce=NONCE, channels=32)] * 2
    report = recover_mask(model(cut), records, public=public, pairs=(60,), surrogates=own)
    (result,) = report.results
    assert [point.count for point in result.points] == [0, 60]
    assert max(point.relative.value for point in result.points) < 0.8
    alone = recover_mask(model(cut), records, public=public, pairs=(60,)).results[0]
    assert alone.at(0).relative.value == 1
    with pytest.raises(InvalidParameterError, match="public must be given where the cut is an encoder"):
        recover_mask(model(cut), records, pairs=(60,))


def test_nothing_is_charged_or_changed_and_the_seed_decides() -> None:
    records, public = small()
    joint = model(sp.ReluSanitizer(NONCE), joint=True).train()
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    first, again, other = (recover_mask(joint, records, public=public, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert joint.edge.training
    assert joint.edge.dropout.training
    assert sp.accounting.epsilon_total() == 0
    assert first.to_dict() == again.to_dict()
    assert not torch.equal(first.best.reconstructed, other.best.reconstructed)  # other records leaked
    larger = recover_mask(joint, records, public=public, batch_size=7)
    for name, values in larger.best.per_record.items():
        assert np.allclose(values, first.best.per_record[name], atol=1e-3)


class Unknown(sp.layers.defence.Defence):
    """A defence that no attack knows."""

    def _defend(self, features: torch.Tensor) -> torch.Tensor:
        return features.sign()

    def _claim(self) -> str:
        return "signs"


def test_cuts_without_a_secret_are_refused() -> None:
    records = small()[0]
    with pytest.raises(InvalidParameterError, match="cut must be a mask, a ReLU sanitizer or a local encoder, got"):
        recover_mask(model(None), records)
    with pytest.raises(InvalidParameterError, match="cut must be without a mechanism, got"):
        recover_mask(model(sp.RandomResponseLDP(epsilon=1.0)), records)
    with pytest.raises(InvalidParameterError, match="cut must be without a mechanism, got"):
        recover_mask(model([sp.RandomVectorMask(NONCE), sp.RandomResponseLDP(epsilon=1.0)]), records)
    for cut in (Unknown(), [sp.RandomVectorMask(NONCE), sp.RandomVectorMask(NONCE)]):
        with pytest.raises(InvalidParameterError, match="cut must be one defence of a known kind"):
            recover_mask(model(cut), records)
    with pytest.raises(InvalidParameterError, match="model must be a SplitModel"):
        recover_mask(nn.Linear(2, 2), records)


def test_arguments_are_checked() -> None:
    records, public = small()
    masked = model(sp.RandomVectorMask(NONCE))
    with pytest.raises(InvalidParameterError, match="records must be 82 or more, two beside the pairs that leak"):
        recover_mask(masked, records, pairs=(80,))
    with pytest.raises(InvalidParameterError, match="recover_mask: pairs must be a tuple of ascending integers >= 1"):
        recover_mask(masked, records, pairs=(0, 1))
    with pytest.raises(
        InvalidParameterError, match="recover_mask: released must be a tuple of ascending integers >= 2"
    ):
        recover_mask(masked, records, public=public, released=(1,))
    with pytest.raises(InvalidParameterError, match="recover_mask: released must be at most the 64 records given"):
        recover_mask(masked, records, public=public, released=(65,))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be an integer >= 1, got batch_size=0"),
        ({"seed": -1}, "seed must be an integer in "),
        ({"seed": 1.5}, "seed must be an integer in .*, got seed=1.5"),
        ({"progress": "yes"}, "progress must be True or False, got progress='yes'"),
        ({"device": "gpu"}, "device must be a device that torch knows, or None, got device='gpu'"),
        ({"confidence": 95}, "confidence must be below 1, got confidence=95"),
        ({"step": -1.0}, "step must be finite and > 0, got step=-1.0"),
        ({"pairs": 3}, "recover_mask: pairs must be a tuple of ascending integers >= 1, got pairs=3"),
        ({"pairs": "12"}, "recover_mask: pairs must be a tuple of ascending integers >= 1"),
        ({"surrogates": 3}, "recover_mask: surrogates must be callables from features at the cut to codes, got"),
        ({"surrogates": [3]}, "recover_mask: surrogates must be callables from features at the cut to codes, got"),
        ({"surrogates": [nn.Flatten()]}, r"recover_mask: surrogates must be \(\) where the cut is a mask, got"),
        ({"offset": torch.zeros(64)}, "recover_mask: offset must be None without a step"),
    ],
    ids=lambda value: "" if isinstance(value, dict) else value,
)
def test_options_are_refused_by_name_before_anything_runs(options: dict[str, Any], message: str) -> None:
    records, public = small()
    refusing = sp.SplitModel(Refusing(), nn.Linear(64, 2), cut=sp.RandomVectorMask(NONCE))
    with pytest.raises(InvalidParameterError, match=message):
        recover_mask(refusing, records, public=public, **options)


class Refusing(nn.Module):
    """An edge that must not be reached."""

    def forward(self, _: torch.Tensor) -> torch.Tensor:
        raise AssertionError


@pytest.mark.parametrize("name", ["records", "public"])
def test_records_are_refused_by_name(name: str) -> None:
    masked, (records, public) = model(sp.RandomVectorMask(NONCE)), small()
    given: dict[str, Any] = {"records": records, "public": public}
    with pytest.raises(ShapeError, match=f"recover_mask: {name} must be a torch.Tensor, got ndarray"):
        recover_mask(masked, **{**given, name: given[name].numpy()})
    with pytest.raises(ShapeError, match=f"recover_mask: {name} must have shape"):
        recover_mask(masked, **{**given, name: torch.ones(90)})
    with pytest.raises(NonFiniteError, match=f"recover_mask: {name} must be finite"):
        recover_mask(masked, **{**given, name: given[name] * math.nan})


def test_shapes_are_refused_by_name() -> None:
    masked, (records, public) = model(sp.RandomVectorMask(NONCE)), small()
    with pytest.raises(ShapeError, match=r"recover_mask: records must be a torch\.Tensor, got NoneType"):
        recover_mask(masked, None)  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match=r"public must have records of the shape \(64,\) that the private ones have"):
        recover_mask(masked, records, public=public[:, :9])
    with pytest.raises(InvalidParameterError, match="public must be two records or more"):
        recover_mask(masked, records, public=public[:1])
    with pytest.raises(ShapeError, match=r"offset must have the 64 elements of a record, got shape=\(3,\)"):
        recover_mask(masked, records, public=public, step=0.1, offset=torch.zeros(3))


def test_features_that_are_not_finite_are_the_edges() -> None:
    broken = sp.SplitModel(nn.Threshold(0.0, math.inf), nn.Linear(64, 2), cut=sp.RandomVectorMask(NONCE))
    with pytest.raises(NonFiniteError, match=r"recover_mask: features must be finite.*Find the edge layer"):
        recover_mask(broken, small()[0])


@pytest.mark.parametrize("name", ["released", "step", "offset"])
def test_what_would_be_ignored_is_refused(name: str) -> None:
    records, public = small()
    value = {"released": (4,), "step": 0.1, "offset": torch.zeros(64)}[name]
    with pytest.raises(InvalidParameterError, match=f"{name} must be None without public records"):
        recover_mask(model(sp.RandomVectorMask(NONCE)), records, **{name: value})
    encoder = model(sp.LocalPretrainedEncoder((64,), 16, nonce=NONCE, channels=32))
    with pytest.raises(InvalidParameterError, match=f"{name} must be None where the cut is an encoder"):
        recover_mask(encoder, records, public=public, **{name: value})


@pytest.mark.parametrize("pairs", [[1, 2], range(1, 3), np.array([1, 2]), (count for count in (1, 2))])
def test_any_sequence_of_counts_will_do(pairs: Any) -> None:
    records, public = small()
    report = recover_mask(model(sp.RandomVectorMask(NONCE)), records, public=public, pairs=pairs, released=[4, 8])
    assert [[point.count for point in result.points] for result in report.results] == [[1, 2], [4, 8]]


def test_an_edge_may_read_integers() -> None:
    words = torch.randint(0, 50, (30, 4), generator=torch.Generator().manual_seed(0))
    reader = sp.SplitModel(nn.Embedding(50, 3), nn.Flatten(), cut=sp.RandomVectorMask(NONCE))
    assert recover_mask(reader, words, pairs=(1,)).best.last.exact.value == 1


# Results ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def report() -> RecoveryReport:
    records, public = small()
    return recover_mask(model(sp.ReluSanitizer(NONCE)), records, public=public, pairs=(1, 4))


def test_a_report_is_shown_and_exported(report: RecoveryReport) -> None:
    text = str(report)
    assert text.startswith("ReluSanitizer(defence")
    assert max(map(len, text.splitlines())) <= 120
    for word in ("KnownPlaintextRelu", "CiphertextOnlyMask", "leaked pairs", "released records", "error/guess"):
        assert word in text
    content = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    points = content["results"][0]["points"]
    assert [point["count"] for point in points] == [1, 4]
    assert len(points[0]["per_record"]["mse"]) == 76
    assert points[0]["recovered"]["method"] == "Clopper-Pearson"


def test_a_report_is_drawn(report: RecoveryReport) -> None:
    pytest.importorskip("matplotlib")
    assert len(report.plot().axes) == 4
    assert [axis.get_xlabel() for axis in report.results[0].plot().axes] == ["leaked pairs"] * 2


def test_what_did_not_run_is_named(report: RecoveryReport) -> None:
    with pytest.raises(KeyError, match="EncoderInversion did not run on this cut; these did: KnownPlaintextRelu"):
        report["EncoderInversion"]
    with pytest.raises(KeyError, match="no point at 3 leaked pairs; there are"):
        report.results[0].at(3)


def test_what_is_undefined_is_none_in_json() -> None:
    x = torch.zeros(5, 4)
    x[0] = normal(4)
    found = sp.attacks.recovery.KnownPlaintextMask(pairs=(1,))(x[:1], x[:1], x[1:], x[1:], vector=torch.ones(4))
    assert math.isnan(found.last.relative.value)  # the guess is right already
    point = found.to_dict()["points"][0]
    assert (point["relative"]["value"], point["recovered"]["value"], point["claimed"]) == (None, None, None)
    json.dumps(found.to_dict(), allow_nan=False)
    assert "-" in str(found)
