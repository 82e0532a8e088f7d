"""Encoding on a GPU with noise drawn there, against the device's memory bandwidth and torch's insecure ways.

    python benchmarks/bench_gpu.py [--vectors 20000] [--elements 10000] [--runs 20] [--json FILE]

Median of the runs, each waited for; every way in each round, in turn. A way's bandwidth is what it has to read
(features) and write (symbols or values) over the time it takes, and stands beside that of copying the
features. Ours includes the check for NaN and infinity and the ties. The floating-point ways are not private
at any epsilon. Without a CUDA device nothing is measured.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import splitpriv as sp
from splitpriv.layers.device_encode import fused_kernel
from timing import medians, write

EPSILON, SENSITIVITY = 2.0, 4.0
OURS, ELSEWHERE = "splitpriv, noise of the device", "splitpriv, noise of the CPU"
COPY = "copied"
Way = Callable[[], Tensor]


def contestants(x: Tensor) -> dict[str, dict[str, Way]]:
    """For each mechanism the ways to run it, the usual one first."""
    keep = 1 / (1 + math.exp(-EPSILON))
    flip = torch.full((), 1 - keep, device=x.device)
    number = torch.tensor([0.0, SENSITIVITY / EPSILON], device=x.device)
    noise, half = torch.distributions.Laplace(number[0], number[1]), SENSITIVITY / 2
    response = {place: sp.RandomResponseLDP(epsilon=EPSILON, noise=place) for place in ("device", "cpu")}
    laplace = {
        place: sp.LaplaceLDP(epsilon=EPSILON, sensitivity=SENSITIVITY, noise=place) for place in ("device", "cpu")
    }
    return {
        "copy": {COPY: x.clone},
        "randomized response": {
            "torch.bernoulli": lambda: (x > 0) ^ torch.bernoulli(flip.expand_as(x)).bool(),
            "torch.rand < p": lambda: (x > 0) ^ (torch.rand_like(x) >= keep),
            OURS: lambda: response["device"].encode(x),
            f"{OURS}, packed": lambda: response["device"].encode_packed(x),
            ELSEWHERE: lambda: response["cpu"].encode(x),
        },
        "Laplace": {
            "torch.distributions.Laplace": lambda: torch.where(x.abs() < half, x, 0.0) + noise.sample(x.shape),
            OURS: lambda: laplace["device"].encode(x),
            ELSEWHERE: lambda: laplace["cpu"].encode(x),
        },
    }


def waited(way: Way, device: torch.device) -> Callable[[], None]:
    """The way, until the device has done it."""

    def run() -> None:
        way()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return run


def kind_of_path(device: torch.device) -> str:
    """What draws noise there."""
    fused = all(fused_kernel(device, torch.float32, kind) is not None for kind in ("bits", "zero"))
    return "the fused kernel" if fused else "operations of torch"


def measure(device: torch.device, vectors: int, elements: int, runs: int) -> dict[str, Any]:
    """Print one table for a device; the seconds by mechanism and way."""
    x = torch.randn(vectors, elements, device=device, generator=torch.Generator(device).manual_seed(0))
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    print(f"{vectors:,} x {elements:,} float32 on {name}, noise drawn by {kind_of_path(device)}, median of {runs}\n")
    found: dict[str, Any] = {"device": name, "path": kind_of_path(device), "seconds": {}}
    copying = 0.0
    for mechanism, ways in contestants(x).items():
        # Bytes from a first call, which also compiles what has to be.
        sizes = {way: x.nbytes + run().nbytes for way, run in ways.items()}
        seconds = medians({way: waited(run, device) for way, run in ways.items()}, runs)
        copying = copying or sizes[COPY] / seconds[COPY]
        found["seconds"][mechanism] = seconds
        first = next(iter(seconds.values()))
        print(mechanism)
        for way, time in seconds.items():
            rate = sizes[way] / time
            print(
                f"  {way:<40}{1e3 * time:>10.3f} ms{x.numel() / time / 1e9:>9.2f} G elements/s{rate / 1e9:>9.1f} GB/s"
                f"{rate / copying:>8.1%} of the copy's bandwidth{first / time:>8.2f} times as fast as the first"
            )
    return found


def main(argv: list[str] | None = None) -> None:
    """Print one table, or that there is nothing to measure on."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vectors", type=int, default=20_000)
    parser.add_argument("--elements", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(argv)
    if not torch.cuda.is_available():
        print("no CUDA device: nothing measured")
        return
    write(options.json, measure(torch.device("cuda", 0), options.vectors, options.elements, options.runs))


if __name__ == "__main__":
    main()
