"""Shadow models of membership attacks: trained one after another, or all at once by torch.func.vmap.

Both ways make the same models from the same weights, records and batches; the largest difference of their outputs is
shown. 16 shadow models, 256 records, 5 epochs, batches of 64; the median of the runs, both ways in turn.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from splitpriv.attacks.membership_inference.shadows import train_shadows
from splitpriv.attacks.membership_inference.training import ServerTraining
from timing import medians


@dataclass(frozen=True)
class Network:
    """A server, and the shape of its records.

    Attributes:
        make: the server.
        shape: of one record.
    """

    make: Callable[[], nn.Module]
    shape: tuple[int, ...]


def _mlp(inputs: int, hidden: int) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, 10))


def _cnn(channels: int) -> nn.Module:
    body = [nn.Conv2d(3, channels, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    body += [nn.Conv2d(channels, 2 * channels, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1)]
    return nn.Sequential(*body, nn.Flatten(), nn.Linear(2 * channels, 10))


NETWORKS = {
    "tiny MLP, 64-32-10": Network(lambda: _mlp(64, 32), (64,)),
    "MLP, 256-256-10": Network(lambda: _mlp(256, 256), (256,)),
    "MLP, 1024-1024-10": Network(lambda: _mlp(1024, 1024), (1024,)),
    "small CNN, 3x16x16, 8-16": Network(lambda: _cnn(8), (3, 16, 16)),
    "CNN, 3x32x32, 16-32": Network(lambda: _cnn(16), (3, 32, 32)),
}


def compare(network: Network, *, shadows: int, records: int, epochs: int, runs: int, device: str) -> dict[str, Any]:
    """Seconds both ways for one pool of shadow models, and how far their outputs are apart."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(records, *network.shape, generator=draw).to(device)
    y = torch.randint(10, (records,), generator=draw)
    with torch.random.fork_rng(devices=[]):
        server = network.make().to(device)
    training = ServerTraining(server=server, epochs=epochs, batch_size=64)

    def pool(vectorised: bool) -> Tensor:
        return train_shadows(training, x, y, shadows=shadows, vectorised=vectorised).outputs

    seconds = medians({"loop": lambda: pool(False), "vmap": lambda: pool(True)}, runs)
    apart = float((pool(False) - pool(True)).abs().max())
    return {"loop": seconds["loop"], "vmap": seconds["vmap"], "apart": apart, "auto": training.prefers_many()}


def shadow_timings(*, smoke: bool = False, runs: int = 3, device: str = "cpu") -> dict[str, dict[str, Any]]:
    """All networks; with ``smoke`` two of them, at a scale that says nothing."""
    names = ["tiny MLP, 64-32-10", "small CNN, 3x16x16, 8-16"] if smoke else list(NETWORKS)
    scale = {"shadows": 2, "records": 32, "epochs": 1} if smoke else {"shadows": 16, "records": 256, "epochs": 5}
    return {name: compare(NETWORKS[name], **scale, runs=1 if smoke else runs, device=device) for name in names}


def shown(found: dict[str, dict[str, Any]]) -> str:
    """The table."""
    lines = [f"{'server':<28}{'loop, s':>10}{'vmap, s':>10}{'vmap is':>16}{'auto takes':>12}{'largest difference':>20}"]
    for name, row in found.items():
        ratio = row["loop"] / row["vmap"]
        words = f"{ratio:.1f}x faster" if ratio >= 1 else f"{1 / ratio:.1f}x slower"
        auto = "vmap" if row["auto"] else "loop"
        lines.append(f"{name:<28}{row['loop']:>10.2f}{row['vmap']:>10.2f}{words:>16}{auto:>12}{row['apart']:>20.1e}")
    return "\n".join(lines)
