"""How close a reconstruction is to its original, image by image."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from splitpriv import _validation as check
from splitpriv._errors import ShapeError

SIGMA = 1.5
RADIUS = 5  # truncated at 3.5 standard deviations, as scikit-image does
WINDOW = 2 * RADIUS + 1
_K1, _K2 = 0.01, 0.03


def mse(
    reconstructed: Tensor,  # shape: (batch, *input)
    originals: Tensor,  # shape: (batch, *input)
) -> Tensor:  # shape: (batch,), float64
    """Mean squared error of each record, in squared units of the inputs; 0 is a perfect reconstruction.

    Args:
        reconstructed: what the attacker made.
        originals: what was released, in the same order.

    Raises:
        ShapeError: the two are not floating-point batches of one shape.
        NonFiniteError: one of them holds NaN or infinity.
    """
    first, second = _pair("mse", reconstructed, originals)
    return (first - second).square().flatten(1).mean(1)


def psnr(
    reconstructed: Tensor,  # shape: (batch, *input)
    originals: Tensor,  # shape: (batch, *input)
    *,
    data_range: float = 1.0,
) -> Tensor:  # shape: (batch,), float64
    r"""Peak signal-to-noise ratio of each record in dB; infinite where both are equal.

    .. math:: 10 \log_{10} (L^2 / \mathrm{MSE}), \qquad L = \text{data\_range}

    Args:
        reconstructed: what the attacker made.
        originals: what was released.
        data_range: L, largest possible difference of two inputs, > 0.

    Raises:
        InvalidParameterError: ``data_range`` is not finite and > 0.
        ShapeError, NonFiniteError: as for :func:`mse`.
    """
    span = check.positive("psnr", "data_range", data_range)
    return 10 * torch.log10(span**2 / mse(reconstructed, originals))


def ssim(
    reconstructed: Tensor,  # shape: (batch, channels, height, width)
    originals: Tensor,  # shape: (batch, channels, height, width)
    *,
    data_range: float = 1.0,
) -> Tensor:  # shape: (batch,), float64
    r"""Structural similarity of each image, the Gaussian variant: 1 for equal images, about 0 for unrelated ones.

    .. math:: \frac{(2 \mu_x \mu_y + C_1)(2 \sigma_{xy} + C_2)}
                   {(\mu_x^2 + \mu_y^2 + C_1)(\sigma_x^2 + \sigma_y^2 + C_2)},
              \quad C_1 = (0.01 L)^2, \; C_2 = (0.03 L)^2

    with moments under a Gaussian window of standard deviation 1.5, 11 x 11, biased (weights sum to 1), averaged over
    the positions whose window lies inside the image, then over channels. In float64 it equals scikit-image's
    ``structural_similarity(gaussian_weights=True, sigma=1.5, use_sample_covariance=False)``. Other variants (uniform
    windows, sample covariance, grey values) give other numbers on the same images.

    Args:
        reconstructed: what the attacker made.
        originals: what was released.
        data_range: L, > 0.

    Raises:
        InvalidParameterError: ``data_range`` is not finite and > 0.
        ShapeError: not two batches of images of one shape, or smaller than 11 x 11, where it is undefined.
        NonFiniteError: one of them holds NaN or infinity.

    Source: Wang, Bovik, Sheikh, Simoncelli 2004.
    """
    span = check.positive("ssim", "data_range", data_range)
    x, y = _pair("ssim", reconstructed, originals)
    if not ssim_defined(x.shape[1:]):
        raise ShapeError(
            f"ssim: images must have shape (batch, channels, height, width) and at least {WINDOW} x {WINDOW} pixels, "
            f"got shape={tuple(x.shape)}. Below that it is undefined; use mse or psnr."
        )
    mean_x, mean_y = _blurred(x), _blurred(y)
    variance_x, variance_y = _blurred(x * x) - mean_x**2, _blurred(y * y) - mean_y**2
    covariance = _blurred(x * y) - mean_x * mean_y
    c1, c2 = (_K1 * span) ** 2, (_K2 * span) ** 2
    top = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    bottom = (mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2)
    return (top / bottom).flatten(1).mean(1)


def ssim_defined(shape: torch.Size | tuple[int, ...]) -> bool:
    """Whether :func:`ssim` is defined for inputs of this shape (no batch dimension)."""
    return len(shape) == 3 and min(shape[1:]) >= WINDOW and shape[0] > 0


def _blurred(images: Tensor) -> Tensor:
    """Gaussian means at the positions whose window fits."""
    places = torch.arange(-RADIUS, RADIUS + 1, dtype=images.dtype, device=images.device)
    weights = torch.exp(-0.5 * (places / SIGMA) ** 2)
    weights = weights / weights.sum()
    flat = images.flatten(0, 1).unsqueeze(1)
    flat = F.conv2d(F.conv2d(flat, weights.reshape(1, 1, -1, 1)), weights.reshape(1, 1, 1, -1))
    return flat.reshape(*images.shape[:2], *flat.shape[2:])


def _pair(owner: str, reconstructed: Tensor, originals: Tensor) -> tuple[Tensor, Tensor]:
    """Both as float64 on one device."""
    first = check.features(owner, reconstructed, "reconstructed").detach()
    second = check.features(owner, originals, "originals").detach()
    if first.shape != second.shape:
        raise ShapeError(
            f"{owner}: reconstructed must have the shape of the originals, {tuple(second.shape)}, got "
            f"shape={tuple(first.shape)}."
        )
    return first.double(), second.to(first.device).double()
