"""What an audit found, next to what was claimed."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from splitpriv.attacks.plotting import new_figure

Array = npt.NDArray[Any]

_SHOWN = 200  # cells in a figure


@dataclass(frozen=True)
class AuditResult:
    """A lower bound on epsilon from draws or from a training run, and the claim beside it.

    Attributes:
        epsilon: at most the true one (natural log), except with the failure probability.
        claimed: what the layer says; ``math.inf`` where it claims nothing.
        unit: what epsilon is of: one element, one use, one record.
        event: what the attacker guessed from.
        guesses: tested trials in which a guess was made.
        right: right guesses among them.
        draws: trials in all, those that chose the event included.
        failure_probability: of ``epsilon`` above the true one.
        layer: what was audited.
        delta: of the claim that was tested; 0 for pure epsilon.
        edges: where the cells of the event's statistic begin.  # shape: (cells - 1,)
        counts: tested trials per cell, of the one candidate and of the other.  # shape: (2, cells)
        speaks: which candidate each cell speaks for; -1 for neither.  # shape: (cells,)

    Example:
        >>> print(AuditResult(0.9, 1.0, "one element", "symbol", 1000, 720, 2000, 0.05, "a layer"))
        ε of one element ≥ 0.9 with failure probability 0.05 (720 of 1,000 guesses right, 2,000 draws)
        a layer claims 1: not refuted; draws show 90 % of it
        event: symbol
    """

    epsilon: float
    claimed: float
    unit: str
    event: str
    guesses: int
    right: int
    draws: int
    failure_probability: float
    layer: str
    delta: float = 0.0
    edges: Array = field(default_factory=lambda: np.empty(0), repr=False, compare=False)
    counts: Array = field(default_factory=lambda: np.zeros((2, 1), dtype=np.int64), repr=False, compare=False)
    speaks: Array = field(default_factory=lambda: np.full(1, -1), repr=False, compare=False)

    @property
    def refuted(self) -> bool:
        """Whether the claim is refuted: the lower bound is above it."""
        return self.epsilon > self.claimed

    @property
    def verdict(self) -> str:
        """What that says of the claim; never that the claim is true."""
        if math.isinf(self.claimed):
            return "claims no epsilon: nothing to refute"
        shown = f"claims {self.claimed:.4g}"
        if self.refuted:
            return f"{shown}: REFUTED"
        part = f"{100 * self.epsilon / self.claimed:.0f} %" if self.claimed else "nothing"
        return f"{shown}: not refuted; draws show {part} of it"

    def to_dict(self) -> dict[str, Any]:
        """The attributes and the verdict, for JSON; None for an infinite claim."""
        names = ("epsilon", "unit", "event", "guesses", "right", "draws", "failure_probability", "layer", "delta")
        shown = {name: getattr(self, name) for name in names}
        claimed = self.claimed if math.isfinite(self.claimed) else None
        return {**shown, "claimed": claimed, "refuted": self.refuted, "verdict": self.verdict}

    def plot(self) -> Any:
        """The laws of the event's statistic under both candidates, cell by cell, and where each was guessed.

        Raises:
            ImportError: matplotlib is not installed.
        """
        figure, axes = new_figure(1, 1, width=7, height=4)
        ax, counts = axes[0, 0], self.counts[:, :_SHOWN]
        shares = counts / np.maximum(self.counts.sum(axis=1, keepdims=True), 1)
        places = np.arange(shares.shape[1])
        for row, (color, name) in enumerate((("tab:blue", "the one"), ("tab:orange", "the other"))):
            ax.step(places, shares[row], where="mid", color=color, label=name)
            here = self.speaks[:_SHOWN] == row
            ax.bar(places[here], shares[row][here], width=1, color=color, alpha=0.3, label=f"guessed: {name}")
        ax.set(xlabel="cell of the statistic", ylabel="share of draws", title=f"ε ≥ {self.epsilon:.3g}: {self.verdict}")
        ax.legend(frameon=False)
        return figure

    def __str__(self) -> str:
        slack = f", δ = {self.delta:g}" if self.delta else ""
        return (
            f"ε of {self.unit} ≥ {self.epsilon:.3g} with failure probability {self.failure_probability:g}{slack} "
            f"({self.right:,} of {self.guesses:,} guesses right, {self.draws:,} draws)\n"
            f"{_short(self.layer)} {self.verdict}\nevent: {_short(self.event, 110)}"
        )


def _short(text: str, width: int = 70) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"
