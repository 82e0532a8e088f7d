"""Metrics of scores: against scikit-learn, closed forms, and where they must refuse."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from splitpriv import InvalidParameterError
from splitpriv.attacks.metrics.classification import (
    auc,
    balanced_accuracy,
    balanced_threshold,
    f1,
    f1_of_all,
    roc_curve,
    threshold_at_fpr,
    tpr_at_fpr,
)


def scores(seed: int, ties: bool, members: int = 60, others: int = 90) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    inside, outside = rng.normal(0.7, 1, members), rng.normal(0, 1, others)
    return (np.round(inside), np.round(outside)) if ties else (inside, outside)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_figures_are_those_of_scikit_learn(seed: int, ties: bool) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    inside, outside = scores(seed, ties)
    truth, both = np.r_[np.ones(len(inside)), np.zeros(len(outside))], np.r_[inside, outside]
    assert auc(inside, outside).value == pytest.approx(metrics.roc_auc_score(truth, both), abs=1e-12)
    for threshold in (-0.5, 0.3, 1.0):
        called = both >= threshold
        assert f1(inside, outside, threshold=threshold).value == pytest.approx(metrics.f1_score(truth, called))
        accuracy = balanced_accuracy(inside, outside, threshold=threshold)
        assert accuracy.value == pytest.approx(metrics.balanced_accuracy_score(truth, called))
    fpr, tpr, thresholds = metrics.roc_curve(truth, both, drop_intermediate=False)
    curve = roc_curve(inside, outside)
    for ours, theirs in ((curve.fpr, fpr), (curve.tpr, tpr), (curve.thresholds, thresholds)):
        assert np.allclose(ours, theirs)
    # The area under the points is the area.
    area = float(np.sum(np.diff(curve.fpr) * (curve.tpr[1:] + curve.tpr[:-1]) / 2))
    assert area == pytest.approx(metrics.roc_auc_score(truth, both))
    for rate in (0.05, 0.2):
        assert tpr_at_fpr(inside, outside, fpr=rate).value == pytest.approx(tpr[fpr <= rate + 1e-12].max())


def drawn(kind: str, area: float, members: int, others: int, rng: Any) -> tuple[np.ndarray, np.ndarray]:
    """Scores whose area is known."""
    if kind == "gaussian":
        return rng.normal(stats.norm.ppf(area) * math.sqrt(2), 1, members), rng.normal(0, 1, others)
    if kind == "all or nothing":  # the most that an area can vary: members above all others, or below
        return np.where(rng.random(members) < area, 10, -10) + rng.normal(0, 1, members), rng.normal(0, 0.1, others)
    return (rng.random(members) < area) * 1.0, (rng.random(others) >= area) * 1.0  # two values, most are tied


# Of 300 intervals at 95 %, 15 may miss; more than 30 with probability below 3e-4. Fixed seed.
@pytest.mark.parametrize("kind", ["gaussian", "all or nothing", "two values"])
@pytest.mark.parametrize("area", [0.5, 0.9, 0.983, 1.0])
@pytest.mark.parametrize("sizes", [(1, 100), (2, 2), (5, 5), (20, 20), (20, 300), (300, 300)])
def test_the_area_is_in_its_interval(kind: str, area: float, sizes: tuple[int, int]) -> None:
    rng, misses = np.random.default_rng(0), 0
    for _ in range(300):
        found = auc(*drawn(kind, min(area, 1 - 1e-12) if kind == "gaussian" else area, *sizes, rng))
        misses += not found.low <= area <= found.high
    assert misses <= 30


def test_an_area_of_one_rests_on_the_records_of_the_smaller_group() -> None:
    for inside, outside in ((2, 2), (5, 50), (300, 20)):
        found = auc(np.ones(inside), np.zeros(outside))
        assert (found.value, found.high) == (1, 1)
        assert found.low == pytest.approx(0.025 ** (1 / min(inside, outside)))  # of so many independent pairs
        mirrored = auc(np.zeros(inside), np.ones(outside))
        assert (mirrored.value, mirrored.low, mirrored.high) == pytest.approx((0, 0, 1 - found.low))
    assert auc([7.0], np.arange(101.0)).high > 0.9  # one record says next to nothing


def test_the_area_of_many_scores_has_the_interval_of_its_variance() -> None:
    truth, rng = stats.norm.cdf(0.5 / math.sqrt(2)), np.random.default_rng(0)
    inside, outside = rng.normal(0.5, 1, 10_000), rng.normal(0, 1, 40_000)
    found = auc(inside, outside)
    assert found.low < truth < found.high
    # DeLong's variance, by hand.
    below = np.searchsorted(np.sort(outside), inside) / len(outside)
    above = 1 - np.searchsorted(np.sort(inside), outside) / len(inside)
    error = math.sqrt(below.var() / len(inside) + above.var() / len(outside))
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.01)
    assert found.method == "Clopper-Pearson of pairs"


def test_ties_count_one_half() -> None:
    assert auc([1.0, 1.0], [1.0, 1.0, 1.0]).value == 0.5
    assert auc([1.0, 2.0], [1.0]).value == 0.75
    assert auc([math.inf], [-math.inf]).value == 1


def test_no_more_false_alarms_than_asked_however_many_tie() -> None:
    rng = np.random.default_rng(1)
    for trial in range(50):
        others = rng.integers(0, 4 + trial, 200).astype(float)
        for rate in (0.005, 0.01, 0.1, 0.5):
            threshold = threshold_at_fpr(others, fpr=rate)
            assert (others >= threshold).mean() <= rate
            below = np.nextafter(threshold, -math.inf)
            assert (others >= below).mean() > rate  # it is the lowest


def test_rates_at_thresholds_of_others_are_named() -> None:
    rng = np.random.default_rng(2)
    inside, outside, others = rng.normal(2, 1, 300), rng.normal(0, 1, 300), rng.normal(0, 1, 1000)
    held, plain = tpr_at_fpr(inside, outside, fpr=0.01, held_out=others), tpr_at_fpr(inside, outside, fpr=0.01)
    assert held.method == "Clopper-Pearson; threshold from held-out non-members"
    assert plain.method == "Clopper-Pearson; point on the ROC of the evaluated records"
    hits = int((inside >= threshold_at_fpr(others, fpr=0.01)).sum())
    exact = stats.binomtest(hits, 300).proportion_ci(0.95, "exact")
    assert (held.value, held.low, held.high) == pytest.approx((hits / 300, exact.low, exact.high))
    # The evaluated non-members move the point on their ROC, and no threshold of others.
    assert tpr_at_fpr(inside, outside + 1, fpr=0.01, held_out=others) == held
    assert tpr_at_fpr(inside, outside + 1, fpr=0.01).value < plain.value


def test_the_interval_of_balanced_accuracy_holds_exactly() -> None:
    # No sampling: the chance that the interval misses, summed over all outcomes of 12 members and 15 non-members.
    tpr, tnr, missed = 0.8, 0.6, 0.0
    for hits in range(13):
        for right in range(16):
            found = balanced_accuracy(np.arange(12) < hits, np.arange(15) >= right, threshold=0.5, confidence=0.9)
            chance = stats.binom.pmf(hits, 12, tpr) * stats.binom.pmf(right, 15, tnr)
            missed += chance * (not found.low <= (tpr + tnr) / 2 <= found.high)
    assert missed <= 0.1


def test_the_interval_of_f1_holds_exactly() -> None:
    # No sampling, as above; the share of members is given.
    tpr, fpr, missed = 0.8, 0.3, 0.0
    truth = 2 * tpr * 12 / (tpr * 12 + fpr * 15 + 12)
    for hits in range(13):
        for alarms in range(16):
            found = f1(np.arange(12) < hits, np.arange(15) < alarms, threshold=0.5, confidence=0.9)
            chance = stats.binom.pmf(hits, 12, tpr) * stats.binom.pmf(alarms, 15, fpr)
            missed += chance * (not found.low <= truth <= found.high)
    assert missed <= 0.1
    perfect = f1([1.0, 1.0], [0.0, 0.0], threshold=0.5)
    assert (perfect.value, perfect.high) == (1, 1)
    assert perfect.low < 0.5


def test_calling_everyone_a_member_has_an_f1() -> None:
    for inside, outside in ((10, 10), (900, 100), (1, 5)):
        assert f1_of_all(inside, outside) == f1(np.ones(inside), np.ones(outside), threshold=0.5).value
    with pytest.raises(InvalidParameterError, match="f1_of_all: members must be an integer >= 1"):
        f1_of_all(0, 3)


def test_the_threshold_of_calibration_is_the_best_one() -> None:
    for seed in range(5):
        inside, outside = scores(seed, ties=seed % 2 == 1)
        found = balanced_accuracy(inside, outside, threshold=balanced_threshold(inside, outside)).value
        every = [balanced_accuracy(inside, outside, threshold=t).value for t in np.r_[inside, outside]]
        assert found == pytest.approx(max(0.5, *every))
    assert math.isfinite(balanced_threshold([0.0], [1.0]))
    assert balanced_threshold([1.0], [np.nextafter(1.0, 0)]) == 1.0


@pytest.mark.parametrize(("count", "rate"), [(99, 0.01), (999, 0.001), (3, 0.25)])
def test_too_few_non_members_are_refused(count: int, rate: float) -> None:
    text = f"non_members must be at least {count + 1:,} for a false positive rate of {rate:g}, got {count:,}"
    with pytest.raises(InvalidParameterError, match=f"tpr_at_fpr: {text}"):
        tpr_at_fpr([1.0, 2.0], np.zeros(count), fpr=rate)
    with pytest.raises(InvalidParameterError, match=text):  # of the held-out ones, too
        tpr_at_fpr([1.0, 2.0], np.zeros(count + 1), fpr=rate, held_out=np.ones(count))
    assert tpr_at_fpr([1.0, 2.0], np.zeros(count + 1), fpr=rate).value == 1


def test_thresholds_from_the_evaluated_records_are_refused() -> None:
    outside = np.arange(100.0)
    with pytest.raises(InvalidParameterError, match="held_out must be scores of other non-members, got the evaluated"):
        tpr_at_fpr([1.0], outside, fpr=0.05, held_out=outside.copy())


def test_the_order_of_the_evaluated_scores_hides_them_from_nobody() -> None:
    outside = np.arange(100.0)
    text = "held_out must be scores of other non-members, got the evaluated"
    for others in (outside[::-1], np.random.default_rng(0).permutation(outside)):
        with pytest.raises(InvalidParameterError, match=text):
            tpr_at_fpr([1.0], outside, fpr=0.05, held_out=others)
    # An attack that gives every record the same score gives it to those of shadow models, too.
    same = np.zeros(100)
    assert tpr_at_fpr([1.0], same, fpr=0.05, held_out=np.zeros(100)).value == 1
    with pytest.raises(InvalidParameterError, match=text):
        tpr_at_fpr([1.0], same, fpr=0.05, held_out=same)


def test_no_threshold_is_above_infinity() -> None:
    infinite = [math.inf] * 100
    text = "threshold_at_fpr: non_members must be finite where a threshold has to be above them"
    with pytest.raises(InvalidParameterError, match=text):
        tpr_at_fpr(infinite, infinite, fpr=0.01)
    # One infinite score in a hundred may be a false alarm, and members may have what they like.
    assert tpr_at_fpr(infinite, [math.inf, *[0.0] * 99], fpr=0.01).value == 1
    assert balanced_threshold([math.inf], [-math.inf]) == math.inf
    assert balanced_threshold([0.0, 0.0], [math.inf, math.inf]) == 0.0  # everyone
    assert balanced_threshold([1.7e308], [1.6e308]) < math.inf


def test_scores_may_be_lists_arrays_or_tensors() -> None:
    given = [3.0, 2.0, 1.0]
    tensor = torch.tensor(given, requires_grad=True)
    for scores_ in (given, tuple(given), np.array(given, np.float32), tensor):
        assert auc(scores_, scores_).value == 0.5
        assert f1(scores_, scores_, threshold=np.float32(2.0)).value == pytest.approx(4 / 7)
        assert tpr_at_fpr(scores_, scores_, fpr=0.5).value == pytest.approx(1 / 3)


@pytest.mark.parametrize("metric", [auc, roc_curve, balanced_threshold])
@pytest.mark.parametrize("wrong", [[], [[1.0]], [math.nan], 3.0, "x", None, [[1.0], 2.0], [object()]])
def test_scores_that_are_none_are_refused(metric: Any, wrong: Any) -> None:
    with pytest.raises(InvalidParameterError, match="members must be one or more scores in one dimension, no NaN"):
        metric(wrong, [1.0])
    with pytest.raises(InvalidParameterError, match="non_members must be one or more scores"):
        metric([1.0], wrong)


def test_parameters_out_of_range_are_refused() -> None:
    with pytest.raises(InvalidParameterError, match="threshold must be a number chosen on other records"):
        f1([1.0], [0.0], threshold=math.nan)
    for wrong in ("x", None, True, [1.0]):
        with pytest.raises(InvalidParameterError, match="threshold must be a number chosen on other records, got thr"):
            balanced_accuracy([1.0], [0.0], threshold=wrong)
    with pytest.raises(InvalidParameterError, match="fpr must be below 1"):
        threshold_at_fpr([1.0, 0.0], fpr=1.0)
    with pytest.raises(InvalidParameterError, match="fpr must be finite and > 0"):
        tpr_at_fpr([1.0], [0.0], fpr=0.0)
    with pytest.raises(InvalidParameterError, match="balanced_accuracy: confidence must be below 1"):
        balanced_accuracy([1.0], [0.0], threshold=0.5, confidence=1.0)
    with pytest.raises(InvalidParameterError, match="auc: confidence must be below 1"):
        auc([1.0], [0.0], confidence=95)


def test_the_curve_goes_to_json() -> None:
    found = json.loads(json.dumps(roc_curve([2.0, 1.0], [1.0]).to_dict(), allow_nan=False))
    assert found == {"fpr": [0, 0, 1], "tpr": [0, 0.5, 1], "thresholds": [None, 2, 1]}
