"""Amplification by shuffling: never below the exact pair, nor below shuffled mechanisms written out."""

from __future__ import annotations

import math
from collections import Counter
from fractions import Fraction
from itertools import pairwise, product
from types import SimpleNamespace

import mpmath as mp
import numpy as np
import pytest
import torch
from exact_composition import alpha_at_most
from hypothesis import given, settings
from hypothesis import strategies as st

from splitpriv import InvalidParameterError, PrivacyError, RandomResponseLDP, SplitModel
from splitpriv.accounting import Ledger, epsilon_shuffled, shuffle, shuffled
from splitpriv.accounting.shuffle import _at_most, _closed_form, _delta, _half


def exact_delta(epsilon0: float, count: int, epsilon: float) -> mp.mpf:
    """The divergence of the two pairs of counts, summed term by term."""
    with mp.workdps(60):
        rate = mp.e ** -mp.mpf(epsilon0)
        keep, flip, grown = 1 / (1 + rate), rate / (1 + rate), mp.e ** mp.mpf(epsilon)
        total = mp.mpf(0)
        for c in range(count):
            half = [mp.mpf(0), *(mp.binomial(c, a) / mp.mpf(2) ** c for a in range(c + 1)), mp.mpf(0)]
            chance = mp.binomial(count - 1, c) * rate**c * (1 - rate) ** (count - 1 - c)
            for below, here in pairwise(half):
                total += chance * max(mp.mpf(0), keep * below + flip * here - grown * (flip * below + keep * here))
        return total


@settings(max_examples=40, deadline=None)
@given(st.floats(-5, 3).map(math.exp), st.integers(2, 30), st.floats(0, 1))
def test_the_sum_is_never_below_the_exact_one(epsilon0: float, count: int, share: float) -> None:
    exact, found = exact_delta(epsilon0, count, share * epsilon0), _delta(epsilon0, count, share * epsilon0)
    assert exact <= found <= exact * (1 + 1e-5) + 1e-9


@pytest.mark.parametrize(("outputs", "count"), [(2, 5), (3, 4), (2, 7)])
def test_it_covers_shuffled_randomized_response_written_out(outputs: int, count: int) -> None:
    table = [[3 if x == y else 1 for y in range(outputs)] for x in range(outputs)]
    total, epsilon0 = sum(table[0]), math.log(3)

    def histogram(inputs: tuple[int, ...]) -> Counter[tuple[int, ...]]:
        found: Counter[tuple[int, ...]] = Counter()
        for sent in product(range(outputs), repeat=count):
            found[tuple(sorted(sent))] += math.prod(table[x][y] for x, y in zip(inputs, sent, strict=True))
        return found

    for others in ((0,) * (count - 1), (outputs - 1,) * (count - 1)):
        first, second = histogram((0, *others)), histogram((1, *others))
        for epsilon in (0.0, 0.2, 0.5, 0.9):
            alpha = alpha_at_most(epsilon)
            exact = (
                sum(max(Fraction(0), p - alpha * second[key]) for key, p in first.items()) / Fraction(total) ** count
            )
            assert exact <= Fraction(_delta(epsilon0, count, epsilon))


def test_both_counts_forgotten_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    given_clones = shuffle._given_clones
    monkeypatch.setattr(
        shuffle, "_given_clones", lambda c, e0, e: given_clones(c + 5, e0, e)
    )  # clones that nobody sent
    assert _delta(1.0, 10, 0.3) < exact_delta(1.0, 10, 0.3)


@settings(max_examples=10, deadline=None)
@given(st.floats(-20, 7).map(math.exp), st.integers(1, 10**7), st.floats(-200, -1).map(math.exp))
def test_it_never_exceeds_what_is_paid_alone_and_falls_with_the_crowd(
    epsilon0: float, count: int, delta: float
) -> None:
    found = epsilon_shuffled(epsilon0=epsilon0, count=count, delta=delta)
    assert 0 <= found <= epsilon0
    assert epsilon_shuffled(epsilon0=epsilon0, count=2 * count, delta=delta) <= found * (1 + 1e-4) + 1e-12
    assert found <= _closed_form(epsilon0, count, delta)


def test_the_numeric_bound_holds_and_beats_the_closed_form() -> None:
    for epsilon0, count in ((0.5, 10_000), (1.0, 10**6), (4.0, 10**6)):
        found = epsilon_shuffled(epsilon0=epsilon0, count=count, delta=1e-6)
        assert _delta(epsilon0, count, found) <= 1e-6
        assert found < 0.4 * _closed_form(epsilon0, count, 1e-6)
    assert epsilon_shuffled(epsilon0=1.0, count=10**12, delta=1e-6) <= _closed_form(1.0, 10**12, 1e-6)


def test_without_a_crowd_or_a_delta_nothing_is_gained() -> None:
    assert epsilon_shuffled(epsilon0=2.0, count=10**6, delta=0.0) == 2.0
    assert 1.999 < epsilon_shuffled(epsilon0=2.0, count=1, delta=1e-6) <= 2.0


def test_binomials_are_as_accurate_as_allowed_for() -> None:
    with mp.workdps(50):
        for n, s in ((10, 3), (65, 30), (100, 1), (70, 70), (10**6, 501_000), (10**9, 500_050_000)):
            log = mp.loggamma(n + 1) - mp.loggamma(s + 1) - mp.loggamma(n - s + 1) - n * mp.log(2)
            assert abs(float(_half(np.array([float(n)]), np.array([float(s)]))[0] / mp.e**log - 1)) < 1e-11
        for n, rate, k in ((200, 0.3, 20), (1000, 0.01, 5), (3000, 0.5, 1350)):
            p = mp.mpf(rate)
            exact = mp.fsum(mp.binomial(n, j) * p**j * (1 - p) ** (n - j) for j in range(k + 1))
            assert abs(float(_at_most(np.array([float(k)]), n, rate)[0] / exact - 1)) < 1e-11


def claims(**changes: object) -> SimpleNamespace:
    told = {
        "anonymous": True,
        "labels": "none",
        "joint": False,
        "edge_data": "public",
        "epsilon": 1.0,
        "per_record": 1.0,
    }
    return SimpleNamespace(**{**told, **changes})


class Anonymous(list[int]):
    """A stand-in for a release of so many records."""

    def __init__(self, count: int, **changes: object) -> None:
        super().__init__(range(count))
        self.claims, self.ids = claims(**changes), changes.get("ids")


def test_releases() -> None:
    expected = epsilon_shuffled(epsilon0=1.0, count=10_000, delta=1e-6)
    assert shuffled(Anonymous(10_000), delta=1e-6) == expected < 0.1
    assert shuffled(Anonymous(9, epsilon=math.inf, per_record=math.inf), delta=1e-6) == math.inf
    assert shuffled(Anonymous(9, epsilon=0.0, per_record=0.0), delta=1e-6) == 0.0


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"anonymous": False}, "whose claims do not say so"),
        ({"ids": [1, 2]}, "that carries ids"),
        ({"labels": "public"}, "with public labels, which split the crowd by label"),
        ({"joint": True}, "whose records pay for each other's rows"),
        ({"edge_data": "private"}, "whose records pay for each other's rows"),
        ({"epsilon": 5.0}, "whose records pay for each other's rows"),
    ],
)
def test_what_tells_records_apart_is_refused(changes: dict[str, object], reason: str) -> None:
    with pytest.raises(PrivacyError, match=f"shuffled: release must be anonymous, got one {reason}"):
        shuffled(Anonymous(100, **changes), delta=1e-6)


def test_a_release_is_not_anonymous_unless_it_says_so() -> None:
    model = SplitModel(torch.nn.Linear(4, 3), torch.nn.Linear(3, 2), cut=RandomResponseLDP(epsilon=0.1))
    with Ledger():
        release = model.release(torch.randn(5, 4), progress=False)
    with pytest.raises(PrivacyError, match="Shuffling hides a record only among messages that nothing tells apart"):
        shuffled(release, delta=1e-6)
    with pytest.raises(InvalidParameterError, match="shuffled: release must be a Release, got float"):
        shuffled(1.0, delta=1e-6)


def test_bad_parameters() -> None:
    good: dict[str, float] = {"epsilon0": 1.0, "count": 10, "delta": 1e-6}
    for bad, text in (
        ({"epsilon0": 0}, "epsilon0 must be finite"),
        ({"count": 0}, "count must be an"),
        ({"delta": 1}, "delta must"),
    ):
        with pytest.raises(InvalidParameterError, match=f"epsilon_shuffled: {text}"):
            epsilon_shuffled(**{**good, **bad})  # type: ignore[arg-type]
