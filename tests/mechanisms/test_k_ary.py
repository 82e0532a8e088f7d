"""k-ary randomized response: exact epsilon, as much truth as it allows, and the best k for a prior."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from exact import exceeds, worst_ratio
from hypothesis import given
from hypothesis import strategies as st

from splitpriv import InvalidParameterError
from splitpriv.mechanisms import SeededSource
from splitpriv.mechanisms.k_ary import k_ary_response, most_likely_kept

epsilons = st.floats(0.001, 60.0) | st.sampled_from([1e-9, 0.01, 0.5, 1.0, math.log(3), 2.0, 8.0, 44.0, 1e6])


def check_private(table: list[list[int]], reported: float, asked: float) -> None:
    truth = worst_ratio(table)
    assert not exceeds(truth, reported), "reported"
    assert not exceeds(truth, asked), "asked"


@given(st.data(), epsilons, st.integers(2, 12))
def test_the_table_is_private_at_the_epsilon_reported_and_asked(
    data: st.DataObject, epsilon: float, inputs: int
) -> None:
    kept = data.draw(st.lists(st.integers(0, inputs - 1), min_size=2, unique=True))
    channel = k_ary_response(inputs, kept=kept, epsilon=epsilon)
    table = channel.table()
    check_private(table, channel.epsilon, epsilon)
    assert channel.epsilon <= epsilon
    for symbol, row in enumerate(table):
        assert sum(row) == channel.total <= 2**64
        assert {column for column, weight in enumerate(row) if weight} == set(kept)
        if symbol not in kept:
            assert len({row[column] for column in kept}) == 1  # a uniform draw
        else:
            others = {row[column] for column in kept if column != symbol}
            assert len(others) == 1
            assert row[symbol] > others.pop()


@given(st.floats(0.001, 40.0), st.integers(2, 12))
def test_the_weight_of_the_truth_is_as_large_as_it_may_be(epsilon: float, k: int) -> None:
    channel = k_ary_response(k, kept=range(k), epsilon=epsilon)
    keep, other = channel.table()[0][:2]
    # One step more (k words, so that a uniform row has whole numbers) would pass epsilon, or the 64 bits.
    assert exceeds(Fraction(keep + k, other), epsilon * (1 - 1e-15)) or keep + k + (k - 1) * other > 2**64
    assert channel.epsilon >= epsilon * (1 - 1e-4)
    assert Fraction(keep, channel.total) == pytest.approx(1 / (1 + (k - 1) * math.exp(-epsilon)), rel=1e-4)


def test_planted_faults_in_the_table_are_caught() -> None:
    channel = k_ary_response(4, kept=[0, 1, 2], epsilon=1.0)
    keep, other = channel.table()[0][:2]
    with pytest.raises(AssertionError, match="asked"):  # the weight of the truth rounded up
        check_private([[keep + 3, other, other], [other, keep + 3, other]], 2.0, 1.0)
    with pytest.raises(AssertionError, match="reported"):  # an outsider that keeps its own symbol
        check_private([*channel.table()[:3], [0, 0, 0, channel.total]], channel.epsilon, 1.0)


def test_draws_follow_the_table() -> None:
    # 4e5 draws for each symbol; 5 standard deviations for 16 counts: failure probability below 1e-5; fixed seed.
    channel, draws = k_ary_response(4, kept=[0, 2, 3], epsilon=1.0), 400_000
    for symbol, row in enumerate(channel.table()):
        drawn = channel.sample(torch.full((draws,), symbol), SeededSource(symbol))
        for count, weight in zip(torch.bincount(drawn, minlength=4).tolist(), row, strict=True):
            p = weight / channel.total
            assert abs(count - draws * p) <= 5 * math.sqrt(draws * p * (1 - p))


def test_what_64_bits_cannot_express_is_refused() -> None:
    with pytest.raises(InvalidParameterError, match="k_ary_response: epsilon must be large enough to be expressed in"):
        k_ary_response(3, kept=range(3), epsilon=1e-19)


# The best k -----------------------------------------------------------------------------------------


def check_best(kept: list[int], prior: list[Fraction], epsilon: float) -> None:
    """They are the most probable ones, and no other number of those keeps a symbol more often."""

    def right(k: int) -> float:
        return math.exp(epsilon) / (math.exp(epsilon) + k - 1) * float(sum(sorted(prior)[-k:]))

    assert min(prior[symbol] for symbol in kept) >= max([prior[s] for s in range(len(prior)) if s not in kept] + [0])
    assert right(len(kept)) >= max(right(k) for k in range(1, len(prior) + 1)) * (1 - 1e-12)
    assert all(prior[symbol] > 0 for symbol in kept)


@given(st.lists(st.integers(0, 40), min_size=2, max_size=9).filter(any), st.floats(0.01, 10.0))
def test_the_k_that_keeps_the_most_truth(counts: list[int], epsilon: float) -> None:
    prior = [Fraction(count, sum(counts)) for count in counts]
    check_best(most_likely_kept(prior, epsilon=epsilon), prior, epsilon)


@pytest.mark.parametrize("kept", [[0, 1, 2, 3], [0], [0, 2]], ids=["all", "too few", "not the most probable"])
def test_planted_fault_another_choice_is_caught(kept: list[int]) -> None:
    prior = [Fraction(9, 20)] * 2 + [Fraction(1, 20)] * 2
    check_best([0, 1], prior, 1.0)
    with pytest.raises(AssertionError):
        check_best(kept, prior, 1.0)


@pytest.mark.parametrize("epsilon", [0.01, 1.0, 10.0, 1e6])
def test_a_uniform_prior_keeps_all(epsilon: float) -> None:
    assert most_likely_kept([Fraction(1, 7)] * 7, epsilon=epsilon) == list(range(7))


def test_a_prior_at_its_turning_point() -> None:
    # Two of 1/2 - d and two of d: all four beat two when e^eps / (e^eps + 3) > (1 - 2d) e^eps / (e^eps + 1).
    epsilon, odds = 1.0, math.e
    turn = (1 - (odds + 1) / (odds + 3)) / 2
    for d, size in ((turn * 1.001, 4), (turn * 0.999, 2)):
        part = Fraction(d)
        kept = most_likely_kept([Fraction(1, 2) - part] * 2 + [part] * 2, epsilon=epsilon)
        assert len(kept) == size
