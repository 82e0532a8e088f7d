"""Randomized response: exact epsilon, exact kernel, calibration that never overshoots."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from exact import below, differing, exceeds, worst_ratio
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


@pytest.mark.parametrize("epsilon", [0.01, 0.5, 1.0, 2.0, 7.5, 10.0])
def test_every_word_at_16_bits(epsilon: float) -> None:
    channel = RandomizedResponse(epsilon=epsilon, bits=16)
    flipped = below(channel.kernel, range(2**16))
    assert not differing(flipped, [word < channel.flips for word in range(2**16)])
    assert sum(flipped) == channel.flips  # what the table says


@pytest.mark.parametrize("epsilon", [0.01, 0.5, 1.0, 2.0, 7.5, 20.0])
def test_all_words_of_64_bits_by_where_they_first_differ_from_the_threshold(epsilon: float) -> None:
    # Words that share their digits with T up to place k and differ there are decided at k alone: one
    # of each such class, with the digits behind set every way that could mislead, stands for all.
    channel = RandomizedResponse(epsilon=epsilon)
    flips, words, counts = channel.flips, [channel.flips], [0]
    for place in range(64):
        differs = flips ^ 1 << place
        low = (1 << place) - 1
        words += [differs & ~low, differs | low, differs]
        counts += [1 << place if differs < flips else 0, 0, 0]
    found = below(channel.kernel, words)
    assert not differing(found, [word < flips for word in words])
    assert sum(size for size, bit in zip(counts, found, strict=True) if bit) == channel.flips


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
