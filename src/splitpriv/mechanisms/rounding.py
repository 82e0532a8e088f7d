"""Arithmetic that errs on the side of privacy: every result is at least the exact one.

Numbers that bound a privacy loss are rounded outward (up), numbers that calibrate one are
rounded inward (down). ``math.inf`` is allowed wherever a loss is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from decimal import Context, Decimal
from fractions import Fraction

_PRECISE = Context(prec=80, Emax=10**9, Emin=-(10**9))
# Relative slack that covers the (correctly rounded) operations of _PRECISE many times over.
_SLACK = Decimal(10) ** -60


def round_up(value: Fraction) -> float:
    """The smallest float that is not below ``value`` (``inf`` where it overflows)."""
    try:
        nearest = float(value)
    except OverflowError:
        return math.inf
    return nearest if Fraction(nearest) >= value else math.nextafter(nearest, math.inf)


def round_down(value: Fraction) -> float:
    """The largest float that is not above ``value``."""
    return -round_up(-value)


def sum_up(losses: Iterable[float]) -> float:
    """The sum, rounded outward once; ``inf`` if any term is."""
    exact = Fraction(0)
    for loss in losses:
        if math.isinf(loss):
            return math.inf
        exact += Fraction(loss)
    return round_up(exact)


def scale_up(loss: float, times: int) -> float:
    """``loss * times``, rounded outward; zero times anything is 0."""
    if times == 0:
        return 0.0
    return math.inf if math.isinf(loss) else round_up(Fraction(loss) * times)


def share_down(loss: float, parts: int) -> float:
    """``loss / parts``, rounded inward, so that ``parts`` shares never exceed ``loss``."""
    return round_down(Fraction(loss) / parts)


def log_up(ratio: Fraction | None) -> float:
    """The natural logarithm of a ratio >= 1, rounded outward; ``inf`` for ``None``."""
    if ratio is None:
        return math.inf
    if ratio == 1:
        return 0.0
    quotient = _PRECISE.divide(Decimal(ratio.numerator), Decimal(ratio.denominator))
    # ln(1 + t) / (relative error of the quotient / t) stays far below the slack for t > 1e-18.
    bound = _PRECISE.multiply(_PRECISE.ln(quotient), 1 + _SLACK)
    return round_up(Fraction(bound))


def exp_decimal(value: Fraction) -> Decimal:
    """``exp(value)`` to 80 digits, for building integer tables."""
    exponent = _PRECISE.divide(Decimal(value.numerator), Decimal(value.denominator))
    return _PRECISE.exp(exponent)


def precise() -> Context:
    """The decimal context in which integer tables are computed."""
    return _PRECISE
