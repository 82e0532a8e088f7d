"""How well scores tell members from non-members: higher means more like a member, ties count one half."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from splitpriv import _validation as check
from splitpriv._errors import InvalidParameterError
from splitpriv.attacks.estimate import Estimate, level_of, lower_bound, proportion, upper_bound
from splitpriv.attacks.metrics.area import area, area_interval

Scores = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class RocCurve:
    """The points of a receiver operating characteristic, from (0, 0) to (1, 1).

    Attributes:
        fpr: (points,), share of non-members whose score reaches the threshold, ascending.
        tpr: (points,), share of members whose score does.
        thresholds: (points,), descending from infinity.
    """

    fpr: Scores
    tpr: Scores
    thresholds: Scores

    def to_dict(self) -> dict[str, Any]:
        """The points, for JSON; the threshold of the first, infinity, is None."""
        finite = [float(t) if math.isfinite(t) else None for t in self.thresholds]
        return {"fpr": self.fpr.tolist(), "tpr": self.tpr.tolist(), "thresholds": finite}


def roc_curve(
    members: npt.ArrayLike,  # shape: (members,)
    non_members: npt.ArrayLike,  # shape: (non_members,)
) -> RocCurve:
    """One point for each score that occurs: whoever reaches it is called a member.

    Args:
        members: scores of members, one or more, no NaN.
        non_members: scores of non-members, one or more, no NaN.

    Raises:
        InvalidParameterError: scores are empty, not in one dimension, or NaN.

    Example:
        >>> curve = roc_curve([3.0, 2.0], [2.0, 1.0])
        >>> curve.fpr.tolist(), curve.tpr.tolist()
        ([0.0, 0.0, 0.5, 1.0], [0.0, 0.5, 1.0, 1.0])
    """
    inside, outside = _scores("roc_curve", "members", members), _scores("roc_curve", "non_members", non_members)
    levels = np.unique(np.concatenate([inside, outside]))[::-1]
    reached = [np.searchsorted(np.sort(-group), -levels, side="right") / len(group) for group in (outside, inside)]
    fpr, tpr = (np.concatenate([[0.0], share]) for share in reached)
    return RocCurve(fpr, tpr, np.concatenate([[math.inf], levels]))


def auc(
    members: npt.ArrayLike,  # shape: (members,)
    non_members: npt.ArrayLike,  # shape: (non_members,)
    *,
    confidence: float = 0.95,
) -> Estimate:
    """The chance that a member's score is above a non-member's, a tie counting one half; 0.5 says nothing.

    The interval is that of a share (Clopper-Pearson) of so many independent pairs as would vary as much as the area
    does; never fewer pairs than there are records in the smaller group. It holds for few records and for scores that
    are told apart without an error, where it is that of the smaller group alone. It says nothing of how the target or
    the shadow models would vary in another run.

    Args:
        members: scores of members, one or more, no NaN.
        non_members: scores of non-members, one or more, no NaN.
        confidence: of the two-sided interval, in (0, 1).

    Raises:
        InvalidParameterError: an argument is outside its range.

    Source: Hanley, McNeil 1982 (the area as a probability); DeLong, DeLong, Clarke-Pearson 1988 (its variance).

    Example:
        >>> print(auc([3.0, 2.0], [2.0, 1.0]))
        0.875 [0.102, 1]
    """
    inside, outside = _scores("auc", "members", members), _scores("auc", "non_members", non_members)
    level = level_of("auc", confidence)
    low, high = area_interval(inside, outside, confidence=level)
    return Estimate(area(inside, outside), low, high, level, len(inside) + len(outside), "Clopper-Pearson of pairs")


def balanced_accuracy(
    members: npt.ArrayLike,  # shape: (members,)
    non_members: npt.ArrayLike,  # shape: (non_members,)
    *,
    threshold: float,
    confidence: float = 0.95,
) -> Estimate:
    """The mean of the shares of members and of non-members that are told right at a threshold chosen elsewhere.

    The interval adds up those of both shares (Clopper-Pearson, each at half the error): never too narrow.

    Args:
        members: scores of members, one or more, no NaN.
        non_members: scores of non-members, one or more, no NaN.
        threshold: whoever reaches it is called a member; not NaN. Choose it on other records or on shadow models:
            the one that is best on these records overstates the attack.
        confidence: of the two-sided interval, in (0, 1).

    Raises:
        InvalidParameterError: an argument is outside its range.

    Example:
        >>> balanced_accuracy([3.0, 2.0], [2.5, 1.0], threshold=2.0).value
        0.75
    """
    hits, draws = _hits("balanced_accuracy", members, non_members, threshold)
    right = (hits[0], draws[1] - hits[1])
    alpha = (1 - level_of("balanced_accuracy", confidence)) / 4
    low = (lower_bound(right[0], draws[0], alpha) + lower_bound(right[1], draws[1], alpha)) / 2
    high = (upper_bound(right[0], draws[0], alpha) + upper_bound(right[1], draws[1], alpha)) / 2
    value = (right[0] / draws[0] + right[1] / draws[1]) / 2
    return Estimate(value, low, high, confidence, sum(draws), "Clopper-Pearson of both shares")


def f1(
    members: npt.ArrayLike,  # shape: (members,)
    non_members: npt.ArrayLike,  # shape: (non_members,)
    *,
    threshold: float,
    confidence: float = 0.95,
) -> Estimate:
    """The harmonic mean of precision and recall at a threshold chosen elsewhere.

    It depends on the share of members among the records: compare with :func:`f1_of_all`. The interval takes both rates
    at the ends of theirs (Clopper-Pearson, each at half the error), at this share of members: never too narrow.

    Args:
        members: scores of members, one or more, no NaN.
        non_members: scores of non-members, one or more, no NaN.
        threshold: as in :func:`balanced_accuracy`.
        confidence: of the two-sided interval, in (0, 1).

    Raises:
        InvalidParameterError: an argument is outside its range.

    Example:
        >>> f1([3.0, 2.0], [2.5, 1.0], threshold=2.0).value
        0.8
    """
    (true, false), (inside, outside) = _hits("f1", members, non_members, threshold)
    alpha = (1 - level_of("f1", confidence)) / 4

    def at(found: float, alarms: float) -> float:
        return 2 * found * inside / (found * inside + alarms * outside + inside)

    low = at(lower_bound(true, inside, alpha), upper_bound(false, outside, alpha))
    high = at(upper_bound(true, inside, alpha), lower_bound(false, outside, alpha))
    value = 2 * true / (true + false + inside)
    return Estimate(value, low, high, confidence, inside + outside, "Clopper-Pearson of both rates")


def f1_of_all(members: int, non_members: int) -> float:
    """The F1 of calling every record a member, which is no attack; 2/3 with as many members as non-members.

    Args:
        members: how many, >= 1.
        non_members: how many, >= 0.

    Raises:
        InvalidParameterError: an argument is outside its range.

    Example:
        >>> f1_of_all(900, 100)
        0.9473684210526315
    """
    check.integer("f1_of_all", "members", members, 1)
    check.integer("f1_of_all", "non_members", non_members, 0)
    return 2 * members / (2 * members + non_members)


def tpr_at_fpr(
    members: npt.ArrayLike,  # shape: (members,)
    non_members: npt.ArrayLike,  # shape: (non_members,)
    *,
    fpr: float,
    held_out: npt.ArrayLike | None = None,  # shape: (others,)
    confidence: float = 0.95,
) -> Estimate:
    """The share of members found while at most ``fpr`` of the non-members are called members.

    With ``held_out`` the threshold is the lowest at which no more than that share of *those* scores is a false alarm;
    read the false positive rate that it has on the evaluated records beside it. Without, it is the point
    on the ROC of the evaluated records, as usual in the literature, and ``method`` says so. The interval is
    Clopper-Pearson at that threshold: it does not cover how the threshold itself would vary.

    Args:
        members: scores of members, one or more, no NaN.
        non_members: scores of non-members, at least 1 / fpr of them, no NaN.
        fpr: false positive rate, in (0, 1).
        held_out: scores of other non-members, such as those of shadow models; at least 1 / fpr of them.
        confidence: of the two-sided interval, in (0, 1).

    Returns:
        The rate; its ``method`` names where the threshold comes from.

    Raises:
        InvalidParameterError: there are too few non-members for this rate, ``held_out`` are the evaluated scores,
            or an argument is outside its range.

    Source: Carlini, Chien, Nasr, Song, Terzis, Tramer 2022 (why low false positive rates); Clopper, Pearson 1934.

    Example:
        >>> print(tpr_at_fpr([5.0, 4.0, 0.0], range(4), fpr=0.25))
        0.667 [0.0943, 0.992]
    """
    inside, outside = _scores("tpr_at_fpr", "members", members), _scores("tpr_at_fpr", "non_members", non_members)
    _enough("tpr_at_fpr", "non_members", len(outside), fpr)
    if held_out is None:
        threshold, source = threshold_at_fpr(outside, fpr=fpr), "point on the ROC of the evaluated records"
    else:
        others = _scores("tpr_at_fpr", "held_out", held_out)
        if held_out is non_members or _are_the_same(others, outside):
            raise InvalidParameterError(
                "tpr_at_fpr: held_out must be scores of other non-members, got the evaluated ones. "
                "Leave it out to get the point on their ROC."
            )
        threshold, source = threshold_at_fpr(others, fpr=fpr), "threshold from held-out non-members"
    found = proportion(int((inside >= threshold).sum()), len(inside), confidence=confidence)
    return Estimate(found.value, found.low, found.high, confidence, found.count, f"Clopper-Pearson; {source}")


def threshold_at_fpr(
    non_members: npt.ArrayLike,  # shape: (non_members,)
    *,
    fpr: float,
) -> float:
    """The lowest threshold that no more than a share ``fpr`` of these scores reaches.

    Args:
        non_members: scores of non-members, at least 1 / fpr of them, no NaN.
        fpr: false positive rate, in (0, 1).

    Raises:
        InvalidParameterError: there are too few scores for this rate, more than that share of them is infinite, or an
            argument is outside its range.

    Example:
        >>> threshold_at_fpr([0.0, 1.0, 2.0, 2.0], fpr=0.5) > 1.0
        True
    """
    scores = _scores("threshold_at_fpr", "non_members", non_members)
    _enough("threshold_at_fpr", "non_members", len(scores), fpr)
    allowed = math.floor(fpr * len(scores) + 1e-9)
    score = float(np.sort(scores)[::-1][allowed])
    if score == math.inf:
        raise InvalidParameterError(
            "threshold_at_fpr: non_members must be finite where a threshold has to be above them, got infinite scores. "
            "Bound the scores."
        )
    return float(np.nextafter(score, math.inf))


def balanced_threshold(
    members: npt.ArrayLike,  # shape: (members,)
    non_members: npt.ArrayLike,  # shape: (non_members,)
) -> float:
    """The threshold of the highest balanced accuracy on these scores: for calibration, never for evaluation.

    Halfway between two scores that occur; of equally good ones the middle one.

    Args:
        members: scores of members (of shadow models), one or more, no NaN.
        non_members: scores of non-members (of shadow models), one or more, no NaN.

    Raises:
        InvalidParameterError: an argument is outside its range.

    Example:
        >>> balanced_threshold([3.0, 4.0], [1.0, 2.0])
        2.5
    """
    curve = roc_curve(members, non_members)
    gain = curve.tpr - curve.fpr
    best = np.flatnonzero(gain >= gain.max() - 1e-12)
    point = int(best[len(best) // 2])  # never the first: calling everyone a member is as good
    if point + 1 == len(curve.thresholds):
        return float(curve.thresholds[-1])
    upper, lower = float(curve.thresholds[point]), float(curve.thresholds[point + 1])
    middle = 0.5 * upper + 0.5 * lower
    return middle if middle > lower else upper


def _scores(owner: str, name: str, values: npt.ArrayLike) -> Scores:
    try:
        found = np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values, dtype=np.float64)
        what = f"{int(np.isnan(found).sum())} NaN in shape {found.shape}"
    except (TypeError, ValueError):
        found, what = np.empty(0), f"no numbers but {type(values).__name__}"
    if found.ndim != 1 or not len(found) or bool(np.isnan(found).any()):
        raise InvalidParameterError(f"{owner}: {name} must be one or more scores in one dimension, no NaN, got {what}.")
    return found


def _are_the_same(others: Scores, evaluated: Scores) -> bool:
    """Whether these are the same scores, in any order; constant ones say nothing of whose they are."""
    if len(others) != len(evaluated) or evaluated.min() == evaluated.max():
        return False
    return np.array_equal(np.sort(others), np.sort(evaluated))


def _hits(
    owner: str, members: npt.ArrayLike, non_members: npt.ArrayLike, threshold: float
) -> tuple[tuple[int, int], tuple[int, int]]:
    """How many of each reach the threshold, and how many there are."""
    if not isinstance(threshold, Real) or isinstance(threshold, bool) or math.isnan(threshold):
        raise InvalidParameterError(check.message(owner, "threshold", "a number chosen on other records", threshold))
    groups = _scores(owner, "members", members), _scores(owner, "non_members", non_members)
    first, second = (int((group >= threshold).sum()) for group in groups)
    return (first, second), (len(groups[0]), len(groups[1]))


def _enough(owner: str, name: str, count: int, fpr: float) -> None:
    if check.positive(owner, "fpr", fpr) >= 1:
        raise InvalidParameterError(check.message(owner, "fpr", "below 1", fpr))
    if count * fpr < 1 - 1e-9:
        raise InvalidParameterError(
            f"{owner}: {name} must be at least {math.ceil(1 / fpr - 1e-9):,} for a false positive rate of {fpr:g}, "
            f"got {count:,}. Evaluate more non-members, or ask for a higher rate."
        )
