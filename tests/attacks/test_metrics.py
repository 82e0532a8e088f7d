"""Metrics of reconstructions: against an independent implementation, and at their edges."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from splitpriv import InvalidParameterError, NonFiniteError, ShapeError
from splitpriv.attacks.metrics import identification_rank, mse, psnr, ssim, ssim_defined


def images(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 11, 11), (2, 13, 29), (3, 64, 17)])
@pytest.mark.parametrize("data_range", [1.0, 2.0])
def test_ssim_is_that_of_scikit_image(shape: tuple[int, ...], data_range: float) -> None:
    metrics = pytest.importorskip("skimage.metrics")
    original = images(4, *shape)
    # From nearly equal to unrelated.
    noisy = torch.stack(
        [x + s * (images(*shape, seed=9) - 0.5) for x, s in zip(original, (0, 0.01, 0.3, 3), strict=True)]
    )
    found = ssim(noisy, original, data_range=data_range)
    for i in range(4):
        expected = metrics.structural_similarity(
            original[i].numpy(),
            noisy[i].numpy(),
            channel_axis=0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=data_range,
        )
        assert found[i].item() == pytest.approx(expected, abs=1e-6)
        if i:
            snr = metrics.peak_signal_noise_ratio(original[i].numpy(), noisy[i].numpy(), data_range=data_range)
            assert psnr(noisy, original, data_range=data_range)[i].item() == pytest.approx(snr, abs=1e-9)


def test_ssim_in_float32_is_close_to_float64() -> None:
    one, other = images(3, 3, 32, 32), images(3, 3, 32, 32, seed=1)
    assert torch.allclose(ssim(one.float(), other.float()), ssim(one, other), atol=1e-6)


def test_ssim_of_equal_images_is_one_and_of_grey_is_low() -> None:
    one = images(2, 3, 32, 32)
    assert torch.allclose(ssim(one, one), torch.ones(2, dtype=torch.float64))
    assert bool((ssim(torch.full_like(one, 0.5), one) < 0.1).all())


def test_errors_by_hand() -> None:
    zero, half = torch.zeros(2, 4), torch.tensor([[0.5] * 4, [0.0] * 4])
    assert mse(half, zero).tolist() == [0.25, 0.0]
    assert psnr(half, zero).tolist() == [pytest.approx(10 * math.log10(4)), math.inf]
    assert psnr(half, zero, data_range=2).tolist()[0] == pytest.approx(10 * math.log10(16))


@pytest.mark.parametrize("shape", [(3, 10, 32), (3, 32, 10), (32, 32), (64,)])
def test_ssim_is_undefined_below_its_window(shape: tuple[int, ...]) -> None:
    assert not ssim_defined(shape)
    with pytest.raises(ShapeError, match=r"ssim: images must have shape .* and at least 11 x 11 pixels"):
        ssim(images(2, *shape), images(2, *shape))


@pytest.mark.parametrize("metric", [mse, psnr, ssim])
def test_what_does_not_fit_is_refused(metric: object) -> None:
    assert callable(metric)
    good = images(2, 3, 16, 16)
    with pytest.raises(ShapeError, match="reconstructed must have the shape of the originals"):
        metric(good, good[:1])
    with pytest.raises(NonFiniteError, match="originals must be finite"):
        metric(good, good * math.nan)
    with pytest.raises(ShapeError, match="must have a floating-point dtype"):
        metric(good.int(), good)


@pytest.mark.parametrize("metric", [psnr, ssim])
@pytest.mark.parametrize("span", [0.0, -1.0, math.nan, math.inf])
def test_a_range_of_nothing_is_refused(metric: object, span: float) -> None:
    assert callable(metric)
    with pytest.raises(InvalidParameterError, match="data_range must be finite and > 0"):
        metric(images(1, 3, 16, 16), images(1, 3, 16, 16), data_range=span)


def test_identification_finds_what_pixel_errors_miss() -> None:
    originals = images(50, 3, 8, 8)
    noise = torch.randn(50, 3, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    weak = 0.5 + 0.3 * (originals - 0.5) + 0.3 * noise  # far in pixels, yet each nearest to its own
    assert float(psnr(weak, originals).mean()) < 10
    assert float((identification_rank(weak, originals) < 1).double().mean()) > 0.9


def test_identification_is_chance_for_what_says_nothing() -> None:
    originals = images(40, 1, 8, 8)
    grey = torch.full_like(originals, 0.5)
    assert identification_rank(grey, originals).tolist() == [19.5] * 40
    same = images(1, 1, 8, 8, seed=3).expand(40, -1, -1, -1)
    assert float(identification_rank(same, originals).mean()) == pytest.approx(19.5, abs=1e-9)


def test_identification_among_others() -> None:
    originals = images(10, 1, 2, 3)
    others = torch.cat([images(30, 1, 2, 3, seed=5), originals])
    assert identification_rank(originals, others, torch.arange(30, 40)).tolist() == [0.0] * 10
    assert identification_rank(2 * originals - 7, others, torch.arange(30, 40)).tolist() == [0.0] * 10
    twice = torch.cat([originals, originals])
    assert identification_rank(originals, twice).tolist() == [0.5] * 10  # a tie with its double


@pytest.mark.parametrize("columns", [1, 2, 3, 30])
def test_flat_inputs_are_identified_by_distance_in_deviations(columns: int) -> None:
    units = 10.0 ** torch.arange(columns).remainder(7)
    originals = images(50, columns) * units + 100
    assert identification_rank(originals, originals).tolist() == [0.0] * 50
    # By hand: a constant column says nothing, and the others count alike whatever their units.
    candidates = torch.tensor([[0.0, 0.0, 5.0], [1.0, 1000.0, 5.0]])
    assert identification_rank(torch.tensor([[0.45, 450.0, 9.0], [0.45, 900.0, -9.0]]), candidates).tolist() == [0, 0]
    assert float(identification_rank(originals[:1].expand(50, -1), originals).mean()) == pytest.approx(24.5)


def test_identification_refuses_what_does_not_fit() -> None:
    good = images(4, 6)
    with pytest.raises(ShapeError, match="candidates must have the inputs' shape"):
        identification_rank(good, images(4, 5))
    with pytest.raises(ShapeError, match=r"truth must be in \[0, 4\)"):
        identification_rank(good, good, torch.tensor([0, 1, 2, 4]))
    with pytest.raises(ShapeError, match=r"truth must be in \[0, 3\)"):
        identification_rank(good, good[:3])


def test_a_planted_fault_in_ssim_is_noticed() -> None:
    # The sample covariance in place of the biased one differs by N/(N-1) only: 1e-6 must tell them apart.
    metrics = pytest.importorskip("skimage.metrics")
    one, other = images(1, 1, 16, 16), images(1, 1, 16, 16, seed=2)
    wrong = metrics.structural_similarity(
        one[0, 0].numpy(), other[0, 0].numpy(), gaussian_weights=True, sigma=1.5, data_range=1.0
    )
    assert abs(float(ssim(other, one)[0]) - wrong) > 1e-6
    assert np.isfinite(wrong)
