"""What a membership attack achieved."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from splitpriv._errors import InvalidParameterError
from splitpriv.attacks.estimate import Estimate, proportion
from splitpriv.attacks.metrics.classification import (
    RocCurve,
    auc,
    balanced_accuracy,
    balanced_threshold,
    f1,
    f1_of_all,
    roc_curve,
    threshold_at_fpr,
    tpr_at_fpr,
)
from splitpriv.attacks.plotting import new_figure

Scores = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Scores that thresholds may be chosen on: those of other models, or of other records. None where there are none.

    Attributes:
        members: (others,), or None where only non-members are known.
        non_members: (others,).
        threshold: for balanced accuracy and F1.
        source: where they come from, or why there are none.
    """

    members: Scores | None
    non_members: Scores | None
    threshold: float | None
    source: str


@dataclass(frozen=True, eq=False)
class MembershipResult:
    """Scores and figures of one attack; every figure is a lower bound on what leaks.

    A figure that could not be measured honestly is NaN, and its ``method`` gives the reason: no threshold was chosen
    on other records, or there are too few non-members for the false positive rate.

    Attributes:
        attack: which attack.
        configuration: its settings.
        scores: (records,), higher is more like a member.
        members: (records,), bool: the truth.
        auc: area under the ROC.
        balanced_accuracy: at :attr:`threshold`; chance is 0.5.
        f1: at :attr:`threshold`; compare with :attr:`f1_of_all`.
        tpr_1: true positive rate at 1 % false positives; its ``method`` names where the threshold comes from.
        tpr_01: the same at 0.1 %.
        fpr_1: false positive rate that the threshold of ``tpr_1`` has on the evaluated non-members.
        fpr_01: that of ``tpr_01``.
        threshold: who reaches it is called a member; never chosen on the evaluated records; None where none was.
        source: what the thresholds were chosen on.
    """

    attack: str
    configuration: dict[str, Any] = field(repr=False)
    scores: Scores = field(repr=False)
    members: npt.NDArray[np.bool_] = field(repr=False)
    auc: Estimate
    balanced_accuracy: Estimate
    f1: Estimate
    tpr_1: Estimate
    tpr_01: Estimate
    fpr_1: Estimate
    fpr_01: Estimate
    threshold: float | None
    source: str

    @property
    def summary(self) -> dict[str, Estimate]:
        """The figures by name."""
        return {name: getattr(self, name) for name in FIGURES}

    @property
    def f1_of_all(self) -> float:
        """The F1 of calling every one of these records a member, which is no attack."""
        return f1_of_all(int(self.members.sum()), int((~self.members).sum()))

    @property
    def roc_1(self) -> Estimate:
        """:meth:`roc_point` at 1 % false positives, NaN where there are too few non-members; not :attr:`tpr_1`."""
        return self._roc_or_not(0.01)

    @property
    def roc_01(self) -> Estimate:
        """The same at 0.1 %."""
        return self._roc_or_not(0.001)

    @property
    def transferred(self) -> dict[str, bool | None]:
        """Whether the threshold of ``tpr_1``, or ``tpr_01``, keeps the false positive rate that was asked.

        False where the whole interval of the realised rate is above it: the true positive rate is then not one at
        that rate, and is not to be quoted as such. None where it is undefined.
        """
        pairs = {"tpr_1": (self.fpr_1, 0.01), "tpr_01": (self.fpr_01, 0.001)}
        return {name: None if math.isnan(one.value) else one.low <= asked for name, (one, asked) in pairs.items()}

    @property
    def roc(self) -> RocCurve:
        """The ROC of the evaluated records."""
        return roc_curve(self.scores[self.members], self.scores[~self.members])

    def roc_point(self, fpr: float) -> Estimate:
        """The true positive rate on the ROC of the evaluated records: the literature's figure. See :func:`tpr_at_fpr`.

        Raises:
            InvalidParameterError: too few non-members for this rate, or it is not in (0, 1).
        """
        return tpr_at_fpr(
            self.scores[self.members], self.scores[~self.members], fpr=fpr, confidence=self.auc.confidence
        )

    def _roc_or_not(self, fpr: float) -> Estimate:
        try:
            return self.roc_point(fpr)
        except InvalidParameterError as error:
            return undefined(_reason(error), self.auc.confidence)

    def to_dict(self) -> dict[str, Any]:
        """Everything, for JSON; None for what is undefined, and for rates at thresholds that did not transfer."""
        threshold = self.threshold if self.threshold is not None and math.isfinite(self.threshold) else None
        return {
            "attack": self.attack,
            "configuration": self.configuration,
            "summary": {name: _plain(figure) for name, figure in self._quotable.items()},
            "f1_of_all": self.f1_of_all,
            "transferred": self.transferred,
            "threshold": threshold,
            "source": self.source,
            "scores": self.scores.tolist(),
            "members": self.members.tolist(),
        }

    @property
    def _quotable(self) -> dict[str, Estimate]:
        failed = undefined(NOT_TRANSFERRED, self.auc.confidence)
        kept = self.transferred
        return {name: failed if kept.get(name) is False else figure for name, figure in self.summary.items()}

    def plot(self) -> Any:
        """The ROC on logarithmic axes, as a matplotlib Figure: what counts is its lower left."""
        figure, axes = new_figure(1, 1, width=4.5, height=4.2)
        draw_roc(axes[0, 0], {self.attack: self})
        return figure

    def __str__(self) -> str:
        count = int(self.members.sum())
        lines = [f"{self.attack}: {count} members, {len(self.members) - count} non-members; thresholds: {self.source}"]
        remarks = {name: f"  {NOT_TRANSFERRED}" for name, kept in self.transferred.items() if kept is False}
        remarks["f1"] = f"  (of calling everyone a member: {self.f1_of_all:.3g})"
        for name, figure in self.summary.items():
            shown = f"undefined ({figure.method})" if math.isnan(figure.value) else f"{figure}{remarks.get(name, '')}"
            lines.append(f"  {FIGURES[name]:<30}{shown}"[:158])
        return "\n".join(lines)


FIGURES = {
    "auc": "AUC",
    "balanced_accuracy": "balanced accuracy",
    "f1": "F1",
    "tpr_1": "TPR at 1 % FPR",
    "fpr_1": "  FPR of that threshold",
    "tpr_01": "TPR at 0.1 % FPR",
    "fpr_01": "  FPR of that threshold",
    "roc_1": "TPR at 1 % on their own ROC",
    "roc_01": "TPR at 0.1 % on their own ROC",
}
NOT_TRANSFERRED = "threshold did not transfer: its false positive rate is above the one asked"


def evaluate(
    attack: str,
    configuration: dict[str, Any],
    scores: Scores,
    members: Any,
    held: HeldOut,
    confidence: float,
) -> MembershipResult:
    """The figures of scores, with thresholds from ``held`` only."""
    inside, outside = scores[members], scores[~members]
    if held.threshold is None:
        accuracy = score = undefined(f"no threshold: {held.source}", confidence)
    else:
        accuracy = balanced_accuracy(inside, outside, threshold=held.threshold, confidence=confidence)
        score = f1(inside, outside, threshold=held.threshold, confidence=confidence)
    (tpr_1, fpr_1), (tpr_01, fpr_01) = (_low_fpr(inside, outside, held, fpr, confidence) for fpr in (0.01, 0.001))
    return MembershipResult(
        attack=attack,
        configuration=configuration,
        scores=scores,
        members=members,
        auc=auc(inside, outside, confidence=confidence),
        balanced_accuracy=accuracy,
        f1=score,
        tpr_1=tpr_1,
        tpr_01=tpr_01,
        fpr_1=fpr_1,
        fpr_01=fpr_01,
        threshold=held.threshold,
        source=held.source,
    )


def held_out(members: Scores | None, non_members: Scores, *, source: str, fpr: float = 0.5) -> HeldOut:
    """Calibration scores with the threshold of the best balanced accuracy on them.

    Where only non-members are known, that which a share ``fpr`` of them reaches.
    """
    if members is not None and len(members) and len(non_members):
        return HeldOut(members, non_members, balanced_threshold(members, non_members), source)
    return HeldOut(None, non_members, threshold_at_fpr(non_members, fpr=fpr), source)


def undefined(reason: str, confidence: float) -> Estimate:
    """A figure that was not measured, and why."""
    return Estimate(math.nan, math.nan, math.nan, confidence, 0, reason)


def draw_roc(axis: Any, results: dict[str, MembershipResult]) -> None:
    """One ROC each on logarithmic axes, and that of guessing."""
    least = 1.0
    for name, result in results.items():
        curve = result.roc
        shown = (curve.fpr > 0) & (curve.tpr > 0)
        axis.plot(
            curve.fpr[shown], curve.tpr[shown], drawstyle="steps-post", label=f"{name}: AUC {result.auc.value:.3f}"
        )
        least = min(least, 1 / max(1, int((~result.members).sum())))
    axis.plot([least, 1], [least, 1], linestyle=":", color="grey", label="guessing")
    axis.set(xscale="log", yscale="log", xlim=(least, 1), ylim=(least, 1.05))
    axis.set(xlabel="false positive rate", ylabel="true positive rate")
    axis.legend(loc="lower right", fontsize="x-small")


def _low_fpr(inside: Scores, outside: Scores, held: HeldOut, fpr: float, level: float) -> tuple[Estimate, Estimate]:
    """(true, realised false) positive rate, or why not."""
    try:
        rate = tpr_at_fpr(inside, outside, fpr=fpr, held_out=held.non_members, confidence=level)
        threshold = threshold_at_fpr(outside if held.non_members is None else held.non_members, fpr=fpr)
    except InvalidParameterError as error:
        return undefined(_reason(error), level), undefined("as the true positive rate", level)
    return rate, proportion(int((outside >= threshold).sum()), len(outside), confidence=level)


def _reason(error: InvalidParameterError) -> str:
    """What an error says between its owner and what to do."""
    return str(error).partition(": ")[2].partition(". ")[0]


def _plain(figure: Estimate) -> dict[str, Any]:
    return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in figure.to_dict().items()}
