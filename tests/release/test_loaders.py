"""A release under torch's own loaders, samplers and splits."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, Subset, random_split
from torch.utils.data.distributed import DistributedSampler

from splitpriv import ReleaseFileError
from splitpriv.release import Release
from splitpriv.release.mapped import MappedRows


def gathered(loader: Any) -> tuple[Tensor, Tensor]:
    features, labels = zip(*loader, strict=True)
    return torch.cat(features), torch.cat(labels)


@pytest.fixture(params=["memory", "file"])
def release(lab: Any, kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Release:
    made = lab.make(kind, records=23, full=True)
    if request.param == "file":
        made.save(tmp_path / "r.splitpriv")
        made = Release.load(tmp_path / "r.splitpriv")
    return made


# From 3.12 on Python warns of any fork beside threads, and torch has some.
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("workers", [0, 2])
def test_loader(release: Release, workers: int) -> None:
    context = "fork" if workers else None
    loader = DataLoader(release, batch_size=5, num_workers=workers, multiprocessing_context=context)
    features, labels = gathered(loader)
    expected = release.batch(slice(None))
    assert torch.equal(features, expected[0])
    assert torch.equal(labels, expected[1])


def test_loader_in_spawned_workers(lab: Any, tmp_path: Path) -> None:
    in_memory = lab.make("wide", records=9, full=True)
    in_memory.save(tmp_path / "r")
    both = ConcatDataset([in_memory, Release.load(tmp_path / "r")])
    loader = DataLoader(both, batch_size=4, num_workers=1, multiprocessing_context="spawn")
    features, labels = gathered(loader)
    expected = in_memory.batch(slice(None))
    assert torch.equal(features, torch.cat([expected[0]] * 2))
    assert torch.equal(labels, torch.cat([expected[1]] * 2))


def test_loader_without_labels(lab: Any, kind: str) -> None:
    release = lab.make(kind)
    batches = list(DataLoader(release, batch_size=2))
    assert torch.equal(torch.cat(batches), release.batch(slice(None))[0])


def test_shuffled_loader_sees_every_record_once(release: Release) -> None:
    loader = DataLoader(release, batch_size=4, shuffle=True, generator=torch.Generator().manual_seed(0))
    features, _ = gathered(loader)
    expected, _ = release.batch(slice(None))
    assert torch.equal(features.flatten(1).sum(1).sort()[0], expected.flatten(1).sum(1).sort()[0])


def test_random_split_and_subset(release: Release) -> None:
    first, second = random_split(release, [20, 3], generator=torch.Generator().manual_seed(0))
    assert sorted([*first.indices, *second.indices]) == list(range(23))
    features, labels = gathered(DataLoader(second, batch_size=2))
    expected = release.batch(second.indices)
    assert torch.equal(features, expected[0])
    assert torch.equal(labels, expected[1])
    by_tensor = Subset(release, torch.tensor([4, 2]))  # type: ignore[arg-type]
    assert torch.equal(by_tensor.__getitems__([1, 0])[0][0], release[2][0])


def test_distributed_sampler_covers_all_records(release: Release) -> None:
    seen = []
    for rank in range(3):
        sampler: Any = DistributedSampler(release, num_replicas=3, rank=rank, shuffle=True, seed=1)
        seen += list(sampler)
        features, _ = gathered(DataLoader(release, batch_size=4, sampler=sampler))
        assert torch.equal(features, release.batch(list(sampler))[0])
    assert set(seen) == set(range(23))
    assert len(seen) == 24


# A release in a file, handed to another process -----------------------------------------------


@pytest.fixture
def mapped(lab: Any, tmp_path: Path) -> Release:
    lab.make("bits", records=50_000).save(tmp_path / "big")
    return Release.load(tmp_path / "big")


def test_pickling_a_mapped_release_leaves_its_payload_in_the_file(lab: Any, mapped: Release) -> None:
    pickled = pickle.dumps(mapped)
    assert len(pickled) < 20_000 < mapped.nbytes
    assert lab.same(pickle.loads(pickled), mapped)


def test_a_file_that_changed_is_not_opened_again(lab: Any, mapped: Release) -> None:
    path = Path(str(mapped.path))
    pickled = pickle.dumps(mapped)
    original = path.read_bytes()
    changed = r"Release: path must be the file that this Release was loaded from, unchanged, got path=.*"
    path.write_bytes(original[:-1] + b"\1")
    with pytest.raises(ReleaseFileError, match=changed + "Its content has changed. Load it again"):
        pickle.loads(pickled)
    path.write_bytes(original[: len(original) // 2])
    with pytest.raises(ReleaseFileError, match=changed + "Its content has changed. Load it again"):
        pickle.loads(pickled)
    lab.make("wide").save(path)
    with pytest.raises(ReleaseFileError, match=changed + "Its content has changed. Load it again"):
        pickle.loads(pickled)
    path.unlink()
    with pytest.raises(ReleaseFileError, match=changed + "It cannot be read again: .*No such file"):
        pickle.loads(pickled)
    path.write_bytes(original)  # another file, the same content
    assert pickle.loads(pickled)[49_999].shape == (2, 3)


def test_an_untouched_file_is_not_hashed_again(mapped: Release, monkeypatch: pytest.MonkeyPatch) -> None:
    pickled = pickle.dumps(mapped)
    monkeypatch.setattr("splitpriv.release.mapped.file_digest", lambda file: pytest.fail("hashed again"))
    assert len(pickle.loads(pickled)) == len(mapped)


def test_a_mapped_payload_is_read_only(mapped: Release) -> None:
    with pytest.raises(ValueError, match="read-only"):
        mapped._array()[0] = 1
    assert isinstance(mapped._payload, MappedRows)
