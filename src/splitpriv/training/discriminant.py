"""A linear discriminant from class moments: the server's start, and for a linear server the end."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from splitpriv.training.moments import ClassMoments

_WIDEST = 4.0  # factor by which private data may stretch or shrink a direction of the public covariance
_RIDGE = 1e-2  # of the mean variance: keeps directions that public data never take out of the inverse


@dataclass(frozen=True)
class Discriminant:
    """Scores x @ weight.T + bias, largest for the most likely class.

    Attributes:
        weight: (classes, dim), float64.
        bias: (classes,), float64.
        means: (classes, dim), the class means it was built from.
        recolour: (dim, dim): public residuals times this have the covariance it was built from.
        variance: of one coordinate of a mean, averaged over the classes.
    """

    weight: Tensor
    bias: Tensor
    means: Tensor
    recolour: Tensor
    variance: float


def discriminant(
    moments: ClassMoments,
    residuals: Tensor,  # shape: (n, dim)
    second_moment: tuple[float, float] | None,
    noise: float = 0.0,
) -> Discriminant:
    r"""Fisher's discriminant with the uncertainty of its means counted as variance within the classes.

    .. math:: w_y = (\Sigma + (v + a) I)^{-1} \mu_y, \qquad b_y = \ln \pi_y - \tfrac12 w_y^T \mu_y

    with shrunk means μ, their variance v per coordinate, and a that of the noise which the features to be
    classified will have (``noise``; 0 for clean ones). Σ is the covariance of the public residuals;
    where the second moment of a released vector is known, E[v vᵀ | x] = a I + b x xᵀ, it is drawn
    toward that of the private records, by as much as the noise in the latter allows.

    Args:
        moments: see :class:`ClassMoments`.
        residuals: public features minus their class means.
        second_moment: a and b for one whole released vector; None where they are not known.

    Source: Fisher 1936; the amount of shrinkage as in Ledoit and Wolf 2004, toward the public covariance.
    """
    means, dim = moments.shrunk(), residuals.shape[1]
    variance = float(moments.variance.mean())
    public = residuals.T @ residuals / len(residuals)
    eye = torch.eye(dim, dtype=torch.float64)
    public = public + _RIDGE * public.trace() / dim * eye
    covariance = public
    if second_moment is not None:
        private, error = _private(moments, *second_moment)
        apart = float((private - public).square().sum())
        share = max(0.0, 1 - error / apart) if apart else 0.0
        covariance = _bounded(public, (1 - share) * public + share * private)
    weight = torch.linalg.solve(covariance + (variance + noise) * eye, means.T).T
    bias = moments.share.log() - (weight * means).sum(1) / 2
    recolour = torch.linalg.solve(_root(public), _root(covariance))
    return Discriminant(weight, bias, means, recolour, variance)


def _private(moments: ClassMoments, a: float, b: float) -> tuple[Tensor, float]:
    """Covariance within the private classes, freed of the noise; and the squared error that noise leaves in it."""
    dim = len(moments.second)
    eye = torch.eye(dim, dtype=torch.float64)
    clean = (moments.second - moments.blocks * a * eye) / b
    between = moments.means.T @ (moments.share[:, None] * moments.means)
    between = between - float(moments.share @ moments.variance) * eye  # the noise of the means, squared
    # Entries of v v' vary by about the product of the two coordinates' second moments, in each block.
    per_block = float(moments.second.trace()) / dim / moments.blocks
    noise = moments.blocks * (per_block / b) ** 2 / moments.records * dim**2
    return clean - between, noise


def _bounded(public: Tensor, mixed: Tensor) -> Tensor:
    """``mixed`` with every direction within a factor of ``public``, so that it stays positive definite."""
    root = _root(public)
    inverse = torch.linalg.inv(root)
    values, vectors = torch.linalg.eigh(inverse @ mixed @ inverse)
    bounded = (vectors * values.clamp(1 / _WIDEST, _WIDEST)) @ vectors.T
    result: Tensor = root @ bounded @ root
    return result


def _root(matrix: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    root: Tensor = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    return root
