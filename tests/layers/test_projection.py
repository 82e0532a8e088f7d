"""Projection: what PCA and rotations keep, the sphere, and its place at the end of an edge."""

from __future__ import annotations

import copy
import math
import pickle

import pytest
import torch
from torch import Tensor, nn

from splitpriv import (
    CodebookLDP,
    InvalidParameterError,
    NonFiniteError,
    Projection,
    RandomResponseLDP,
    ShapeError,
    SplitModel,
    fit,
)
from splitpriv.accounting import epsilon_total

SCALES = torch.tensor([5.0, 3.0, 1.0, 0.5, 0.1, 0.1])


def public(records: int = 4000, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    turn = torch.linalg.qr(torch.randn(6, 6, generator=generator))[0]
    return (torch.randn(records, 6, generator=generator) * SCALES) @ turn + 2


def test_components_are_those_of_the_covariance_in_order() -> None:
    x = public()
    kept = Projection.pca(x, 3, normalize=False)(x)
    covariance = torch.cov(kept.T)
    exact = torch.linalg.eigvalsh(torch.cov(x.T)).flip(0)[:3]
    torch.testing.assert_close(covariance, torch.diag(exact), atol=1e-3, rtol=1e-3)
    assert float(kept.mean(dim=0).abs().max()) < 1e-4


def test_whitened_components_have_covariance_one() -> None:
    x = public()
    kept = Projection.pca(x, 6, whiten=True, normalize=False)(x)
    torch.testing.assert_close(torch.cov(kept.T), torch.eye(6), atol=1e-2, rtol=1e-2)


def test_whitening_within_classes_finds_the_direction_in_which_they_differ() -> None:
    labels = torch.arange(4000) % 2
    x = public()
    x[:, 5] += 1.5 * labels  # small beside the largest components
    kept = Projection.pca(x, 2, whiten=True, labels=labels, normalize=False)(x)
    within = torch.cat([kept[labels == k] - kept[labels == k].mean(dim=0) for k in (0, 1)])
    torch.testing.assert_close(within.T @ within / 4000, torch.eye(2), atol=1e-2, rtol=1e-2)
    gap = (kept[labels == 1].mean(dim=0) - kept[labels == 0].mean(dim=0)).abs()
    plain = Projection.pca(x, 2, whiten=True, normalize=False)(x)
    assert float(gap[0]) > 3 * float((plain[labels == 1].mean(0) - plain[labels == 0].mean(0)).norm())
    assert float(gap[1]) < 0.2  # nothing is left for the second


def test_constant_elements_survive_whitening() -> None:
    x = torch.cat([public(), torch.ones(4000, 2)], dim=1)
    assert torch.isfinite(Projection.pca(x, 8, whiten=True)(x)).all()


def test_rotations_are_orthogonal_and_follow_the_seed() -> None:
    one, two, other = (Projection.rotation(20, 8, seed=seed) for seed in (1, 1, 2))
    torch.testing.assert_close(one.weight @ one.weight.T, torch.eye(8), atol=1e-5, rtol=0)
    assert torch.equal(one.weight, two.weight)
    assert not torch.equal(one.weight, other.weight)
    x = torch.randn(5, 20)
    whole = Projection.rotation(20, 20, normalize=False)
    torch.testing.assert_close(whole(x).norm(dim=1), x.norm(dim=1))
    centred = Projection.rotation(20, 20, centre=x[0], normalize=False)
    assert torch.equal(centred(x[:1]), torch.zeros(1, 20))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_records_have_length_one_whatever_their_dtype_and_size(dtype: torch.dtype) -> None:
    projection = Projection.rotation(12, 4)
    x = torch.randn(9, 3, 2, 2, generator=torch.Generator().manual_seed(0)).to(dtype) * 1000
    y = projection(x)
    assert (y.shape, y.dtype) == ((9, 4), dtype)
    torch.testing.assert_close(y.double().norm(dim=1), torch.ones(9, dtype=torch.float64), atol=1e-2, rtol=0)
    huge = projection(torch.full((1, 12), 1e37))
    assert float(huge.norm()) == pytest.approx(1.0)


def test_a_record_at_the_centre_becomes_the_first_unit_vector() -> None:
    projection = Projection(torch.eye(3), torch.ones(3))
    x = torch.ones(2, 3, requires_grad=True)
    y = projection(x)
    assert y.tolist() == [[1, 0, 0]] * 2
    y.sum().backward()
    assert torch.isfinite(x.grad).all()


def test_records_are_not_mixed_and_the_module_is_plain() -> None:
    x = public()
    projection = Projection.pca(x, 3, whiten=True)
    torch.testing.assert_close(projection(x)[5:6], projection(x[5:6]))
    assert not list(projection.parameters())
    for twin in (copy.deepcopy(projection), pickle.loads(pickle.dumps(projection))):
        assert torch.equal(twin(x), projection(x))
        assert (
            repr(twin) == repr(projection) == "Projection(6 to 3, PCA of public features, whitened, on the unit sphere)"
        )
    fresh = Projection(torch.zeros(3, 6), torch.zeros(6))
    fresh.load_state_dict(projection.state_dict())
    assert torch.equal(fresh(x), projection(x))
    assert projection(torch.zeros(0, 6)).shape == (0, 3)


def test_at_the_end_of_an_edge_in_front_of_any_layer() -> None:
    x, labels = public(200), torch.arange(200) % 2
    edge = nn.Sequential(nn.Unflatten(1, (1, 2, 3)), Projection.pca(x.reshape(-1, 1, 2, 3), 4))
    for cut in (
        RandomResponseLDP(epsilon=4.0, per="record"),
        CodebookLDP.random(4, size=64, epsilon=4.0),
        CodebookLDP(Projection.rotation(16, 4).weight.T, epsilon=4.0),
    ):
        model = SplitModel(edge, nn.Linear(4, 2), cut=cut, labels="public")
        release = model.release((x, labels))
        assert release.feature_shape == (4,)
        assert 3.99 < epsilon_total(release) <= 4.0
        fit(model.server, release, epochs=1)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"Projection: weight must be a floating-point tensor of shape \(dim, in_feat"):
        Projection(torch.eye(3).long())
    with pytest.raises(ShapeError, match=r"Projection: centre must be a floating-point tensor of shape \(3,\)"):
        Projection(torch.eye(3), torch.zeros(2))
    with pytest.raises(NonFiniteError, match="Projection: weight must be finite, got NaN"):
        Projection(torch.full((2, 2), math.nan))
    with pytest.raises(ShapeError, match="Projection: features must be floats of 3 elements each, got"):
        Projection(torch.eye(3))(torch.zeros(2, 4))
    with pytest.raises(InvalidParameterError, match=r"Projection.pca: dim must be an integer in \[1, 6\]"):
        Projection.pca(public(), 7)
    with pytest.raises(InvalidParameterError, match=r"whiten must be True with labels, got whiten=False"):
        Projection.pca(public(), 3, labels=torch.zeros(4000).long())
    with pytest.raises(ShapeError, match=r"Projection.pca: labels must be 4000 integers, one per record, got"):
        Projection.pca(public(), 3, whiten=True, labels=torch.zeros(4000))
    with pytest.raises(InvalidParameterError, match=r"Projection.rotation: dim must be an integer in \[1, 3\]"):
        Projection.rotation(3, 4)
