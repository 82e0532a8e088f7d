r"""(ε, δ) limits and readings that stay true when later charges depend on earlier outputs.

Every epsilon-DP mechanism is post-processing of randomized response at that epsilon (Kairouz, Oh,
Viswanath 2015, theorem 3.4), so its Rényi divergence of order a > 1 is at most that of randomized response,

.. math:: \rho_a(\epsilon) = \frac{\ln\cosh((a - 1/2)\epsilon) - \ln\cosh(\epsilon/2)}{a - 1}
          \le \min(\epsilon, a \epsilon^2 / 2).

*Limit.* Fix one order a before anything is drawn. Feldman and Zrnic 2021 (theorem 3.1): as long as the
sum of rho_a over all accepted charges never passes B, the whole is (a, B)-Rényi DP, however the charges were
chosen. That gives (epsilon, delta) for epsilon = B + c(a, delta) (Canonne, Kamath, Steinke 2020, proposition 12),

.. math:: c(a, \delta) = \ln(1 - 1/a) + \frac{\ln(1/\delta) - \ln a}{a - 1}.

A charge is accepted if the pure sum stays within epsilon *or* the Rényi sum stays within B. Taking the better of
these two costs no delta. Let L be the privacy loss of the transcript y; delta(epsilon) is E[(1 - e^(epsilon - L))+].
Where the final pure sum is within epsilon, L <= epsilon and the integrand is 0. Where it is not, the Rényi
sum never passed B on y; so y has the same probability, under either input, in the process that stops where the Rényi
sum would pass B, and the expectation over all such y is at most that process's, which is at most delta.

*Reading.* exp((a - 1)(L_t - sum of rho_a up to t)) is a nonnegative supermartingale that starts at 1, so by Ville's
inequality L_t < sum of rho_a + ln(1/delta') / (a - 1) at all times t together, but for a probability delta'. With
delta' = delta / (number of orders) this holds for all orders of a fixed list, and the least of them may be
read off at any time (as in Whitehouse, Ramdas, Rogers, Wu 2023, and Lécuyer 2021).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache

from splitpriv.mechanisms.rounding import precise, round_down, round_up, scale_up, sum_up

# Fixed: a list chosen after the fact would not be covered by the union bound.
ORDERS = tuple(1 + 2 ** (step / 2) for step in range(-2, 18))
_SLACK = Fraction(1, 10**50)  # far above the error of 80 digits, far below a float's
_TINY = 1e-9


@dataclass(frozen=True)
class RenyiFilter:
    """One Rényi order and the budget at it that imply an (epsilon, delta) limit; see the module.

    Attributes:
        limit: epsilon that may not be passed.
        delta: slack probability, in (0, 1).
        order: the Rényi order, > 1, fixed before the first charge.
    """

    limit: float
    delta: float
    order: float

    @classmethod
    def of(cls, limit: float, delta: float) -> RenyiFilter:
        """With the order that allows the most uses of a mechanism of small epsilon."""
        candidates = [1 + 2 ** (step / 8) for step in range(-32, 97)]
        return cls(limit, delta, max(candidates, key=lambda order: (limit - excess(order, delta)) / order))

    @property
    def budget(self) -> float:
        """Largest Rényi sum that implies the limit, rounded inward; negative where none does."""
        return round_down(Fraction(self.limit) - Fraction(excess(self.order, self.delta)))

    def loss(self, epsilon: float, times: int = 1) -> float:
        """Rényi loss of ``times`` uses of a mechanism of this epsilon, rounded outward."""
        return scale_up(renyi_loss(epsilon, self.order), times)

    def epsilon(self, renyi: float) -> float:
        """The epsilon at ``delta`` that a Rényi sum implies, rounded outward."""
        return sum_up([renyi, excess(self.order, self.delta)])

    def largest(self, spent: float) -> float:
        """The largest epsilon of one more use that the budget has room for, rounded inward."""
        if not self.loss(0.0) + spent <= self.budget:
            return 0.0
        low, high = 0.0, 2 * self.limit + 1
        while sum_up([spent, self.loss(high)]) <= self.budget:
            high *= 2
        for _ in range(60):
            middle = (low + high) / 2
            if sum_up([spent, self.loss(middle)]) <= self.budget:
                low = middle
            else:
                high = middle
        return low


@lru_cache(maxsize=1 << 14)
def renyi_loss(epsilon: float, order: float) -> float:
    """Rényi divergence of order ``order`` of any epsilon-DP mechanism, rounded outward; see the module."""
    if epsilon == 0 or epsilon >= 1000:
        return epsilon  # ln cosh has slopes below 1, so the loss is never above epsilon
    if epsilon < _TINY:
        return min(epsilon, round_up(Fraction(order) * Fraction(epsilon) ** 2 / 2))
    half, steep = Decimal(epsilon) / 2, precise().multiply(Decimal(order) - Decimal("0.5"), Decimal(epsilon))
    exact = (Fraction(_ln_cosh(steep)) - Fraction(_ln_cosh(half))) / (Fraction(order) - 1)
    return min(epsilon, round_up(exact * (1 + _SLACK)))


def _ln_cosh(x: Decimal) -> Decimal:
    """ln(2 cosh x) for x > 0; the constant ln 2 cancels in a difference."""
    context = precise()
    tail = context.ln(1 + context.exp(context.multiply(Decimal(-2), x))) if x < 200 else Decimal(0)
    return context.add(x, tail)


@lru_cache(maxsize=1 << 10)
def excess(order: float, delta: float) -> float:
    """c(order, delta) of the module, >= 0, rounded outward: what epsilon exceeds the Rényi loss by."""
    context, a = precise(), Decimal(order)
    ln_ratio = context.ln(context.divide(context.subtract(a, Decimal(1)), a))
    ln_slack = context.subtract(-context.ln(Decimal(delta)), context.ln(a))
    exact = Fraction(ln_ratio) + Fraction(ln_slack) / (Fraction(order) - 1)
    return max(0.0, round_up(exact + _SLACK * (1 + abs(exact))))


def reading(pure: float, renyi: Callable[[float], float], delta: float) -> float:
    """The epsilon that bounds the loss at all times together but for probability ``delta``.

    Args:
        pure: sum of the pure losses, rounded outward.
        renyi: order -> sum of the Rényi losses of that order, rounded outward.
        delta: slack probability in [0, 1).
    """
    if delta == 0 or pure == 0:
        return pure
    ln_slack = Fraction(precise().ln(Decimal(len(ORDERS)) / Decimal(delta))) * (1 + _SLACK)
    return min(pure, *(sum_up([renyi(a), round_up(ln_slack / (Fraction(a) - 1))]) for a in ORDERS))


def renyi_sum(uses: tuple[tuple[float, int], ...], order: float) -> float:
    """Rényi loss of order ``order`` of a profile: pairs (epsilon of one use, number of uses)."""
    return math.inf if uses and math.isinf(uses[-1][0]) else sum_up(scale_up(renyi_loss(e, order), n) for e, n in uses)
