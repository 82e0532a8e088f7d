"""Randomized response: exact epsilon, exact kernel, calibration that never overshoots."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from exact import exceeds, kernel_counts, run, worst_ratio
from faults import rounded_threshold
from hypothesis import given
from hypothesis import strategies as st

from splitpriv import InvalidParameterError
from splitpriv.mechanisms import Channel, RandomizedResponse, SeededSource

epsilons = st.floats(0.01, 20.0) | st.sampled_from([1e-5, 0.01, 0.5, 1.0, math.log(3), 2.0, 12.0, 20.0])


@given(epsilons, st.sampled_from([16, 64]))
def test_table_is_private_at_the_epsilon_reported_and_asked(epsilon: float, bits: int) -> None:
    try:
        channel = RandomizedResponse(epsilon=epsilon, bits=bits)
    except InvalidParameterError:
        assert bits == 16
        assert epsilon < 1e-4  # 16 bits cannot express it: refused, not rounded
        return
    truth = worst_ratio(channel.table())
    assert channel.epsilon_ratio == truth
    assert not exceeds(truth, channel.epsilon)
    assert not exceeds(truth, epsilon)
    assert channel.epsilon <= epsilon
    assert all(sum(row) == channel.total == 2**bits for row in channel.table())


@given(epsilons)
def test_calibration_loses_at_most_one_part_in_ten_thousand(epsilon: float) -> None:
    assert RandomizedResponse(epsilon=epsilon).epsilon >= epsilon * (1 - 1e-4)


@pytest.mark.parametrize("epsilon", [0.01, 0.5, 1.0, 2.0, 7.5, 20.0])
@pytest.mark.parametrize("bits", [16, 64])
def test_kernel_reproduces_the_table(epsilon: float, bits: int) -> None:
    channel = RandomizedResponse(epsilon=epsilon, bits=bits)
    assert kernel_counts(channel.kernel) == [channel.total - channel.flips, channel.flips]


def test_every_word_at_16_bits() -> None:
    channel = RandomizedResponse(epsilon=1.0, bits=16)
    outcomes = [run(channel.kernel, word >> 8, word & 255) for word in range(2**16)]
    assert sum(outcomes) == channel.flips
    assert outcomes == sorted(outcomes)  # a threshold: no word is out of place


def test_both_sides_of_the_threshold() -> None:
    channel = RandomizedResponse(epsilon=1.0)
    threshold = channel.total - channel.flips
    for word, outcome in ((threshold - 1, 0), (threshold, 1)):
        assert run(channel.kernel, word >> 56, word & (2**56 - 1)) == outcome


def test_symbols_are_xored_with_the_kernel() -> None:
    channel = RandomizedResponse(epsilon=1.0)
    zeros = channel.sample(torch.zeros(4096, dtype=torch.uint8), SeededSource(5))
    ones = channel.sample(torch.ones(4096, dtype=torch.uint8), SeededSource(5))
    assert torch.equal(zeros, 1 - ones)


def test_planted_fault_threshold_rounded_to_nearest_is_caught() -> None:
    assert exceeds(worst_ratio(rounded_threshold(1.0, 16).table()), 1.0)
    assert worst_ratio(rounded_threshold(12.0, 16).table()) == math.inf
    assert rounded_threshold(12.0, 16).epsilon == math.inf  # and the channel says so itself
    assert not exceeds(worst_ratio(RandomizedResponse(epsilon=12.0, bits=16).table()), 12.0)


def test_published_overshoot_of_rounding_to_nearest() -> None:
    assert rounded_threshold(1.0, 16).epsilon == pytest.approx(1.0000268, abs=1e-7)


def test_agrees_with_the_dense_channel() -> None:
    channel = RandomizedResponse(epsilon=0.7)
    dense = Channel(channel.table())
    assert dense.epsilon == channel.epsilon
    both = torch.tensor([[0], [1]]), torch.tensor([[0, 1]])
    torch.testing.assert_close(channel.log_prob(*both), dense.log_prob(*both))


@pytest.mark.parametrize("epsilon", [0.0, -1.0, math.nan, math.inf, "1", True, None])
def test_bad_epsilon_is_refused(epsilon: object) -> None:
    with pytest.raises(InvalidParameterError, match="RandomizedResponse: epsilon must be finite and > 0"):
        RandomizedResponse(epsilon=epsilon)  # type: ignore[arg-type]


def test_what_the_bits_cannot_express_is_refused() -> None:
    with pytest.raises(InvalidParameterError, match="large enough to be expressed in 16 bits"):
        RandomizedResponse(epsilon=1e-6, bits=16)
    with pytest.raises(InvalidParameterError, match="bits must be 16 or 64, got bits=8"):
        RandomizedResponse(epsilon=1.0, bits=8)


def test_empirical_flip_rate() -> None:
    # 1e6 draws; 5 standard deviations, failure probability 6e-7 for a correct sampler; fixed seed.
    channel = RandomizedResponse(epsilon=2.0)
    flips = int(channel.sample(torch.zeros(1_000_000, dtype=torch.uint8), SeededSource(6)).sum())
    q = float(channel.flip_probability)
    assert abs(flips - 1e6 * q) < 5 * np.sqrt(1e6 * q * (1 - q))
