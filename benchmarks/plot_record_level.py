"""The figure of the guide page on record-level budgets.

    python benchmarks/bench_record_level.py --json private.json
    python benchmarks/plot_record_level.py private.json docs/guide/record_level.png

Left: what a record pays when every element pays ε. Right: accuracy of clean inference against what the
record pays in all, its label included, from the table that the benchmark wrote.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

INK = "#333333"
# Okabe and Ito's palette, told apart by all common forms of colour vision; markers differ as well.
STYLES = [("#0072B2", "o"), ("#56B4E9", "D"), ("#009E73", "^"), ("#CC79A7", "v"), ("#D55E00", "s"), ("#E69F00", "P")]


def draw(found: dict[str, Any], path: Path) -> None:
    """Write the figure as a PNG."""
    with plt.rc_context({"font.size": 9, "axes.edgecolor": INK, "axes.labelcolor": INK, "font.family": "DejaVu Sans"}):
        figure, (left, right) = plt.subplots(1, 2, figsize=(11.5, 4.2), layout="constrained", width_ratios=(4, 7))
        _totals(left)
        _accuracies(right, found)
        figure.savefig(path, dpi=110)
        plt.close(figure)


def _totals(axes: Axes) -> None:
    elements = [1, 10, 100, 1000, 10_000, 100_000]
    for epsilon, (colour, marker) in zip((0.5, 2.0), STYLES[3:], strict=False):
        label = f"ε {epsilon:g} for each element"
        axes.plot(elements, [epsilon * n for n in elements], color=colour, marker=marker, label=label)
    axes.plot(elements, [2.0] * len(elements), color=STYLES[0][0], marker=STYLES[0][1], label="ε 2 for the record")
    axes.axhspan(0.1, 10, color="#0072B2", alpha=0.08, linewidth=0)
    axes.text(1.2, 0.14, "here ε says something\nabout a record", color=INK)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(0.1, 3e6)
    axes.set_xlabel("elements in a record")
    axes.set_ylabel("ε that a record pays")
    axes.set_title("Losses of elements add up", fontsize=10.5, loc="left")
    axes.legend(frameon=False, loc="upper left")


def _accuracies(axes: Axes, found: dict[str, Any]) -> None:
    for (name, cells), (colour, marker) in zip(found["rows"].items(), STYLES, strict=False):
        epsilons = [float(epsilon) for epsilon in cells]
        clean = [[100 * run[0] for run in runs] for runs in cells.values()]
        means = [statistics.mean(values) for values in clean]
        low = [mean - min(values) for mean, values in zip(means, clean, strict=True)]
        high = [max(values) - mean for mean, values in zip(means, clean, strict=True)]
        axes.errorbar(epsilons, means, yerr=[low, high], color=colour, marker=marker, capsize=2, label=name)
    for name, style in (("no privacy", (0, (5, 2))), ("public only", (0, (1, 1.5)))):
        axes.axhline(100 * found[name], color=INK, linestyle=style, linewidth=1.1, label=name)
    axes.set_xscale("log", base=2)
    axes.set_xticks(epsilons, [f"{epsilon:g}" for epsilon in epsilons])
    axes.set_ylim(0, 100)
    axes.set_xlabel("ε that a record pays, its label included")
    axes.set_ylabel("accuracy of clean inference, %")
    axes.set_title("Fashion-MNIST, public classes 0-4, private classes 5-9", fontsize=10.5, loc="left")
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))


def main(argv: list[str] | None = None) -> None:
    """Read the JSON, write the PNG."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("found", type=Path)
    parser.add_argument("figure", type=Path)
    options = parser.parse_args(argv)
    draw(json.loads(options.found.read_text(encoding="utf-8")), options.figure)


if __name__ == "__main__":
    main()
