"""The figure of the quickstart: accuracy against ε, and what crosses the cut for a few records."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from quickstart_report import CEILING, FLOOR, LAPLACE, RESPONSE, Row

# Okabe and Ito's palette, told apart by all common forms of colour vision; markers differ as well.
STYLE = {RESPONSE: ("#0072B2", "o"), LAPLACE: ("#D55E00", "s")}
INK = "#333333"
CAPTIONS = {  # class names too long for their column
    "RandomVectorMask": "RandomVector\nMask",
    "ReluSanitizer": "Relu\nSanitizer",
    "LocalPretrainedEncoder": "LocalPretrained\nEncoder",
}


def draw(path: Path, rows: list[Row], pictures: dict[str, Tensor], title: str) -> None:
    """Write the figure as a PNG; bars span the lowest and the highest run.

    Args:
        path: where to.
        rows: the averaged table.
        pictures: by caption, images (examples, height, width) or (examples, height, width, 3).
        title: of the accuracy plot.
    """
    examples = len(next(iter(pictures.values())))
    with plt.rc_context({"font.size": 9, "axes.edgecolor": INK, "axes.labelcolor": INK, "font.family": "DejaVu Sans"}):
        figure = plt.figure(figsize=(12.4, 3.9))
        left, right = figure.subfigures(1, 2, width_ratios=(4.1, 8.3))
        _accuracies(left, rows, title)
        _pictures(right, pictures, examples)
        figure.savefig(path, dpi=130)
        plt.close(figure)


def _accuracies(figure: Figure, rows: list[Row], title: str) -> None:
    axes = figure.subplots()
    figure.subplots_adjust(left=0.135, right=0.96, bottom=0.29, top=0.9)
    figure.text(0.02, 0.955, title, fontsize=10.8)
    for name, (colour, marker) in STYLE.items():
        _line(axes, [row for row in rows if row.name == name], name, colour, marker)
    for name, style in ((CEILING, (0, (5, 2))), (FLOOR, (0, (1, 1.5)))):
        accuracy = 100 * next(row.accuracy for row in rows if row.name == name)
        epsilon = "ε = ∞" if name == CEILING else "ε = 0"
        axes.axhline(accuracy, color=INK, linestyle=style, linewidth=1.1, label=f"{name} ({epsilon})")
    ticks = sorted({row.asked for row in rows if row.asked is not None})
    axes.set_xscale("log")
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.margins(x=0.12, y=0.08)
    bars = "; bars: lowest and highest run" if len(rows[0].accuracies) > 1 else ""
    axes.set(xlabel=f"ε per element (log scale{bars})", ylabel="test accuracy (%)")
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    # Below the axes, where no line of any outcome can cross it.
    axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.46, -0.19), ncols=2, fontsize=8)


def _line(axes: Axes, rows: list[Row], name: str, colour: str, marker: str) -> None:
    epsilons, means = [row.asked for row in rows], [100 * row.accuracy for row in rows]
    low = [100 * (row.accuracy - min(row.accuracies)) for row in rows]
    high = [100 * (max(row.accuracies) - row.accuracy) for row in rows]
    spread = [low, high] if len(rows[0].accuracies) > 1 else None
    axes.errorbar(epsilons, means, spread, color=colour, marker=marker, markersize=5, capsize=2.5, label=name)


def _pictures(figure: Figure, pictures: dict[str, Tensor], examples: int) -> None:
    grid = figure.subplots(examples, len(pictures), squeeze=False)
    figure.subplots_adjust(left=0.01, right=0.99, bottom=0.075, top=0.83, wspace=0.06, hspace=0.06)
    for column, (caption, images) in enumerate(pictures.items()):
        low, high = images.quantile(0.02).item(), images.quantile(0.98).item()  # a few large draws hide the rest
        for row in range(examples):
            axes = grid[row][column]
            axes.imshow(images[row].numpy(), cmap="gray", vmin=low, vmax=high, interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_linewidth(0.5)
        grid[0][column].set_title(CAPTIONS.get(caption, caption), fontsize=7.2, color=INK)
    figure.text(0.01, 0.955, "What crosses the cut", fontsize=10.8)
    note = "Public records. One channel of the features, the one most like the input; of the encoder all 64 outputs."
    figure.text(0.01, 0.02, note, fontsize=8, color=INK)
