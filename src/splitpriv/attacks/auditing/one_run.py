"""Epsilon from one run: how many of many independent secrets were guessed."""

from __future__ import annotations

import math

import numpy as np
from scipy.special import bdtrc, gammaln, xlog1py, xlogy

from splitpriv import _validation as check
from splitpriv._errors import InvalidParameterError
from splitpriv.attacks.estimate import lower_bound

_HALVINGS = 80


def one_run_epsilon(m: int, r: int, v: int, delta: float, failure_probability: float) -> float:
    r"""A lower bound on epsilon of a mechanism that was run once on m independent fair coins.

    An attacker looks at what came out, guesses r of the coins and abstains from the others; v guesses are right.
    If the mechanism is :math:`(\epsilon, \delta)`-private in each coin, then, with
    :math:`X \sim \mathrm{Bin}(r, e^\epsilon / (1 + e^\epsilon))`,

    .. math:: \Pr[\text{v or more right}] \le \Pr[X \ge v]
              + 2 m \delta \max_{1 \le i \le v} \frac{\Pr[v - i \le X < v]}{i}.

    Every epsilon for which the right side is below the failure probability is refuted, and the largest of them is
    returned (rounded toward zero), 0 where none is. With :math:`\delta = 0` this is the log-odds of a
    Clopper-Pearson bound on v of r.

    Args:
        m: coins (canaries), >= 1.
        r: guesses, in [0, m]; how many must not depend on the coins.
        v: right guesses, in [0, r].
        delta: of the claim that is tested, in [0, 1).
        failure_probability: of a bound above the true epsilon, in (0, 1).

    Returns:
        Epsilon (natural log), >= 0.

    Raises:
        InvalidParameterError: an argument is outside its range.

    Does not prove: that epsilon is as small as this. An attacker who guesses badly finds 0 for any mechanism.

    Source: Steinke, Nasr, Jagielski 2023, theorem 5.2 and its proposition for approximate privacy.

    Example:
        >>> round(one_run_epsilon(1000, 100, 95, 1e-5, 0.05), 4)
        2.1652
    """
    owner = "one_run_epsilon"
    check.integer(owner, "m", m, 1)
    check.integer(owner, "r", r, 0, m)
    check.integer(owner, "v", v, 0, r)
    alpha = check.positive(owner, "failure_probability", failure_probability)
    if alpha >= 1:
        raise InvalidParameterError(check.message(owner, "failure_probability", "below 1", alpha))
    if not 0 <= check.finite(owner, "delta", delta) < 1:
        raise InvalidParameterError(check.message(owner, "delta", "in [0, 1)", delta))
    if v == 0:
        return 0.0
    if delta == 0:
        share = lower_bound(v, r, alpha)
        return max(0.0, math.log(share / (1 - share)) * (1 - 1e-9))
    return _refuted(m, r, v, delta, alpha)


def _refuted(m: int, r: int, v: int, delta: float, alpha: float) -> float:
    """The largest epsilon that is refuted, by halving: the right side grows with epsilon."""
    low, high = 0.0, 1.0
    if _chance(m, r, v, delta, 0.0) >= alpha:
        return 0.0
    while _chance(m, r, v, delta, high) < alpha:
        low, high = high, 2 * high
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if _chance(m, r, v, delta, middle) < alpha else (low, middle)
    return low


def _chance(m: int, r: int, v: int, delta: float, epsilon: float) -> float:
    """A bound on the probability of v or more right guesses under the claim."""
    p = 1 / (1 + math.exp(-epsilon))
    hits = np.arange(v - 1, -1, -1)
    ways = gammaln(r + 1) - gammaln(hits + 1) - gammaln(r - hits + 1)
    exactly = np.exp(ways + xlogy(hits, p) + xlog1py(r - hits, -p))  # of v - 1, v - 2, ..., 0 right guesses
    excess = float((np.cumsum(exactly) / np.arange(1, v + 1)).max())
    return min(1.0, float(bdtrc(v - 1, r, p)) + 2 * m * delta * excess)
