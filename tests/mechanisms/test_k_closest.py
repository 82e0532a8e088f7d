"""k-closest encoding: exact epsilon, every word enumerated, sets mapped exactly."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
import torch
from exact import exceeds, worst_ratio
from hypothesis import given
from hypothesis import strategies as st

from splitpriv import InvalidParameterError, ShapeError
from splitpriv.mechanisms import Channel, KClosest, RandomizedResponse, SeededSource
from splitpriv.mechanisms.k_closest import least_variance

SMALL = [(2, 1), (5, 1), (5, 2), (5, 4), (6, 3), (9, 2)]
smalls = pytest.mark.parametrize(("size", "closest"), SMALL)


@given(st.sampled_from(SMALL), st.floats(0.01, 40.0), st.sampled_from([8, 16, 64]))
def test_table_is_private_at_the_epsilon_reported_and_asked(small: tuple[int, int], epsilon: float, bits: int) -> None:
    try:
        channel = KClosest(*small, epsilon=epsilon, bits=bits)
    except InvalidParameterError:
        assert bits == 8
        assert epsilon < 0.2  # refused, not rounded
        return
    table = channel.table()
    assert len(table) == channel.inputs == math.comb(*small)
    assert channel.total <= 2**bits
    assert all(sum(row) == channel.total for row in table)
    truth = worst_ratio(table)
    assert channel.epsilon_ratio == truth == Fraction(channel.near, channel.far)
    assert not exceeds(truth, channel.epsilon)
    assert not exceeds(truth, epsilon)
    assert channel.epsilon <= epsilon


@given(st.integers(2, 1 << 16), st.floats(0.001, 20.0), st.data())
def test_calibration_loses_next_to_nothing(size: int, epsilon: float, data: st.DataObject) -> None:
    channel = KClosest(size, data.draw(st.integers(1, size - 1)), epsilon=epsilon)
    assert epsilon * (1 - 1e-6) <= channel.epsilon <= epsilon
    assert channel.total > 2**63  # so that next to no word is drawn again


def test_planted_fault_weights_rounded_to_nearest_are_caught() -> None:
    channel = KClosest(5, 2, epsilon=1.0, bits=8)
    near, far = 50, 18  # e * 18 = 48.9, rounded up
    assert exceeds(Fraction(near, far), 1.0)
    assert not exceeds(Fraction(channel.near, channel.far), 1.0)


@smalls
@pytest.mark.parametrize("bits", [8, 16])
def test_every_word_of_every_input(size: int, closest: int, bits: int) -> None:
    channel = KClosest(size, closest, epsilon=1.5, bits=bits)
    words = np.arange(channel.total, dtype=np.uint64)
    for row, near in zip(channel.table(), combinations(range(size), closest), strict=True):
        sets = np.tile(np.array(near), (len(words), 1))
        counts = np.bincount(channel.decide(sets, words), minlength=size)
        assert counts.tolist() == row


def test_planted_fault_a_far_symbol_off_by_one_is_caught() -> None:
    class Shifted(KClosest):
        def decide(self, symbols: np.ndarray, drawn: np.ndarray) -> np.ndarray:
            sets = symbols.reshape(-1, self.closest) + 1
            return np.minimum(super().decide(sets, drawn), self.size - 1)

    channel = Shifted(5, 2, epsilon=1.5, bits=8)
    words = np.arange(channel.total, dtype=np.uint64)
    counts = np.bincount(channel.decide(np.tile([0, 1], (len(words), 1)), words), minlength=5)
    assert counts.tolist() != channel.table()[0]


def test_far_symbols_are_the_complement_in_order() -> None:
    generator = np.random.default_rng(0)
    channel = KClosest(40, 17, epsilon=1.0)
    near = np.sort(np.stack([generator.permutation(40)[:17] for _ in range(200)]), axis=1)
    for rank in range(23):
        word = np.full(200, 17 * channel.near + rank * channel.far, dtype=np.uint64)
        far = [np.setdiff1d(np.arange(40), row)[rank] for row in near]
        assert channel.decide(near, word).tolist() == far
        assert channel.decide(near, word + np.uint64(channel.far - 1)).tolist() == far


def test_the_order_of_a_set_makes_no_difference_and_repeats_are_refused() -> None:
    channel = KClosest(9, 3, epsilon=1.0)
    sets = torch.tensor([[1, 4, 7]]).repeat(5000, 1)
    there, back = (channel.sample(s, SeededSource(1)) for s in (sets, sets.flip(1)))
    assert torch.equal(there, back)
    with pytest.raises(ShapeError, match="symbols must be 3 distinct ones per input, got a repeated one"):
        channel.sample(torch.tensor([[1, 1, 2]]), SeededSource(1))
    with pytest.raises(ShapeError, match=r"symbols must have shape \(\*batch, 3\), got shape=\(2,\)"):
        channel.sample(torch.tensor([1, 2]), SeededSource(1))
    with pytest.raises(ShapeError, match=r"symbols must be in \[0, 9\)"):
        channel.sample(torch.tensor([[1, 2, 9]]), SeededSource(1))


@pytest.mark.parametrize("closest", [1, 3])
def test_frequencies(closest: int) -> None:
    # 2e5 draws; each count within 5.5 standard deviations: failure probability below 1e-6; fixed seed.
    channel = KClosest(12, closest, epsilon=1.0)
    near = torch.arange(closest) * 3 + 1
    inputs = near.repeat(200_000, 1) if closest > 1 else near.expand(200_000)
    drawn = channel.sample(inputs, SeededSource(2))
    assert drawn.shape == (200_000,)
    counts = torch.bincount(drawn.long(), minlength=12).double()
    one = near.unsqueeze(0) if closest > 1 else near
    p = channel.log_prob(torch.arange(12), one).exp()
    assert float(p.sum()) == pytest.approx(1.0)
    assert bool(((counts - 2e5 * p).abs() < 5.5 * (2e5 * p * (1 - p)).sqrt()).all())


@smalls
def test_agrees_with_the_dense_channel(size: int, closest: int) -> None:
    channel = KClosest(size, closest, epsilon=0.7)
    dense = Channel(channel.table())
    assert (dense.epsilon, dense.inputs, dense.outputs, dense.total) == (
        *(channel.epsilon, channel.inputs, channel.outputs),
        channel.total,
    )
    sets = torch.tensor(list(combinations(range(size), closest)))
    ours = channel.log_prob(torch.arange(size), sets.unsqueeze(1) if closest > 1 else sets)
    torch.testing.assert_close(ours, dense.log_prob(torch.arange(size), torch.arange(dense.inputs).unsqueeze(1)))


def test_one_of_one_is_k_ary_randomized_response_and_a_channel() -> None:
    channel = KClosest(5, 1, epsilon=1.0)
    assert channel.inputs == channel.outputs == 5
    assert channel.sample(torch.zeros(3, 4, dtype=torch.uint8), SeededSource(0)).shape == (3, 4)
    keep = Fraction(channel.near, channel.total)
    assert float(keep) == pytest.approx(math.e / (math.e + 4))
    chain = channel.cascade(KClosest(5, 1, epsilon=2.0))
    assert 0 < chain.epsilon < 1
    assert chain.sample(torch.arange(5), SeededSource(0)).shape == (5,)
    assert KClosest(2, 1, epsilon=1.0).epsilon == pytest.approx(RandomizedResponse(epsilon=1.0).epsilon)


def test_sets_cascade_by_their_number() -> None:
    chain = KClosest(5, 2, epsilon=3.0, bits=16).cascade(KClosest(5, 1, epsilon=3.0, bits=16))
    drawn = chain.sample(torch.full((50_000,), 9), SeededSource(3))  # the last set: 3 and 4
    counts = torch.bincount(drawn.long(), minlength=5) / 50_000
    row = [entry / chain.total for entry in chain.table()[9]]
    # 5 frequencies of 50,000 draws, each within 6 standard deviations of at most 0.0023.
    assert counts.tolist() == pytest.approx(row, abs=0.0136)


def hockey_stick(one: list[int], other: list[int], factor: Fraction) -> Fraction:
    return sum((max(Fraction(0), a - factor * b) for a, b in zip(one, other, strict=True)), Fraction(0))


@smalls
def test_the_dominating_rows_are_the_worst_pair_at_every_epsilon(size: int, closest: int) -> None:
    channel = KClosest(size, closest, epsilon=1.2, bits=16)
    worst = channel.dominating_rows()
    assert [sum(row) for row in worst] == [channel.total] * 2
    table = channel.table()
    for factor in (Fraction(0), Fraction(1), Fraction(3, 2), Fraction(3), Fraction(4)):
        true = max(hockey_stick(a, b, factor) for a in table for b in table)
        assert hockey_stick(*worst, factor) == true


def test_least_variance_is_near_the_subset_of_ye_and_barg() -> None:
    for size, epsilon in ((256, 2.0), (1024, 4.0), (1024, 1.0), (4096, 8.0)):
        assert least_variance(size, epsilon) == pytest.approx(size / (math.exp(epsilon) + 1), abs=1)
    assert KClosest(256, epsilon=2.0).closest == least_variance(256, 2.0)
    assert least_variance(2, 1.0) == 1
    assert least_variance(100, 700.0) == 1


def test_large_batches_in_blocks() -> None:
    channel = KClosest(1024, 75, epsilon=4.0)
    first = torch.randint(0, 949, (20_000, 1), generator=torch.Generator().manual_seed(0))
    drawn = channel.sample(first + torch.arange(75), SeededSource(4)).unsqueeze(1)
    near = ((drawn >= first) & (drawn < first + 75)).double().mean()
    # 20,000 draws: 5.5 standard deviations.
    p = 75 * channel.near / channel.total
    assert float(near) == pytest.approx(p, abs=5.5 * math.sqrt(p * (1 - p) / 20_000))


def test_bad_parameters_are_refused() -> None:
    with pytest.raises(InvalidParameterError, match=r"KClosest: size must be an integer in \[2, 16777216\]"):
        KClosest(1, 1, epsilon=1.0)
    with pytest.raises(InvalidParameterError, match=r"KClosest: closest must be an integer in \[1, 4\]"):
        KClosest(5, 5, epsilon=1.0)
    with pytest.raises(InvalidParameterError, match="KClosest: closest must be 'auto', got closest='best'"):
        KClosest(5, "best", epsilon=1.0)
    with pytest.raises(InvalidParameterError, match="KClosest: epsilon must be finite and > 0"):
        KClosest(5, 1, epsilon=math.inf)
    with pytest.raises(InvalidParameterError, match="large enough to be expressed in 8 bits for 200 symbols"):
        KClosest(200, 1, epsilon=0.5, bits=8)
    with pytest.raises(InvalidParameterError, match="KClosest: bits must be 8 or 16 or 64"):
        KClosest(5, 1, epsilon=1.0, bits=32)
    with pytest.raises(InvalidParameterError, match=r"table must be at most 2\*\*20 entries, got table='all 9000 of"):
        KClosest(65536, 9000, epsilon=1.0).table()
    assert KClosest(1024, 75, epsilon=1e300).epsilon < 45
    assert repr(KClosest(5, 2, epsilon=1.0)) == "KClosest(size=5, closest=2, epsilon=1)"
