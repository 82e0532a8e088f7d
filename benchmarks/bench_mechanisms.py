"""How long it takes to privatise features, against the usual insecure way with torch's generator.

    python benchmarks/bench_mechanisms.py [--vectors 1000] [--elements 10000] [--runs 7]

One process, one thread; every row is timed in each round, in turn, and the median of the rounds is
printed with its ratio to the row's baseline. Ours includes the check for NaN, the secure keystream
and, for randomized response, packing to one bit per element. The floating-point baselines are not
private at any epsilon; they are here because they are what is commonly run.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

import splitpriv as sp
from splitpriv.release import pack

EPSILON, SENSITIVITY = 2.0, 4.0


def contestants(x: Tensor) -> dict[str, dict[str, Callable[[], Tensor]]]:
    """For each mechanism the ways to run it, the baseline first."""
    keep = torch.sigmoid(torch.tensor(EPSILON))
    response = sp.RandomResponseLDP(epsilon=EPSILON)
    laplace = sp.LaplaceLDP(epsilon=EPSILON, sensitivity=SENSITIVITY)
    noise = torch.distributions.Laplace(0.0, SENSITIVITY / EPSILON)
    half = SENSITIVITY / 2
    return {
        "randomized response": {
            "torch.bernoulli": lambda: (x > 0) ^ torch.bernoulli((1 - keep).expand_as(x)).bool(),
            "torch.rand < p": lambda: (x > 0) ^ (torch.rand_like(x) >= keep),
            "splitpriv, packed": lambda: pack(response.encode(x), bits=1),
        },
        "Laplace": {
            "torch.distributions.Laplace": lambda: torch.where(x.abs() < half, x, 0.0) + noise.sample(x.shape),
            "splitpriv": lambda: laplace.encode(x),
        },
    }


def medians(ways: dict[str, Callable[[], Tensor]], runs: int) -> dict[str, float]:
    """Median seconds of each way, taken in turn after one warm-up round."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for round_number in range(runs + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            if round_number:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in seconds.items()}


def main(argv: list[str] | None = None) -> None:
    """Print one table per mechanism."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vectors", type=int, default=1000)
    parser.add_argument("--elements", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=7)
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    x = torch.randn(options.vectors, options.elements, generator=torch.Generator().manual_seed(0))
    print(f"{options.vectors:,} x {options.elements:,} float32, one thread, median of {options.runs}, ε {EPSILON:g}")
    for mechanism, ways in contestants(x).items():
        found = medians(ways, options.runs)
        baseline = next(iter(found.values()))
        print(f"\n{mechanism}\n{'':2}{'way':<30}{'ms':>10}{'times as fast':>16}")
        for name, seconds in found.items():
            print(f"{'':2}{name:<30}{1000 * seconds:>10.2f}{baseline / seconds:>16.2f}")


if __name__ == "__main__":
    main()
