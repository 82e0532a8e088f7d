"""Groups of labelled records, as a user has them: two tensors, or a data set of pairs."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from splitpriv._errors import InvalidParameterError, ShapeError

Labelled = tuple[Tensor, Tensor]
Group = Labelled | Dataset[Any]


def labelled(name: str, group: Any) -> Labelled:
    """Records and labels of a group.

    Raises:
        ShapeError: it is no group, or has no records, or not one integer label for each.
    """
    if isinstance(group, TensorDataset):
        group = group.tensors
    elif isinstance(group, Dataset):
        group = _stacked(name, group)
    pair = tuple(map(_tensor, group)) if isinstance(group, (tuple, list)) and len(group) == 2 else ()
    if len(pair) != 2 or not all(isinstance(part, Tensor) for part in pair) or not pair[0].ndim:
        raise ShapeError(
            f"MembershipTarget: {name} must be a tensor of records and a tensor of labels, or a data set of (record, "
            f"label), got {_kind(group)}."
        )
    records, labels = pair
    if not len(records):
        raise ShapeError(f"MembershipTarget: {name} must be one record or more, got none.")
    whole = not (labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool)
    if not whole or labels.shape != records.shape[:1]:
        raise ShapeError(
            f"MembershipTarget: {name} must have one integer label per record, got {labels.dtype} of shape "
            f"{tuple(labels.shape)} for {len(records)} records."
        )
    if int(labels.min()) < 0:
        raise ShapeError(f"MembershipTarget: {name} must have labels >= 0, the numbers of classes, got negative ones.")
    return records, labels


def refuse_shared(groups: dict[str, Labelled | None]) -> None:
    """Raise where the same record is in two groups: what is called a non-member was trained on.

    Raises:
        InvalidParameterError: see above.
    """
    rows = {name: _rows(group[0]) for name, group in groups.items() if group is not None}
    names = list(rows)
    for first, second in ((a, b) for i, a in enumerate(names) for b in names[i + 1 :]):
        shared = sum(row in rows[first] for row in rows[second])
        if shared:
            raise InvalidParameterError(
                f"MembershipTarget: {second} must share no record with {first}, got {shared} of "
                f"{len(rows[second])} distinct ones that are in both. Leave them out of one group."
            )


def _rows(records: Tensor) -> set[bytes]:
    """A digest of each record; in float64, since the groups may be of different dtypes."""
    rows = (row.double() if row.is_floating_point() else row for row in records.detach().cpu())
    return {hashlib.blake2b(row.numpy().tobytes(), digest_size=16).digest() for row in rows}


def _stacked(name: str, data: Any) -> tuple[Tensor, Tensor]:
    try:
        records, labels = zip(*(data[number] for number in range(len(data))), strict=True)
        return torch.stack([torch.as_tensor(record) for record in records]), torch.as_tensor(labels)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ShapeError(
            f"MembershipTarget: {name} must be a data set of (record, label) with records of one shape, got "
            f"{type(data).__name__}: {error}."
        ) from error


def _tensor(part: Any) -> Any:
    return torch.from_numpy(part) if isinstance(part, np.ndarray) and part.dtype != object else part


def _kind(group: Any) -> str:
    if isinstance(group, (tuple, list)):
        return f"({', '.join(type(part).__name__ for part in group)})"
    return type(group).__name__
