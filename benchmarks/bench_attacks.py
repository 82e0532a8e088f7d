"""How fast the attacks are: inversion in batches against one image at a time, shadow models in a loop or by vmap.

    python benchmarks/bench_attacks.py [--images 32] [--steps 100] [--width 16] [--runs 3] [--smoke] [--json FILE]

*Inversion*: :class:`~splitpriv.attacks.GradientInversion` with identical settings on the same records, once with
``batch_size=1`` and once with all in a batch; seconds per image, their ratio, and how far the PSNR is apart. What a
batch can gain is what one image leaves idle: on a CPU the cost of starting each operation, on a GPU nearly all of
it; once arithmetic fills the processor, more images cost as much more. So the table has a convolutional edge (the
arithmetic dominates) and a small one (starting dominates).

*Shadow models*: see ``shadow_timing.py``. All threads that torch has, unless OMP_NUM_THREADS says otherwise; shadow
models on one.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

import splitpriv as sp
from shadow_timing import shadow_timings, shown
from splitpriv.attacks import CutView, GradientInversion
from timing import machine, medians, write

sys.path.append(str(Path(__file__).parents[1] / "examples"))
from models import resnet18

GOAL = 10.0


def edges(width: int) -> dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]]:
    """name -> (edge, shape of an input)."""
    small = nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 8, 3, 2, 1))
    return {
        f"ResNet-18 of width {width}, cut 1": (lambda: sp.split(resnet18(width=width), at="layer1")[0], (3, 32, 32)),
        "two small convolutions": (lambda: small, (1, 16, 16)),
    }


def inversion(images: int, steps: int, width: int, runs: int) -> dict[str, dict[str, float]]:
    """For each edge seconds per image both ways, the ratio, and the PSNR of both."""
    found: dict[str, dict[str, float]] = {}
    for name, (make, shape) in edges(width).items():
        edge = make().eval().requires_grad_(False)
        view = CutView(edge=edge, encode=lambda features: features.detach())
        x = torch.rand(images, *shape, generator=torch.Generator().manual_seed(0))
        released = view.released(x)
        quality: dict[str, float] = {}

        def run(size: int, view: CutView = view, released: Tensor = released, x: Tensor = x) -> float:
            attack = GradientInversion(steps=steps, learning_rate=0.05, eps=1e-8, batch_size=size)
            return attack(view, released, input_shape=x.shape[1:], originals=x).summary["psnr"].value

        def one(run: Callable[[int], float] = run, quality: dict[str, float] = quality) -> None:
            quality["one"] = run(1)

        def batch(run: Callable[[int], float] = run, quality: dict[str, float] = quality) -> None:
            quality["batch"] = run(images)

        seconds = medians({"one": one, "batch": batch}, runs)
        each = {way: taken / images for way, taken in seconds.items()}
        psnr = {f"psnr_{way}": value for way, value in quality.items()}
        found[name] = {**each, "ratio": each["one"] / each["batch"], **psnr}
    return found


def main(argv: list[str] | None = None) -> None:
    """Time, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--smoke", action="store_true", help="a few seconds, at a scale that says nothing")
    parser.add_argument("--json", type=Path, default=None)
    options = parser.parse_args(argv)
    scale = (2, 2, 2, 1) if options.smoke else (options.images, options.steps, options.width, options.runs)
    print(
        f"{scale[0]} images, {scale[1]} steps, median of {scale[3]}, {torch.get_num_threads()} threads; {machine()}\n"
    )
    print(f"{'inversion':<34}{'ms per image: one':>18}{'batch':>9}{'times as fast':>15}{'PSNR apart, dB':>16}")
    found = inversion(*scale)
    for name, row in found.items():
        apart = abs(row["psnr_one"] - row["psnr_batch"])
        print(f"{name:<34}{1000 * row['one']:>18.1f}{1000 * row['batch']:>9.1f}{row['ratio']:>15.1f}{apart:>16.3f}")
    worst = min(row["ratio"] for row in found.values())
    print(f"goal {GOAL:g} times: {'met' if worst >= GOAL else f'missed, {worst:.1f} at the least'}\n")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        shadows = shadow_timings(smoke=options.smoke)
    finally:
        torch.set_num_threads(before)
    print(shown(shadows))
    write(options.json, {"inversion": found, "shadows": shadows})


if __name__ == "__main__":
    main()
