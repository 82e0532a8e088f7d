"""The label inside the vector: one mechanism for features and label together."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from splitpriv import _validation as check
from splitpriv._errors import ShapeError

_MAX_CLASSES = 1 << 10


class EmbeddedLabels:
    r"""Puts a record's features into the block of its label: e_y ⊗ x, all other blocks zero.

    .. math:: u = e_y \otimes x, \qquad E[\text{decoded block } y'] = [y = y'] \, x

    A mechanism at the cut then hides features and label by one ε, which need not be divided between
    them: for class means at small ε that is far more accurate than a mechanism for each (each
    noise would multiply the other). Length is kept: u is a unit vector where x is one.

    No ``nn.Module``, and not for ``cut``: pass it as ``SplitModel(..., labels=EmbeddedLabels(5))``, with a
    layer for ``classes * d`` elements at the cut. No labels travel then; ``fit(noise_aware=True)`` reads the
    class means off the decoded vectors. A record without a label cannot cross such a cut: infer with
    ``model.local(x)``, or with a second model that has a layer for d elements.

    Args:
        classes: number of classes, an integer in [2, 1024].

    Raises:
        InvalidParameterError: ``classes`` is outside its range.

    Does not protect: by itself anything. The layer at the cut protects the pair (features, label), with the
    ε that it claims for a record.

    Source: the outer product is how a linear model's sufficient statistics are written; that one mechanism on
    it beats two is measured in ``benchmarks/bench_record_level.py``.

    Example:
        >>> EmbeddedLabels(3).embed(torch.tensor([[0.6, 0.8]]), torch.tensor([1]))
        tensor([[0.0000, 0.0000, 0.6000, 0.8000, 0.0000, 0.0000]])
    """

    def __init__(self, classes: int) -> None:
        self.classes = check.integer("EmbeddedLabels", "classes", classes, 2, _MAX_CLASSES)

    def embed(
        self,
        features: Tensor,  # shape: (batch, *feature)
        labels: Tensor,  # shape: (batch,), integers in [0, classes)
    ) -> Tensor:  # shape: (batch, classes * elements), dtype of features
        """Features in the block of their label; private.

        Raises:
            ShapeError: labels are not integers of shape (batch,) in [0, classes).
        """
        where = self.check(labels, len(features)).to(features.device).long()
        flat = features.flatten(1)
        blocks = flat.new_zeros(len(flat), self.classes, flat.shape[1])
        blocks[torch.arange(len(flat), device=flat.device), where] = flat
        return blocks.flatten(1)

    def block(
        self,
        embedded: Tensor,  # shape: (batch, classes * elements)
        label: int,
    ) -> Tensor:  # shape: (batch, elements)
        """The part of vectors that belongs to one label."""
        chosen: Tensor = embedded.reshape(len(embedded), self.classes, -1)[:, label]
        return chosen

    def check(self, labels: Any, records: int) -> Tensor:
        """Labels, if they are what :meth:`embed` takes.

        Raises:
            ShapeError: they are not integers of shape (records,) in [0, classes).
        """
        fits = isinstance(labels, Tensor) and labels.shape == (records,)
        if not fits or labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
            got = f"{labels.dtype} {tuple(labels.shape)}" if isinstance(labels, Tensor) else type(labels).__name__
            raise ShapeError(f"EmbeddedLabels: labels must be integers of shape ({records},), got {got}.")
        low, high = (int(v) for v in torch.aminmax(labels.long())) if records else (0, 0)
        if low < 0 or high >= self.classes:
            raise ShapeError(f"EmbeddedLabels: labels must be in [0, {self.classes}), got others (not shown).")
        checked: Tensor = labels
        return checked

    def __repr__(self) -> str:
        return f"EmbeddedLabels({self.classes} classes; inside the features, covered by their ε)"
