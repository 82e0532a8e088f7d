"""Arithmetic that errs on the side of privacy: every result is at least the exact one.

Numbers that bound a privacy loss are rounded outward (up), numbers that calibrate one are
rounded inward (down). ``math.inf`` is allowed wherever a loss is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from decimal import ROUND_CEILING, Context, Decimal
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
    terms = [loss for loss in losses if loss]
    if len(terms) <= 2 and all(type(loss) is float for loss in terms):
        return _pair_up(*terms)
    exact = Fraction(0)
    for loss in terms:
        if math.isinf(loss):
            return math.inf
        exact += Fraction(loss)
    return round_up(exact)


def _pair_up(a: float = 0.0, b: float = 0.0) -> float:
    """``a + b`` rounded outward, without fractions: the error of a float addition is a float (Knuth 1969)."""
    nearest = a + b
    if math.isinf(nearest):
        return nearest
    part = nearest - a
    error = (a - (nearest - part)) + (b - part)
    return math.nextafter(nearest, math.inf) if error > 0 else nearest


def scale_up(loss: float, times: int) -> float:
    """``loss * times``, rounded outward; zero times anything is 0."""
    if times == 0:
        return 0.0
    if times == 1 and type(loss) is float:
        return loss
    return math.inf if math.isinf(loss) else round_up(Fraction(loss) * times)


def share_down(loss: float, parts: int) -> float:
    """``loss / parts``, rounded inward, so that ``parts`` shares never exceed ``loss``."""
    return round_down(Fraction(loss) / parts)


def log_up(ratio: Fraction | None) -> float:
    """The natural logarithm of a ratio >= 1, rounded outward; ``inf`` for ``None``."""
    if ratio is None:
        return math.inf
    excess = ratio - 1
    if excess < Fraction(1, 2**40):
        # The alternating series, cut after a positive term: above ln(1 + t) by less than t**6.
        return round_up(sum((-1) ** (k + 1) * excess**k / k for k in range(1, 6)) + Fraction(0))
    quotient = _PRECISE.divide(Decimal(ratio.numerator), Decimal(ratio.denominator))
    # An error of 1e-80 in the quotient is one of 1e-68 in a logarithm above 1e-12: inside the slack.
    bound = _PRECISE.multiply(_PRECISE.ln(quotient), 1 + _SLACK)
    return round_up(Fraction(bound))


def show(epsilon: float) -> str:
    """A loss for people: six digits that, read back as a float, are never below it."""
    if math.isinf(epsilon):
        return "∞"
    digits = Context(prec=6).create_decimal(Decimal(epsilon))
    if float(digits) < epsilon:
        digits = Context(prec=6, rounding=ROUND_CEILING).create_decimal(Decimal(epsilon))
    whole = digits == digits.to_integral_value()
    return f"{int(digits):,}" if whole else f"{digits.normalize():,f}"


def exp_decimal(value: Fraction) -> Decimal:
    """``exp(value)`` to 80 digits, for building integer tables."""
    exponent = _PRECISE.divide(Decimal(value.numerator), Decimal(value.denominator))
    return _PRECISE.exp(exponent)


def precise() -> Context:
    """The decimal context in which integer tables are computed."""
    return _PRECISE
