"""Intervals: by hand, and their coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from splitpriv import InvalidParameterError
from splitpriv.attacks import bootstrap, mean, proportion
from splitpriv.attacks.estimate import lower_bound, upper_bound


def test_clopper_pearson_by_hand() -> None:
    assert lower_bound(0, 10, 0.05) == 0
    assert upper_bound(10, 10, 0.05) == 1
    assert lower_bound(10, 10, 0.05) == pytest.approx(0.05**0.1)
    assert upper_bound(0, 10, 0.05) == pytest.approx(1 - 0.05**0.1)
    found = proportion(95, 100)
    exact = stats.binomtest(95, 100).proportion_ci(0.95, "exact")
    assert (found.low, found.high) == (pytest.approx(exact.low), pytest.approx(exact.high))
    assert (found.value, found.count, found.method) == (0.95, 100, "Clopper-Pearson")


@pytest.mark.parametrize("truth", [0.01, 0.3, 0.9])
def test_clopper_pearson_covers_exactly(truth: float) -> None:
    # No sampling: the chance that the interval misses, summed over all outcomes.
    missed = 0.0
    for hits in range(51):
        found = proportion(hits, 50)
        if not found.low <= truth <= found.high:
            missed += stats.binom.pmf(hits, 50, truth)
    assert missed <= 0.05


def test_bootstrap_covers_a_mean_about_as_often_as_it_says() -> None:
    # 200 trials; a nominal 95 % interval of 50 values misses in 6 to 7 %: 14 expected. More than 30 has
    # probability below 1e-4. Fixed seed.
    rng = np.random.default_rng(0)
    misses = 0
    for trial in range(200):
        found = bootstrap(np.mean, rng.normal(size=50), resamples=400, seed=trial)
        misses += not found.low <= 0 <= found.high
    assert misses <= 30


def test_bootstrap_resamples_each_group_by_itself() -> None:
    found = bootstrap(lambda a, b: float(a.mean() - b.mean()), np.zeros(5), np.ones(7))
    assert (found.value, found.low, found.high, found.count) == (-1, -1, -1, 12)
    again = [bootstrap(np.mean, np.arange(20.0), seed=3) for _ in range(2)]
    assert again[0] == again[1]


def test_undefined_values_do_not_count() -> None:
    assert mean(np.array([1.0, math.nan, 3.0])).value == 2
    assert mean(np.array([1.0, math.nan, 3.0])).count == 2
    empty = mean(np.array([math.nan]))
    assert math.isnan(empty.value)
    assert (empty.count, empty.method) == (0, "undefined")


def test_shown_and_exported() -> None:
    found = proportion(1, 2)
    assert str(found) == "0.5 [0.0126, 0.987]"
    assert found.to_dict()["method"] == "Clopper-Pearson"


def test_what_is_out_of_range_is_refused() -> None:
    with pytest.raises(InvalidParameterError, match="hits must be an integer in"):
        proportion(3, 2)
    with pytest.raises(InvalidParameterError, match="draws must be an integer >= 1"):
        proportion(0, 0)
    with pytest.raises(InvalidParameterError, match="confidence must be below 1"):
        proportion(1, 2, confidence=1.0)
    with pytest.raises(InvalidParameterError, match="groups must be one or more non-empty arrays"):
        bootstrap(np.mean, np.array([]))
    with pytest.raises(InvalidParameterError, match="groups must be one or more non-empty arrays"):
        mean(np.array([]))
    with pytest.raises(InvalidParameterError, match="resamples must be an integer >= 100"):
        bootstrap(np.mean, np.ones(3), resamples=10)
