"""The examples' data: disjoint parts, the right classes, and clear errors where files are missing."""

from __future__ import annotations

import gzip
import io
import itertools
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import data

SHAPES = {"digits": (1, 8, 8), "fashion-mnist": (1, 28, 28), "cifar10": (3, 32, 32)}


@pytest.fixture
def fresh_cache() -> Iterator[None]:
    """Data sets are kept in memory; a test that moves the files must not see them, nor leave its own."""
    data._pool.cache_clear()
    yield
    data._pool.cache_clear()


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh_cache: None) -> Path:
    """A machine without any data file."""
    monkeypatch.setenv("SPLITPRIV_DATA", str(tmp_path))
    monkeypatch.setattr(data, "FASHION_PACKAGE", tmp_path / "absent")
    return tmp_path


@pytest.fixture(scope="module", params=data.NAMES)
def name(request: pytest.FixtureRequest) -> str:
    """Each data set; those that are absent are skipped. One after the other, so that each is read once."""
    loaded(request.param)
    return request.param


def loaded(name: str, seed: int = 0) -> data.Splits:
    try:
        return data.load(name, seed)
    except data.DataMissingError as error:
        pytest.skip(f"data not on this machine: {error}")


def overlaps(parts: list[np.ndarray]) -> bool:
    """Whether any record is in two parts, or twice in one."""
    everything = np.concatenate(parts)
    return len(np.unique(everything)) < len(everything)


# What is loaded ---------------------------------------------------------------------------------


def test_parts_have_their_classes_sizes_shapes_and_range(name: str) -> None:
    splits = data.load(name)
    for part, size in zip(vars(splits).values(), data.SIZES[name], strict=True):
        images, labels = part.tensors
        classes = 5 if part in (splits.public_train, splits.public_validation) else 10
        assert labels.dtype == torch.int64
        assert labels.bincount().tolist() == [size] * classes
        assert images.dtype == torch.float32
        assert images.shape == (size * classes, *SHAPES[name])
        assert 0 <= float(images.min()) < 0.05 < 0.95 < float(images.max()) <= 1


def test_no_record_is_in_two_parts(name: str) -> None:
    pool = data._pool(name)
    parts = data.split_records(pool.labels, pool.test, data.SIZES[name], seed=0)
    assert not overlaps(parts)
    if pool.test is not None:
        assert [bool(pool.test[part].any()) for part in parts] == [False, False, False, True]
        assert pool.test[parts[3]].all()


def test_the_overlap_check_catches_a_planted_overlap() -> None:
    parts = data.split_records(np.arange(1000) % 10, None, (20, 10, 30, 10), seed=0)
    assert not overlaps(parts)
    parts[2][0] = parts[0][0]
    assert overlaps(parts)


def test_the_same_seed_gives_the_same_split() -> None:
    first, again, other = loaded("digits", 0), loaded("digits", 0), loaded("digits", 1)
    assert torch.equal(first.private_train.tensors[0], again.private_train.tensors[0])
    assert not torch.equal(first.private_train.tensors[0], other.private_train.tensors[0])


def test_any_prefix_mixes_the_classes() -> None:
    assert len(loaded("digits").private_train.tensors[1][:100].unique()) == 10


# Files ------------------------------------------------------------------------------------------


def write_idx(path: Path, array: np.ndarray) -> None:
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    path.write_bytes(gzip.compress(header + array.tobytes()))


def write_fashion(folder: Path) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    written = {}
    for part, count in (("train", 6), ("t10k", 3)):
        written[f"{part}-images-idx3"] = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        written[f"{part}-labels-idx1"] = rng.integers(0, 10, count, dtype=np.uint8)
    for name, array in written.items():
        write_idx(folder / f"{name}-ubyte.gz", array)
    return written


def mosaics(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, 32, 32, 3) as mosaics of 100, row by row; the format of cifar10.npz."""
    image = pytest.importorskip("PIL.Image")
    blobs = []
    for hundred in images.reshape(-1, 10, 10, 32, 32, 3):
        buffer = io.BytesIO()
        image.fromarray(np.concatenate([np.concatenate(list(row), axis=1) for row in hundred])).save(buffer, "PNG")
        blobs.append(buffer.getvalue())
    offsets = np.array([0, *itertools.accumulate(map(len, blobs))])
    return np.frombuffer(b"".join(blobs), np.uint8), offsets


def write_cifar(path: Path) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    content, images = {}, {}
    for part, count in (("train", 200), ("test", 100)):
        images[part] = rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        content[f"blob_{part}"], content[f"off_{part}"] = mosaics(images[part])
        content[f"y_{part}"] = rng.integers(0, 10, count, dtype=np.uint8)
    np.savez(path, **content)
    return images


@pytest.mark.parametrize("folder", ["", "fashion-mnist"])
def test_fashion_mnist_is_found_in_the_named_folder(nowhere: Path, folder: str) -> None:
    place = nowhere / folder
    place.mkdir(exist_ok=True)
    written = write_fashion(place)
    pool = data._pool("fashion-mnist")
    assert np.array_equal(pool.images[:6, 0], written["train-images-idx3"])
    assert np.array_equal(pool.labels[6:], written["t10k-labels-idx1"])
    assert pool.test.tolist() == [False] * 6 + [True] * 3


def test_cifar10_mosaics_are_cut_row_by_row(nowhere: Path) -> None:
    images = write_cifar(nowhere / "cifar10.npz")
    pool = data._pool("cifar10")
    assert np.array_equal(pool.images[:200], images["train"].transpose(0, 3, 1, 2))
    assert np.array_equal(pool.images[200:], images["test"].transpose(0, 3, 1, 2))
    assert pool.test.tolist() == [False] * 200 + [True] * 100


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ValueError, match=r"load: name must be one of digits, fashion-mnist, cifar10, got name='mnist'"):
        data.load("mnist")


def test_a_missing_fashion_mnist_names_the_package_and_the_variable(nowhere: Path) -> None:
    with pytest.raises(data.DataMissingError, match=r"not found in .*apt install dataset-fashion-mnist.*SPLITPRIV_D"):
        data.load("fashion-mnist")


def test_a_missing_cifar10_names_the_file_and_the_variable(nowhere: Path) -> None:
    with pytest.raises(data.DataMissingError, match=r"cifar10\.npz was not found in .*Set SPLITPRIV_DATA to the"):
        data.load("cifar10")


def test_without_the_variable_the_shared_folder_is_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh_cache: None
) -> None:
    monkeypatch.delenv("SPLITPRIV_DATA", raising=False)
    monkeypatch.setattr(data, "SHARED", tmp_path / "here")
    with pytest.raises(data.DataMissingError, match=r"cifar10\.npz was not found in .*here"):
        data.load("cifar10")


@pytest.mark.parametrize(
    "content",
    [b"no gzip", gzip.compress(b""), gzip.compress(b"\0\0\x08\x01"), gzip.compress(b"\0\0\x09\x01\0\0\0\x01\0")],
    ids=["not gzip", "empty", "truncated", "not bytes"],
)
def test_a_broken_idx_file_is_named(nowhere: Path, content: bytes) -> None:
    write_fashion(nowhere)
    (nowhere / "train-labels-idx1-ubyte.gz").write_bytes(content)
    with pytest.raises(data.DataMissingError, match=r"train-labels-idx1-ubyte\.gz is not a whole idx file"):
        data.load("fashion-mnist")


def test_a_truncated_gzip_is_named(nowhere: Path) -> None:
    write_fashion(nowhere)
    path = nowhere / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(data.DataMissingError, match=r"train-images-idx3-ubyte\.gz is not a whole idx file"):
        data.load("fashion-mnist")


@pytest.mark.parametrize("kind", ["not npz", "other arrays", "truncated", "no images"])
def test_a_broken_cifar10_is_named(nowhere: Path, kind: str) -> None:
    path = nowhere / "cifar10.npz"
    if kind == "not npz":
        path.write_bytes(b"something else")
    elif kind == "other arrays":
        np.savez(path, x=np.zeros(3))
    elif kind == "truncated":
        write_cifar(path)
        path.write_bytes(path.read_bytes()[:-100])
    else:
        np.savez(path, blob_train=np.zeros(9, np.uint8), off_train=np.array([0, 9]))
    with pytest.raises(data.DataMissingError, match=r"cifar10\.npz does not hold CIFAR-10 in the expected form"):
        data.load("cifar10")
