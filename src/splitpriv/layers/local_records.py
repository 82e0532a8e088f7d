"""The records that a private encoder is fitted on: read once, checked, and a part held out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from splitpriv import _validation as check
from splitpriv._errors import InvalidParameterError, NonFiniteError, ShapeError


@dataclass(frozen=True)
class Records:
    """All records of a loader, in memory: class indices with ``classes``, or standardised targets."""

    features: Tensor  # shape: (records, *feature), float32
    targets: Tensor  # shape: (records,) int64, or (records, outputs) float32
    outputs: int
    classes: bool
    batch_size: int


def collect(owner: str, loader: object, feature_shape: tuple[int, ...]) -> Records:
    """Read every record once, and check it.

    Raises:
        InvalidParameterError: not a loader, data set or pair of tensors; no records; one label only.
        ShapeError: not (features, labels), or of a wrong shape or dtype.
        NonFiniteError: features or labels hold NaN or infinity.
    """
    batches, batch_size = _batches(owner, loader)
    features, labels = [], []
    for batch in batches:
        pair = isinstance(batch, (tuple, list)) and len(batch) == 2
        if not pair or not all(isinstance(part, Tensor) for part in batch):
            raise ShapeError(
                f"{owner}: loader must give pairs of tensors (features, labels), got {_describe(batch)}. "
                "The encoder is fitted on local labels."
            )
        # Checked again as float32, which a float64 may exceed.
        values, targets = check.features(owner, check.features(owner, batch[0]).float()), batch[1]
        if values.shape[1:] != feature_shape:
            raise ShapeError(
                f"{owner}: features must have shape {feature_shape} after the batch, "
                f"got shape={tuple(values.shape[1:])}."
            )
        if targets.ndim == 0 or len(targets) != len(values):
            raise ShapeError(
                f"{owner}: labels must be one per record, got shape={tuple(targets.shape)} for {len(values)} records."
            )
        features.append(values.detach().cpu())
        labels.append(targets.detach().cpu())
    if sum(map(len, features)) == 0:
        raise InvalidParameterError(f"{owner}: loader must give at least one record, got none. Is it exhausted?")
    return Records(torch.cat(features), *_targets(owner, torch.cat(labels)), batch_size)


def _batches(owner: str, loader: object) -> tuple[Iterable[Any], int]:
    default = 64
    if isinstance(loader, DataLoader):
        return loader, loader.batch_size or default
    if isinstance(loader, Dataset):
        # A generator of its own, or DataLoader would draw a seed from the user's.
        return DataLoader(loader, batch_size=256, generator=torch.Generator()), default
    if isinstance(loader, (tuple, list)) and len(loader) == 2 and all(isinstance(part, Tensor) for part in loader):
        return [loader], default
    raise InvalidParameterError(
        f"{owner}: loader must be a DataLoader, a Dataset or a pair of tensors (features, labels), "
        f"got {_describe(loader)}."
    )


def _describe(value: object) -> str:
    """The type alone: what a private loader gives does not belong in an error message."""
    if isinstance(value, (tuple, list)):
        return f"{type(value).__name__} of ({', '.join(type(part).__name__ for part in value[:4])})"
    return type(value).__name__


def _targets(owner: str, labels: Tensor) -> tuple[Tensor, int, bool]:
    if labels.is_complex() or labels.ndim > 2 or (labels.ndim == 2 and not labels.is_floating_point()):
        raise ShapeError(
            f"{owner}: labels must have shape (records,) for classes, or hold floats of shape (records,) or "
            f"(records, outputs) for regression, got shape={tuple(labels.shape)}, dtype={labels.dtype}."
        )
    if not bool(torch.isfinite(labels).all()):
        raise NonFiniteError(f"{owner}: labels must be finite, got NaN or infinity.")
    if len(torch.unique(labels, dim=0)) < 2:
        raise InvalidParameterError(f"{owner}: labels must take at least two values, got one. Nothing can be learned.")
    if not labels.is_floating_point():
        classes, index = torch.unique(labels, return_inverse=True)
        return index, len(classes), True
    # The head is thrown away, so the scale of the targets is free: one learning rate fits all.
    targets = labels.reshape(len(labels), -1).double()
    scale = targets.std(dim=0)
    targets = (targets - targets.mean(dim=0)) / torch.where(scale > 0, scale, torch.ones_like(scale))
    return targets.float(), targets.shape[1], False


def hold_out(
    features: Tensor,  # shape: (records, *feature)
    share: float,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:  # shapes: (kept,), (held,), int64
    """Indices of the records to train on, and of those held out.

    Drawn over distinct records: copies of one record, as a sampler with replacement gives them,
    all fall on the same side.

    Raises:
        InvalidParameterError: all records are the same.
    """
    groups: dict[bytes, list[int]] = {}
    for i, row in enumerate(features.flatten(1).contiguous().numpy()):
        groups.setdefault(hashlib.sha256(row.tobytes()).digest(), []).append(i)
    if len(groups) < 2:
        raise InvalidParameterError(
            "LocalPretrainedEncoder: loader must give at least two different records, got one. "
            "One part is trained on, another is held out."
        )
    # In the order of their digests: a seed then means the same hold-out, whatever order they came in.
    members = [groups[digest] for digest in sorted(groups)]
    wanted = max(1, round(share * len(features)))
    held: list[int] = []
    for group in torch.randperm(len(members), generator=generator, device="cpu")[:-1].tolist():
        if len(held) >= wanted:
            break
        held += members[group]
    kept = torch.ones(len(features), dtype=torch.bool, device="cpu")
    kept[held] = False
    return kept.nonzero().squeeze(1), (~kept).nonzero().squeeze(1)
