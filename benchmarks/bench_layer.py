"""How many records per second any layer encodes, packs and decodes: one of one's own, or a shipped one.

    python benchmarks/bench_layer.py splitpriv:RandomResponseLDP --option epsilon=2.0 --shape 64 8 8
    python benchmarks/bench_layer.py own_layer:LargestElement --option epsilon=2.0 --option elements=10 --shape 10

The layer is given as module:class, with the keywords of its constructor as Python literals; modules are
looked for in the current directory and in examples/ too. One process, one thread, median of the runs.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import math
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from splitpriv.release import pack


def make_layer(name: str, options: list[str]) -> nn.Module:
    """The layer that ``module:class`` and ``key=literal`` describe."""
    module, _, factory = name.partition(":")
    pairs = (option.partition("=") for option in options)
    layer: nn.Module = getattr(importlib.import_module(module), factory)(
        **{key: ast.literal_eval(value) for key, _, value in pairs}
    )
    return layer


def steps(layer: Any, features: Tensor) -> dict[str, Callable[[], Tensor]]:
    """What is timed; packing only where symbols are integers of a known alphabet."""
    symbols = layer.encode(features)
    found = {"encode": lambda: layer.encode(features)}
    if not symbols.is_floating_point() and hasattr(layer, "decode_table"):
        bits = max(1, (len(layer.decode_table(tuple(features.shape[1:]))) - 1).bit_length())
        found["pack"] = lambda: pack(symbols, bits)
    if hasattr(layer, "encode_packed"):
        found["encode, packed"] = lambda: layer.encode_packed(features)
    return found | {"decode": lambda: layer.decode(symbols)}


def median_seconds(step: Callable[[], Tensor], runs: int) -> float:
    """Of ``runs`` calls after a first one."""
    step()
    seconds = []
    for _ in range(runs):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def main(argv: list[str] | None = None) -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("layer", help="module:class")
    parser.add_argument("--option", action="append", default=[], help="key=literal, for its constructor")
    parser.add_argument("--shape", type=int, nargs="+", required=True, help="feature shape, without batch")
    parser.add_argument("--records", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=7)
    options = parser.parse_args(argv)
    sys.path[:0] = [str(Path.cwd()), str(Path(__file__).parents[1] / "examples")]
    torch.set_num_threads(1)
    layer = make_layer(options.layer, options.option).eval()
    features = torch.randn(options.records, *options.shape, generator=torch.Generator().manual_seed(0))
    layer.encode(features)  # so that the layer knows, and shows, what a record costs
    elements = math.prod(options.shape)
    print(f"{layer}\n{options.records:,} records of {elements:,} float32, one thread, median of {options.runs}\n")
    print(f"{'step':<16}{'ms':>10}{'records per second':>22}")
    for name, step in steps(layer, features).items():
        seconds = median_seconds(step, options.runs)
        print(f"{name:<16}{1000 * seconds:>10.2f}{options.records / seconds:>22,.0f}")


if __name__ == "__main__":
    main()
