"""How long a charge takes, in memory and in a file that already holds many records.

    python benchmarks/bench_ledger.py [--records 1000000] [--batch 1000] [--charges 31] [--folder .]

A charge of a batch of ids is timed from the call to the moment at which it is on the disk (synced), or in memory. The
ids are drawn at random over all records, which is the worst case for a file. Each charge costs the same
(alike), or each another epsilon, so that records come to have paid different sums (apart). Then the time to open
the file again with all checks, and its size.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from splitpriv.accounting import Ledger
from splitpriv.accounting.database import Database


def timed(work: Callable[[], object]) -> float:
    """Milliseconds that a call takes."""
    start = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - start)


def fill(ledger: Ledger, records: int) -> None:
    """Give every record a spend of one of a few kinds."""
    for start in range(0, records, 50_000):
        ledger.charge(0.25, ids=range(start, min(start + 50_000, records)), dataset="all")


def measure(ledger: Ledger, options: argparse.Namespace) -> list[tuple[str, list[float]]]:
    """Rows of the table for one ledger: a name, and the milliseconds of each charge."""
    rng = random.Random(0)
    rows = []
    for name, low, high, uses in (("alike", 0.25, 0.25, 1), ("apart", 0.001, 0.002, 16)):
        times = []
        for _ in range(options.charges):
            ids, epsilon = rng.sample(range(options.records), options.batch), rng.uniform(low, high)
            charge = partial(ledger.charge, epsilon, ids=ids, dataset="all", uses=uses)
            times.append(timed(charge))
        rows.append((name, times))
    return rows


def main(argv: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--batch", type=int, default=1000)
    parser.add_argument("--charges", type=int, default=31)
    parser.add_argument("--folder", default=None, help="where the file goes; the temporary directory by default")
    options = parser.parse_args(argv)
    print(f"charging {options.batch:,} of {options.records:,} records, {options.charges} times; milliseconds")
    print(f"{'':2}{'ledger':<28}{'spends':<10}{'median':>10}{'worst':>10}")
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        path = Path(folder) / "spent.db"
        kinds = {
            "in memory, pure limit": Ledger(limit=1e6),
            "in memory, (ε, δ) limit": Ledger(limit=1e6, delta=1e-6),
            "file, (ε, δ) limit": Ledger(limit=1e6, delta=1e-6, path=path),
        }
        for name, ledger in kinds.items():
            fill(ledger, options.records)
            for spends, times in measure(ledger, options):
                print(f"{'':2}{name:<28}{spends:<10}{statistics.median(times):>10.2f}{max(times):>10.2f}", flush=True)
        ledger.close()
        print(f"{'':2}{'file, opened and checked':<38}{timed(lambda: Database(str(path))):>10.2f}")
        size = path.stat().st_size / 2**20
        print(f"{'':2}{'file, MiB':<38}{size:>10.1f}")


if __name__ == "__main__":
    main()
