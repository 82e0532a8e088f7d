"""The records to release, whatever they come in: each of them visited once, in a known order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    TensorDataset,
)

from splitpriv import _validation as check
from splitpriv._errors import InvalidParameterError, PrivacyError


class Records:
    """Batches of (records, labels or None), each record exactly once.

    Args:
        data: a Dataset of records or (record, label) pairs, a DataLoader over one, a tensor
            ``(records, *input)``, or a tuple of two tensors (records, labels).
        batch_size: records per batch; a DataLoader's own is kept.

    Attributes:
        count: number of records.
        ordered: whether they come in the order of the data (False for a shuffling DataLoader).

    Raises:
        PrivacyError: a DataLoader or a Subset may visit a record twice, which would be paid for once.
        InvalidParameterError: ``data`` is empty or of another kind.

    Does not notice: a Dataset that itself returns one record under two indices.
    """

    def __init__(self, data: Any, batch_size: int) -> None:
        check.integer("release", "batch_size", batch_size, 1)
        loader = data if isinstance(data, DataLoader) else _loader(data, batch_size)
        self.ordered = _visits_once(loader)
        _refuse_repeats(loader.dataset)
        self.count = _length(loader)
        if isinstance(loader.batch_sampler, BatchSampler) and loader.batch_sampler.drop_last:
            self.count -= self.count % loader.batch_sampler.batch_size
        if not self.count:
            raise InvalidParameterError("release: data must hold at least one record, got none.")
        self._loader = loader

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        for batch in self._loader:
            yield _parts(batch)


def _loader(data: Any, batch_size: int) -> DataLoader[Any]:
    if hasattr(data, "__array__") and not isinstance(data, Tensor):
        raise InvalidParameterError(f"release: data must be a tensor, got {type(data).__name__}. Use torch.as_tensor.")
    if isinstance(data, Tensor):
        data = TensorDataset(data)
    elif isinstance(data, tuple):
        if len(data) != 2 or not all(isinstance(part, Tensor) for part in data):
            fix = "Use a Dataset for anything else."
            got = "(" + ", ".join(type(part).__name__ for part in data) + ")"
            raise InvalidParameterError(f"release: data must be two tensors where it is a tuple, got {got}. {fix}")
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
    batches = loader.batch_sampler
    # A batch sampler that was given has a sampler of its own; the loader's then is a dummy.
    sampler: Any = loader.sampler if batches is None else getattr(batches, "sampler", None)
    plain = (batches is None or type(batches) is BatchSampler) and not isinstance(loader.dataset, IterableDataset)
    whole = plain and _covers(sampler, loader.dataset)
    if whole and type(sampler) is SequentialSampler:
        return True
    if whole and type(sampler) is RandomSampler and not sampler.replacement:
        return False
    kind = type(sampler if plain else loader.dataset if batches is None else batches).__name__
    raise PrivacyError(
        f"release: data must visit each record exactly once, got a DataLoader with {kind}, which may repeat or "
        "skip some. Pass the Dataset itself (a Subset for a part of it)."
    )


def _covers(sampler: Any, dataset: Any) -> bool:
    source = getattr(sampler, "data_source", None)
    count = getattr(sampler, "num_samples", None) if isinstance(sampler, RandomSampler) else len(source or ())
    return source is not None and len(source) == len(dataset) == count


def _refuse_repeats(dataset: Any) -> None:
    if not isinstance(dataset, (Subset, ConcatDataset)):
        return
    origins = Counter(_origin(dataset, index) for index in range(len(dataset)))
    for (_, record), times in origins.most_common(1):
        if times > 1:
            raise PrivacyError(
                f"release: data must hold each record once, got record {record} of one data set {times} times. "
                "Release it as often as that, if that is meant: each time is paid for."
            )


def _origin(dataset: Any, index: int) -> tuple[int, int]:
    """The data set at the bottom of subsets and concatenations, and the index in it."""
    while isinstance(dataset, (Subset, ConcatDataset)):
        if isinstance(dataset, Subset):
            dataset, index = dataset.dataset, int(dataset.indices[index])
        else:
            part = next(k for k, end in enumerate(dataset.cumulative_sizes) if index < end)
            index -= dataset.cumulative_sizes[part - 1] if part else 0
            dataset = dataset.datasets[part]
    return id(dataset), index


def _parts(batch: Any) -> tuple[Tensor, Tensor | None]:
    if isinstance(batch, Tensor):
        return batch, None
    if isinstance(batch, (tuple, list)) and 1 <= len(batch) <= 2 and isinstance(batch[0], Tensor):
        if len(batch) == 1:
            return batch[0], None
        try:
            return batch[0], torch.as_tensor(batch[1])
        except (TypeError, ValueError, RuntimeError):
            got = type(batch[1][0] if isinstance(batch[1], (tuple, list)) else batch[1]).__name__
            raise InvalidParameterError(f"release: labels must be numbers or tensors, got {got}.") from None
    got = type(batch).__name__
    raise InvalidParameterError(f"release: data must yield records or (record, label) pairs, got {got}.")
