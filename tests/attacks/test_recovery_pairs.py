"""Masks against leaked pairs: everything is recovered, as fast as theory says, and nothing where nothing leaks."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from cases_recovery import cut_off, digits, drawn, normal, pictures
from scipy import special, stats

from splitpriv import InvalidParameterError, NonFiniteError, RandomVectorMask, ReluSanitizer, ShapeError
from splitpriv.attacks.recovery import KnownPlaintextMask, KnownPlaintextRelu
from splitpriv.attacks.recovery.completion import Background, complete, truncated_mean
from splitpriv.attacks.recovery.guess import VectorGuess, exactly
from splitpriv.attacks.recovery.least_deviation import least_deviation_ratio
from splitpriv.attacks.recovery.scoring import Scorer

NONCE = b"sixteen bytes at least"
FAILURE = 1e-6  # of each binomial interval; seeds are fixed


def within(hits: int, draws: int, chance: float) -> bool:
    """Whether a count is one that independent draws give, but for FAILURE."""
    low, high = stats.binom.ppf([FAILURE / 2, 1 - FAILURE / 2], draws, chance)
    return bool(low <= hits <= high)


# A mask ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("entries", ["sign", "dyadic"])
def test_one_pair_unmasks_everyone(entries: str) -> None:
    x = normal(60, 3, 4, 5)
    mask = RandomVectorMask(NONCE, entries=entries)
    s, v = mask(x), mask(torch.ones(1, 3, 4, 5))[0]
    found = KnownPlaintextMask(pairs=(1,), entries=entries)(x[:1], s[:1], s[1:], x[1:], vector=v)
    point = found.last
    assert (point.recovered.value, point.claimed, point.exact.value, point.identified.value) == (1, 1, 1, 1)
    assert torch.equal(found.vector, v.flatten())
    assert found.reconstructed.shape == (59, 3, 4, 5)
    assert torch.allclose(found.reconstructed, x[1:], rtol=1e-6)


def test_an_unknown_alphabet_costs_nothing() -> None:
    x, v = normal(20, 50), torch.rand(50, generator=torch.Generator().manual_seed(1)) + 0.5
    found = KnownPlaintextMask(pairs=(1, 2), entries=None)(x[:2], x[:2] * v, x[2:] * v, x[2:], vector=v)
    assert [point.recovered.value for point in found.points] == [1, 1]
    assert found.last.exact.value == 1


def test_elements_that_are_zero_in_every_leaked_record_stay_unknown() -> None:
    x, v = normal(30, 40), drawn("sign", 40)
    x[0, :10], x[1, :5] = 0, 0
    found = KnownPlaintextMask(pairs=(1, 2))(x[:2], x[:2] * v, x[2:] * v, x[2:], vector=v)
    assert [point.recovered.value for point in found.points] == [0.75, 0.875]
    assert [point.claimed for point in found.points] == [0.75, 0.875]
    assert [point.exact.value for point in found.points] == [0.75, 0.875]
    assert found.vector[:5].tolist() == [0] * 5


def test_elements_that_no_record_uses_do_not_count() -> None:
    x, v = normal(30, 40), drawn("sign", 40)
    x[:, :10] = 0
    point = KnownPlaintextMask(pairs=(1,))(x[:1], x[:1] * v, x[1:] * v, x[1:], vector=v).last
    assert (point.recovered.value, point.recovered.count, point.exact.value) == (1, 30, 1)


@pytest.mark.parametrize("entries", ["sign", "dyadic", None])
def test_what_is_small_beside_other_elements_is_recovered_too(entries: str | None) -> None:
    # A ratio is as exact for small floats as for large ones: down to the smallest normal one.
    scales = torch.tensor([1e6, 1.0, 1e-2, 1e-12, 1e-37]).repeat(8)
    x, v = (normal(30, 40).abs() + 0.1) * scales, drawn(entries or "sign", 40)
    found = KnownPlaintextMask(pairs=(1,), entries=entries)(x[:1], x[:1] * v, x[1:] * v, x[1:], vector=v)
    assert (found.last.recovered.value, found.last.exact.value) == (1, 1)


def test_what_is_too_small_for_a_normal_float_is_not_claimed() -> None:
    x, v = torch.tensor([[1.0, 1e-41]]).repeat(3, 1), torch.tensor([1.5, 1.5])
    found = KnownPlaintextMask(pairs=(1,), entries=None)(x[:1], x[:1] * v, x[1:] * v, x[1:], vector=v)
    assert (found.last.recovered.value, found.last.claimed) == (0.5, 0.5)


def test_exact_is_judged_by_the_element_itself() -> None:
    x = normal(20, 2).double() * torch.tensor([1e6, 1e-2])
    scorer = Scorer(x, torch.zeros_like(x), None, confidence=0.95, seed=0)
    assert scorer.point(1, x * torch.tensor([1.0, 1.1])).exact.value == 0.5  # the large ones do not hide the small
    assert scorer.point(1, x * (1 + 1e-7)).exact.value == 1


def test_a_pair_that_does_not_belong_is_outvoted() -> None:
    x, v = normal(40, 60), drawn("dyadic", 60)
    s = x * v
    leaked = s[:5].clone()
    leaked[2] = normal(60, seed=3)
    attack = KnownPlaintextMask(pairs=(5,), entries="dyadic")
    assert attack(x[:5], leaked, s[5:], x[5:], vector=v).last.recovered.value > 0.8  # it may outweigh four small ones
    relu = KnownPlaintextRelu(pairs=(5,), entries="sign")
    sign = v.sign()
    zeroed = cut_off(x * sign)
    leaked = zeroed[:5].clone()
    leaked[2] = zeroed[6]
    assert relu(x[:5], leaked, zeroed[5:], x[5:], vector=sign).last.recovered.value == 1


def test_pairs_that_do_not_belong_together_reveal_nothing() -> None:
    # Signs are right with probability 1/2, element by element: what was released is that of other records.
    x, v = normal(500, 400), drawn("sign", 400)
    point = KnownPlaintextMask(pairs=(3,))(x[:3], x[10:13] * v, x[20:] * v, x[20:], vector=v).last
    assert within(round(400 * point.recovered.value), 400, 0.5)


def test_least_deviation_is_the_minimum() -> None:
    x, s = normal(7, 5).double(), normal(7, 5, seed=1).double()
    found = least_deviation_ratio(x, s)
    grid = torch.linspace(-20, 20, 20001).double()
    for i in range(5):
        loss = (s[:, i, None] - x[:, i, None] * torch.cat([found[i : i + 1], grid])).abs().sum(0)
        assert float(loss[0]) <= float(loss.min()) + 1e-9
    assert least_deviation_ratio(torch.zeros(2, 3).double(), s[:2, :3]).tolist() == [0, 0, 0]


# A mask with a threshold ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threshold", [0.0, 0.5, -0.3])
def test_signs_behind_a_threshold_are_known_as_theory_says(threshold: float) -> None:
    # A sign is revealed unless |x| <= threshold in every leaked record; below 0 always.
    elements, pairs = 4000, (1, 2, 4)
    x, v = normal(6, elements), drawn("sign", elements)
    s = cut_off(x * v, threshold)
    found = KnownPlaintextRelu(pairs=pairs, threshold=threshold)(x[:4], s[:4], s[4:], x[4:], vector=v)
    silent = special.erf(max(threshold, 0.0) / math.sqrt(2))
    for point, count in zip(found.points, pairs, strict=True):
        assert within(round(elements * point.recovered.value), elements, 1 - silent**count)
        assert point.recovered.value == point.claimed


def test_dyadic_entries_behind_a_relu_are_known_as_theory_says() -> None:
    # Each leaked record shows an element with probability 1/2.
    elements, pairs = 4000, (1, 2, 4, 8)
    x, v = normal(10, elements), drawn("dyadic", elements)
    s = cut_off(x * v)
    found = KnownPlaintextRelu(pairs=pairs, entries="dyadic")(x[:8], s[:8], s[8:], x[8:], vector=v)
    for point, count in zip(found.points, pairs, strict=True):
        assert within(round(elements * point.recovered.value), elements, 1 - 0.5**count)
        assert point.recovered.value == point.claimed  # nothing is claimed wrongly


def test_dyadic_entries_behind_a_threshold_against_a_simulation() -> None:
    # By plain enumeration on draws of its own: two shares of 3,000 differ by more than 0.08 with probability < 1e-8.
    elements, count, threshold = 3000, 3, 0.4
    rng = np.random.default_rng(0)
    letters = np.concatenate([1 + np.arange(128) / 128, -1 - np.arange(128) / 128])
    alone = 0
    for _ in range(elements):
        x, a = rng.normal(size=count), rng.choice(letters)
        wet = np.where(a * x > threshold, a * x, 0)
        dry = np.where(np.outer(letters, x) > threshold, np.outer(letters, x), 0)
        alone += int(np.isclose(dry, wet).all(1).sum() == 1)
    x, v = normal(5, elements), drawn("dyadic", elements)
    s = cut_off(x * v, threshold)
    attack = KnownPlaintextRelu(pairs=(count,), entries="dyadic", threshold=threshold)
    point = attack(x[:count], s[:count], s[count:], x[count:], vector=v).last
    assert abs(point.recovered.value - alone / elements) < 0.08


@pytest.mark.parametrize("entries", ["sign", "dyadic"])
def test_what_survives_is_exact_and_public_data_tell_of_the_rest(entries: str) -> None:
    data = digits()
    layer = ReluSanitizer(NONCE, entries=entries)
    s, v = layer(data.private), layer.mask(torch.ones(1, 64))[0]
    attack = KnownPlaintextRelu(pairs=(1, 16), entries=entries)
    leak = tuple(map(pictures, (data.private[:16], s[:16], s[16:], data.private[16:])))
    with_public, without = attack(*leak, public=pictures(data.public), vector=v), attack(*leak, vector=v)
    survived = float((s[16:] != 0).double().mean())
    known = with_public.last.recovered.value
    assert known * survived <= with_public.last.exact.value <= survived + 0.1  # some pixels never vary: free
    assert with_public.last.relative.value < 0.2 < 0.35 < without.last.relative.value < 1
    assert with_public.last.identified.low > 0.95
    errors = [point.error.value for point in with_public.points]
    assert errors == sorted(errors, reverse=True)


def test_missing_elements_get_their_gaussian_mean() -> None:
    background = Background(normal(500, 4).double() @ normal(4, 4, seed=1).double() + 2)
    mean, cov = background.mean.numpy(), background.covariance.numpy()
    row, gaps = normal(4, seed=2).double(), torch.tensor([True, False, True, False])
    found, variance = background.moments(row, gaps)
    across = cov[np.ix_([0, 2], [1, 3])] @ np.linalg.inv(cov[np.ix_([1, 3], [1, 3])])
    assert np.allclose(found, mean[[0, 2]] + across @ (row.numpy()[[1, 3]] - mean[[1, 3]]))
    expected = np.diag(cov[np.ix_([0, 2], [0, 2])] - across @ cov[np.ix_([1, 3], [0, 2])])
    assert np.allclose(variance, np.maximum(expected, 1e-3 * np.diag(cov)[[0, 2]]))


def test_truncated_means_are_those_of_scipy() -> None:
    mean, variance = torch.tensor([0.3, -1.0, 2.0, 5.0]).double(), torch.tensor([1.0, 4.0, 0.25, 1.0]).double()
    side, bound = torch.tensor([1.0, -1.0, 1.0, 0.0]).double(), torch.tensor([0.0, 0.2, 1.0, 0.0]).double()
    found = truncated_mean(mean, variance, side, bound)
    for i in range(3):
        spread = math.sqrt(variance[i])
        level = (float(bound[i]) - float(side[i] * mean[i])) / spread
        expected = float(side[i]) * stats.truncnorm.mean(-np.inf, level, loc=float(side[i] * mean[i]), scale=spread)
        assert float(found[i]) == pytest.approx(expected, abs=1e-9)
    assert float(found[3]) == 5
    far = truncated_mean(torch.tensor([50.0]).double(), torch.ones(1).double(), torch.ones(1).double(), torch.zeros(1))
    assert -0.1 < float(far) <= 0


# What counts ------------------------------------------------------------------------------------------------------


def test_planted_faults_in_a_guess_are_noticed() -> None:
    x, v = normal(20, 8).double(), drawn("sign", 8).double()
    scorer = Scorer(x, torch.zeros_like(x), v, confidence=0.95, seed=0, shape=(1, 2, 4))
    everything = torch.ones(8, dtype=torch.bool)
    right = scorer.point(1, x, exactly(v, everything))
    wrong = scorer.point(1, -x, exactly(-v, everything))
    silent = scorer.point(1, x * 0, exactly(v, ~everything))
    assert (right.recovered.value, right.relative.value, right.identified.value) == (1, 0, 1)
    assert (wrong.recovered.value, wrong.claimed, wrong.exact.value) == (0, 1, 0)
    assert (wrong.relative.value, wrong.identified.value) == (4, 0)
    assert (silent.recovered.value, silent.claimed, silent.relative.value) == (0, 0, 1)
    assert silent.identified.value == 0
    lucky = VectorGuess(v, 1 / v, ~everything, torch.ones(8))  # right, but not claimed
    assert scorer.point(1, x, lucky).recovered.value == 0


def test_a_sign_that_is_not_certain_counts_by_as_much() -> None:
    public = Background(torch.tensor([[1.0], [3.0]]).double())
    one, half = torch.ones(1).double(), torch.full((1,), 0.5).double()
    guess = VectorGuess(one, one, one > 0, half)
    seen = torch.tensor([[6.0], [0.0]]).double()
    assert complete(guess, seen, None, public).flatten().tolist() == [4, 0]  # between it and the mean, 2
    assert complete(guess.likeliest, seen, None, public).flatten().tolist() == [6, 0]
    # Zeroed: v x <= 0 says that x is negative if the sign is right, nothing if it is not known.
    sure = VectorGuess(one, one, one > 0, one)
    low = float(complete(sure, seen, 0.0, public)[1])
    assert float(complete(guess, seen, 0.0, public)[1]) == pytest.approx((low + 2) / 2, abs=1e-6)


def test_a_magnitude_that_is_not_known_is_guessed_by_its_mean() -> None:
    # After one pair whose element was zeroed, the sign is known and the size is not.
    x, v = torch.tensor([[2.0], [-1.0], [-3.0]]), torch.tensor([-1.5])
    s = cut_off(x * v)
    found = KnownPlaintextRelu(pairs=(1,), entries="dyadic")(x[:1], s[:1], s[1:], x[1:], vector=v)
    assert (found.last.recovered.value, found.last.claimed) == (0, 0)
    assert float(found.reconstructed[0]) == pytest.approx(-1.5 * float((1 / (1 + torch.arange(128) / 128)).mean()))


def test_without_a_sign_a_masked_element_is_missing() -> None:
    known = torch.tensor([0.0, 1.0]).double()
    guess = VectorGuess(known, known, known > 0, known)
    public = torch.tensor([[1.0, 0.0], [3.0, 0.0]]).double()
    seen = torch.tensor([[5.0, 2.0], [0.0, 2.0]]).double()
    found = complete(guess, seen, None, Background(public))
    assert found[0, 0] == pytest.approx(2, abs=1e-6)  # the public mean
    assert found[1, 0] == 0  # a zero is a zero under any mask


# Refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attack", [KnownPlaintextMask, KnownPlaintextRelu])
def test_what_does_not_fit_is_refused(attack: type) -> None:
    x = normal(6, 4)
    with pytest.raises(InvalidParameterError, match="pairs must be at most the 2 records given"):
        attack(pairs=(1, 3))(x[:2], x[:2], x, x)
    with pytest.raises(ShapeError, match="known and known_released must hold one row for each of the same records"):
        attack(pairs=(1,))(x[:2], x[:1], x, x)
    with pytest.raises(ShapeError, match="released and originals must hold one row for each of the same records"):
        attack(pairs=(1,))(x[:1], x[:1], x, x[:2])
    with pytest.raises(
        ShapeError, match="released and originals must have as many elements as each other, got 4, 4, 3, 4"
    ):
        attack(pairs=(1,))(x, x, x[:, :3], x)
    with pytest.raises(ShapeError, match="originals and public must have as many elements as each other"):
        attack(pairs=(1,))(x, x, x, x, public=x[:, :3])
    with pytest.raises(InvalidParameterError, match="public must be two records or more"):
        attack(pairs=(1,))(x, x, x, x, public=x[:1])
    with pytest.raises(ShapeError, match=r"vector must have the 4 elements of a record, got shape=\(3,\)"):
        attack(pairs=(1,))(x, x, x, x, vector=torch.ones(3))
    with pytest.raises(NonFiniteError, match="released must be finite"):
        attack(pairs=(1,))(x, x, x * math.nan, x)


@pytest.mark.parametrize("pairs", [(), (0,), (2, 1), (1, 1), [1, 2], (1.0,), (True,), 3])
def test_counts_ascend(pairs: object) -> None:
    with pytest.raises(InvalidParameterError, match="pairs must be a tuple of ascending integers >= 1"):
        KnownPlaintextMask(pairs=pairs)  # type: ignore[arg-type]


def test_parameters_are_checked() -> None:
    with pytest.raises(InvalidParameterError, match="entries must be 'sign' or 'dyadic' or None"):
        KnownPlaintextMask(entries="uniform")
    with pytest.raises(InvalidParameterError, match="entries must be 'sign' or 'dyadic', got"):
        KnownPlaintextRelu(entries=None)  # type: ignore[arg-type]
    with pytest.raises(InvalidParameterError, match="threshold must be a finite number"):
        KnownPlaintextRelu(threshold=math.nan)
    with pytest.raises(InvalidParameterError, match="confidence must be below 1"):
        KnownPlaintextMask(confidence=1.0)
