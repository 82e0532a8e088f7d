"""(ε, δ) limits: the Rényi curve, the conversion, and the filter against every adaptive choice of charges."""

from __future__ import annotations

import math
from fractions import Fraction
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from splitpriv import BudgetExceeded, InvalidParameterError
from splitpriv.accounting import Ledger, simulation
from splitpriv.accounting.filter import ORDERS, RenyiFilter, excess, reading, renyi_loss, renyi_sum
from splitpriv.accounting.profile import MAX_KINDS, Profiles


def test_the_loss_is_that_of_randomized_response() -> None:
    for epsilon in (1e-3, 0.1, 1.0, 5.0, 20.0):
        p, q = 1 / (1 + math.exp(-epsilon)), 1 / (1 + math.exp(epsilon))
        for order in (1.5, 2.0, 7.0):
            direct = math.log(p**order * q ** (1 - order) + q**order * p ** (1 - order)) / (order - 1)
            assert renyi_loss(epsilon, order) == pytest.approx(direct, rel=1e-9, abs=1e-15)


@given(st.floats(0, 1e6), st.floats(1.01, 1e4))
def test_the_loss_is_within_its_bounds_and_grows(epsilon: float, order: float) -> None:
    loss = renyi_loss(epsilon, order)
    assert loss <= epsilon
    smallest = Fraction(5e-324)  # what anything above 0 is rounded up to
    assert Fraction(loss) <= Fraction(order) * Fraction(epsilon) ** 2 / 2 * (1 + Fraction(1, 10**9)) + smallest
    assert renyi_loss(epsilon * 1.001, order) >= loss


def test_losses_meet_where_the_way_to_compute_them_changes() -> None:
    for edge in (1e-9, 1000.0):
        below, above = renyi_loss(math.nextafter(edge, 0), 3.0), renyi_loss(edge, 3.0)
        assert below == pytest.approx(above, rel=1e-6)
    assert renyi_loss(math.inf, 2.0) == math.inf
    assert renyi_loss(5e-324, 2.0) > 0
    assert renyi_sum(((0.5, 3), (math.inf, 1)), 2.0) == math.inf


def test_the_conversion_is_the_published_one() -> None:
    for order, delta in ((2.0, 1e-6), (8.0, 1e-3), (60.0, 1e-9)):
        epsilon = 1.0 + excess(order, delta)  # (order, 1)-Rényi DP
        back = math.exp((order - 1) * (1.0 - epsilon)) / (order - 1) * (1 - 1 / order) ** order
        assert back == pytest.approx(delta, rel=1e-9)


def test_the_filter_allows_more_than_the_sum_and_less_than_the_truth() -> None:
    ledger, uses = Ledger(limit=8.0, delta=1e-6), 0
    while ledger.remaining("a") >= 0.1:
        ledger.charge(0.1, ids=["a"])
        uses += 1
    with pytest.raises(
        BudgetExceeded, match=r"limit=8 at delta=1e-06 with 7\.9858 spent and 0\.1 asked by the worst record"
    ):
        ledger.charge(0.1, ids=["a"])
    assert uses == 215  # 80 by the sum
    assert ledger.remaining("a") < 0.1
    ledger.charge(ledger.remaining("a"), ids=["a"])
    assert ledger.remaining("b") == 8.0
    # What k uses of randomized response really are at this epsilon: a binomial tail (Kairouz et al. 2015).
    p, kept = 1 / (1 + math.exp(-0.1)), range(uses + 1)
    weights = stats.binom.pmf(kept, uses, p)
    true = sum(w * max(0.0, 1 - math.exp(8.0 - 0.1 * (2 * k - uses))) for k, w in zip(kept, weights, strict=True))
    assert 0 < true < 1e-6


def worst_delta(limit: float, delta: float, kinds: tuple[float, ...], unit: float, budget: float) -> float:
    """The largest delta at epsilon = limit that any adaptive choice of charges reaches, by dynamic programming.

    All mechanisms are randomized responses of epsilons that are multiples of ``unit``; the adversary sees every output
    and may stop or choose the next charge, as long as the filter with this Rényi budget accepts it.
    """
    order = RenyiFilter.of(limit, delta).order
    rho = [renyi_loss(epsilon, order) for epsilon in kinds]

    @cache
    def value(counts: tuple[int, ...], loss: int) -> float:
        best = max(0.0, 1 - math.exp(limit - loss * unit))
        for kind, epsilon in enumerate(kinds):
            after = tuple(n + (k == kind) for k, n in enumerate(counts))
            pure = sum(n * e for n, e in zip(after, kinds, strict=True))
            renyi = sum(n * r for n, r in zip(after, rho, strict=True))
            if pure <= limit or renyi <= budget:
                step, p = round(epsilon / unit), 1 / (1 + math.exp(-epsilon))
                best = max(best, p * value(after, loss + step) + (1 - p) * value(after, loss - step))
        return best

    return value((0,) * len(kinds), 0)


@pytest.mark.parametrize(
    ("limit", "delta", "kinds"),
    [(2.0, 0.05, (0.25, 0.5)), (2.0, 1e-3, (0.25, 1.0)), (1.0, 0.01, (0.125, 0.5)), (4.0, 1e-4, (0.5, 1.5))],
)
def test_no_adaptive_choice_of_charges_passes_the_limit(limit: float, delta: float, kinds: tuple[float, ...]) -> None:
    renyi = RenyiFilter.of(limit, delta)
    assert worst_delta(limit, delta, kinds, min(kinds), renyi.budget) <= delta


def test_a_budget_that_forgets_the_conversion_is_caught() -> None:
    assert worst_delta(2.0, 1e-3, (0.25, 1.0), 0.25, budget=2.0) > 1e-3


def test_the_ledger_and_the_filter_accept_the_same_charges() -> None:
    renyi, ledger = RenyiFilter.of(2.0, 0.05), Ledger(limit=2.0, delta=0.05)
    total = 0.0
    while total + renyi.loss(0.25) <= renyi.budget or ledger.epsilon + 0.25 <= 2.0:
        ledger.charge(0.25)
        total += renyi.loss(0.25)
    with pytest.raises(BudgetExceeded):
        ledger.charge(0.25)


def test_uses_are_composed_and_the_sum_decides_where_it_is_better() -> None:
    ledger = Ledger(limit=8.0, delta=1e-6)
    ledger.charge(0.1, uses=200, ids=["a"])
    assert ledger.epsilon == pytest.approx(20.0)
    with pytest.raises(BudgetExceeded):
        ledger.charge(0.1, uses=100, ids=["b", "a"])
    ledger.charge(8.0, ids=["b"])  # the sum is within the limit; the Rényi loss of 8 is not within its budget
    with pytest.raises(BudgetExceeded):
        Ledger(limit=8.0).charge(0.1, uses=81)


def test_common_charges_and_unnamed_ids_count_for_a_record_by_the_filter_too() -> None:
    ledger = Ledger(limit=8.0, delta=1e-6)
    for ids, dataset in ((None, ""), (["x"], ""), (["a"], "named")):
        ledger.charge(0.1, uses=70, ids=ids, dataset=dataset)
    assert ledger.remaining("a", "named") < 0.5
    with pytest.raises(BudgetExceeded):
        ledger.charge(0.1, uses=6, ids=["a"], dataset="named")
    with pytest.raises(BudgetExceeded):
        ledger.charge(0.1, uses=6)


def test_a_reading_bounds_the_loss_at_all_times_but_for_delta() -> None:
    """Exact, over all outcomes: the probability that the loss ever passes the reading, for uses of one epsilon."""
    epsilon, delta, steps = 0.5, 0.1, 60
    p = 1 / (1 + math.exp(-epsilon))
    alive, passed = {0: 1.0}, 0.0
    for step in range(1, steps + 1):
        ledger = Ledger()
        ledger.charge(epsilon, uses=step)
        bound = ledger.epsilon_at(delta)
        after: dict[int, float] = {}
        for net, mass in alive.items():
            after[net + 1] = after.get(net + 1, 0.0) + mass * p
            after[net - 1] = after.get(net - 1, 0.0) + mass * (1 - p)
        passed += sum(mass for net, mass in after.items() if net * epsilon > bound)
        alive = {net: mass for net, mass in after.items() if net * epsilon <= bound}
    assert ledger.epsilon_at(delta) < epsilon * steps
    assert passed <= delta


def test_a_reading_is_never_above_the_sum_and_falls_as_delta_grows() -> None:
    with Ledger() as ledger:
        assert ledger.epsilon_at(1e-6) == 0.0
        ledger.charge(0.1, uses=200, ids=["a"], dataset="x")
        ledger.charge(0.1, uses=100, ids=["b"])
        ledger.charge(3.0)
        with simulation():
            ledger.charge(100.0)
        readings = [ledger.epsilon_at(delta) for delta in (0.0, 1e-12, 1e-6, 1e-2)]
    assert readings == sorted(readings, reverse=True)
    assert readings[0] == ledger.epsilon
    assert readings[2] < ledger.epsilon
    pure_only = reading(5.0, lambda order: 1e9, 1e-6)
    assert pure_only == 5.0
    assert len(ORDERS) == len(set(ORDERS)) == 20


def test_a_profile_beyond_its_size_counts_the_two_nearest_as_the_larger() -> None:
    profiles = Profiles(None)
    profile = profiles.empty
    for k in range(MAX_KINDS + 8):
        profile = profiles.after(profile, 1.0 + k / 64, 2)
    assert len(profile.uses) == MAX_KINDS
    assert sum(times for _, times in profile.uses) == 2 * (MAX_KINDS + 8)
    exact = sum(2 * (1 + Fraction(k, 64)) for k in range(MAX_KINDS + 8))
    assert Fraction(profile.pure) >= exact
    assert sum(Fraction(e) * n for e, n in profile.uses) >= exact
    assert profiles.after(profile, 0.0, 5) is profile
    assert profiles.of(profile.pure, profile.uses) is profile


def test_bad_limits_are_refused() -> None:
    for delta in (-0.1, 1.0, math.nan, True):
        with pytest.raises(InvalidParameterError, match=r"delta must be in \[0, 1\), got delta=.*0 is a pure limit"):
            Ledger(limit=1.0, delta=delta)
        with pytest.raises(InvalidParameterError, match=r"Ledger.epsilon_at: delta must be .*0 is the pure sum"):
            Ledger().epsilon_at(delta)
    with pytest.raises(
        InvalidParameterError, match=r"delta must be 0 without a limit.*Ledger.epsilon_at\(delta\) reads"
    ):
        Ledger(delta=1e-6)
    for uses in (0, -1, 1.5, True):
        with pytest.raises(InvalidParameterError, match=r"Ledger.charge: uses must be an integer in"):
            Ledger().charge(1.0, uses=uses)  # type: ignore[arg-type]


def test_a_limit_too_small_for_its_delta_is_the_pure_one() -> None:
    ledger = Ledger(limit=0.01, delta=1e-12)
    ledger.charge(0.01, ids=["a"])
    with pytest.raises(BudgetExceeded):
        ledger.charge(1e-9, ids=["a"])
