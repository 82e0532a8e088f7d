"""A release made batch by batch."""

from __future__ import annotations

import math
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from splitpriv import NonFiniteError, ShapeError
from splitpriv.release import Release


@pytest.mark.parametrize("sizes", [[5], [2, 3], [1, 1, 1, 1, 1], [0, 4, 0, 1]])
def test_batches_of_any_size_make_the_same_release(lab: Any, kind: str, sizes: list[int]) -> None:
    symbols, values = lab.symbols(kind)
    labels = torch.arange(5) % 3
    parts = zip(symbols.split(sizes), labels.split(sizes), strict=True)
    ids = lab.make(kind, full=True).ids
    made = Release.from_batches(parts, values=values, claims=lab.claims(labels="public"), ids=ids)
    assert lab.same(made, lab.make(kind, full=True))


def test_memory_is_that_of_the_packed_data_and_one_batch(lab: Any) -> None:
    def batches() -> Iterator[tuple[Tensor, None]]:
        for seed in range(128):
            yield torch.randint(2, (8, 65536), generator=torch.Generator().manual_seed(seed)).to(torch.uint8), None

    tracemalloc.start()  # sees numpy and bytearray; torch's own batch of 0.5 MB is not counted
    release = Release.from_batches(batches(), values=torch.tensor([0.0, 1.0]), claims=lab.claims())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert release.nbytes == 8 << 20
    assert peak < 1.5 * release.nbytes


def test_symbols_outside_the_alphabet_are_refused(lab: Any) -> None:
    values = torch.zeros(3)
    for wrong in (-1, 3):
        with pytest.raises(ShapeError, match=r"Release.from_batches: symbols must be in \[0, 3\)"):
            Release.from_batches([(torch.tensor([[0, wrong]]), None)], values=values, claims=lab.claims())


X = torch.zeros(2, 3, dtype=torch.uint8)
Y = torch.zeros(2, dtype=torch.int64)
BATCHES: list[tuple[list[Any], str]] = [
    ([], "batches must hold at least one record, got none"),
    ([(X[:0], None)], "batches must hold at least one record, got none"),
    ([(X, None), (X[:, :2], None)], r"symbols must have shape \(batch, \*\(3,\)\), got torch.uint8 \(2, 2\)"),
    ([([[0]], None)], "symbols must be a torch.Tensor, got list"),
    ([(X.float(), None)], "symbols must have an integer dtype, got dtype=float32"),
    ([(X, Y[:1])], r"labels must have shape \(2, \*label\), got torch.int64 \(1,\)"),
    ([(X, torch.tensor(1))], r"labels must have shape \(2, \*label\), got torch.int64 \(\)"),
    ([(X, [0, 1])], r"labels must have shape \(2, \*label\), got list"),
    ([(X, torch.zeros(2, 0))], r"labels must have shape \(2, \*label\), got torch.float32 \(2, 0\)"),
    ([(X, Y), (X, None)], "labels must be alike in all batches"),
    ([(X, None), (X, Y)], "labels must be alike in all batches"),
    ([(X, Y), (X, Y.int())], "labels must be alike in all batches"),
    ([(X, Y), (X, Y[:, None])], "labels must be alike in all batches"),
]


@pytest.mark.parametrize(("batches", "match"), BATCHES)
def test_batches_are_refused(lab: Any, batches: list[Any], match: str) -> None:
    with pytest.raises(ShapeError, match=f"Release.from_batches: {match}"):
        Release.from_batches(batches, values=torch.zeros(2), claims=lab.claims())


def test_float_batches_are_refused(lab: Any) -> None:
    with pytest.raises(ShapeError, match="symbols must be float32 where values is None, got dtype=float64"):
        Release.from_batches([(torch.zeros(1, 1).double(), None)], values=None, claims=lab.claims())
    with pytest.raises(NonFiniteError, match="symbols must be finite, got NaN or infinity"):
        Release.from_batches([(torch.tensor([[math.inf]]), None)], values=None, claims=lab.claims())
