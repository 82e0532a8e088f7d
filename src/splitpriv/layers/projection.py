"""A public projection to few dimensions, and onto the unit sphere."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from splitpriv import _validation as check
from splitpriv._errors import InvalidParameterError, NonFiniteError, ShapeError


class Projection(nn.Module):
    r"""Flattens each record, subtracts a public centre, projects, and brings it to length 1.

    .. math:: z = W (x - \mu), \qquad y = z / \|z\|

    A plain, deterministic module for the end of the edge, in front of a layer that works on vectors: the error of
    a record-level mechanism grows with the dimension. It offers no privacy of its own. A record at the
    centre (z = 0) becomes the first unit vector. Records are not mixed. :meth:`pca` and :meth:`rotation`
    make one; in ``nn.Sequential(edge, Projection.pca(...))`` it becomes part of the edge.

    Args:
        weight: W, (dim, in_features), finite. Public: take it from public features or a public seed.
        centre: μ, (in_features,); None for 0.
        normalize: whether to bring records to length 1.

    Shape:
        features ``(batch, *feature)`` of in_features elements each; ``(batch, dim)``, same dtype.

    Raises:
        ShapeError: a tensor is of another shape.
        NonFiniteError: a tensor holds NaN or infinity.
        InvalidParameterError: ``normalize`` is not a bool.

    Does not protect: anything. What the projection drops is gone, but nothing bounds what is left.

    Example:
        >>> public = torch.randn(500, 1, 8, 8)
        >>> projection = Projection.pca(public, 16)
        >>> torch.allclose(projection(torch.randn(3, 1, 8, 8)).norm(dim=1), torch.ones(3))
        True
    """

    weight: Tensor
    centre: Tensor

    def __init__(self, weight: Tensor, centre: Tensor | None = None, *, normalize: bool = True) -> None:
        super().__init__()
        _check(weight, 2, None)
        self.normalize: bool = check.choice("Projection", "normalize", normalize, (True, False))
        centre = torch.zeros(weight.shape[1]) if centre is None else centre
        _check(centre, 1, weight.shape[1])
        self.register_buffer("weight", weight.detach().clone().float())
        self.register_buffer("centre", centre.detach().clone().float())
        self.made = ""

    @classmethod
    def pca(
        cls,
        public_features: Tensor,  # shape: (records, *feature)
        dim: int,
        *,
        whiten: bool = False,
        labels: Tensor | None = None,  # shape: (records,)
        normalize: bool = True,
    ) -> Projection:
        """Principal components of public features, centred by their mean.

        Args:
            public_features: (records, \\*feature), at least two records.
            dim: components to keep, the largest first, in [1, min(elements, records - 1)].
            whiten: divide by the public covariance, so that what is left has covariance I: all
                directions count alike. With ``labels`` by the covariance within the classes, after which
                the components are those in which the class means differ most.
            labels: public classes, integers; they need ``whiten=True``.
            normalize: see :class:`Projection`.

        Raises:
            InvalidParameterError: a parameter is outside its range.
            ShapeError: features or labels are of another shape or dtype.
            NonFiniteError: features hold NaN or infinity.
        """
        points = check.features("Projection.pca", public_features).detach().flatten(1).double().cpu()
        dim = check.integer("Projection.pca", "dim", dim, 1, min(points.shape[1], len(points) - 1))
        check.choice("Projection.pca", "whiten", whiten, (True, False))
        centre = points.mean(dim=0)
        if labels is None:
            weight = _components(points - centre, dim, whiten)
        else:
            if not whiten:
                fix = "Labels change the components only by what they are whitened with."
                raise InvalidParameterError(check.message("Projection.pca", "whiten", "True with labels", whiten, fix))
            weight = _discriminants(points - centre, labels, dim)
        projection = cls(weight, centre, normalize=normalize)
        within = " within classes" if labels is not None else ""
        projection.made = "PCA of public features" + (f", whitened{within}" if whiten else "")
        return projection

    @classmethod
    def rotation(
        cls, in_features: int, dim: int, *, seed: int = 0, centre: Tensor | None = None, normalize: bool = True
    ) -> Projection:
        """The first rows of a random orthogonal matrix, the same for the same public seed.

        Args:
            in_features: elements of a record.
            dim: dimensions to keep, in [1, in_features].
            seed: public, in [0, 2**63).
            centre: what to subtract, (in_features,), e.g. the mean of public features; None for 0.
            normalize: see :class:`Projection`.

        Raises:
            InvalidParameterError: a parameter is outside its range.
        """
        check.integer("Projection.rotation", "in_features", in_features, 1)
        check.integer("Projection.rotation", "dim", dim, 1, in_features)
        check.integer("Projection.rotation", "seed", seed, 0, (1 << 63) - 1)
        generator = torch.Generator().manual_seed(seed)
        normals = torch.randn(in_features, dim, generator=generator, dtype=torch.float64)
        q, r = torch.linalg.qr(normals)
        projection = cls((q * r.diagonal().sign()).T, centre, normalize=normalize)
        projection.made = "random rotation from a public seed"
        return projection

    @property
    def dim(self) -> int:
        """Dimensions that are kept."""
        return len(self.weight)

    def forward(
        self,
        features: Tensor,  # shape: (batch, *feature)
    ) -> Tensor:  # shape: (batch, dim), dtype of features
        """Project each record by itself.

        Raises:
            ShapeError: a record does not have in_features elements.
        """
        elements = math.prod(features.shape[1:])
        if elements != len(self.centre) or not features.is_floating_point():
            got = f"{features.dtype} {tuple(features.shape)}"
            raise ShapeError(f"Projection: features must be floats of {len(self.centre)} elements each, got {got}.")
        flat = features.reshape(len(features), elements)
        wide = flat if flat.dtype == torch.float64 else flat.float()
        with torch.autocast(features.device.type, enabled=False):
            projected = (wide - self.centre.to(wide)) @ self.weight.to(wide).T
        if self.normalize:
            projected = _on_the_sphere(projected)
        return projected.to(features.dtype)

    def extra_repr(self) -> str:
        """Sizes, where the projection comes from, and whether records are brought to length 1."""
        ends = "on the unit sphere" if self.normalize else "not normalised"
        return f"{len(self.centre)} to {self.dim}, {self.made or 'as given'}, {ends}"


def _on_the_sphere(projected: Tensor) -> Tensor:
    first = torch.zeros_like(projected)
    first[:, 0] = 1
    largest = projected.detach().abs().amax(dim=1, keepdim=True)
    scaled = projected / torch.where(largest > 0, largest, torch.ones_like(largest))
    return torch.where(largest > 0, F.normalize(scaled, dim=1), first)


def _check(given: Tensor, ndim: int, size: int | None) -> None:
    name, wanted = ("weight", "(dim, in_features)") if size is None else ("centre", f"({size},)")
    fits = isinstance(given, Tensor) and given.is_floating_point() and given.ndim == ndim and given.numel() > 0
    if not fits or size not in (None, len(given)):
        got = f"{given.dtype} {tuple(given.shape)}" if isinstance(given, Tensor) else type(given).__name__
        raise ShapeError(f"Projection: {name} must be a floating-point tensor of shape {wanted}, got {got}.")
    if not bool(torch.isfinite(given).all()):
        raise NonFiniteError(f"Projection: {name} must be finite, got NaN or infinity.")


def _components(centred: Tensor, dim: int, whiten: bool) -> Tensor:
    values, vectors = torch.linalg.eigh(centred.T @ centred / (len(centred) - 1))
    values, vectors = values.flip(0)[:dim], _signed(vectors.flip(1)[:, :dim])
    if not whiten:
        return vectors.T
    floor = values[0].clamp_min(torch.finfo(torch.float64).tiny) * 1e-10
    whitened: Tensor = vectors / values.clamp_min(floor).sqrt()
    return whitened.T


def _discriminants(centred: Tensor, labels: Tensor, dim: int) -> Tensor:
    """Whitened within classes, then the components of all records."""
    if not isinstance(labels, Tensor) or labels.is_floating_point() or labels.shape != (len(centred),):
        got = f"{labels.dtype} {tuple(labels.shape)}" if isinstance(labels, Tensor) else type(labels).__name__
        raise ShapeError(f"Projection.pca: labels must be {len(centred)} integers, one per record, got {got}.")
    classes, index = torch.unique(labels.cpu(), return_inverse=True)
    sums = torch.zeros(len(classes), centred.shape[1], dtype=centred.dtype).index_add_(0, index, centred)
    means = sums / torch.bincount(index).unsqueeze(1)
    within = centred - means[index]
    whitening = _components(within, centred.shape[1], True)
    return _components(centred @ whitening.T, dim, False) @ whitening


def _signed(vectors: Tensor) -> Tensor:
    """The same directions on every machine: the largest entry of each is positive."""
    largest = vectors.gather(0, vectors.abs().argmax(dim=0, keepdim=True))
    return vectors * largest.sign()
