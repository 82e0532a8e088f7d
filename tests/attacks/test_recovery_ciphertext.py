"""Masks against public data alone: far above guessing on real records, at chance where there is nothing to learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from cases_recovery import cut_off, digits, drawn, normal, pictures
from scipy import optimize, stats

from splitpriv import InvalidParameterError, NonFiniteError, ShapeError
from splitpriv.attacks.recovery import CiphertextOnlyMask, RecoveryPoint
from splitpriv.attacks.recovery.alphabet import alphabet, snap
from splitpriv.attacks.recovery.arithmetic import grid_fit, on_grid, rounding
from splitpriv.attacks.recovery.isotonic import Isotonic
from splitpriv.attacks.recovery.marginals import Marginals
from splitpriv.attacks.recovery.pairwise import Pairwise
from splitpriv.attacks.recovery.rehearsal import trust

FAILURE = 1e-6  # of each binomial interval; seeds are fixed


@pytest.mark.parametrize("threshold", [None, 0.0])
def test_signs_of_real_records_are_recovered(threshold: float | None) -> None:
    data, v = digits(), drawn("sign", 64, seed=1)
    s = data.private * v if threshold is None else cut_off(data.private * v, threshold)
    attack = CiphertextOnlyMask(records=(4, 100), threshold=threshold)
    found = attack(*map(pictures, (s, data.private, data.public)), vector=v)
    assert found.at(4).recovered.value > 0.7
    assert found.at(100).recovered.low > 0.8  # guessing: 0.5
    assert found.at(100).recovered.value > 0.9
    assert found.last.identified.low > 0.95
    assert found.last.relative.value < (0.02 if threshold is None else 0.2)


def test_sizes_of_dyadic_entries_are_recovered_roughly_and_records_well() -> None:
    data, v = digits(), drawn("dyadic", 64, seed=1)
    found = CiphertextOnlyMask(records=(300,), entries="dyadic")(data.private * v, data.private, data.public, vector=v)
    live = data.private.abs().amax(0) > 0
    assert float((found.vector.sign() == v.sign())[live].float().mean()) > 0.95
    assert found.last.recovered.value < 0.5  # rarely exactly: statistics do not resolve 1/128
    assert found.last.relative.value < 0.05
    assert found.last.identified.low > 0.95


@pytest.mark.parametrize("threshold", [None, 0.0])
def test_pixels_betray_dyadic_entries_by_arithmetic(threshold: float | None) -> None:
    data, v = digits(), drawn("dyadic", 64, seed=2)
    s = data.private * v if threshold is None else cut_off(data.private * v, threshold)
    attack = CiphertextOnlyMask(records=(32,), entries="dyadic", threshold=threshold, step=1 / 16)
    point = attack(s, data.private, data.public, offset=-data.mean, vector=v).last
    assert point.recovered.value > 0.85
    plain = CiphertextOnlyMask(records=(32,), entries="dyadic", threshold=threshold)
    assert plain(s, data.private, data.public, vector=v).last.recovered.value < 0.3


def test_a_wrong_step_changes_nothing() -> None:
    # No entry puts everything on a grid that is not there: statistics decide, as without a step.
    x, v = normal(64, 30).exp() - 1, drawn("sign", 30)
    public = normal(100, 30, seed=1).exp() - 1
    with_step = CiphertextOnlyMask(records=(64,), step=0.05)(x * v, x, public, vector=v)
    without = CiphertextOnlyMask(records=(64,))(x * v, x, public, vector=v)
    assert torch.equal(with_step.vector, without.vector)


@pytest.mark.parametrize("threshold", [None, 0.0])
@pytest.mark.parametrize("entries", ["sign", "dyadic"])
def test_symmetric_noise_hides_the_signs(entries: str, threshold: float | None) -> None:
    # What crosses has the same distribution for every choice of signs, so that each is right with probability 1/2,
    # independently, whatever the attack does. The interval fails with probability 1e-6 per case.
    elements = 300
    x, v = normal(80, elements), drawn(entries, elements)
    s = x * v if threshold is None else cut_off(x * v, threshold)
    attack = CiphertextOnlyMask(records=(80,), entries=entries, threshold=threshold)
    found = attack(s, x, normal(100, elements, seed=1), vector=v)
    hits = int((found.vector.sign() == v.sign()).sum())
    low, high = stats.binom.ppf([FAILURE / 2, 1 - FAILURE / 2], elements, 0.5)
    assert low <= hits <= high
    assert found.last.relative.value > 0.9


def test_noise_does_not_hide_the_sizes() -> None:
    x, v = normal(400, 50), drawn("dyadic", 50)
    found = CiphertextOnlyMask(records=(400,), entries="dyadic")(x * v, x, normal(400, 50, seed=1), vector=v)
    assert float((found.vector.abs() - v.abs()).abs().mean()) < 0.12  # guessing the middle gives 0.25


def test_correlated_symmetric_elements_are_known_up_to_one_sign() -> None:
    mixing = normal(5, 60, seed=3)
    x, v = normal(300, 5) @ mixing + 0.3 * normal(300, 60, seed=4), drawn("sign", 60)
    public = normal(300, 5, seed=5) @ mixing + 0.3 * normal(300, 60, seed=6)
    found = CiphertextOnlyMask(records=(300,))(x * v, x, public, vector=v)
    right = float((found.vector == v).float().mean())
    assert max(right, 1 - right) > 0.95


def few_correlated(seed: int, mean: float, count: int) -> RecoveryPoint:
    """Six elements that follow two factors: all their signs are right together, or wrong together."""
    noise = torch.Generator().manual_seed(seed)
    mixing = torch.randn(2, 6, generator=noise)
    x, public = (
        torch.randn(n, 2, generator=noise) @ mixing + 0.3 * torch.randn(n, 6, generator=noise) + mean for n in (60, 200)
    )
    v = torch.where(torch.rand(6, generator=noise) < 0.5, -1.0, 1.0)
    return CiphertextOnlyMask(records=(count,))(x * v, x, public, vector=v).last


@pytest.mark.parametrize("count", [4, 16])
def test_signs_that_nothing_tells_do_no_harm(count: int) -> None:
    # A wrong sign costs four times what no answer does. That of all together cannot be known here: taken for certain
    # it is wrong in half of the cases, in which the error is that of guessing times about four.
    points = [few_correlated(seed, 0.0, count) for seed in range(12)]
    assert sum(point.relative.value for point in points) / len(points) < 1.1
    assert sum(point.relative.value > 2.5 for point in points) == 0
    assert all(point.claimed == 1 for point in points)


def test_signs_that_records_tell_are_used_in_full() -> None:
    points = [few_correlated(seed, 0.3, 60) for seed in range(6)]
    assert [point.recovered.value for point in points] == [1] * 6
    assert max(point.relative.value for point in points) < 0.05


def test_rehearsals_say_how_often_a_sign_of_that_margin_is_right() -> None:
    letters, public = torch.tensor([1.0, -1.0]).double(), normal(40, 50).double() + 3

    def search(seen: torch.Tensor, _: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        signs = seen.mean(0).sign()  # always right of these records; where the margin is 0, a coin
        tossed = torch.arange(50) % 2 == 0
        coins = torch.where(normal(50, seed=int(seen.abs().sum() * 1e6) % 2**31) > 0, 1.0, -1.0).double()
        return torch.where(tossed, coins, signs), (~tossed).double()

    def release(records: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
        assert records.shape == (8, 50)
        return records * vector

    trusted = trust(search, release, public, letters, count=8, seed=0)
    certainty = trusted(torch.tensor([0.0, 1.0, 7.0]).double())
    assert certainty[1:].tolist() == [1, 1]
    assert 0 <= float(certainty[0]) < 0.15  # 1,600 coins: a mean above 0.15 has probability 1e-9


def test_isotonic_regression_is_that_of_scipy() -> None:
    x, y, weight = normal(60).double(), normal(60, seed=1).double(), normal(60, seed=2).double().exp()
    y = y + x
    order = x.argsort()
    expected = optimize.isotonic_regression(y[order].numpy(), weights=weight[order].numpy()).x
    assert np.allclose(Isotonic(x, y, weight)(x[order]), expected)
    tied = Isotonic([0.0, 0.0, 1.0], [0.0, 3.0, 2.0], np.array([2.0, 1.0, 1.0]))
    assert tied([-9.0, 0.0, 0.5, 1.0, 9.0]).tolist() == [1, 1, 1.5, 2, 2]


def test_more_elements_than_a_table_of_pairs_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("splitpriv.attacks.recovery.ciphertext_only.WIDEST", 63)
    data, v = digits(), drawn("sign", 64, seed=1)
    found = CiphertextOnlyMask(records=(50,))(data.private * v, data.private, data.public, vector=v)
    assert found.note == "signs of single elements only"
    assert found.last.recovered.value > 0.85


# The parts --------------------------------------------------------------------------------------------------------


def test_alphabets() -> None:
    assert alphabet("sign").tolist() == [1, -1]
    letters = alphabet("dyadic")
    assert (len(letters), float(letters.abs().min()), float(letters.abs().max())) == (256, 1, 255 / 128)
    noisy = letters + 0.003 * torch.sign(normal(256)).double()
    assert torch.equal(snap(noisy, "dyadic"), letters)
    assert snap(torch.tensor([0.1, -9.0]).double(), "sign").tolist() == [1, -1]
    assert snap(torch.tensor([0.1, -9.0]).double(), "dyadic").tolist() == [1, -255 / 128]


def test_likelihoods_prefer_the_truth_and_count_records() -> None:
    public, x = ((0.5 * normal(n, 3, seed=n)).exp().double() - 1.2 for n in (2000, 400))
    letters = torch.tensor([1.0, -1.0, 1.5, -1.5]).double()
    for place, letter in enumerate(letters.tolist()):
        seen = x * letter
        found = Marginals(public, seen, None).log_likelihood(seen, letters)
        assert found.argmax(1).tolist() == [place] * 3
        halves = [Marginals(public, seen, None).log_likelihood(half, letters) for half in (seen[:150], seen[150:])]
        assert torch.allclose(sum(halves), found)
        zeroed = cut_off(seen, 0.1)
        assert Marginals(public, zeroed, 0.1).log_likelihood(zeroed, letters).argmax(1).tolist() == [place] * 3


def test_a_histogram_is_a_distribution() -> None:
    public = normal(500, 4).double()
    marginals = Marginals(public, public, None)
    assert torch.allclose(marginals._log.exp().sum(1), torch.ones(4).double())


def test_the_grid_by_hand() -> None:
    letters, step = alphabet("dyadic"), 1 / 16
    whole = torch.randint(0, 17, (20, 5), generator=torch.Generator().manual_seed(0)).double()
    offset = torch.tensor([-0.31, -0.2, -0.111, -0.05, -0.4]).double()
    v = letters[torch.tensor([0, 77, 130, 255, 128])]
    seen = ((whole * step + offset).float() * v.float()).double()
    fit, count = grid_fit(seen, letters, step, offset)
    assert count.tolist() == [20] * 5
    fits = on_grid(fit, count, rounding(seen, step))
    assert fits.sum(1).tolist() == [1] * 5
    assert torch.equal(letters[fits.int().argmax(1)], v)
    nothing = on_grid(*grid_fit(torch.zeros(2, 5).double(), letters, step, offset), 1e-6)
    assert bool(nothing.all())  # zeros rule nothing out


def test_the_search_ends_where_no_single_change_helps() -> None:
    public, x = normal(80, 12).double() @ normal(12, 12, seed=1).double(), normal(60, 12, seed=2).double()
    letters = torch.stack([torch.ones(12), -torch.ones(12)], 1).double()
    pairs = Pairwise(public, x, letters, None)
    unary = normal(12, seed=3).double()
    choice, margin = pairs.ascend(unary)

    def total(of: torch.Tensor) -> float:
        rows = torch.arange(12)
        pair = pairs._cost[of[:, None], of[None, :], rows[:, None], rows[None, :]].sum() / 2
        return float(pair) - float(unary[of == 1].sum())

    for i in range(12):
        other = choice.clone()
        other[i] = 1 - other[i]
        assert total(other) >= total(choice) - 1e-4
        expected = min(total(other), max(total(choice), total(1 - choice))) - total(choice)
        assert float(margin[i]) == pytest.approx(expected, abs=1e-4)
    assert total(choice) <= min(total((unary > 0).long()), total(torch.zeros(12).long() + (unary.sum() > 0)))


# Refusals ---------------------------------------------------------------------------------------------------------


def test_what_does_not_fit_is_refused() -> None:
    x, public = normal(6, 4), normal(5, 4, seed=1)
    with pytest.raises(InvalidParameterError, match="records must be at most the 6 records given"):
        CiphertextOnlyMask(records=(4, 8))(x, x, public)
    with pytest.raises(InvalidParameterError, match="public must be two records or more"):
        CiphertextOnlyMask(records=(4,))(x, x, public[:1])
    with pytest.raises(ShapeError, match="released, originals and public must have as many elements as each other"):
        CiphertextOnlyMask(records=(4,))(x, x, public[:, :2])
    with pytest.raises(InvalidParameterError, match="offset must be None without a step"):
        CiphertextOnlyMask(records=(4,))(x, x, public, offset=torch.zeros(4))
    with pytest.raises(ShapeError, match=r"offset must have the 4 elements of a record, got shape=\(3,\)"):
        CiphertextOnlyMask(records=(4,), step=1.0)(x, x, public, offset=torch.zeros(3))
    with pytest.raises(ShapeError, match=r"offset must be a torch\.Tensor, got list"):
        CiphertextOnlyMask(records=(4,), step=1.0)(x, x, public, offset=[0.0] * 4)  # type: ignore[arg-type]
    with pytest.raises(NonFiniteError, match="originals must be finite"):
        CiphertextOnlyMask(records=(4,))(x, x * math.nan, public)


def test_parameters_are_checked() -> None:
    with pytest.raises(InvalidParameterError, match="records must be a tuple of ascending integers >= 2"):
        CiphertextOnlyMask(records=(1,))
    with pytest.raises(InvalidParameterError, match="entries must be 'sign' or 'dyadic'"):
        CiphertextOnlyMask(entries="uniform")
    with pytest.raises(InvalidParameterError, match="threshold must be a finite number"):
        CiphertextOnlyMask(threshold=math.inf)
    with pytest.raises(InvalidParameterError, match="step must be finite and > 0"):
        CiphertextOnlyMask(step=0.0)
