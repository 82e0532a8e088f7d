"""The figure of the guide's page on attacks, from the cells that bench_leakage.py has kept.

    python benchmarks/plot_leakage.py [--preset cpu|gpu] [--cut 1] [--out docs/guide/attacks.png]

First row: originals. Then, for each layer, the reconstruction of the attacker with the best mean SSIM.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import bench_leakage
from leakage_target import PRESETS


def best_pictures(folder: Path) -> tuple[str, float, np.ndarray, np.ndarray]:
    """Attacker, its mean SSIM, its reconstructions and the originals. # shapes: (n, 3, 32, 32) uint8"""
    cell = json.loads((folder / "cell.json").read_text(encoding="utf-8"))
    best = max(cell["results"], key=lambda one: one["summary"]["ssim"]["value"])
    with np.load(folder / "pictures.npz") as pictures:
        return best["attack"], best["summary"]["ssim"]["value"], pictures[best["attack"]], pictures["originals"]


def main(argv: list[str] | None = None) -> None:
    """Draw what is there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", choices=tuple(PRESETS), default="cpu")
    parser.add_argument("--cut", type=int, default=0, help="1 or 2; by default the first")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "docs" / "guide" / "attacks.png")
    options = parser.parse_args(argv)
    cut = options.cut or min(bench_leakage.CUTS)
    home = bench_leakage.folder_of(PRESETS[options.preset])
    rows: list[tuple[str, np.ndarray]] = []
    for layer in bench_leakage.LAYERS:
        folder = home / bench_leakage.name_of("inversion", cut, layer)
        if not (folder / "cell.json").is_file():
            continue
        name, ssim, found, originals = best_pictures(folder)
        if not rows:
            rows.append(("original", originals))
        shown = layer + bench_leakage.total(PRESETS[options.preset], cut, layer)
        rows.append((f"{shown}\n{name}, SSIM {ssim:.2f}", found))
    count = min(8, len(rows[0][1]))
    figure = Figure(figsize=(2.6 + 0.72 * count, 0.72 * len(rows)), layout="constrained", dpi=110)
    axes = figure.subplots(len(rows), count + 1, squeeze=False, width_ratios=[3.4, *[1] * count])
    for line, (title, pictures) in zip(axes, rows, strict=True):
        line[0].text(1, 0.5, title, ha="right", va="center", fontsize=7)
        for place in range(count):
            line[place + 1].imshow(pictures[place].transpose(1, 2, 0), interpolation="nearest")
        for one in line:
            one.axis("off")
    figure.savefig(options.out, format="png")


if __name__ == "__main__":
    main()
