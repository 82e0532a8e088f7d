"""What several mechanisms on one record cost together, in (epsilon, delta)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from splitpriv import _validation as check
from splitpriv._errors import InvalidParameterError
from splitpriv.accounting.dominating import dominating
from splitpriv.accounting.kov import optimal_delta, optimal_epsilon
from splitpriv.accounting.moments import Atoms
from splitpriv.accounting.pld import Bounds, delta_of_sum, epsilon_of_sum
from splitpriv.accounting.spend import Spend
from splitpriv.mechanisms import Channel, RandomizedResponse
from splitpriv.mechanisms.rounding import scale_up, sum_up

Part = Spend | Channel | tuple[Spend | Channel | float, int]
Groups = dict[Channel | float, int]


def compose(parts: Iterable[Part], *, delta: float) -> Bounds:
    r"""Tight epsilon at ``delta`` of mechanisms used on one record, also where they are chosen adaptively.

    Equal pure mechanisms of which only epsilon is known: the exact optimum, a binomial tail, by
    which all three numbers agree. Else the losses of each mechanism's dominating pair are summed
    numerically,

    .. math:: \delta(\epsilon) = \mathbb{E}\Bigl[\bigl(1 - e^{\epsilon - \sum_i L_i}\bigr)_+\Bigr],

    and the bounds cover discretisation, truncation and rounding.

    Args:
        parts: each a :class:`Spend`, a :class:`~splitpriv.mechanisms.Channel`, or a pair of one of
            these, or of an epsilon (a pure mechanism, otherwise unknown), and how often it is used.
        delta: slack probability in [0, 1); 0 for the sum of the pure losses.

    Returns:
        Frozen (lower, estimate, upper). Only ``upper`` is a guarantee. ``lower`` says how far the
        sum of the same dominating pairs could be below it; a mechanism whose pair is not known, and was
        taken to be randomized response, may cost less.

    Raises:
        InvalidParameterError: ``delta`` is out of range, or a part is none of these.

    Does not protect: with probability up to ``delta`` the loss may be larger than epsilon, or
    unlimited. What ties records together is not seen here.

    Source: Kairouz, Oh, Viswanath 2015, theorem 3.3; Zhu, Dong, Wang 2022, theorem 10.

    Example:
        >>> compose([(0.1, 10_000)], delta=1e-6).upper  # the sum is 1,000
        96.57184003313735
        >>> found = compose([(1.0, 20), (0.01, 1_000_000)], delta=1e-6)
        >>> found.lower <= found.estimate <= found.upper < 10_020
        True
    """
    checked_delta("compose", delta)
    return tight_epsilon([_spend(part) for part in parts], delta)


def checked_delta(owner: str, delta: float) -> None:
    """Refuse what is no slack probability."""
    if isinstance(delta, bool) or not 0 <= delta < 1:
        pure = "It is a probability; 0 asks for pure epsilon."
        raise InvalidParameterError(check.message(owner, "delta", "in [0, 1)", delta, pure))


def tight_epsilon(spends: Sequence[Spend], delta: float) -> Bounds:
    """Bounds on the epsilon of all of these on one record, at ``delta``."""
    pure = sum_up(spend.per_record for spend in spends)
    groups = _grouped(spends)
    if delta == 0 or not groups:
        return Bounds(pure, pure, pure)
    if math.inf in groups:
        return Bounds(math.inf, math.inf, math.inf)
    worst, uses = max(map(_epsilon, groups)), sum(groups.values())
    optimum = optimal_epsilon(worst, uses, delta)  # as if all were as bad as the worst
    if len(groups) == 1 and isinstance(next(iter(groups)), float):
        return Bounds(optimum, optimum, optimum)
    summed = epsilon_of_sum(_powers(groups), delta)
    upper = min(pure, optimum, summed.upper)
    estimate = min(summed.estimate, upper)
    return Bounds(min(summed.lower, estimate), estimate, upper)


def tight_delta(spends: Sequence[Spend], epsilon: float) -> float:
    """An upper bound on the delta of all of these on one record, at ``epsilon``."""
    pure = sum_up(spend.per_record for spend in spends)
    groups = _grouped(spends)
    if epsilon >= pure or not groups:
        return 0.0
    if math.inf in groups:
        return 1.0
    worst, uses = max(map(_epsilon, groups)), sum(groups.values())
    optimum = optimal_delta(worst, uses, epsilon)
    if len(groups) == 1 and isinstance(next(iter(groups)), float):
        return optimum
    return min(optimum, delta_of_sum(_powers(groups), epsilon))


def divided(spend: Spend) -> list[Spend]:
    """The mechanisms that a spend is made of; in doubt one unknown mechanism of its whole epsilon."""
    if spend.parts and sum_up(part.per_record for part in spend.parts) == spend.per_record:
        return [inner for part in spend.parts for inner in divided(part)]
    if scale_up(spend.per_use, spend.uses) == spend.per_record:
        return [spend]
    return [Spend.of(spend.per_record, 1)]


def _grouped(spends: Iterable[Spend]) -> Groups:
    """How often each mechanism is used; those of which only epsilon counts under their epsilon."""
    groups: Groups = {}
    for spend in spends:
        for part in divided(spend):
            known = part.channel if not isinstance(part.channel, RandomizedResponse) else None
            key = part.per_use if known is None else known
            if part.per_use > 0 and part.uses > 0:
                groups[key] = groups.get(key, 0) + part.uses
    return groups


def _epsilon(key: Channel | float) -> float:
    return key.epsilon if isinstance(key, Channel) else key


def _powers(groups: Groups) -> list[tuple[Atoms, int]]:
    return [(dominating(k) if isinstance(k, Channel) else Atoms.randomized_response(k), n) for k, n in groups.items()]


def _spend(part: Part) -> Spend:
    what, count = part if isinstance(part, tuple) and len(part) == 2 else (part, 1)
    count = check.integer("compose", "count", count, 0)
    if isinstance(what, Spend):
        repeated = [Spend.of(each.per_use, each.uses * count, each.channel) for each in divided(what)]
        return what if count == 1 else Spend.together(*repeated)
    if isinstance(what, Channel):
        return Spend.of(what.epsilon, count, what)
    if isinstance(what, (int, float)) and not isinstance(what, bool) and what >= 0 and isinstance(part, tuple):
        return Spend.of(float(what), count)
    fix = "Pass Spends, Channels, or pairs (one of these or an epsilon >= 0, count)."
    raise InvalidParameterError(check.message("compose", "part", "something with a cost", part, fix))
