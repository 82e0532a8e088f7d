"""What a declared table says of epsilon: exact integers, nothing rounded in a layer's favour.

Written without the code of :class:`~splitpriv.mechanisms.Channel` that computes the same, so that one
checks the other; and a layer's channel need only look like one.
"""

from __future__ import annotations

import math
from decimal import Context, Decimal
from fractions import Fraction
from typing import Any

from splitpriv._errors import InvalidParameterError

Table = list[list[int]]
_DIGITS = Context(prec=100, Emax=10**9, Emin=-(10**9))


def declared_table(layer: Any, shape: tuple[int, ...]) -> Table | None:
    """The table that a layer declares for records of a feature shape; None where it declares none.

    Raises:
        AssertionError: it is not one of non-negative integers whose rows have one sum.
    """
    declared = getattr(layer, "channel", None)
    channel = declared(shape) if callable(declared) else None
    if channel is None:
        return None
    try:
        table: Table = [list(row) for row in channel.table()]
    except InvalidParameterError:  # too large to write out
        return None
    entries_fit = all(isinstance(entry, int) and entry >= 0 for row in table for entry in row)
    if not table or not entries_fit or len({(len(row), sum(row)) for row in table}) != 1 or sum(table[0]) == 0:
        raise AssertionError(
            "assert_ldp: the table must hold non-negative integers, rows of one length and one sum, got another. "
            "A row is the law of the symbol for one input."
        )
    return table


def worst_pair(table: Table) -> tuple[Fraction | None, int, int]:
    """exp(epsilon), and the two rows that differ most; None for the ratio where it is infinite."""
    worst: tuple[Fraction | None, int, int] = (Fraction(1), 0, 0)
    top, bottom = 1, 1
    for column in zip(*table, strict=True):
        high, low = max(column), min(column)
        if high == 0:
            continue
        rows = column.index(high), column.index(low)
        if low == 0:
            return None, *rows
        if high * bottom > top * low:
            top, bottom = high, low
            worst = (Fraction(high, low), *rows)
    return worst


def exceeds(ratio: Fraction | None, epsilon: float) -> bool:
    """Whether ``ratio`` > e**epsilon, decided with 100 digits."""
    if ratio is None or math.isinf(epsilon):
        return not math.isinf(epsilon)
    bound = _DIGITS.multiply(Decimal(ratio.denominator), _DIGITS.exp(Decimal(epsilon)))
    return Decimal(ratio.numerator) > bound
