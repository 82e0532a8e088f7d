"""Fitting the encoder: real scans, early stopping, and that a fit is all or nothing."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from splitpriv._errors import InvalidParameterError, NonFiniteError, ShapeError
from splitpriv.layers import local_fit
from splitpriv.layers.local_fit import EncoderHistory
from splitpriv.layers.local_pretrained_encoder import LocalPretrainedEncoder

NONCE = b"Kx7-nonce-in-the-clear"
FEW = {"epochs": 2, "progress": False, "seed": 0}


def encoder(nonce: bytes = NONCE) -> LocalPretrainedEncoder:
    return LocalPretrainedEncoder((1, 4, 4), 3, nonce=nonce, channels=2)


def weights(layer: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in layer.parameters()])


# Fit -------------------------------------------------------------------------------------------


def digits() -> tuple[Tensor, Tensor]:
    datasets = pytest.importorskip("sklearn.datasets")
    bunch = datasets.load_digits()
    images = torch.tensor(bunch.images, dtype=torch.float32).unsqueeze(1) / 16
    return images, torch.tensor(bunch.target)


def test_fits_real_scans_and_two_participants_end_apart() -> None:
    images, labels = digits()
    history, layers = [], []
    for part in (slice(0, 600), slice(600, 1200)):
        layer = LocalPretrainedEncoder((1, 8, 8), 16, nonce=NONCE, channels=8)
        loader = DataLoader(TensorDataset(images[part], labels[part]), batch_size=32, shuffle=True)
        history.append(layer.fit(loader, epochs=15, lr=3e-3, seed=0, progress=False))
        layers.append(layer)
    for layer, run in zip(layers, history, strict=True):
        assert run.holdout_accuracy is not None
        assert run.holdout_accuracy[run.best_epoch - 1] > 0.8
        assert (run.records, run.held_out, layer.fitted_records) == (600, 60, 600)
        assert repr(layer).endswith("(defence, ε ∞; (1, 8, 8) to 16, relu; fitted on 600 private records)")
    assert not torch.allclose(weights(layers[0]), weights(layers[1]), atol=0.01)
    encoded = [layer(images[1200:]) for layer in layers]
    assert float((encoded[0] - encoded[1]).abs().mean()) > 0.1


def test_a_seed_repeats_a_fit_and_leaves_torch_alone(data: tuple[Tensor, Tensor]) -> None:
    before = torch.random.get_rng_state()
    first, second, other = encoder(), encoder(), encoder()
    assert first.fit(data, **FEW) == second.fit(TensorDataset(*data), **FEW)
    other.fit(data, **{**FEW, "seed": None})
    assert torch.equal(weights(first), weights(second))
    assert not torch.equal(weights(first), weights(other))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_is_frozen_before_and_after_a_fit(data: tuple[Tensor, Tensor]) -> None:
    layer = encoder()
    for _ in range(2):
        assert not any(parameter.requires_grad for parameter in layer.parameters())
        assert all(parameter.grad is None for parameter in layer.parameters())
        assert not layer.train().training
        assert not layer.network.training
        layer.fit(data, **FEW)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_fits_where_gradients_are_off(mode: Callable[[], object], data: tuple[Tensor, Tensor]) -> None:
    plain, layer = encoder(), encoder()
    plain.fit(data, **FEW)
    with mode(), torch.autocast("cpu", dtype=torch.bfloat16):  # type: ignore[attr-defined]
        layer.fit(data, **FEW)
    assert torch.equal(weights(layer), weights(plain))


def test_fits_in_float32_whatever_the_dtypes(data: tuple[Tensor, Tensor]) -> None:
    layer = encoder().to(torch.bfloat16)
    layer.fit((data[0].double(), data[1].to(torch.uint8)), device="cpu", **FEW)
    assert {parameter.dtype for parameter in layer.parameters()} == {torch.bfloat16}
    plain = encoder().to(torch.bfloat16).float()
    plain.fit(data, **FEW)
    assert torch.equal(weights(layer), weights(plain).to(torch.bfloat16))


@pytest.mark.parametrize("shape", [(64,), (64, 1), (64, 2)])
def test_float_labels_are_regressed_whatever_their_scale(shape: tuple[int, ...], data: tuple[Tensor, Tensor]) -> None:
    features = data[0].flatten(1)
    target = (1e6 * features.sum(1, keepdim=True) + 5e7).expand(64, shape[-1] if len(shape) > 1 else 1)
    layer = LocalPretrainedEncoder((16,), 4, nonce=NONCE)
    history = layer.fit((features, target.reshape(shape)), epochs=40, lr=0.01, seed=0, progress=False)
    assert history.holdout_accuracy is None
    assert min(history.holdout_loss) < 0.5  # of the variance
    assert layer.fitted_records == 64


def test_the_progress_bar_can_be_seen_and_silenced(
    data: tuple[Tensor, Tensor], capsys: pytest.CaptureFixture[str]
) -> None:
    encoder().fit(data, **FEW)
    assert capsys.readouterr() == ("", "")
    encoder().fit(data, epochs=2, seed=0)
    shown = capsys.readouterr().err
    assert "LocalPretrainedEncoder: 100%" in shown
    assert "holdout_loss=" in shown


def test_a_history_cannot_be_changed(data: tuple[Tensor, Tensor]) -> None:
    history = encoder().fit(data, **FEW)
    assert isinstance(history, EncoderHistory)
    assert len(history.train_loss) == len(history.holdout_loss) == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        history.best_epoch = 3  # type: ignore[misc]


# Early stopping --------------------------------------------------------------------------------


def assert_stops_and_keeps_the_best(data: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    """Under scripted held-out losses, stops at the right epoch with the right epoch's weights."""
    script = [0.9, 0.5, 0.7, math.nan, 0.6, 0.1]
    seen: list[Tensor] = []

    def judge(model: nn.Sequential, *_: object) -> tuple[float, float]:
        seen.append(weights(model[0]).clone())
        return script[len(seen) - 1], 0.0

    monkeypatch.setattr(local_fit, "_evaluate", judge)
    layer = encoder()
    history = layer.fit(data, epochs=6, patience=3, seed=0, progress=False)
    assert len(history.train_loss) == 5
    assert history.stopped_early
    assert history.best_epoch == 2
    assert torch.equal(weights(layer), seen[1])


def test_stops_early_with_the_best_weights(data: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    assert_stops_and_keeps_the_best(data, monkeypatch)


def test_keeping_a_live_state_dict_is_caught(data: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    # Planted fault: state_dict() without a copy is a view of the weights, which train on.
    monkeypatch.setattr(local_fit, "copy", SimpleNamespace(deepcopy=lambda value: value))
    with pytest.raises(AssertionError, match="method equal"):
        assert_stops_and_keeps_the_best(data, monkeypatch)


def test_stops_on_labels_that_cannot_be_learned(data: tuple[Tensor, Tensor]) -> None:
    labels = torch.arange(64) % 2
    history = encoder().fit((data[0], labels), epochs=500, lr=0.05, patience=4, seed=0, progress=False)
    assert history.stopped_early
    assert len(history.train_loss) == history.best_epoch + 4 < 500


def test_does_not_stop_while_it_learns(data: tuple[Tensor, Tensor]) -> None:
    history = encoder().fit(data, epochs=5, lr=1e-3, patience=5, seed=0, progress=False)
    assert not history.stopped_early
    assert len(history.train_loss) == 5


# All or nothing --------------------------------------------------------------------------------


class Interrupted(IterableDataset[tuple[Tensor, Tensor]]):
    """Gives one record, then Ctrl-C."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        yield torch.zeros(1, 4, 4), torch.tensor(0)
        raise KeyboardInterrupt


class Bare(Dataset[Tensor]):
    """Records without labels."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Tensor:
        return torch.full((1, 4, 4), float(index))


def records(count: int = 4) -> Tensor:
    return torch.arange(count * 16.0).reshape(count, 1, 4, 4)


CLASSES = torch.tensor([0, 1, 0, 1])
NAN = torch.tensor([0.0, 1.0, math.nan, 2.0])
GOOD = (records(), CLASSES)

Case = tuple[object, dict[str, object], type[BaseException], str]
BAD: dict[str, Case] = {
    "no loader": (
        3,
        {},
        InvalidParameterError,
        "loader must be a DataLoader, a Dataset or a pair of tensors .* got int",
    ),
    "list": ([1, "a"], {}, InvalidParameterError, r"loader must be .* got list of \(int, str\)"),
    "features only": (records(), {}, InvalidParameterError, "loader must be .* got Tensor"),
    "no labels": (Bare(), {}, ShapeError, r"loader must give pairs of tensors \(features, labels\), got Tensor"),
    "no pair": (TensorDataset(records()), {}, ShapeError, r"loader must give pairs .* got list of \(Tensor\)"),
    "empty": (TensorDataset(records(0), CLASSES[:0]), {}, InvalidParameterError, "loader must give at least one"),
    "nothing": ((records(0), CLASSES[:0]), {}, InvalidParameterError, "loader must give at least one record, got none"),
    "one record": ((records(1).repeat(4, 1, 1, 1), CLASSES), {}, InvalidParameterError, "loader must .* two different"),
    "one class": ((records(), CLASSES * 0), {}, InvalidParameterError, "labels must take at least two values, got one"),
    "one value": ((records(), CLASSES * 0.0), {}, InvalidParameterError, "labels must take at least two values"),
    "few labels": ((records(), CLASSES[:3]), {}, ShapeError, r"labels must be one per record, got shape=\(3,\) for 4"),
    "one label": ((records(), CLASSES[0]), {}, ShapeError, r"labels must be one per record, got shape=\(\) for 4"),
    "one-hot": ((records(), CLASSES[:, None]), {}, ShapeError, r"labels must have shape \(records,\) for classes"),
    "complex": ((records(), CLASSES * 1j), {}, ShapeError, r"labels must have shape .* dtype=torch.complex64"),
    "cube": ((records(), torch.rand(4, 1, 1)), {}, ShapeError, r"labels must have shape .* got shape=\(4, 1, 1\)"),
    "label NaN": ((records(), NAN), {}, NonFiniteError, "labels must be finite, got NaN or infinity"),
    "NaN": ((records() * NAN[:, None, None, None], CLASSES), {}, NonFiniteError, "features must be finite"),
    "huge": ((records().double() * 1e300, CLASSES), {}, NonFiniteError, "features must be finite"),
    "bytes": ((records().byte(), CLASSES), {}, ShapeError, "features must have a floating-point dtype"),
    "shape": ((records()[:, 0], CLASSES), {}, ShapeError, r"features must have shape \(1, 4, 4\) after the batch, got"),
    "epochs": (GOOD, {"epochs": 0}, InvalidParameterError, "epochs must be an integer >= 1"),
    "patience": (GOOD, {"patience": 0}, InvalidParameterError, "patience must be an integer >= 1"),
    "lr": (GOOD, {"lr": 0.0}, InvalidParameterError, "lr must be finite and > 0"),
    "hold out none": (GOOD, {"holdout": 0.0}, InvalidParameterError, r"holdout must be in \(0, 1\)"),
    "hold out all": (GOOD, {"holdout": 1.0}, InvalidParameterError, r"holdout must be in \(0, 1\)"),
    "share": (GOOD, {"holdout": "a"}, InvalidParameterError, r"holdout must be in \(0, 1\)"),
    "seed": (GOOD, {"seed": -1}, InvalidParameterError, r"seed must be an integer in \[0"),
    "public": (GOOD, {"public": "no"}, InvalidParameterError, "public must be True or False"),
    "diverges": (GOOD, {"lr": 1e37}, InvalidParameterError, "lr must be small enough for the held-out"),
    "Ctrl-C": (Interrupted(), {}, KeyboardInterrupt, ""),
}


def assert_changes_nothing(layer: LocalPretrainedEncoder, case: Case) -> None:
    """A fit that fails leaves weights, count and freezing as they were."""
    loader, options, kind, text = case
    before = copy.deepcopy(layer.state_dict())
    with pytest.raises(kind, match=f"^LocalPretrainedEncoder: {text}" if text else None):
        layer.fit(loader, **{"epochs": 3, "seed": 0, "progress": False, **options})  # type: ignore[arg-type]
    for name, value in layer.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert not any(parameter.requires_grad for parameter in layer.parameters())
    assert layer.fitted_records == 64


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_and_changes_nothing(case: str, data: tuple[Tensor, Tensor]) -> None:
    layer = encoder()
    layer.fit(data, **FEW)
    assert_changes_nothing(layer, BAD[case])


class Hasty(LocalPretrainedEncoder):
    """Planted fault: counts and unfreezes before it knows that the fit went well."""

    hasty = False

    def fit(self, loader: object, **options: object) -> EncoderHistory:  # type: ignore[override]
        if self.hasty:
            self.requires_grad_(True)
        return super().fit(loader, **options)  # type: ignore[arg-type]


def test_a_half_done_fit_is_caught(data: tuple[Tensor, Tensor]) -> None:
    layer = Hasty((1, 4, 4), 3, channels=2)
    layer.fit(data, **FEW)
    layer.hasty = True
    with pytest.raises(AssertionError):
        assert_changes_nothing(layer, BAD["one class"])


def test_an_interrupted_training_changes_nothing(data: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    layer, steps = encoder(), iter(range(2))
    layer.fit(data, **FEW)
    step = torch.optim.Adam.step

    def interrupt(self: torch.optim.Adam) -> None:
        if next(steps, None) is None:
            raise KeyboardInterrupt
        step(self)

    monkeypatch.setattr(torch.optim.Adam, "step", interrupt)
    assert_changes_nothing(layer, (data, {}, KeyboardInterrupt, ""))
