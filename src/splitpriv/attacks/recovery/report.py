"""All attacks on one cut, side by side."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from splitpriv.attacks.plotting import new_figure
from splitpriv.attacks.recovery.result import RecoveryResult


@dataclass(frozen=True, eq=False)
class RecoveryReport:
    """What each attack that applies recovered from one defence: lower bounds on what leaks.

    Attributes:
        layer: what stands at the cut, in words.
        results: one per attack.
        skipped: name of an attack that did not run, to the reason.
    """

    layer: str
    results: tuple[RecoveryResult, ...]
    skipped: dict[str, str] = field(default_factory=dict)

    @property
    def best(self) -> RecoveryResult:
        """The attack with the least squared error, each with all that it was given."""
        return min(self.results, key=lambda result: result.last.error.value)

    def __getitem__(self, name: str) -> RecoveryResult:
        """The result of the attack of that class name.

        Raises:
            KeyError: it did not run.
        """
        for result in self.results:
            if type(result.attack).__name__ == name:
                return result
        ran = ", ".join(type(result.attack).__name__ for result in self.results)
        reason = f": {self.skipped[name]}" if name in self.skipped else ""
        raise KeyError(f"RecoveryReport: {name} did not run on this cut{reason}; these did: {ran}.")

    def to_dict(self) -> dict[str, Any]:
        """All results, for JSON."""
        results = [result.to_dict() for result in self.results]
        return {"layer": self.layer, "results": results, "skipped": dict(self.skipped)}

    def plot(self) -> Any:
        """The curves of each attack, one row per attack: a matplotlib Figure."""
        figure, axes = new_figure(len(self.results), 2, width=9, height=3.5 * len(self.results))
        for row, result in zip(axes, self.results, strict=True):
            result.draw(row)
        return figure

    def __str__(self) -> str:
        missing = "\n".join(f"not run: {name}: {reason}" for name, reason in self.skipped.items())
        return "\n\n".join([self.layer[:120], *map(str, self.results), *([missing] if missing else [])])
