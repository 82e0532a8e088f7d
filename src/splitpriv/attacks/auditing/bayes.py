"""What no attacker can exceed: the best possible accuracy of any guess at a given epsilon, or from a known channel."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from numbers import Real

import numpy as np
import torch
from torch import Tensor

from splitpriv import _validation as check
from splitpriv._errors import InvalidParameterError
from splitpriv.accounting.kov import optimal_delta
from splitpriv.mechanisms import Channel
from splitpriv.mechanisms.rounding import scale_up

_UP = 1 + 1e-12  # covers the rounding of a handful of operations
_TRADED = 64  # values of epsilon at which a pair (epsilon, delta) is tried
_BLOCK = 1 << 20  # entries of a table at a time


def bayes_accuracy(
    epsilon: float, *, candidates: int = 2, uses: int = 1, prior: Sequence[float] | None = None
) -> float:
    r"""The highest accuracy with which anyone can guess which of N candidates a record was.

    For one use, whatever the attacker knows or computes,

    .. math:: \frac{p \, e^\epsilon}{1 - p + p \, e^\epsilon}, \qquad p = \text{the largest prior (uniform: } 1/N),

    reached by k-ary randomized response for a uniform prior. For k uses it is the least of this bound at
    :math:`k \epsilon` and of :math:`p e^{\epsilon'} + (1 - p) \delta(\epsilon')` over the pairs
    :math:`(\epsilon', \delta)` of optimal composition; for two equally likely candidates
    :math:`(1 + \delta(0)) / 2`, which is reached: :math:`\delta(0)` is the total variation distance.

    Args:
        epsilon: of one use (natural log), >= 0; ``math.inf`` for no mechanism.
        candidates: N >= 2; ignored where a prior is given.
        uses: k >= 1, mechanisms used on the record, such as its elements or its releases.
        prior: the attacker's, non-negative and of sum 1; None for the uniform one.

    Returns:
        An accuracy, rounded up.

    Raises:
        InvalidParameterError: an argument is outside its range.

    Does not protect: a record about which the attacker was certain before.

    Source: Kairouz, Oh, Viswanath 2015, theorem 3.3; Bayes' rule.

    Example:
        >>> round(bayes_accuracy(1.0, candidates=10), 3)
        0.232
        >>> round(bayes_accuracy(0.1, uses=100), 3), round(bayes_accuracy(10.0), 5)
        (0.691, 0.99995)
    """
    owner = "bayes_accuracy"
    epsilon = loss(owner, epsilon)
    check.integer(owner, "uses", uses, 1)
    if prior is None:
        top = 1 / check.integer(owner, "candidates", candidates, 2)
    else:
        top = float(_prior(owner, prior, None).max())
    if math.isinf(epsilon) or top == 1:
        return 1.0
    total = scale_up(epsilon, uses)
    best = top / (top + (1 - top) * math.exp(-total))
    if uses > 1 and top == 0.5 and (candidates == 2 or prior is not None):
        best = min(best, _two(epsilon, uses, prior))
    if uses > 1:
        traded = (top * math.exp(e) + (1 - top) * delta for e, delta in _pairs(epsilon, uses, -math.log(top)))
        best = min(best, *traded)
    return min(1.0, best * _UP)


def _two(epsilon: float, uses: int, prior: Sequence[float] | None) -> float:
    """The exact bound where two candidates are equally likely and no other is possible."""
    if prior is not None and sum(p > 0 for p in prior) > 2:
        return 1.0
    return (1 + optimal_delta(epsilon, uses, 0.0)) / 2


def channel_accuracy(
    channel: Channel,
    inputs: Tensor,  # shape: (candidates,), or (candidates, m) where an input is m symbols
    *,
    prior: Sequence[float] | None = None,
) -> float:
    r"""The accuracy of the best possible guess at which of these inputs one output of a known channel came from.

    .. math:: \sum_y \max_x \, p(x) \Pr[y \mid x]

    Exact for the channel and these inputs, up to the rounding of a sum in float64; at most
    :func:`bayes_accuracy` at the channel's epsilon.

    Args:
        channel: with at most 2**20 outputs.
        inputs: input symbols, at least one.
        prior: of the inputs, non-negative and of sum 1; None for the uniform one.

    Raises:
        InvalidParameterError: no inputs, a prior that does not fit, or no channel, or one with more outputs.
        ShapeError: ``inputs`` are not input symbols of the channel.

    Example:
        >>> from splitpriv.mechanisms import KClosest
        >>> k_ary = KClosest(10, 1, epsilon=1.0)
        >>> abs(channel_accuracy(k_ary, torch.arange(10)) - bayes_accuracy(1.0, candidates=10)) < 1e-9
        True
    """
    owner = "channel_accuracy"
    if not isinstance(channel, Channel):
        raise InvalidParameterError(check.message(owner, "channel", "a Channel", channel))
    if not isinstance(inputs, Tensor):
        raise InvalidParameterError(check.message(owner, "inputs", "a tensor of input symbols", inputs))
    if not len(inputs):
        raise InvalidParameterError(check.message(owner, "inputs", "at least one input symbol", inputs))
    weights = np.full(len(inputs), 1 / len(inputs)) if prior is None else _prior(owner, prior, len(inputs))
    if channel.outputs > _BLOCK:
        raise InvalidParameterError(check.message(owner, "channel", "one with at most 2**20 outputs", channel))
    symbols, best = torch.arange(channel.outputs), np.zeros(channel.outputs)
    for symbol, weight in zip(inputs, weights, strict=True):
        law = channel.log_prob(symbols, symbol.expand(channel.outputs, *symbol.shape)).exp()
        best = np.maximum(best, weight * law.cpu().numpy())
    return min(1.0, float(best.sum()))


def advantage_bound(epsilon: float, *, uses: int = 1) -> float:
    r"""The largest true-positive rate less false-positive rate of any test of one input against another.

    The total variation distance of optimal composition, :math:`\delta(0)`;
    :math:`(e^\epsilon - 1) / (e^\epsilon + 1)` for one use. Balanced accuracy is half of it above 1/2.

    Args:
        epsilon: of one use (natural log), >= 0, may be infinite.
        uses: >= 1.

    Raises:
        InvalidParameterError: an argument is outside its range.

    Source: Kairouz, Oh, Viswanath 2015, theorem 3.3.

    Example:
        >>> round(advantage_bound(1.0), 4), round(advantage_bound(0.1, uses=100), 4)
        (0.4621, 0.382)
    """
    epsilon = loss("advantage_bound", epsilon)
    check.integer("advantage_bound", "uses", uses, 1)
    if epsilon == 0:
        return 0.0
    return optimal_delta(epsilon, uses, 0.0)


def tpr_bound(epsilon: float, *, fpr: float, uses: int = 1) -> float:
    r"""The largest true-positive rate of any test of one input against another, at a false-positive rate.

    .. math:: \min_{\epsilon'} \min\bigl(e^{\epsilon'} \mathrm{FPR} + \delta(\epsilon'), \;
              1 - e^{-\epsilon'} (1 - \mathrm{FPR} - \delta(\epsilon'))\bigr)

    over the pairs of optimal composition; for one use :math:`\epsilon' = \epsilon` and :math:`\delta = 0`.

    Args:
        epsilon: of one use (natural log), >= 0, may be infinite.
        fpr: false-positive rate, in [0, 1].
        uses: >= 1.

    Raises:
        InvalidParameterError: an argument is outside its range.

    Source: Wasserman, Zhou 2010; Kairouz, Oh, Viswanath 2015.

    Example:
        >>> round(tpr_bound(1.0, fpr=0.01), 4)
        0.0272
    """
    owner = "tpr_bound"
    epsilon = loss(owner, epsilon)
    check.integer(owner, "uses", uses, 1)
    if not 0 <= check.finite(owner, "fpr", fpr) <= 1:
        raise InvalidParameterError(check.message(owner, "fpr", "in [0, 1]", fpr))
    if math.isinf(epsilon):
        return 1.0
    best = 1.0
    for e, delta in _pairs(epsilon, uses, math.inf):
        grown = math.exp(min(e, 700.0)) * fpr + delta
        best = min(best, grown, 1 - math.exp(-e) * max(0.0, 1 - fpr - delta))
    return min(1.0, best * _UP)


def _pairs(epsilon: float, uses: int, most: float) -> Iterable[tuple[float, float]]:
    """Pairs (epsilon, delta) of optimal composition, epsilon at most ``most``; the pure one last, if it is."""
    total = scale_up(epsilon, uses)
    if uses > 1 and epsilon > 0:
        top = min(total, most)
        for e in np.linspace(0, top, _TRADED).tolist():
            yield e, optimal_delta(epsilon, uses, e)
    yield total if total <= most else most, 0.0 if total <= most else 1.0


def _prior(owner: str, prior: Sequence[float], size: int | None) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """The prior as an array, checked, of that size where one is asked."""
    fix, constraint = "One for each candidate.", "non-negative, with sum 1"
    if not isinstance(prior, Iterable):
        raise InvalidParameterError(check.message(owner, "prior", constraint, prior, fix))
    weights = np.array([check.finite(owner, "prior", p) for p in prior], dtype=np.float64)
    fits = len(weights) == (len(weights) if size is None else size) > 0
    if not fits or weights.min() < 0 or not math.isclose(weights.sum(), 1, abs_tol=1e-9):
        raise InvalidParameterError(check.message(owner, "prior", constraint, list(prior), fix))
    return weights


def loss(owner: str, epsilon: float, name: str = "epsilon") -> float:
    """A privacy loss: a number >= 0, or infinity."""
    if not isinstance(epsilon, Real) or isinstance(epsilon, bool) or not float(epsilon) >= 0:
        raise InvalidParameterError(check.message(owner, name, "a number >= 0, or math.inf", epsilon))
    return float(epsilon)
