"""The epsilon of one use from the epsilon that all uses may cost together."""

from __future__ import annotations

import math
from fractions import Fraction

from splitpriv import _validation as check
from splitpriv.accounting.composition import checked_delta
from splitpriv.accounting.kov import optimal_epsilon
from splitpriv.mechanisms.rounding import round_up, share_down


def calibrate(*, target_epsilon: float, delta: float, uses: int) -> float:
    """The largest per-use epsilon of which ``uses`` pure mechanisms together stay within the target.

    At the float returned, the optimal composition (rounded up) is at most ``target_epsilon``; it is
    the largest such one to about 12 digits. It holds for any mechanisms of that epsilon, so that
    one with a known channel may have a little room left: see :func:`compose`.

    Args:
        target_epsilon: what the record may pay in all (natural log), finite and > 0.
        delta: slack probability in [0, 1); 0 for pure epsilon.
        uses: how many mechanisms of the same epsilon are run on the record, >= 1.

    Raises:
        InvalidParameterError: a parameter is outside its range.

    Source: Kairouz, Oh, Viswanath 2015, theorem 3.3, inverted by bisection.

    Example:
        >>> calibrate(target_epsilon=8.0, delta=0.0, uses=1024)
        0.0078125
        >>> round(calibrate(target_epsilon=8.0, delta=1e-6, uses=1024), 6)
        0.04796
    """
    target = check.positive("calibrate", "target_epsilon", target_epsilon)
    checked_delta("calibrate", delta)
    uses = check.integer("calibrate", "uses", uses, 1)
    low = share_down(target, uses)
    if delta == 0:
        return low
    high = round_up(2 * Fraction(max(low, math.nextafter(0.0, 1.0))))
    while optimal_epsilon(high, uses, delta) <= target:
        low, high = high, 2 * high
    while high - low > 1e-12 * low:
        middle = low + (high - low) / 2
        if not low < middle < high:
            break
        low, high = (middle, high) if optimal_epsilon(middle, uses, delta) <= target else (low, middle)
    return low
