"""What all membership attacks on one model achieved."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from splitpriv.attacks.estimate import Estimate
from splitpriv.attacks.membership_inference.result import MembershipResult, draw_roc
from splitpriv.attacks.plotting import new_figure


@dataclass(frozen=True, eq=False)
class MembershipReport:
    """Each attack's result on the same records, and the best.

    The best is the one of the largest AUC on the evaluated records. That choice is made with hindsight, and its
    interval does not account for it: with several attacks at chance one of them is always above 0.5.

    Attributes:
        results: by name, in the order in which they ran.
        query: how the target was asked: ``"clean"``, ``"released"`` or ``"outputs"`` (a callable was given).
        layer: what stands at the cut, in words.
        shadows: number of shadow models.
    """

    results: dict[str, MembershipResult] = field(repr=False)
    query: str
    layer: str
    shadows: int

    @property
    def best(self) -> MembershipResult:
        """The result of the largest AUC."""
        return max(self.results.values(), key=lambda result: result.auc.value)

    def __getitem__(self, name: str) -> MembershipResult:
        """The result of that name."""
        return self.results[name]

    def to_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        results = {name: result.to_dict() for name, result in self.results.items()}
        shown = {"query": self.query, "layer": self.layer, "shadows": self.shadows, "best": self.best.attack}
        return {**shown, "results": results}

    def plot(self) -> Any:
        """The ROC of each attack on logarithmic axes, as a matplotlib Figure."""
        figure, axes = new_figure(1, 1, width=5.5, height=5.0)
        draw_roc(axes[0, 0], self.results)
        return figure

    def __str__(self) -> str:
        first = self.best
        count = int(first.members.sum())
        head = f"{count} members, {len(first.members) - count} non-members, {self.shadows} shadow models"
        lines = [f"membership, queries: {self.query}; {head}", f"cut: {self.layer}"[:158]]
        lines.append(f"{'attack':<32}{'AUC':<24}{'bal. acc.':<11}{'F1':<7}{'TPR at 1 %':<18}{'TPR at 0.1 %':<18}")
        for name, found in self.results.items():
            rest = (f"{found.balanced_accuracy.value:<11.3f}", f"{found.f1.value:<7.3f}")
            rates = (_rate(found.tpr_1, found.fpr_1), _rate(found.tpr_01, found.fpr_01))
            lines.append(f"{name:<32}{found.auc!s:<24}{''.join((*rest, *rates))}".replace("nan", " - ").rstrip())
        lines.append(f"best: {first.attack} (largest AUC; chosen on these records)")
        lines.append("in brackets: the false positive rate that the threshold, chosen elsewhere, has on these records")
        return "\n".join(lines)


def _rate(tpr: Estimate, fpr: Estimate) -> str:
    """A true positive rate, and what it cost: a threshold from shadow models may fit the target badly."""
    shown = f"{tpr.value:.3f}" if math.isnan(fpr.value) else f"{tpr.value:.3f} ({fpr.value:.3f})"
    return f"{shown:<18}"
