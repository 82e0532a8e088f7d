"""The training loop for the server."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from splitpriv import InvalidParameterError, NonFiniteError, RandomResponseLDP, Release, SplitModel, accounting
from splitpriv.training import evaluate, fit

X = torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long()


def released(y: torch.Tensor | None = Y, n: int = 200) -> Release:
    model = SplitModel(nn.Identity(), nn.Identity(), RandomResponseLDP(epsilon=8.0, generator=1), labels="public")
    with accounting.simulation():
        return model.release(X[:n] if y is None else (X[:n], y[:n]), progress=False)


def server(outputs: int = 2) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, outputs))


def test_it_learns_and_says_so() -> None:
    model, release = server(), released()
    history = fit(model, release, epochs=30, lr=1e-2, validation=release, seed=0, progress=False)
    assert history.loss[-1] < 0.2 < history.loss[0]
    assert history.validation_accuracy[-1] > 0.97
    assert len(history.validation_loss) == 30
    loss, accuracy = evaluate(model, release)
    assert accuracy == history.validation_accuracy[-1]
    assert loss == pytest.approx(history.validation_loss[-1], rel=1e-5)


def test_a_seed_repeats_the_order() -> None:
    release = released()
    first, second = (fit(server(), release, epochs=2, seed=3, progress=False) for _ in range(2))
    assert first == second


def test_training_costs_nothing() -> None:
    fit(server(), released(), epochs=3, progress=False)
    assert accounting.epsilon_total() == 0.0


def test_modes_and_frozen_parameters_are_left_alone() -> None:
    model = server().eval()
    model[0].requires_grad_(False)
    before = model[0].weight.clone()
    fit(model, released(), epochs=2, progress=False)
    assert not model.training
    assert torch.equal(model[0].weight, before)


def test_regression_and_losses_of_ones_own() -> None:
    release = released(X[:, 1])
    history = fit(server(1), release, epochs=3, validation=release, progress=False)
    assert history.validation_accuracy == ()
    assert evaluate(server(1), release)[1] is None
    custom = fit(server(1), release, epochs=1, loss=lambda out, y: (out[:, 0] - y).abs().mean(), progress=False)
    assert custom.loss[0] > 0


def test_a_last_batch_of_one_record_is_no_trouble_for_batch_norm() -> None:
    fit(server(), released(n=129), epochs=1, batch_size=128, progress=False)


def test_batches_of_one_record_train_too() -> None:
    model = nn.Linear(4, 2)
    before = model.weight.clone()
    history = fit(model, released(n=5), epochs=1, batch_size=1, progress=False)
    assert history.loss[0] > 0
    assert not torch.equal(model.weight, before)


def test_mixed_modes_are_restored_module_by_module() -> None:
    model = server().train()
    model[1].eval()
    fit(model, released(), epochs=1, validation=released(), progress=False)
    evaluate(model, released())
    assert [module.training for module in model] == [True, False, True, True]


def test_one_output_and_dictionaries_are_no_classes() -> None:
    release = released()
    bce = torch.nn.functional.binary_cross_entropy_with_logits
    assert evaluate(server(1), release, loss=lambda out, y: bce(out[:, 0], y.float()))[1] is None

    class Named(nn.Linear):
        def forward(self, input: torch.Tensor) -> dict[str, torch.Tensor]:  # type: ignore[override]
            return {"logits": super().forward(input)}

    def loss(out: dict[str, torch.Tensor], y: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(out["logits"], y)

    history = fit(Named(4, 2), release, epochs=1, loss=loss, validation=release, progress=False)  # type: ignore[arg-type]
    assert history.validation_accuracy == ()
    with pytest.raises(InvalidParameterError, match=r"server must return a tensor where no loss is given, got dict"):
        fit(Named(4, 2), release, epochs=1, progress=False)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_servers_of_other_dtypes(dtype: torch.dtype) -> None:
    model = server().to(dtype)
    fit(model, released(), epochs=1, validation=released(), progress=False)
    assert model[0].weight.dtype == dtype


def test_a_part_of_a_release_validates() -> None:
    release = released()
    history = fit(server(), release.subset(range(150)), validation=release.subset(slice(150, 200)), progress=False)
    assert len(history.validation_accuracy) == 20


def test_divergence_is_an_error() -> None:
    with pytest.raises(NonFiniteError, match=r"got loss=nan in epoch 0\. Lower lr"):
        fit(server(), released(), epochs=1, loss=lambda out, y: out.sum() * math.nan, progress=False)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"epochs": 0}, "epochs must be an integer >= 1"),
        ({"batch_size": 1.5}, "batch_size must be an integer >= 1"),
        ({"lr": 0.0}, "lr must be finite and > 0"),
        ({"weight_decay": -1.0}, "fit: weight_decay must be >= 0, got weight_decay=-1"),
        ({"weight_decay": math.nan}, "weight_decay must be a finite number"),
    ],
)
def test_bad_arguments(options: dict[str, object], text: str) -> None:
    with pytest.raises(InvalidParameterError, match=text):
        fit(server(), released(), **options)  # type: ignore[arg-type]


def test_what_cannot_be_trained_is_refused() -> None:
    with pytest.raises(InvalidParameterError, match="release must be a non-empty release with labels"):
        fit(server(), released(None))
    with pytest.raises(InvalidParameterError, match="validation must be a non-empty release with labels"):
        fit(server(), released(), validation=released(None))
    with pytest.raises(InvalidParameterError, match=r"fit: release must be a Release, got tuple\. SplitModel\.release"):
        fit(server(), (X, Y))  # type: ignore[arg-type]
    whole = SplitModel(nn.Identity(), server(), RandomResponseLDP(epsilon=1.0))
    with pytest.raises(
        InvalidParameterError, match=r"server must be the server's half, got SplitModel\. Pass model\.server"
    ):
        fit(whole, released())
    with pytest.raises(InvalidParameterError, match="server must have parameters that require grad"):
        fit(nn.Identity(), released())
    with pytest.raises(InvalidParameterError, match="evaluate: batch_size must be an integer >= 1"):
        evaluate(server(), released(), batch_size=0)
    with pytest.raises(InvalidParameterError, match="evaluate: release must be a non-empty"):
        evaluate(server(), released(None))
