"""The records to release, whatever they come in: each of them visited once, in a known order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    TensorDataset,
)

from splitpriv import _validation as check
from splitpriv._errors import InvalidParameterError, PrivacyError


class Records:
    """Batches of (records, labels or None), each record exactly once.

    Args:
        data: a Dataset of records or (record, label) pairs, a DataLoader over one, a tensor
            ``(records, *input)``, or a pair of tensors (records, labels).
        batch_size: records per batch; a DataLoader's own is kept.

    Attributes:
        count: number of records.
        ordered: whether they come in the order of the data (False for a shuffling DataLoader).

    Raises:
        PrivacyError: a DataLoader may visit a record twice, which would be paid for once.
        InvalidParameterError: ``data`` is empty or of another kind.
    """

    def __init__(self, data: Any, batch_size: int) -> None:
        check.integer("release", "batch_size", batch_size, 1)
        loader = data if isinstance(data, DataLoader) else _loader(data, batch_size)
        self.ordered = _visits_once(loader)
        self.count = _length(loader)
        if loader.drop_last and loader.batch_size is not None:
            self.count -= self.count % loader.batch_size
        if not self.count:
            raise InvalidParameterError("release: data must hold at least one record, got none.")
        self._loader = loader

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        for batch in self._loader:
            yield _parts(batch)


def _loader(data: Any, batch_size: int) -> DataLoader[Any]:
    if isinstance(data, Tensor):
        data = TensorDataset(data)
    elif isinstance(data, (tuple, list)) and len(data) == 2 and all(isinstance(part, Tensor) for part in data):
        if len(data[0]) != len(data[1]):
            got = f"{len(data[0])} records and {len(data[1])} labels"
            raise InvalidParameterError(f"release: data must have one label per record, got {got}.")
        data = TensorDataset(*data)
    if not (hasattr(data, "__len__") and hasattr(data, "__getitem__")) or isinstance(data, (str, bytes, dict)):
        kinds = "a Dataset with a length, a DataLoader over one, a tensor or a pair of tensors"
        raise InvalidParameterError(f"release: data must be {kinds}, got {type(data).__name__}.")
    return DataLoader(data, batch_size=batch_size)


def _length(loader: DataLoader[Any]) -> int:
    dataset: Any = loader.dataset
    return len(dataset)


def _visits_once(loader: DataLoader[Any]) -> bool:
    """Refuse a loader that may repeat a record; return whether it keeps the order."""
    sampler = loader.sampler
    plain = type(loader.batch_sampler) is BatchSampler or loader.batch_sampler is None
    if plain and type(sampler) is SequentialSampler and not isinstance(loader.dataset, IterableDataset):
        return True
    shuffles = plain and type(sampler) is RandomSampler and not sampler.replacement
    if shuffles and getattr(sampler, "num_samples", None) == _length(loader):
        return False
    kind = type(sampler if plain else loader.batch_sampler).__name__
    raise PrivacyError(
        f"release: data must visit each record exactly once, got a DataLoader with {kind}, which may repeat or "
        "skip some. Pass the Dataset itself (a Subset for a part of it)."
    )


def _parts(batch: Any) -> tuple[Tensor, Tensor | None]:
    if isinstance(batch, Tensor):
        return batch, None
    if isinstance(batch, (tuple, list)) and 1 <= len(batch) <= 2 and isinstance(batch[0], Tensor):
        if len(batch) == 1:
            return batch[0], None
        return batch[0], torch.as_tensor(batch[1])
    got = type(batch).__name__
    raise InvalidParameterError(f"release: data must yield records or (record, label) pairs, got {got}.")
