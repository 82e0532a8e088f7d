"""What a noisy release says of each class: means freed of the noise, and how uncertain they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from splitpriv import _validation as check
from splitpriv._errors import InvalidParameterError, ShapeError
from splitpriv.release import Release

_STEP = 4096  # records decoded at a time
_LEAST_SHARE = 1e-3  # of a class that noise has driven below nothing


@dataclass(frozen=True)
class ClassMoments:
    """Class means of the clean features, estimated from what crossed the cut.

    Clean features are those that :meth:`SplitModel.local` gives the server: what the released
    ones are around. Computed after the release, so it costs no privacy.

    Attributes:
        means: (classes, dim), float64.
        share: (classes,), float64, share of each class; sums to one.
        variance: (classes,), float64, variance of one coordinate of a class's mean.
        second: (dim, dim), float64, second moment about 0 of the released features, noise and all;
            of embedded labels the sum over the classes' blocks.
        blocks: how many blocks were summed in ``second``.
        records: number of records.
    """

    means: Tensor
    share: Tensor
    variance: Tensor
    second: Tensor
    blocks: int
    records: int

    def shrunk(self) -> Tensor:  # shape: (classes, dim)
        """The means, drawn to their centre by as much as their uncertainty asks for.

        Source: James and Stein 1961, the positive part, toward the grand mean.
        """
        centre = self.share @ self.means
        apart = self.means - centre
        energy = float(apart.square().sum())
        noise = float(self.variance.sum()) * self.means.shape[1] * (1 - 1 / len(self.means))
        return centre + (max(0.0, 1 - noise / energy) if energy else 0.0) * apart


def class_moments(release: Release, *, classes: int, prior: Tensor | None = None) -> ClassMoments:
    r"""Estimate the class means of the clean features from a release.

    *Public labels*: the mean of each class's released features. *Released labels* of a
    :class:`~splitpriv.LabelLDP` with the public matrix :math:`P_{yz} = \Pr[z \mid y]`: a record with
    label z counts for class y with the weight :math:`(P^{-1})_{zy}`, whose mean is [its label is y].
    *Embedded labels* (:class:`~splitpriv.EmbeddedLabels`): block y of the released vector is unbiased
    for [its label is y] times the features.

    Args:
        release: one vector per record, with labels that are classes, or with embedded ones.
        classes: number of classes, >= 2.
        prior: (classes,), public share of each class, > 0. Embedded labels need it to tell a rare class
            from a short mean (None: all equal); with other labels None estimates it.

    Raises:
        InvalidParameterError: the release has no labels, or other ones than ``classes`` and ``prior`` say;
            or a label channel that cannot be inverted (a prior that left classes out).
        ShapeError: its features are not one vector per record.

    Does not protect: anything; what it reads has crossed the cut already.
    """
    check.integer("class_moments", "classes", classes, 2)
    known = None if prior is None else _shares(prior, classes)
    parts, blocks = _parts(release, classes)
    dim = _dim(release, blocks)
    total = torch.zeros(classes, dim, dtype=torch.float64)
    squares, cross = torch.zeros_like(total), torch.zeros_like(total)
    weight, weight_squares = torch.zeros(2, classes, dtype=torch.float64)
    second = torch.zeros(dim, dim, dtype=torch.float64)
    for indices in torch.split(torch.arange(len(release)), _STEP):
        counts, vectors = parts(indices)  # shapes: (n, classes), (n, blocks, dim)
        weighed = counts[:, :, None] * vectors  # shape: (n, classes, dim)
        total += weighed.sum(0)
        squares += weighed.square().sum(0)
        cross += (counts[:, :, None] * weighed).sum(0)
        weight += counts.sum(0)
        weight_squares += counts.square().sum(0)
        second += torch.einsum("nbd,nbe->de", vectors, vectors)
    records = len(release)
    share = known
    if share is None:
        share = _positive(weight / records) if blocks == 1 else torch.full((classes,), 1 / classes, dtype=torch.float64)
    scale = records * share[:, None]
    means = total / scale
    if blocks == 1 and known is None:  # a ratio: what the counts and the sums have in common cancels
        spread = squares - 2 * means * cross + means.square() * weight_squares[:, None]
    else:
        spread = squares - total.square() / records
    variance = (spread.clamp(min=0) / scale.square()).mean(1)
    return ClassMoments(means, share, variance, second / records, blocks, records)


def _dim(release: Release, blocks: int) -> int:
    shape = release.feature_shape
    if len(shape) != 1 or shape[0] % blocks:
        constraint = "one vector per record" if blocks == 1 else f"one vector per record, of {blocks} blocks"
        raise ShapeError(check.message("class_moments", "release", constraint, f"features of shape {shape}"))
    return shape[0] // blocks


_Parts = Callable[[Tensor], tuple[Tensor, Tensor]]


def _parts(release: Release, classes: int) -> tuple[_Parts, int]:
    """Reads (weights (n, classes), vectors (n, blocks, dim)) of some records; and the number of blocks."""
    if release.claims.labels == "embedded":
        if release.claims.classes != classes:
            got = check.message("class_moments", "classes", f"{release.claims.classes}, as embedded", classes)
            raise InvalidParameterError(got)
        return _embedded(release, classes), classes
    labels = release.labels
    constraint = f"one with labels in [0, {classes})"
    if labels is None:
        raise InvalidParameterError(check.message("class_moments", "release", constraint, release))
    if labels.is_floating_point() or labels.ndim != 1 or not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        got = f"labels of {labels.dtype}, {tuple(labels.shape)}, from {labels.min()} to {labels.max()}"
        raise InvalidParameterError(check.message("class_moments", "release", constraint, got))
    return _labelled(release, _counts(release.label_channel, classes)), 1


def _embedded(release: Release, classes: int) -> _Parts:
    def parts(indices: Tensor) -> tuple[Tensor, Tensor]:
        vectors = release.batch(indices)[0].double().reshape(len(indices), classes, -1)
        return torch.ones(len(indices), classes, dtype=torch.float64), vectors

    return parts


def _labelled(release: Release, counts: Tensor) -> _Parts:
    def parts(indices: Tensor) -> tuple[Tensor, Tensor]:
        vectors, labels = release.batch(indices)
        assert labels is not None
        return counts[labels.long()], vectors.double()[:, None]

    return parts


def _counts(channel: Tensor | None, classes: int) -> Tensor:  # shape: (labels, classes)
    """What a released label counts for each class, on average one for its own and none for the others."""
    if channel is None:
        return torch.eye(classes, dtype=torch.float64)
    if channel.shape != (classes, classes) or int(torch.linalg.matrix_rank(channel)) < classes:
        constraint = f"one whose label channel can be inverted for {classes} classes"
        fix = "A prior that leaves classes out merges them; train with forward_corrected instead."
        raise InvalidParameterError(check.message("class_moments", "release", constraint, tuple(channel.shape), fix))
    counts: Tensor = torch.linalg.inv(channel)
    return counts


def _shares(prior: Tensor, classes: int) -> Tensor:
    shares = torch.as_tensor(prior, dtype=torch.float64)
    if shares.shape != (classes,) or not bool((shares > 0).all()) or not bool(shares.isfinite().all()):
        raise InvalidParameterError(check.message("class_moments", "prior", f"{classes} finite numbers > 0", prior))
    return shares / shares.sum()


def _positive(share: Tensor) -> Tensor:
    share = share.clamp(min=_LEAST_SHARE)
    return share / share.sum()
