"""What all membership attacks on one model achieved."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from splitpriv.attacks.membership_inference.result import NOT_TRANSFERRED, MembershipResult, draw_roc
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
        skipped: name of a default attack that was not run, to the reason.
    """

    results: dict[str, MembershipResult] = field(repr=False)
    query: str
    layer: str
    shadows: int
    skipped: dict[str, str] = field(default_factory=dict)

    @property
    def best(self) -> MembershipResult:
        """The result of the largest AUC."""
        return max(self.results.values(), key=lambda result: result.auc.value)

    def __getitem__(self, name: str) -> MembershipResult:
        """The result of that name.

        Raises:
            KeyError: no attack of that name was run.
        """
        if name not in self.results:
            reason = self.skipped.get(name, "it was not asked for")
            raise KeyError(f"MembershipReport: no attack {name!r} was run: {reason}")
        return self.results[name]

    def to_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        results = {name: result.to_dict() for name, result in self.results.items()}
        shown = {"query": self.query, "layer": self.layer, "shadows": self.shadows, "best": self.best.attack}
        return {**shown, "skipped": dict(self.skipped), "f1_of_all": self.best.f1_of_all, "results": results}

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
        rates = f"{'TPR at 1 %':<18}{'TPR at 0.1 %':<18}ROC at 1 %"
        lines.append(f"{'attack':<36}{'AUC':<24}{'bal. acc.':<11}{'F1':<7}{rates}")
        for name, found in self.results.items():
            rest = [f"{found.balanced_accuracy.value:<11.3f}", f"{found.f1.value:<7.3f}"]
            rest += [_rate(found, which) for which in ("1", "01")]
            rest.append(f"{found.roc_1.value:.3f}")
            lines.append(f"{name:<36}{found.auc!s:<24}{''.join(rest)}".replace("nan", " - ").rstrip())
        lines.append(f"best: {first.attack} (largest AUC; chosen on these records)")
        lines.append(f"F1 of calling everyone a member: {first.f1_of_all:.3f}")
        lines.append("in brackets: the false positive rate that the threshold, chosen elsewhere, has on these records")
        if any(kept is False for found in self.results.values() for kept in found.transferred.values()):
            lines.append(f"!: {NOT_TRANSFERRED}; not a rate at 1 %, or 0.1 %")
        lines.append("ROC at 1 %: the true positive rate at the point on the ROC of these records, chosen on them")
        lines += [f"not run: {name}: {reason}" for name, reason in self.skipped.items()]
        return "\n".join(lines)


def _rate(found: MembershipResult, which: str) -> str:
    """A true positive rate, and what it cost: a threshold from shadow models may fit the target badly."""
    tpr, fpr = getattr(found, f"tpr_{which}").value, getattr(found, f"fpr_{which}").value
    mark = "!" if found.transferred[f"tpr_{which}"] is False else ""
    shown = f"{tpr:.3f}" if math.isnan(fpr) else f"{tpr:.3f} ({fpr:.3f}){mark}"
    return f"{shown:<18}"
