"""What the cut adds to the edge's own time, and how many records a release and its decoding get through.

    python benchmarks/bench_cut.py [--images 32] [--runs 7] [--json FILE]

ResNet-18 is cut after each basic block, VGG-16 where the feature map changes size, for 32x32 images;
one thread. *added* is the time of ``encode`` (of randomized response packed, as a release draws it)
over that of the edge. The throughput of ``release`` counts the edge, the checks, encoding and packing;
that of decoding is from packed symbols in memory to float32 features, and *read* is that of reading these features
from a file that is in the disk cache. Edge, encoding, release, decoding and reading take turns in each round; medians
are printed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import splitpriv as sp
from timing import medians, write

sys.path.append(str(Path(__file__).parents[1] / "examples"))
from models import resnet18, vgg16

GOAL = 0.05
LAYERS: dict[str, Callable[[], Any]] = {
    "randomized response": lambda: sp.RandomResponseLDP(epsilon=2.0),
    "Laplace": lambda: sp.LaplaceLDP(epsilon=2.0, sensitivity=4.0),
}


def cuts(width: int) -> Iterator[tuple[str, Callable[[], nn.Module], list[str]]]:
    """(name, model, names to cut at)."""
    blocks = [f"layer{stage}.{block}" for stage in (1, 2, 3, 4) for block in (0, 1)]
    yield "ResNet-18", lambda: resnet18(width=width), blocks
    pools = [f"features.{i}" for i, step in enumerate(vgg16(width=1).features) if isinstance(step, nn.MaxPool2d)]
    yield "VGG-16", lambda: vgg16(width=width), pools


def measure(network: nn.Module, at: str, images: Tensor, runs: int, folder: Path) -> list[dict[str, Any]]:
    """One row per layer, for one cut."""
    edge, server = sp.split(network, at=at)
    edge.eval()
    with torch.no_grad():
        features = edge(images)
    file = folder / "features"
    features.numpy().tofile(file)
    ways: dict[str, Callable[[], Any]] = {
        "edge": torch.no_grad()(lambda: edge(images)),
        "read": lambda: torch.from_numpy(np.fromfile(file, np.float32).reshape(features.shape)),
    }
    for name, build in LAYERS.items():
        layer = build()
        model = sp.SplitModel(edge, server, cut=layer)
        release = model.release(images, batch_size=len(images), progress=False)
        packs = getattr(layer, "encode_packed", layer.encode)
        ways[f"{name}|encode"] = lambda packs=packs: packs(features)
        ways[f"{name}|release"] = lambda model=model: model.release(images, batch_size=len(images), progress=False)
        ways[f"{name}|decode"] = lambda release=release: release.batch(slice(None))
    seconds = medians(ways, runs)
    shape = tuple(features.shape[1:])
    return [
        {
            "at": at,
            "features": shape,
            "layer": name,
            "edge_ms": 1000 * seconds["edge"],
            "encode_ms": 1000 * seconds[f"{name}|encode"],
            "added": seconds[f"{name}|encode"] / seconds["edge"],
            "edge_records_per_second": len(images) / seconds["edge"],
            "release_records_per_second": len(images) / seconds[f"{name}|release"],
            "decode_records_per_second": len(images) / seconds[f"{name}|decode"],
            "read_records_per_second": len(images) / seconds["read"],
        }
        for name in LAYERS
    ]


def show(model: str, rows: list[dict[str, Any]]) -> None:
    """Print one table."""
    print(
        f"\n{model:<14}{'features':<15}{'layer':<22}{'edge':>9}{'encode':>9}{'added':>9}{'records/s: edge':>18}", end=""
    )
    print(f"{'release':>10}{'decode':>10}{'read':>10}\n{'cut after':<51}{'ms':>9}{'ms':>9}")
    for row in rows:
        shape = "x".join(str(side) for side in row["features"])
        print(f"{row['at']:<14}{shape:<15}{row['layer']:<22}{row['edge_ms']:>9.1f}{row['encode_ms']:>9.2f}", end="")
        print(f"{row['added']:>9.1%}{row['edge_records_per_second']:>18,.0f}", end="")
        print(f"{row['release_records_per_second']:>10,.0f}{row['decode_records_per_second']:>10,.0f}", end="")
        print(f"{row['read_records_per_second']:>10,.0f}")


def main(argv: list[str] | None = None) -> None:
    """Time, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--width", type=int, default=64, help="channels of the first stage")
    parser.add_argument("--json", type=Path, default=None)
    options = parser.parse_args(argv)
    print(f"{options.images} images of 3x32x32 in a batch, one thread, median of {options.runs}, ε 2 per element")
    images = torch.randn(options.images, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    before, tables = torch.get_num_threads(), {}
    torch.set_num_threads(1)
    try:
        with sp.accounting.simulation(), tempfile.TemporaryDirectory() as folder:
            for name, build, places in cuts(options.width):
                network = build().eval()
                tables[name] = [
                    row for at in places for row in measure(network, at, images, options.runs, Path(folder))
                ]
                show(name, tables[name])
    finally:
        torch.set_num_threads(before)
    print()
    found = {layer: [r for rows in tables.values() for r in rows if r["layer"] == layer] for layer in LAYERS}
    for layer in LAYERS:
        worst = max(found[layer], key=lambda row: row["added"])
        verdict = "met" if worst["added"] < GOAL else "missed"
        print(f"{layer}: adds at most {worst['added']:.1%} (after {worst['at']}), goal under {GOAL:.0%}: {verdict}")
        slow = min(found[layer], key=lambda row: row["decode_records_per_second"] / row["read_records_per_second"])
        share = slow["decode_records_per_second"] / slow["read_records_per_second"]
        verdict = "met" if share >= 1 else "missed"
        print(f"{layer}: decodes at {share:.2f} times the speed of reading (after {slow['at']}), goal 1: {verdict}")
    write(options.json, {"cuts": tables})


if __name__ == "__main__":
    main()
