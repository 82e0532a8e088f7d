"""Discrete Laplace: exact epsilon, exact kernel, range and calibration."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from exact import exceeds, kernel_counts, worst_ratio
from faults import float_laplace_outputs, tail_cut_before_clamping
from hypothesis import given, settings
from hypothesis import strategies as st

from splitpriv import InvalidParameterError
from splitpriv.mechanisms import Channel, DiscreteLaplace, SeededSource
from splitpriv.mechanisms.discrete_laplace import MAX_OUTPUTS, _grid_ratio

grids = st.sampled_from([3, 5, 7, 9, 17, 33])


@settings(max_examples=40)
@given(st.floats(0.2, 20.0), grids)
def test_table_is_private_at_the_epsilon_reported_and_asked(epsilon: float, levels: int) -> None:
    channel = DiscreteLaplace(epsilon=epsilon, levels=levels)
    columns = zip(*channel.table(), strict=True)
    truth = max(Fraction(max(column), min(column)) for column in columns)
    assert channel.epsilon_ratio == truth
    assert not exceeds(truth, channel.epsilon)
    assert not exceeds(truth, epsilon)
    assert all(sum(row) == channel.total for row in channel.table())


@given(st.floats(0.01, 20.0), st.sampled_from([None, 3, 33, 257]))
def test_calibration_never_overshoots_and_loses_at_most_one_part_in_ten_thousand(
    epsilon: float, levels: int | None
) -> None:
    channel = DiscreteLaplace(epsilon=epsilon, levels=levels)
    assert epsilon * (1 - 1e-4) <= channel.epsilon <= epsilon
    assert channel.outputs <= MAX_OUTPUTS


@pytest.mark.parametrize("epsilon", [1e-5, 1e-4, 1e-3, 0.02, 30.0, 44.0])
def test_extreme_budgets_stay_below_what_was_asked(epsilon: float) -> None:
    channel = DiscreteLaplace(epsilon=epsilon)
    truth = max(Fraction(max(c), min(c)) for c in zip(*channel.table(), strict=True))
    assert channel.epsilon_ratio == truth
    assert 0 < channel.epsilon <= epsilon
    if epsilon <= 1:
        assert channel.epsilon >= epsilon * (1 - 1e-4)


@pytest.mark.parametrize(("epsilon", "levels"), [(1.0, 3), (2.0, 5), (0.7, 3)])
def test_every_word_at_16_bits(epsilon: float, levels: int) -> None:
    channel = DiscreteLaplace(epsilon=epsilon, levels=levels, bits=16)
    assert channel.epsilon <= epsilon
    words = np.arange(2**16, dtype=np.uint16)
    noise = channel.kernel.decide(words, lambda ties: np.empty(0, np.uint64) if ties else pytest.fail("no ties"))
    for x, row in enumerate(channel.table()):
        outputs = channel.decide_output(np.full(2**16, x), noise)
        assert np.bincount(outputs, minlength=channel.outputs).tolist() == row


@pytest.mark.parametrize(("epsilon", "levels"), [(0.05, None), (1.0, 5), (1.0, None), (4.0, 33), (20.0, 9)])
def test_kernel_reproduces_the_table(epsilon: float, levels: int | None) -> None:
    channel = DiscreteLaplace(epsilon=epsilon, levels=levels)
    counts = kernel_counts(channel.kernel)
    noise = np.arange(len(counts))
    for x, row in [(0, channel.table()[0]), (channel.half, channel.table()[channel.half])]:
        outputs = channel.decide_output(np.full(noise.size, x), noise)
        reached = [0] * channel.outputs
        for output, words in zip(outputs.tolist(), counts, strict=True):
            reached[output] += words
        assert reached == row


def test_log_prob_agrees_with_the_dense_channel() -> None:
    channel = DiscreteLaplace(epsilon=1.5, levels=9)
    dense = Channel(channel.table())
    outputs, inputs = torch.arange(channel.outputs)[None], torch.arange(9)[:, None]
    torch.testing.assert_close(channel.log_prob(outputs, inputs), dense.log_prob(outputs, inputs))


@pytest.mark.parametrize("epsilon", [0.01, 0.1, 1.0, 5.0, 20.0])
def test_clamping_changes_the_variance_by_under_one_percent(epsilon: float) -> None:
    channel = DiscreteLaplace(epsilon=epsilon)
    alpha = math.exp(-epsilon / (2 * channel.half))
    free = 2 * alpha / (1 - alpha) ** 2
    points = np.arange(channel.outputs)
    worst = 0.0
    for row in (channel.table()[0], channel.table()[channel.half]):
        p = np.array([float(Fraction(w, channel.total)) for w in row])
        mean = (p * points).sum()
        worst = max(worst, abs((p * (points - mean) ** 2).sum() / free - 1))
    assert worst < 0.01
    assert worst == pytest.approx(channel.variance_change, rel=0.02)


def test_one_step_less_range_would_not_do() -> None:
    channel = DiscreteLaplace(epsilon=2.0)
    channel.reach -= 1
    assert channel.variance_change >= 0.01


def test_range_is_capped_where_one_percent_needs_too_many_outputs() -> None:
    channel = DiscreteLaplace(epsilon=1e-3)
    assert channel.inputs == 3
    assert channel.outputs == MAX_OUTPUTS - 1
    assert channel.variance_change > 0.01
    assert "clamping changes the variance by" in repr(channel)


def test_noise_is_symmetric_with_the_variance_of_laplace() -> None:
    # 1e6 draws at the middle; mean and variance within 5 standard errors (Laplace kurtosis 6, so
    # the variance has relative standard error sqrt(5 / n)); failure probability below 2e-6.
    channel = DiscreteLaplace(epsilon=1.0)
    drawn = channel.sample(torch.full((1_000_000,), channel.half, dtype=torch.int16), SeededSource(7))
    noise = (drawn.double() - channel.reach) / (2 * channel.half)  # in units of the sensitivity
    assert abs(float(noise.mean())) < 5 * math.sqrt(2 / 1e6)
    assert float(noise.var()) == pytest.approx(2.0, rel=5 * math.sqrt(5 / 1e6) + 0.01)


def test_planted_fault_tail_cut_before_clamping_is_caught() -> None:
    fault = tail_cut_before_clamping(1.0, 8)
    assert exceeds(worst_ratio(fault.table()), 1.0)
    assert fault.epsilon > 1.5
    assert not exceeds(worst_ratio(DiscreteLaplace(epsilon=1.0, levels=17).table()[::16]), 1.0)


def test_planted_fault_float_laplace_is_caught() -> None:
    # Of the values that float32 Laplace noise reaches from 0, most cannot come from 0.5: no
    # epsilon at all. The grid's outputs are all possible under every input.
    uniforms = np.arange(1, 2**16) / 2**16
    here = set(float_laplace_outputs(0.0, 1.0, uniforms).tolist())
    there = set(float_laplace_outputs(0.5, 1.0, uniforms).tolist())
    assert len(here - there) > 0.5 * len(here)
    assert min(min(row) for row in DiscreteLaplace(epsilon=1.0, levels=33).table()) > 0


def test_ratio_of_uneven_weights_looks_at_whole_windows() -> None:
    # Weights that do not fall monotonically (rounding can do that in a far tail): the extreme
    # of a column may then lie inside its window.
    tails, weights = [15, 10, 9, 4, 2], [5, 1, 5, 2, 2]
    assert _grid_ratio(tails, weights, 1, 3) == Fraction(5, 1)  # the window 5, 1, 5 around output 1


@pytest.mark.parametrize("levels", [4, 1, 259, 3.0, True])
def test_bad_levels_are_refused(levels: object) -> None:
    with pytest.raises(InvalidParameterError, match=r"levels must be an odd int in \[3, 257\]"):
        DiscreteLaplace(epsilon=1.0, levels=levels)  # type: ignore[arg-type]


@pytest.mark.parametrize("epsilon", [0.0, -1.0, math.nan, math.inf])
def test_bad_epsilon_is_refused(epsilon: float) -> None:
    with pytest.raises(InvalidParameterError, match="DiscreteLaplace: epsilon must be finite and > 0"):
        DiscreteLaplace(epsilon=epsilon)


def test_bad_bits_are_refused() -> None:
    with pytest.raises(InvalidParameterError, match="bits must be 16 or 64, got bits=32"):
        DiscreteLaplace(epsilon=1.0, bits=32)
    with pytest.raises(InvalidParameterError, match="a grid of 257 levels can meet with 16 bits"):
        DiscreteLaplace(epsilon=1.0, bits=16)


def test_an_epsilon_that_64_bits_cannot_meet_is_refused() -> None:
    with pytest.raises(InvalidParameterError, match="one that a grid of 3 levels can meet with 64 bits"):
        DiscreteLaplace(epsilon=2e-18)
    with pytest.raises(InvalidParameterError, match="large enough to be expressed in 64 bits"):
        DiscreteLaplace(epsilon=1e-300)
