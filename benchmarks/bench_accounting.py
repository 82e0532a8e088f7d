"""How long tight (epsilon, delta) composition takes, and what it reports.

    python benchmarks/bench_accounting.py [--uses 10000000] [--runs 7]

One thread; the median of the runs. Equal mechanisms of which only epsilon is known are composed
exactly; different ones, and those whose table is known, by their privacy-loss distributions, where the
last column is what numerical bounds leave open.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

from splitpriv.accounting import Bounds, calibrate, compose, epsilon_shuffled
from splitpriv.mechanisms import DiscreteLaplace, RandomizedResponse

DELTA = 1e-6


def cases(uses: int) -> dict[str, Callable[[], Bounds]]:
    """What is composed, by what it is called in the table."""
    noise, bit = DiscreteLaplace(epsilon=1.0), RandomizedResponse(epsilon=0.1)

    def single(value: float) -> Bounds:
        return Bounds(value, value, value)

    return {
        f"{uses:,} uses at 0.1": lambda: compose([(0.1, uses)], delta=DELTA),
        f"{uses:,} uses at 0.001": lambda: compose([(0.001, uses)], delta=DELTA),
        "65,536 uses of Laplace noise at 1": lambda: compose([(noise, 65_536)], delta=DELTA),
        "the same, and 65,536 bits at 0.1": lambda: compose([(noise, 65_536), (bit, 65_536)], delta=DELTA),
        "1,000 at 0.1, 100 at 0.5, 10 at 2": lambda: compose([(0.1, 1000), (0.5, 100), (2.0, 10)], delta=DELTA),
        f"calibrated: {uses:,} uses within 8": lambda: single(calibrate(target_epsilon=8.0, delta=DELTA, uses=uses)),
        "shuffled: 60,000 records at 2": lambda: single(epsilon_shuffled(epsilon0=2.0, count=60_000, delta=DELTA)),
    }


def main(argv: list[str] | None = None) -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--uses", type=int, default=10_000_000)
    parser.add_argument("--runs", type=int, default=7)
    options = parser.parse_args(argv)
    print(f"delta {DELTA:g}, median of {options.runs}\n")
    print(f"{'what':<40}{'ms':>10}{'epsilon':>18}{'upper - lower':>16}")
    for name, case in cases(options.uses).items():
        seconds = []
        for _ in range(options.runs):
            start = time.perf_counter()
            found = case()
            seconds.append(time.perf_counter() - start)
        milliseconds = 1000 * statistics.median(seconds)
        open_ = found.upper - found.lower
        print(f"{name:<40}{milliseconds:>10.2f}{found.upper:>18,.6g}{open_:>16.3g}")


if __name__ == "__main__":
    main()
