"""What no attacker can exceed: against brute force over channels and tests."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from splitpriv import InvalidParameterError, ShapeError
from splitpriv.attacks.auditing import advantage_bound, bayes_accuracy, channel_accuracy, tpr_bound
from splitpriv.mechanisms import Channel, DiscreteLaplace, KClosest, RandomizedResponse


@given(st.lists(st.lists(st.integers(1, 9), min_size=3, max_size=3), min_size=2, max_size=5), st.integers(2, 9))
def test_no_channel_exceeds_the_bound_of_its_epsilon(rows: list[list[int]], scale: int) -> None:
    total = max(map(sum, rows)) + scale
    channel = Channel([[*row, total - sum(row)] for row in rows])
    inputs = torch.arange(len(rows))
    exact = channel_accuracy(channel, inputs)
    assert exact <= bayes_accuracy(channel.epsilon, candidates=len(rows)) * (1 + 1e-12)
    # By hand: of each output the most likely input.
    table = np.array(channel.table(), dtype=float) / channel.total
    assert exact == pytest.approx(table.max(0).sum() / len(rows))
    prior = np.arange(1, len(rows) + 1) / sum(range(1, len(rows) + 1))
    weighted = channel_accuracy(channel, inputs, prior=prior.tolist())
    assert weighted == pytest.approx((prior[:, None] * table).max(0).sum())
    assert weighted <= bayes_accuracy(channel.epsilon, prior=prior.tolist()) * (1 + 1e-12)


@pytest.mark.parametrize("size", [2, 5, 40])
@pytest.mark.parametrize("epsilon", [0.1, 1.0, 5.0])
def test_k_ary_randomized_response_reaches_it(size: int, epsilon: float) -> None:
    channel = KClosest(size, 1, epsilon=epsilon)
    bound = bayes_accuracy(epsilon, candidates=size)
    assert channel_accuracy(channel, torch.arange(size)) == pytest.approx(bound, rel=1e-9)
    assert bound == pytest.approx(math.exp(epsilon) / (math.exp(epsilon) + size - 1))


def test_inputs_that_are_sets() -> None:
    channel = KClosest(6, 2, epsilon=1.0)
    pairs = torch.tensor([[0, 1], [2, 3], [4, 5]])
    by_table = np.array(channel.table(), dtype=float)[[0, 9, 14]] / channel.total
    assert channel_accuracy(channel, pairs) == pytest.approx(by_table.max(0).sum() / 3)


@pytest.mark.parametrize("uses", [2, 3, 7])
@pytest.mark.parametrize("epsilon", [0.1, 0.7, 2.0])
def test_composition_for_two_candidates_is_exact(uses: int, epsilon: float) -> None:
    # The best test of two records on which randomized response ran this often, summed over all outputs.
    keep = 1 / (1 + math.exp(-epsilon))
    best = 0.0
    for bits in itertools.product((0, 1), repeat=uses):
        ones = sum(bits)
        best += max(keep**ones * (1 - keep) ** (uses - ones), keep ** (uses - ones) * (1 - keep) ** ones) / 2
    assert bayes_accuracy(epsilon, uses=uses) == pytest.approx(best, rel=1e-9)
    assert bayes_accuracy(epsilon, uses=uses) >= best
    assert bayes_accuracy(epsilon, uses=uses, prior=[0.5, 0.5]) == bayes_accuracy(epsilon, uses=uses)
    assert advantage_bound(epsilon, uses=uses) == pytest.approx(2 * best - 1, rel=1e-9)


@pytest.mark.parametrize(("uses", "epsilon"), [(3, 0.3), (4, 1.0)])
def test_composition_for_several_candidates_bounds_the_best_guess(uses: int, epsilon: float) -> None:
    table = np.array(KClosest(4, 1, epsilon=epsilon).table(), dtype=float)
    law = table / table.sum(1, keepdims=True)
    joint = law
    for _ in range(uses - 1):
        joint = (joint[:, :, None] * law[:, None, :]).reshape(4, -1)
    best = joint.max(0).sum() / 4
    assert best <= bayes_accuracy(epsilon, candidates=4, uses=uses)
    assert bayes_accuracy(epsilon, candidates=4, uses=uses) <= bayes_accuracy(epsilon * uses, candidates=4) + 1e-9
    prior = np.array([0.5, 0.3, 0.1, 0.1])
    best = (prior[:, None] * joint).max(0).sum()
    assert best <= bayes_accuracy(epsilon, uses=uses, prior=prior.tolist())


def test_composition_of_many_is_far_below_the_sum() -> None:
    assert bayes_accuracy(0.01, uses=1000) < 0.6
    assert bayes_accuracy(0.01, candidates=10, uses=1000) < 0.5
    assert bayes_accuracy(10.0, candidates=10) > 0.99


@pytest.mark.parametrize("uses", [1, 3])
@pytest.mark.parametrize("fpr", [0.0, 0.001, 0.1, 0.5, 1.0])
def test_no_test_of_an_output_exceeds_the_rates(uses: int, fpr: float) -> None:
    # Neyman and Pearson: randomised thresholds on the number of kept bits are the best tests.
    epsilon = 0.8
    keep = 1 / (1 + math.exp(-epsilon))
    ones = np.arange(uses + 1)
    count = np.array([math.comb(uses, k) for k in ones])
    one, other = count * keep**ones * (1 - keep) ** (uses - ones), count * (1 - keep) ** ones * keep ** (uses - ones)
    rates = np.cumsum(other[::-1]), np.cumsum(one[::-1])
    best = np.interp(fpr, [0, *rates[0]], [0, *rates[1]])
    assert best <= tpr_bound(epsilon, fpr=fpr, uses=uses) * (1 + 1e-9)
    if uses == 1:
        assert best == pytest.approx(tpr_bound(epsilon, fpr=fpr))


def test_ends() -> None:
    assert bayes_accuracy(0.0, candidates=10) == pytest.approx(0.1)
    assert bayes_accuracy(0.0, uses=5) == pytest.approx(0.5)
    assert bayes_accuracy(math.inf) == 1
    assert bayes_accuracy(1.0, prior=[1.0, 0.0]) == 1
    assert bayes_accuracy(1.0, uses=3, prior=[0.5, 0.25, 0.25]) > bayes_accuracy(1.0, uses=3) * 0.9
    assert bayes_accuracy(5000.0) == 1
    assert (advantage_bound(0.0), advantage_bound(math.inf)) == (0, 1)
    assert advantage_bound(1.0) == pytest.approx(math.tanh(0.5))
    assert (tpr_bound(math.inf, fpr=0.0), tpr_bound(0.0, fpr=0.3)) == (1, pytest.approx(0.3))
    assert tpr_bound(5000.0, fpr=0.1) == 1


def test_shipped_channels_stay_below() -> None:
    for channel in (RandomizedResponse(epsilon=1.0), DiscreteLaplace(epsilon=1.0)):
        ends = torch.tensor([0, channel.inputs - 1])
        assert channel_accuracy(channel, ends) <= bayes_accuracy(channel.epsilon)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: bayes_accuracy(-1.0), "bayes_accuracy: epsilon must be a number >= 0, or math.inf, got epsilon=-1.0"),
        (lambda: bayes_accuracy(1.0, candidates=1), "candidates must be an integer >= 2"),
        (lambda: bayes_accuracy(1.0, uses=0), "uses must be an integer >= 1"),
        (lambda: bayes_accuracy(1.0, prior=[0.5, 0.6]), "prior must be non-negative, with sum 1"),
        (lambda: channel_accuracy(RandomizedResponse(epsilon=1.0), torch.arange(0)), "inputs must be at least one"),
        (
            lambda: channel_accuracy(RandomizedResponse(epsilon=1.0), torch.arange(2), prior=[1.0]),
            "prior must be non-negative, with sum 1",
        ),
        (
            lambda: channel_accuracy(KClosest(1 << 21, 1, epsilon=1.0), torch.arange(2)),
            r"channel must be one with at most 2\*\*20 outputs",
        ),
        (lambda: bayes_accuracy(1.0, prior=3), "prior must be non-negative, with sum 1, got prior=3"),  # type: ignore[arg-type]
        (lambda: channel_accuracy(None, torch.arange(2)), "channel must be a Channel, got channel=None"),  # type: ignore[arg-type]
        (
            lambda: channel_accuracy(RandomizedResponse(epsilon=1.0), 3),  # type: ignore[arg-type]
            "inputs must be a tensor of input symbols, got inputs=3",
        ),
        (lambda: tpr_bound(1.0, fpr=2.0), r"fpr must be in \[0, 1\]"),
        (
            lambda: advantage_bound(math.nan),
            "advantage_bound: epsilon must be a number >= 0, or math.inf, got",
        ),
    ],
)
def test_bad_arguments(call: Any, text: str) -> None:
    with pytest.raises(InvalidParameterError, match=text):
        call()


def test_inputs_must_be_symbols() -> None:
    with pytest.raises(ShapeError, match=r"inputs must be in \[0, 2\)"):
        channel_accuracy(RandomizedResponse(epsilon=1.0), torch.tensor([0, 2]))
