"""Matplotlib, loaded only where something is drawn."""

from __future__ import annotations

from typing import Any


def new_figure(rows: int, columns: int, *, width: float, height: float) -> tuple[Any, Any]:
    """A matplotlib figure without a window, and its axes.  # shape of the axes: (rows, columns)

    Raises:
        ImportError: matplotlib is not installed; the message names the extra.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        text = "splitpriv.attacks: plot() needs matplotlib, which is not installed. Run: pip install 'splitpriv[plots]'"
        raise ImportError(text) from error
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)
