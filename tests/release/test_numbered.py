"""Releases of numbers of an endless codebook: positions, subsets, symbols."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from splitpriv import InvalidParameterError, RandomCodebookLDP, ShapeError, SplitModel
from splitpriv.mechanisms import EndlessCodebook
from splitpriv.release import Release

BOOK = EndlessCodebook(bytes(32), dim=4, size=10, scale=1.0)


def release_of(numbers: list[int], lab: Any) -> Release:
    return Release.from_batches([(torch.tensor(numbers), None)], values=BOOK, claims=lab.claims())


def test_positions_that_follow_each_other_take_no_space(lab: Any, tmp_path: Path) -> None:
    follow, jump = release_of([73, 81, 99], lab), release_of([73, 81, 109], lab)
    assert follow.positions is not None
    assert follow.positions.tolist() == [7, 8, 9]
    for release, tensors in ((follow, {"packed"}), (jump, {"packed", "positions"})):
        release.save(tmp_path / "r")
        assert set(lab.taken_apart((tmp_path / "r").read_bytes())[0]) == tensors
        assert (release.bits, release.nbytes, release.feature_shape, release.alphabet) == (4, 3, (4,), 10)


def test_subsets_in_any_order(lab: Any, tmp_path: Path) -> None:
    whole = release_of([3, 15, 21, 38, 44], lab)
    part = whole.subset([4, 0, 2])
    assert part.symbols(slice(None)).tolist() == [44, 3, 21]
    assert torch.equal(part.batch(slice(None))[0], BOOK.codewords(torch.tensor([44, 3, 21])))
    part.save(tmp_path / "r")
    loaded = Release.load(tmp_path / "r")
    assert lab.same(pickle.loads(pickle.dumps(loaded)), part)
    assert lab.same(part.subset([1, 2]).subset([1]), whole.subset([2]))


def test_a_release_of_a_model_decodes_as_its_layer_does(tmp_path: Path) -> None:
    layer = RandomCodebookLDP(8, size=100, epsilon=4.0)
    layer(torch.randn(3, 8))  # so that the release does not begin at position 0
    model = SplitModel(torch.nn.Identity(), torch.nn.Identity(), cut=layer)
    release = model.release(torch.randn(50, 8), batch_size=16)
    release.save(tmp_path / "r")
    loaded = Release.load(tmp_path / "r")
    symbols = loaded.symbols(slice(None))
    assert (symbols // 100).tolist() == list(range(3, 53))
    assert torch.equal(loaded.batch(slice(None))[0], layer.decode(symbols))
    assert loaded.claims.per_record == layer.epsilon
    assert "7 bits, numbers of an endless codebook" in repr(loaded)


def test_what_does_not_fit_is_refused(lab: Any) -> None:
    packed = torch.zeros(2, 1, dtype=torch.uint8)

    def make(values: Any, positions: Any) -> Release:
        return Release(packed, symbol_shape=(), values=values, claims=lab.claims(), positions=positions)

    with pytest.raises(InvalidParameterError, match="positions must be given exactly where values is an EndlessCode"):
        make(BOOK, None)
    with pytest.raises(InvalidParameterError, match=r"positions must be given exactly .*, got some"):
        make(torch.zeros(3), 0)
    with pytest.raises(ShapeError, match=r"positions must be int64 of shape \(2,\), got torch.int32 \(2,\)"):
        make(BOOK, torch.zeros(2, dtype=torch.int32))
    with pytest.raises(ShapeError, match="positions must be an int or an int64 tensor, got float"):
        make(BOOK, 0.0)
    with pytest.raises(InvalidParameterError, match=r"positions must be in \[0, 461168601842738790\), got values in"):
        make(BOOK, torch.tensor([0, 2**62]))
    with pytest.raises(ShapeError, match=r"symbols must have an integer dtype"):
        Release.from_batches([(torch.zeros(2), None)], values=BOOK, claims=lab.claims())
    with pytest.raises(InvalidParameterError, match=r"positions must be in \[0, "):
        release_of([-1, 5], lab)
