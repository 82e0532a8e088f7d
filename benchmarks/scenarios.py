"""What the record-level benchmark runs on: public and private records behind an edge that knows public ones only.

Each scenario gives *backbone features* of three sets: public (with public labels), private, and a
private test set. The backbone is trained here, on the public records alone; its features are kept in
``benchmarks/.cache`` so that a second run starts at once.
"""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "examples"))
import data  # noqa: E402  (the examples are no package)

CACHE = HERE / ".cache"
EPOCHS = {"fashion-mnist": 2, "cifar10": 6}
SHARED_PUBLIC = {"fashion-mnist": 2000, "cifar10": 1000}  # public records of each class, where classes are shared


@dataclass(frozen=True)
class Part:
    """Records of one set behind the backbone."""

    features: Tensor  # shape: (n, dim), float32
    labels: Tensor  # shape: (n,), int64


@dataclass(frozen=True)
class Scenario:
    """Three sets of backbone features, and how many classes the private ones have."""

    title: str
    classes: int
    public: Part
    private: Part
    test: Part
    public_knows_classes: bool


def load(name: str, *, shared: bool, seed: int = 0, limit: int | None = None) -> Scenario:
    """A scenario, from the cache or made anew.

    Args:
        name: ``fashion-mnist`` (public classes 0-4, private 5-9) or ``cifar10`` (CIFAR-100 as public).
        shared: public and private records of the same classes instead.
        seed: of the backbone and of the split.
        limit: records of each set, for a quick look.
    """
    key = hashlib.sha256(f"{name} {shared} {seed} {limit} {EPOCHS[name]} 2".encode()).hexdigest()[:16]
    path = CACHE / f"{name}-{key}.pt"
    if path.is_file():
        parts = torch.load(path, weights_only=True)
    else:
        parts = _features(*_images(name, shared, seed, limit), epochs=EPOCHS[name], seed=seed)
        CACHE.mkdir(exist_ok=True)
        torch.save(parts, path)
    public, private, test = (Part(f.float(), y) for f, y in parts)
    kind = "shared classes" if shared else "disjoint classes"
    return Scenario(f"{name}, {kind}", int(test.labels.max()) + 1, public, private, test, shared)


Images = tuple[np.ndarray, np.ndarray]  # shapes: (n, channels, height, width) uint8, (n,)


def _images(name: str, shared: bool, seed: int, limit: int | None) -> tuple[Images, Images, Images]:
    pool = data._pool(name)
    train, test = ~pool.test, pool.test
    if shared:
        rng = np.random.default_rng(seed)
        order = np.flatnonzero(train)[rng.permutation(int(train.sum()))]
        rank = np.empty(len(order), dtype=np.int64)  # of a record among those of its class
        for label in range(data.CLASSES):
            here = pool.labels[order] == label
            rank[here] = np.arange(int(here.sum()))
        mine = rank < SHARED_PUBLIC[name]
        chosen = [order[mine], order[~mine], np.flatnonzero(test)]
    elif name == "fashion-mnist":
        high = pool.labels >= data.PUBLIC_CLASSES
        chosen = [np.flatnonzero(train & ~high), np.flatnonzero(train & high), np.flatnonzero(test & high)]
    else:
        chosen = [np.flatnonzero(train), np.flatnonzero(test)]
    sets = [(pool.images[c][:limit], pool.labels[c][:limit]) for c in chosen]
    if not shared and name == "cifar10":
        images, labels = data.cifar100()
        sets.insert(0, (images[:limit], labels[:limit]))
    elif not shared:
        sets[1:] = [(x, y - data.PUBLIC_CLASSES) for x, y in sets[1:]]
    return sets[0], sets[1], sets[2]


def backbone(channels: int) -> nn.Sequential:
    """A small convolutional network up to the cut: 2 x 2 pooled features of its last block."""

    def block(inside: int, outside: int, stride: int) -> list[nn.Module]:
        return [nn.Conv2d(inside, outside, 3, stride, 1, bias=False), nn.BatchNorm2d(outside), nn.ReLU()]

    if channels == 1:
        layers = [*block(1, 32, 1), nn.MaxPool2d(2), *block(32, 64, 1), nn.MaxPool2d(2), *block(64, 64, 1)]
    else:
        layers = [*block(3, 32, 1), *block(32, 64, 2), *block(64, 64, 1), *block(64, 128, 2)]
        layers += [*block(128, 128, 1), *block(128, 256, 2)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten())


def _features(public: Images, *others: Images, epochs: int, seed: int) -> list[tuple[Tensor, Tensor]]:
    torch.manual_seed(seed)
    channels = public[0].shape[1]
    edge = backbone(channels)
    width = edge(torch.zeros(2, *public[0].shape[1:])).shape[1]
    # A layer more than is kept: what lies below the last ones is less bound to the public classes.
    head = nn.Sequential(nn.Linear(width, 128), nn.ReLU(), nn.Linear(128, int(public[1].max()) + 1))
    images, labels = torch.from_numpy(public[0]), torch.from_numpy(public[1]).long()
    steps = epochs * -(-len(images) // 128)
    optimizer = torch.optim.AdamW([*edge.parameters(), *head.parameters()], weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=2e-3, total_steps=steps)
    for epoch in range(epochs):
        total = 0.0
        for rows in torch.randperm(len(images)).split(128):
            batch = images[rows].float() / 255
            loss = F.cross_entropy(head(edge(_augmented(batch) if channels == 3 else batch)), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += float(loss.detach()) * len(rows)
        print(f"backbone: epoch {epoch + 1} of {epochs}, public loss {total / len(images):.3f}", flush=True)
    edge.eval()
    with torch.no_grad():
        return [
            (torch.cat([edge(b.float() / 255) for b in torch.from_numpy(x).split(500)]), torch.from_numpy(y).long())
            for x, y in (public, *others)
        ]


def _augmented(images: Tensor) -> Tensor:
    """Shifted by up to two pixels, and mirrored at random."""
    shift = torch.randint(-2, 3, (2,)).tolist()
    moved = F.pad(images, (2, 2, 2, 2))[..., 2 + shift[0] :, 2 + shift[1] :][..., : images.shape[2], : images.shape[3]]
    return moved.flip(-1) if torch.rand(()) < 0.5 else moved
