"""How long it takes to privatise features, against the usual insecure ways.

    python benchmarks/bench_mechanisms.py [--vectors 1000] [--elements 10000] [--runs 7] [--json FILE]

One process; every row is timed in each round, in turn, and the median of the rounds is printed with
how many times as fast it is as the first row. Ours includes the check for NaN and infinity, and, for
randomized response, packing to one bit per element. The floating-point ways are not private at any
epsilon; they are here because they are what is commonly run. OpenDP and diffprivlib, where they are
installed, are timed on few elements and extrapolated.

The steps are those of a second run: of torch each over all elements, of ours inside the loop over
blocks, with the clock read between them, so that they add up to more than the whole.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import splitpriv as sp
from others import LIBRARIES
from splitpriv.layers.fused import all_finite, grid_points
from splitpriv.mechanisms.blocks import Scratch
from timing import Way, medians, write

EPSILON, SENSITIVITY = 2.0, 4.0
BLOCK = 1 << 17
OURS = "splitpriv, secure"
# (mechanism, baseline, how many times as fast ours should be)
GOALS = [
    ("randomized response", "torch.bernoulli", 10.0),
    ("randomized response", "torch.rand < p", 4.0),
    ("Laplace", "torch.distributions.Laplace", 3.0),
]


def contestants(x: Tensor) -> dict[str, dict[str, Way]]:
    """For each mechanism the ways to run it, the baseline first."""
    keep = torch.sigmoid(torch.tensor(EPSILON))
    noise = torch.distributions.Laplace(0.0, SENSITIVITY / EPSILON)
    half, numpy, raw = SENSITIVITY / 2, np.random.default_rng(0), x.numpy()
    seeded: dict[str, Any] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sp.PrivacyWarning)
        seeded["response"] = sp.RandomResponseLDP(epsilon=EPSILON, generator=0)
        seeded["laplace"] = sp.LaplaceLDP(epsilon=EPSILON, sensitivity=SENSITIVITY, generator=0)
    response = sp.RandomResponseLDP(epsilon=EPSILON)
    laplace = sp.LaplaceLDP(epsilon=EPSILON, sensitivity=SENSITIVITY)
    return {
        "randomized response": {
            "torch.bernoulli": lambda: (x > 0) ^ torch.bernoulli((1 - keep).expand_as(x)).bool(),
            "torch.rand < p": lambda: (x > 0) ^ (torch.rand_like(x) >= keep),
            "NumPy random < p": lambda: (raw > 0) ^ (numpy.random(raw.shape, dtype=np.float32) >= float(keep)),
            OURS: lambda: response.encode_packed(x),
            "splitpriv, seeded": lambda: seeded["response"].encode_packed(x),
        },
        "Laplace": {
            "torch.distributions.Laplace": lambda: torch.where(x.abs() < half, x, 0.0) + noise.sample(x.shape),
            "NumPy laplace": lambda: np.where(np.abs(raw) < half, raw, 0.0) + numpy.laplace(0.0, 2.0, raw.shape),
            OURS: lambda: laplace.encode(x),
            "splitpriv, seeded": lambda: seeded["laplace"].encode(x),
        },
    }


def extrapolated(x: Tensor, elements: int) -> dict[str, dict[str, float]]:
    """Seconds that other libraries would take for all of x, from the time for a few elements."""
    few = x.flatten()[:elements]
    found: dict[str, dict[str, float]] = {}
    for library, build in LIBRARIES.items():
        try:
            ways = build(few, EPSILON, SENSITIVITY)
        except ImportError as error:
            print(f"{library} is left out: {error}")
            continue
        for mechanism, seconds in medians(ways, 3).items():
            found.setdefault(mechanism, {})[f"{library} *"] = seconds * x.numel() / few.numel()
    return found


class Steps:
    """Adds up the time between two readings of the clock, by step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def start(self) -> None:
        self._last = time.perf_counter()

    def end(self, step: str) -> None:
        now = time.perf_counter()
        self.seconds[step] = self.seconds.get(step, 0.0) + now - self._last
        self._last = time.perf_counter()


def torch_steps(x: Tensor) -> dict[str, dict[str, float]]:
    """The baselines, step by step."""
    keep, half = torch.sigmoid(torch.tensor(EPSILON)), SENSITIVITY / 2
    noise = torch.distributions.Laplace(0.0, SENSITIVITY / EPSILON)
    draws: dict[str, Callable[[], Tensor]] = {
        "torch.bernoulli": lambda: torch.bernoulli((1 - keep).expand_as(x)).bool(),
        "torch.rand < p": lambda: torch.rand_like(x) >= keep,
        "torch.distributions.Laplace": lambda: noise.sample(x.shape),
    }
    found = {}
    for name, draw in draws.items():
        steps = Steps()
        limited = torch.where(x.abs() < half, x, 0.0) if "Laplace" in name else x > 0
        steps.end("binarise or truncate")
        drawn = draw()
        steps.end("draw")
        _ = limited + drawn if "Laplace" in name else limited ^ drawn
        steps.end("combine")
        found[name] = steps.seconds
    return found


def our_steps(x: Tensor) -> dict[str, dict[str, float]]:
    """Ours, step by step inside the loop over blocks; secure noise."""
    response, laplace = sp.RandomResponseLDP(epsilon=EPSILON), sp.LaplaceLDP(epsilon=EPSILON, sensitivity=SENSITIVITY)
    bits: Any = response.channel((1,))
    grid: Any = laplace.channel((1,))
    source, raw = sp.mechanisms.SecureSource(), x.numpy().reshape(-1)
    of_bits, of_grid, scratch = Steps(), Steps(), Scratch()
    out = np.empty(raw.size, dtype=np.int16)
    for start in range(0, raw.size, BLOCK):
        block = raw[start : start + BLOCK]
        of_bits.start()
        all_finite(block)
        of_bits.end("check")
        above = np.greater(block, np.float32(0), out=scratch("above", block.size, np.bool_))
        packed = np.packbits(above, bitorder="little")
        of_bits.end("binarise or truncate")
        flips = bits.kernel.draw(packed.size, source, scratch)
        of_bits.end("draw")
        np.bitwise_xor(packed, flips, out=packed)
        of_bits.end("combine")
    for start in range(0, raw.size, BLOCK):
        block = raw[start : start + BLOCK]
        of_grid.start()
        all_finite(block)
        of_grid.end("check")
        points = grid_points(block, SENSITIVITY, "zero", grid.inputs - 1, scratch)
        of_grid.end("binarise or truncate")
        noise = grid.kernel.draw(block.size, source, scratch)
        of_grid.end("draw")
        out[start : start + BLOCK] = grid.decide_output(points, noise, noise)
        of_grid.end("combine")
    return {"splitpriv, randomized response": of_bits.seconds, "splitpriv, Laplace": of_grid.seconds}


def step_table(x: Tensor, runs: int) -> dict[str, dict[str, float]]:
    """Medians of the steps over rounds in which torch and ours take turns."""
    rounds = [{**torch_steps(x), **our_steps(x)} for _ in range(runs + 1)][1:]
    return {
        way: {step: statistics.median(one[way][step] for one in rounds) for step in steps}
        for way, steps in rounds[0].items()
    }


def goals(found: dict[str, dict[str, float]]) -> list[str]:
    """Whether each goal is met, for one thread."""
    lines = []
    for mechanism, baseline, wanted in GOALS:
        ratio = found[mechanism][baseline] / found[mechanism][OURS]
        verdict = "met" if ratio >= wanted else "missed"
        lines.append(f"{mechanism}: {ratio:.1f} times as fast as {baseline}, goal {wanted:g}: {verdict}")
    ratio = found["Laplace"][OURS] / found["randomized response"][OURS]
    lines.append(f"randomized response faster than Laplace: {ratio:.1f} times, {'met' if ratio > 1 else 'missed'}")
    return lines


def show(by_threads: dict[int, dict[str, dict[str, float]]], steps: dict[str, dict[str, float]]) -> None:
    """Print the tables."""
    head = "".join(f"{f'ms, {n} thread' + 's' * (n > 1):>16}{'times as fast':>15}" for n in by_threads)
    for mechanism, ways in by_threads[min(by_threads)].items():
        print(f"\n{mechanism}\n{'':2}{'way':<30}{head}")
        for way in ways:
            cells = ""
            for found in by_threads.values():
                seconds, first = found[mechanism].get(way), next(iter(found[mechanism].values()))
                cells += f"{1000 * seconds:>16,.2f}{first / seconds:>15.3g}" if seconds else f"{'':>31}"
            print(f"{'':2}{way:<30}{cells}")
    names = ["check", "binarise or truncate", "draw", "combine"]
    print(f"\nsteps, ms, one thread\n{'':2}{'way':<34}" + "".join(f"{name:>22}" for name in names))
    for way, seconds in steps.items():
        cells = "".join(f"{1000 * seconds[name]:>22.2f}" if name in seconds else f"{'-':>22}" for name in names)
        print(f"{'':2}{way:<34}{cells}")


def main(argv: list[str] | None = None) -> None:
    """Time, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vectors", type=int, default=1000)
    parser.add_argument("--elements", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--few", type=int, default=2000, help="elements that other libraries are timed on")
    parser.add_argument("--json", type=Path, default=None)
    options = parser.parse_args(argv)
    x = torch.randn(options.vectors, options.elements, generator=torch.Generator().manual_seed(0))
    print(f"{options.vectors:,} x {options.elements:,} float32, median of {options.runs}, ε {EPSILON:g}")
    before, by_threads = torch.get_num_threads(), {}
    try:
        for threads in options.threads:
            torch.set_num_threads(threads)
            ways = contestants(x)
            timed = medians({f"{m}|{way}": run for m in ways for way, run in ways[m].items()}, options.runs)
            by_threads[threads] = {m: {way: timed[f"{m}|{way}"] for way in ways[m]} for m in ways}
        torch.set_num_threads(1)
        for mechanism, seconds in extrapolated(x, options.few).items():
            by_threads[min(by_threads)][mechanism].update(seconds)
        steps = step_table(x, options.runs)
    finally:
        torch.set_num_threads(before)
    show(by_threads, steps)
    print("\n* extrapolated" if any("*" in way for way in by_threads[min(by_threads)]["Laplace"]) else "")
    print("\n".join(goals(by_threads[min(by_threads)])))
    write(options.json, {"seconds": by_threads, "steps": steps})


if __name__ == "__main__":
    main()
