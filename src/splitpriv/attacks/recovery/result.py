"""What a recovery attack achieved, as its knowledge grows."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from splitpriv.attacks.attack import Attack
from splitpriv.attacks.estimate import Estimate
from splitpriv.attacks.plotting import new_figure

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class RecoveryPoint:
    """What was recovered from one amount of knowledge.

    Attributes:
        count: leaked pairs, or released records, that the attacker used.
        recovered: share of the vector's elements that the attacker claims, and rightly; among those that
            are not zero in every evaluated record. Undefined (NaN) for encoders, or without the true vector.
        claimed: share of those elements that the attacker claims, rightly or wrongly; NaN likewise.
        exact: share of a record's elements that are reconstructed exactly (to float32 rounding), mean over records.
        error: squared error per element, mean over records.
        relative: squared error over that of guessing the public mean (0 without public data); 0 is a perfect
            reconstruction, 1 is no better than the guess, and 1 - relative is R².
        identified: share of records whose reconstruction is closest to its own original; guesses reach 1/records.
        per_record: ``mse``, ``exact`` and ``rank`` (candidates closer than the original), (records,) each.
    """

    count: int
    recovered: Estimate
    claimed: float
    exact: Estimate
    error: Estimate
    relative: Estimate
    identified: Estimate
    per_record: dict[str, Floats] = field(repr=False)

    @property
    def summary(self) -> dict[str, Estimate]:
        """The figures that have an interval, by name."""
        names = ("recovered", "exact", "error", "relative", "identified")
        return {name: getattr(self, name) for name in names}

    def to_dict(self) -> dict[str, Any]:
        """Everything, for JSON; what is undefined is None."""
        figures = {name: _plain(estimate.to_dict()) for name, estimate in self.summary.items()}
        rows = {name: [_number(value) for value in values] for name, values in self.per_record.items()}
        return {"count": self.count, "claimed": _number(self.claimed), **figures, "per_record": rows}


@dataclass(frozen=True, eq=False)
class RecoveryResult:
    """How much of a mask, or of records behind a defence, an attack recovered: a lower bound on what leaks.

    Attributes:
        attack: the configuration that ran.
        unit: what ``count`` of each point counts: ``"leaked pairs"`` or ``"released records"``.
        points: in ascending order of their count; the last one knew the most.
        vector: what the attack believes of the vector at the last point, (elements,), 0 where it knows
            nothing; None for encoders.
        reconstructed: records of the last point, (records, \\*feature).
        note: what the attack chose for itself at the last point, in words.
    """

    attack: Attack
    unit: str
    points: tuple[RecoveryPoint, ...]
    vector: Tensor | None = field(repr=False)
    reconstructed: Tensor = field(repr=False)
    note: str = ""

    @property
    def last(self) -> RecoveryPoint:
        """The point of the most knowledge."""
        return self.points[-1]

    @property
    def summary(self) -> dict[str, Estimate]:
        """The figures of the last point."""
        return self.last.summary

    @property
    def per_record(self) -> dict[str, Floats]:
        """The records' figures at the last point."""
        return self.last.per_record

    def at(self, count: int) -> RecoveryPoint:
        """The point of that count.

        Raises:
            KeyError: there is none.
        """
        for point in self.points:
            if point.count == count:
                return point
        raise KeyError(f"RecoveryResult: no point at {count} {self.unit}; there are {[p.count for p in self.points]}.")

    def to_dict(self) -> dict[str, Any]:
        """Configuration and figures, for JSON; what is undefined is None."""
        points = [point.to_dict() for point in self.points]
        name = type(self.attack).__name__
        return {"attack": name, "configuration": self.attack.to_dict(), "unit": self.unit, "points": points} | {
            "note": self.note
        }

    def plot(self) -> Any:
        """Share recovered and relative error against the attacker's knowledge, with intervals: a matplotlib Figure."""
        figure, axes = new_figure(1, 2, width=9, height=3.5)
        self.draw(axes[0])
        return figure

    def draw(self, axes: Any) -> None:
        """The two panels of :meth:`plot` on two matplotlib axes."""
        shares, errors = axes
        counts, name = [point.count for point in self.points], type(self.attack).__name__
        curves = {
            "recovered": "elements of the vector",
            "exact": "elements of records",
            "identified": "records identified",
        }
        for figure, label in curves.items():
            _curve(shares, counts, [getattr(point, figure) for point in self.points], label)
        _curve(errors, counts, [point.relative for point in self.points], name)
        errors.axhline(1, color="grey", linestyle=":", label="guessing")
        shares.set(ylim=(-0.03, 1.03), ylabel="share recovered", title=name)
        errors.set(ylabel="squared error / that of guessing")
        for axis in (shares, errors):
            axis.set_xscale("symlog", base=2, linthresh=1)
            axis.set_xlabel(self.unit)
            axis.legend()

    def __str__(self) -> str:
        head = f"{type(self.attack).__name__}{f' ({self.note})' if self.note else ''}"
        rows = [head[:100], f"{self.unit:>16}  vector   exact  error/guess  identified"]
        for point in self.points:
            figures = (point.recovered.value, point.exact.value, point.relative.value, point.identified.value)
            vector, exact, relative, identified = ("-" if math.isnan(v) else f"{v:.3f}" for v in figures)
            rows.append(f"{point.count:>16,}  {vector:>6}  {exact:>6}  {relative:>11}  {identified:>10}")
        return "\n".join(rows)


def _curve(axis: Any, counts: list[int], estimates: list[Estimate], label: str) -> None:
    values = np.array([[e.value, e.low, e.high] for e in estimates]).T
    if not np.isnan(values[0]).all():
        axis.plot(counts, values[0], marker="o", label=label)
        axis.fill_between(counts, values[1], values[2], alpha=0.2)


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _plain(estimate: dict[str, Any]) -> dict[str, Any]:
    return {name: _number(value) if isinstance(value, float) else value for name, value in estimate.items()}
