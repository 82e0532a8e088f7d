"""Clean inference: the whole model on the edge, without noise, without charge."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from splitpriv import (
    InvalidParameterError,
    LaplaceLDP,
    NonFiniteError,
    PrivacyError,
    RandomResponseLDP,
    RandomVectorMask,
    ReluSanitizer,
    ShapeError,
    SplitModel,
    accounting,
)
from splitpriv.accounting import Spend, epsilon_total

X = torch.randn(7, 6, generator=torch.Generator().manual_seed(0))
NONCE = b"a nonce for the tests of clean inference"


def make(cut: object, **options: object) -> SplitModel:
    torch.manual_seed(0)
    edge = nn.Sequential(nn.Linear(6, 4), nn.Dropout(0.5))
    server = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 3), nn.Dropout(0.5))
    return SplitModel(edge, server, cut, **options)  # type: ignore[arg-type]


def test_without_layers_it_is_the_model() -> None:
    model = make(None)
    with pytest.warns(UserWarning, match="epsilon infinite"), torch.no_grad():
        plain = model.eval()(X)
    assert torch.equal(model.local(X), plain)
    assert torch.equal(make(RandomVectorMask(NONCE)).local(X), make(RandomVectorMask(NONCE)).eval().server(
        RandomVectorMask(NONCE)(model.edge(X))
    ))  # fmt: skip


def test_nothing_is_charged_drawn_learned_or_changed() -> None:
    model, twin = (make(RandomResponseLDP(epsilon=1.0, generator=2), joint=True).train() for _ in range(2))
    state = {name: value.clone() for name, value in model.state_dict().items()}
    with accounting.Ledger(limit=1e-9):
        one, two = model.local(X.requires_grad_()), model.local(X)
    assert torch.equal(one, two)
    assert not one.requires_grad
    assert epsilon_total() == 0.0
    assert model.training
    assert model.edge[1].training
    assert model.feature_shape is None
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    model.eval()
    with torch.no_grad():
        assert torch.equal(model.cut(model.edge(X)), twin.eval().cut(twin.edge(X)))  # the noise is where it was


def check_mean(model: SplitModel, draws: int = 20_000) -> None:
    # 28 elements of a mean over 20,000 draws; 5.5 standard errors: failure probability below 2e-6; fixed seed.
    with torch.no_grad():
        features = model.eval().edge(X)
        drawn = model.cut(features.repeat(draws, 1)).reshape(draws, *features.shape).double()
        clean = model.cut.expected(features)
        assert torch.equal(model.local(X), model.server(clean))
    assert ((drawn.mean(0) - clean).abs() <= 5.5 * drawn.std(0) / math.sqrt(draws) + 1e-6).all()


@pytest.mark.parametrize(
    "make_cut",
    [
        lambda: RandomResponseLDP(epsilon=1.0, generator=5),
        lambda: LaplaceLDP(epsilon=2.0, sensitivity=4.0, generator=5),
        lambda: [RandomVectorMask(NONCE), LaplaceLDP(epsilon=2.0, sensitivity=4.0, generator=5)],
        lambda: [ReluSanitizer(NONCE), RandomResponseLDP(epsilon=1.0, debias=True, generator=5)],
        lambda: [RandomResponseLDP(epsilon=1.0, generator=5), RandomVectorMask(NONCE)],
    ],
    ids=["bits", "laplace", "mask first", "relu first", "mask last"],
)
def test_it_is_the_mean_of_what_crosses(make_cut: object) -> None:
    check_mean(make(make_cut()))  # type: ignore[operator]


def test_behind_another_mechanism_it_is_not_the_mean() -> None:
    # As documented: the second mechanism reads the mean of the first, whose bits it makes without noise.
    cut = [LaplaceLDP(epsilon=0.5, sensitivity=4.0, generator=5), RandomResponseLDP(epsilon=1.0, generator=5)]
    model = make(cut)
    with torch.no_grad():
        features = model.eval().edge(X)
        assert torch.equal(model.cut.expected(features), cut[1].expected(cut[0].expected(features)))
    with pytest.raises(AssertionError):
        check_mean(model)


def test_it_follows_the_trained_server() -> None:
    model = make(RandomResponseLDP(epsilon=1.0))
    before = model.local(X)
    with torch.no_grad():
        model.server[1].bias += 1.0
    torch.testing.assert_close(model.local(X), before + 1.0)


class Plain(nn.Module):
    """A mechanism without a mean."""

    def encode(self, features: Tensor) -> Tensor:
        return (features > 0).long()

    def decode(self, symbols: Tensor) -> Tensor:
        return symbols.float()

    def log_prob(self, symbols: Tensor, features: Tensor) -> Tensor:
        return symbols * 0.0

    def spend(self, shape: Sequence[int]) -> Spend:
        return Spend.of(1.0, 8)


class Wide(Plain):
    """A mechanism whose mean has another shape than what it releases."""

    def expected(self, features: Tensor) -> Tensor:
        return features.repeat(1, 2)


def test_what_cannot_be_run_without_noise_is_refused() -> None:
    text = r"SplitModel.local: cut\[1\] must offer expected, got Plain. Add expected\(features\) -> Tensor"
    with pytest.raises(InvalidParameterError, match=text):
        make([RandomVectorMask(), Plain()]).local(X)
    with pytest.raises(ShapeError, match=r"cut\[0\] must have the shape that was priced, got expected of"):
        make(Wide()).local(X)
    with pytest.raises(NonFiniteError, match="features must be finite"):
        make(RandomResponseLDP(epsilon=1.0)).local(X / 0)
    mixing = SplitModel(nn.BatchNorm1d(6, track_running_stats=False), nn.Identity(), RandomResponseLDP(epsilon=1.0))
    with pytest.raises(PrivacyError, match="must not normalise over the batch"):
        mixing.local(X)


def test_half_precision_and_empty_batches() -> None:
    model = make(RandomResponseLDP(epsilon=1.0)).to(torch.bfloat16)
    assert model.local(X.to(torch.bfloat16)).dtype == torch.bfloat16
    assert make(RandomResponseLDP(epsilon=1.0)).local(X[:0]).shape == (0, 3)
