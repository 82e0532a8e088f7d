"""What the leakage benchmark attacks: a narrow ResNet-18 trained on CIFAR-100, private records of CIFAR-10.

The public images are CIFAR-100's (a JPEG version of them: no attacker here could use the traces of that to tell one
private record from another). The network is trained here and kept in ``benchmarks/.cache``.
"""

from __future__ import annotations

import copy
import hashlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import splitpriv as sp

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / "examples"))
import data  # noqa: E402  (the examples are no package)
from models import resnet18  # noqa: E402

CACHE = HERE / ".cache"


@dataclass(frozen=True)
class Preset:
    """The scale of a run; everything that the figures depend on.

    Attributes:
        width: channels of the ResNet's first stage (64 in the paper).
        pretraining: public images, and epochs over them.
        members: private records that the server is trained on, and as many that it is not.
        epochs: of the server, on what was released.
        shadows: shadow models of the membership attackers.
        images: private records that are inverted.
        public: public records that the attackers of inputs have.
        steps: of each inversion by gradients.
        decoder: epochs and channels of the inverse network.
        device: where it runs.
    """

    width: int
    pretraining: tuple[int, int]
    members: int
    epochs: int
    shadows: int
    images: int
    public: int
    steps: int
    decoder: tuple[int, int]
    device: str


PRESETS = {
    "smoke": Preset(2, (200, 1), 100, 1, 2, 10, 40, 3, (1, 4), "cpu"),
    "cpu": Preset(16, (20_000, 6), 300, 25, 6, 20, 1000, 300, (15, 16), "cpu"),
    "gpu": Preset(64, (50_000, 30), 5000, 30, 16, 100, 20_000, 2000, (30, 64), "cuda"),
}
CUTS = {1: "layer1", 2: "layer2"}
# name -> (mechanism, epsilon, per what); one row of the table each
LAYERS: dict[str, tuple[str, float]] = {
    "no layer": ("none", float("inf")),
    **{f"RR, ε {e:g} per element": ("rr", e) for e in (0.5, 1.0, 2.0)},
    **{f"Laplace, ε {e:g} per element": ("laplace", e) for e in (0.5, 1.0, 2.0)},
    "codebook, ε 8 per record": ("codebook", 8.0),
}


@dataclass(frozen=True)
class Images:
    """Records of one part. # shapes: (n, 3, 32, 32) float32 in [0, 1], (n,) int64"""

    x: Tensor
    y: Tensor

    def __getitem__(self, rows: slice) -> Images:
        return Images(self.x[rows], self.y[rows])


@dataclass(frozen=True)
class Target:
    """The network, public, and who has which records."""

    network: nn.Module
    public: Images
    members: Images
    non_members: Images
    inverted: Images


def load(preset: Preset, seed: int = 0) -> Target:
    """The target of a preset: data, and a network trained on the public part or read from the cache."""
    x, y = data.cifar100()
    order = np.random.default_rng(seed).permutation(len(x))
    public = _images(x, y, order[: max(preset.pretraining[0], preset.public)])
    pool = data._pool("cifar10")
    assert pool.test is not None
    train = np.random.default_rng(seed + 1).permutation(np.flatnonzero(~pool.test))
    held = _images(pool.images, pool.labels, train[: 2 * preset.members])
    tests = np.flatnonzero(pool.test)
    chosen = np.concatenate(
        [tests[pool.labels[tests] == c][: preset.images // data.CLASSES] for c in range(data.CLASSES)]
    )
    return Target(
        network=_network(preset, public, seed).to(preset.device).eval(),
        public=public[: preset.public],
        members=held[: preset.members],
        non_members=held[preset.members :],
        inverted=_images(pool.images, pool.labels, chosen),
    )


def _images(x: np.ndarray, y: np.ndarray, rows: np.ndarray) -> Images:
    return Images(torch.from_numpy(x[rows]).float() / 255, torch.from_numpy(np.asarray(y[rows], dtype=np.int64)))


def _network(preset: Preset, public: Images, seed: int) -> nn.Module:
    count, epochs = preset.pretraining
    key = hashlib.sha256(f"{preset.width} {count} {epochs} {seed} 1".encode()).hexdigest()[:16]
    path = CACHE / f"resnet18-{key}.pt"
    torch.manual_seed(seed)
    network = resnet18(width=preset.width, classes=100)
    if path.is_file():
        network.load_state_dict(torch.load(path, weights_only=True))
        return network
    train(network.to(preset.device), public[:count], epochs=epochs, lr=0.01, augment=True, device=preset.device)
    CACHE.mkdir(exist_ok=True)
    torch.save({name: value.cpu() for name, value in network.state_dict().items()}, path)
    return network


def train(
    network: nn.Module,
    records: Images,
    *,
    epochs: int,
    lr: float,
    device: str,
    augment: bool = False,
    quiet: bool = False,
) -> None:
    """One cycle of AdamW on images or features; leaves the network in eval mode."""
    steps = epochs * -(-len(records.x) // 128)
    optimizer = torch.optim.AdamW(network.parameters(), lr=lr, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=lr, total_steps=steps)
    network.train()
    for epoch in range(epochs):
        total = 0.0
        for rows in torch.randperm(len(records.x)).split(128):
            batch = records.x[rows].to(device)
            loss = F.cross_entropy(network(_augmented(batch) if augment else batch), records.y[rows].to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += float(loss.detach()) * len(rows)
        if not quiet:
            print(f"epoch {epoch + 1} of {epochs}, loss {total / len(records.x):.3f}", flush=True)
    network.eval()


def _augmented(images: Tensor) -> Tensor:
    dx, dy = torch.randint(-2, 3, (2,)).tolist()
    moved = F.pad(images, (2, 2, 2, 2))[..., 2 + dx : 34 + dx, 2 + dy : 34 + dy]
    return moved.flip(-1) if torch.rand(()) < 0.5 else moved


def model_at(target: Target, cut: int, layer: str, device: str) -> sp.SplitModel:
    """The network cut, with a server that still has to learn the private classes; the layer from public features."""
    network = copy.deepcopy(target.network)
    network.fc = nn.Linear(network.fc.in_features, data.CLASSES).to(device)
    nn.init.zeros_(network.fc.weight)
    nn.init.zeros_(network.fc.bias)
    edge, server = sp.split(network, at=CUTS[cut])
    with torch.no_grad():
        features = torch.cat([edge.eval()(x.to(device)).cpu() for x in target.public.x[:1000].split(250)])
    return sp.SplitModel(edge, server, cut=_layer(layer, features), labels="public").to(device)


def _layer(name: str, public: Tensor) -> nn.Module | None:
    kind, epsilon = LAYERS[name]
    makers: dict[str, Callable[[], nn.Module | None]] = {
        "none": lambda: None,
        "rr": lambda: sp.RandomResponseLDP(epsilon=epsilon, threshold=_medians(public)),
        "laplace": lambda: sp.LaplaceLDP(epsilon=epsilon, sensitivity=2 * _quantile(public, 0.95), outside="clamp"),
        "codebook": lambda: sp.CodebookLDP.fit(public, size=min(256, len(public) // 4), epsilon=epsilon),
    }
    return makers[kind]()


def _medians(public: Tensor) -> Tensor:  # shape: (channels,)
    return public.transpose(0, 1).flatten(1).median(dim=1).values


def _quantile(public: Tensor, share: float) -> float:
    values = public.abs().flatten()
    return float(np.quantile(values[:: max(1, len(values) // 1_000_000)].numpy(), share))
