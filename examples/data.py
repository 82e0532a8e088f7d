"""The data of the examples: real images, split into a public and a private part.

Nothing is downloaded. ``load("digits")`` always works (the scans ship with scikit-learn);
``load("fashion-mnist")`` and ``load("cifar10")`` read files that are already on the machine, and
say how to get them when they are not.
"""

from __future__ import annotations

import gzip
import io
import itertools
import os
import zipfile
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import TensorDataset

PUBLIC_CLASSES = 5  # the public part holds classes 0 to 4 only; the private part all ten
CLASSES = 10
NAMES = ("digits", "fashion-mnist", "cifar10")

# Records of each class in: public train, public validation, private train, private test.
SIZES = {"digits": (44, 20, 70, 40), "fashion-mnist": (2000, 400, 500, 500), "cifar10": (4000, 400, 500, 500)}

FASHION_PACKAGE = Path("/usr/share/datasets/fashion-mnist")  # where Debian puts it
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


class DataMissingError(Exception):
    """A data set is not on this machine; the message says how to get it."""


@dataclass(frozen=True)
class Splits:
    """Four disjoint sets of (image, label): float32 in [0, 1], shape (channels, height, width).

    ``public_*`` hold classes 0 to 4 only and may be used freely; ``private_*`` hold all ten.
    """

    public_train: TensorDataset
    public_validation: TensorDataset
    private_train: TensorDataset
    private_test: TensorDataset


@dataclass(frozen=True)
class Pool:
    """All records of a data set, and which of them its authors published as the test set."""

    images: np.ndarray  # shape: (records, channels, height, width), uint8 (0-255) or float32 (0-1)
    labels: np.ndarray  # shape: (records,), int64
    test: np.ndarray | None  # shape: (records,), bool; None: no published split


def load(name: str, seed: int = 0) -> Splits:
    """Load a data set and split it by class; the same seed gives the same split.

    Args:
        name: ``digits``, ``fashion-mnist`` or ``cifar10``.
        seed: which records go where. The published test sets stay test sets.

    Raises:
        ValueError: the name is none of these.
        DataMissingError: the files are not on this machine, or not what they should be.
    """
    if name not in NAMES:
        raise ValueError(f"load: name must be one of {', '.join(NAMES)}, got name={name!r}.")
    pool = _pool(name)
    parts = split_records(pool.labels, pool.test, SIZES[name], seed)
    return Splits(*(_tensors(pool, part) for part in parts))


def split_records(
    labels: np.ndarray,  # shape: (records,)
    test: np.ndarray | None,  # shape: (records,)
    sizes: tuple[int, int, int, int],
    seed: int,
) -> list[np.ndarray]:
    """Disjoint record numbers of the four parts, in the order of :class:`Splits`, shuffled."""
    rng = np.random.default_rng(seed)
    train_public, validation_public, train_private, test_private = sizes
    parts: list[list[np.ndarray]] = [[] for _ in fields(Splits)]
    for label in range(CLASSES):
        order = rng.permutation(np.flatnonzero(labels == label))
        if test is None:
            held_out, rest = order[:test_private], order[test_private:]
        else:
            held_out, rest = order[test[order]][:test_private], order[~test[order]]
        private, rest = rest[:train_private], rest[train_private:]
        parts[2].append(private)
        parts[3].append(held_out)
        if label < PUBLIC_CLASSES:
            parts[0].append(rest[:train_public])
            parts[1].append(rest[train_public : train_public + validation_public])
    return [rng.permutation(np.concatenate(part)) for part in parts]


def _tensors(pool: Pool, records: np.ndarray) -> TensorDataset:
    images = torch.from_numpy(pool.images[records])
    if images.dtype == torch.uint8:
        images = images.float() / 255
    return TensorDataset(images, torch.from_numpy(pool.labels[records]))


@lru_cache(maxsize=1)
def _pool(name: str) -> Pool:
    return {"digits": _digits, "fashion-mnist": _fashion_mnist, "cifar10": _cifar10}[name]()


def _digits() -> Pool:
    from sklearn.datasets import load_digits  # heavy, and needed for this set only

    scans = load_digits()
    return Pool((scans.images[:, None] / 16).astype(np.float32), scans.target.astype(np.int64), None)


def _places(folder: str = "") -> list[Path]:
    """Where files are looked for: what the user names, and only where nothing is named the default."""
    named = os.environ.get("SPLITPRIV_DATA")
    base = Path(named) if named else SHARED
    return [base, base / folder] if folder else [base]


def _find(file: str, places: list[Path], how: str) -> Path:
    for place in places:
        if (place / file).is_file():
            return place / file
    looked = " or ".join(str(place) for place in places)
    raise DataMissingError(f"{file} was not found in {looked}. {how}")


def _fashion_mnist() -> Pool:
    how = (
        "Install it with `sudo apt install dataset-fashion-mnist`, or set SPLITPRIV_DATA to a folder that "
        "holds the four idx .gz files of Fashion-MNIST (train-images-idx3-ubyte.gz and so on)."
    )
    places = [*_places("fashion-mnist"), FASHION_PACKAGE]
    files = [
        _find(f"{part}-{kind}-ubyte.gz", places, how)
        for part in ("train", "t10k")
        for kind in ("images-idx3", "labels-idx1")
    ]
    images, labels, test_images, test_labels = (_read_idx(file, how) for file in files)
    test = np.arange(len(labels) + len(test_labels)) >= len(labels)
    both = np.concatenate([images, test_images])[:, None]
    return Pool(both, np.concatenate([labels, test_labels]).astype(np.int64), test)


def _read_idx(path: Path, how: str) -> np.ndarray:
    """Read the idx format: two zero bytes, type (8: uint8), dimensions, big-endian sizes, data."""
    try:
        content = gzip.decompress(path.read_bytes())
        dimensions = content[3]
        shape = np.frombuffer(content, ">u4", dimensions, offset=4).astype(int)
        if content[:3] != b"\x00\x00\x08":
            raise ValueError("not idx")
        return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape)
    except (OSError, EOFError, IndexError, ValueError) as error:
        raise DataMissingError(f"{path} is not a whole idx file. {how}") from error


def _cifar10() -> Pool:
    (train, test), labels = _mosaic_file("cifar10.npz", "CIFAR-10", ("train", "test"))
    is_test = np.arange(len(train) + len(test)) >= len(train)
    return Pool(np.concatenate([train, test]), np.concatenate(labels).astype(np.int64), is_test)


def cifar100() -> tuple[np.ndarray, np.ndarray]:  # shapes: (50000, 3, 32, 32) uint8, (50000,) int64
    """The training images of CIFAR-100: a public set beside CIFAR-10, with other classes.

    Raises:
        DataMissingError: the file is not on this machine, or not what it should be.
    """
    (images,), (labels,) = _mosaic_file("cifar100_q95.npz", "CIFAR-100", ("train",))
    return images, labels.astype(np.int64)


def _mosaic_file(name: str, title: str, parts: tuple[str, ...]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Images and labels of the named parts."""
    how = (
        f"Set SPLITPRIV_DATA to the folder that holds {name} ({title} as 320x320 mosaics of 100 images: arrays "
        "blob_, off_ and y_ for train and test). It is not downloaded for you."
    )
    path = _find(name, _places(), how)
    try:
        with path.open("rb") as handle, np.load(handle) as file:  # np.load leaves a broken file open
            return [_mosaics(file, part) for part in parts], [file[f"y_{part}"] for part in parts]
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise DataMissingError(f"{path} does not hold {title} in the expected form. {how}") from error


def _mosaics(file: np.lib.npyio.NpzFile, part: str) -> np.ndarray:
    """Decode mosaics of 10 x 10 images of 32 x 32 pixels into uint8 (records, 3, 32, 32)."""
    from PIL import Image  # needed for this set only

    blob, offsets = file[f"blob_{part}"].tobytes(), file[f"off_{part}"]
    decoded = []
    for start, end in itertools.pairwise(offsets):
        mosaic = np.asarray(Image.open(io.BytesIO(blob[start:end])).convert("RGB"))
        decoded.append(mosaic.reshape(10, 32, 10, 32, 3).transpose(0, 2, 4, 1, 3).reshape(100, 3, 32, 32))
    return np.concatenate(decoded)
