"""Amplification by shuffling: what anonymous messages of many records hide of one of them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import betainc, betaincc, gammaln

from splitpriv import _validation as check
from splitpriv._errors import InvalidParameterError, PrivacyError
from splitpriv.accounting.composition import checked_delta
from splitpriv.accounting.kov import optimal_epsilon

Array = npt.NDArray[np.float64]

_BLOCKS = 512
_CROWD = 10**9  # of more records only so many are counted, which is on the safe side
# SciPy's incomplete beta agrees with exact binomial tails to 1e-11 in the tests; 1e-9 is allowed for.
_SLACK = 1e-9


def epsilon_shuffled(*, epsilon0: float, count: int, delta: float) -> float:
    r"""Epsilon at ``delta`` of one record among ``count`` whose messages were shuffled.

    Another record's message is, with probability :math:`e^{-\epsilon_0}`, one that the record in
    question might as well have sent: a clone, half of them of each of its two possible values. So no
    test of the shuffled messages beats one that sees how many messages there are of each value,

    .. math:: C \sim \mathrm{Bin}(n - 1, e^{-\epsilon_0}), \quad A \sim \mathrm{Bin}(C, 1/2), \quad
              \Delta \sim \mathrm{Ber}\Bigl(\frac{e^{\epsilon_0}}{1 + e^{\epsilon_0}}\Bigr), \quad
              (A + \Delta,\; C - A + 1 - \Delta)

    against the same with :math:`1 - \Delta`. Its hockey-stick divergence is summed numerically and
    rounded up; the smaller of that and the theorem's closed form is returned, and never more than
    what the record pays without a shuffler.

    Assumes: a shuffler that the server does not control; exactly one message per record, with nothing
    in it or beside it (id, time, order, label, size) that tells whose it is; the same pure
    ``epsilon0`` mechanism for all; and that all ``count`` records are sent honestly. Colluding or invented
    records do not count: take the number of those that you trust.

    Args:
        epsilon0: pure epsilon of one record's message (natural log), finite and > 0.
        count: records shuffled together, the one in question included, >= 1.
        delta: slack probability in [0, 1); at 0 nothing is gained.

    Raises:
        InvalidParameterError: a parameter is outside its range.

    Does not protect: what the messages say together, such as that all records are alike.

    Source: Feldman, McMillan, Talwar 2021, theorem 3.1 (closed form) and theorem 3.2 (the pair).

    Example:
        >>> round(epsilon_shuffled(epsilon0=1.0, count=10_000, delta=1e-6), 3)
        0.053
    """
    epsilon0 = check.positive("epsilon_shuffled", "epsilon0", epsilon0)
    count = check.integer("epsilon_shuffled", "count", count, 1)
    checked_delta("epsilon_shuffled", delta)
    alone = optimal_epsilon(epsilon0, 1, delta)
    if delta == 0 or count == 1:
        return alone
    high = min(alone, _closed_form(epsilon0, count, delta))
    low, count = 0.0, min(count, _CROWD)
    while high - low > 1e-6 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if _delta(epsilon0, count, middle) <= delta else (middle, high)
    return high


def shuffled(release: Any, *, delta: float) -> float:
    """Epsilon at ``delta`` of a record in an anonymous release, its messages shuffled before the server.

    Args:
        release: a :class:`~splitpriv.Release` whose claims say ``anonymous``.
        delta: slack probability in [0, 1).

    Raises:
        PrivacyError: the release is not anonymous, or something in it tells records apart.

    Does not protect: what :func:`epsilon_shuffled` assumes is not checked beyond the release's own claims.

    Source: see :func:`epsilon_shuffled`.
    """
    claims = getattr(release, "claims", None)
    if claims is None:
        kind = type(release).__name__
        raise InvalidParameterError(f"shuffled: release must be a Release, got {kind}.")
    reason = _linked(release, claims)
    if reason:
        raise PrivacyError(
            f"shuffled: release must be anonymous, got one {reason}. "
            "Shuffling hides a record only among messages that nothing tells apart; use epsilon_total."
        )
    if not math.isfinite(claims.epsilon):
        return math.inf
    return epsilon_shuffled(epsilon0=claims.epsilon, count=len(release), delta=delta) if claims.epsilon else 0.0


def _linked(release: Any, claims: Any) -> str:
    """What ties a message to its record; empty for nothing."""
    if not getattr(claims, "anonymous", False):
        return "whose claims do not say so"
    if getattr(release, "ids", None) is not None:
        return "that carries ids"
    if claims.labels == "public":
        return "with public labels, which split the crowd by label"
    if claims.joint or claims.edge_data != "public" or claims.epsilon != claims.per_record:
        return "whose records pay for each other's rows"
    return ""


def _closed_form(epsilon0: float, count: int, delta: float) -> float:
    """Theorem 3.1; inf outside its range. A little is added for rounding."""
    if epsilon0 > 600 or epsilon0 * (1 + 1e-12) > math.log(count / (16 * math.log(2 / delta))):
        return math.inf
    large = math.exp(epsilon0)
    spread = 8 * math.sqrt(large * math.log(4 / delta) / count) + 8 * large / count
    return math.log1p(math.tanh(epsilon0 / 2) * spread) * (1 + 1e-12)


def _delta(epsilon0: float, count: int, epsilon: float) -> float:
    """The hockey-stick divergence of the pair, rounded up.

    It is a mean over the number C of clones, and falls as C grows (another clone is noise added to the
    counts), so that each block of values of C is charged as its smallest.
    """
    rate, others = math.exp(-epsilon0), count - 1
    mean, spread = others * rate, math.sqrt(others * rate) + 1
    edges = np.unique(np.floor(np.linspace(max(0.0, mean - 40 * spread), min(others, mean + 12 * spread), _BLOCKS)))
    values = _given_clones(edges, epsilon0, epsilon)
    values = np.minimum.accumulate(values)  # falls, but for rounding
    # Sum over blocks of Pr[C < end of block] (value here - value of the next): positive terms only.
    reached = np.append(_at_most(edges[1:] - 1, others, rate), 1.0) * (1 + _SLACK)
    falls = np.append(values[:-1] - values[1:], values[-1])
    before = float(_at_most(edges[:1] - 1, others, rate)[0]) if edges[0] > 0 else 0.0
    return float(np.sum(reached * falls)) * (1 + _SLACK) + before * (1 + _SLACK)


def _given_clones(clones: Array, epsilon0: float, epsilon: float) -> Array:
    """The divergence where the number of clones is known, rounded up.

    With a messages of the first value among c + 1 the likelihood ratio grows with a, so the best
    test is a threshold on it.
    """
    keep, flip = 1 / (1 + math.exp(-epsilon0)), 1 / (1 + math.exp(epsilon0))
    grown = math.exp(epsilon)
    won, lost = keep - grown * flip, grown * keep - flip
    if won <= 0:
        return np.zeros_like(clones)
    threshold = np.floor((clones + 1) * (lost / (won + lost))) + 1
    best = np.zeros_like(clones)
    for a in (threshold - 1, threshold, threshold + 1):  # rounding may have moved it by one
        inside = (a >= 1) & (a <= clones)
        tail = betainc(np.where(inside, a, 1.0), np.where(inside, clones - a + 1, 1.0), 0.5)
        at_least = np.where(inside, tail, np.where(a < 1, 1.0, 0.0))
        exactly = np.where((a >= 1) & (a - 1 <= clones), _half(clones, np.clip(a - 1, 0, clones)), 0.0)
        gain = won * exactly * (1 + _SLACK) - math.expm1(epsilon) * at_least * (1 - _SLACK)
        best = np.maximum(best, gain)
    return np.minimum(best * (1 + _SLACK) + 1e-300, 1.0)


def _at_most(k: Array, trials: int, rate: float) -> Array:
    """Pr[Bin(trials, rate) <= k], 0 <= k < trials."""
    below: Array = betaincc(k + 1, trials - k, rate)
    return below


def _half(trials: Array, successes: Array) -> Array:
    """Bin(trials, 1/2) at ``successes``, by its distance from the middle: no large logarithms cancel.

    Source: Loader 2000.
    """
    inside = (successes > 0) & (successes < trials)
    n = np.where(inside, trials, 2.0)
    s = np.where(inside, successes, 1.0)
    x = (2 * s - n) / n
    distance = n / 2 * (np.log1p(-x * x) + 2 * x * np.arctanh(x))
    log = _stirling(n) - _stirling(s) - _stirling(n - s) - distance + 0.5 * np.log(n / (2 * math.pi * s * (n - s)))
    return np.where(inside, np.exp(log), np.exp2(-trials))


def _stirling(n: Array) -> Array:
    """ln n! less Stirling's approximation."""
    small = np.minimum(n, 64.0)
    exact = gammaln(small + 1) - (small + 0.5) * np.log(small) + small - 0.5 * math.log(2 * math.pi)
    series = (1 / 12 - (1 / 360 - (1 / 1260 - 1 / (1680 * n * n)) / (n * n)) / (n * n)) / n
    return np.where(n > 64, series, exact)
