"""What one release of one record costs: a frozen record; others count it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from splitpriv.mechanisms.rounding import scale_up, show


@dataclass(frozen=True)
class Spend:
    """The cost of releasing one record once.

    Attributes:
        per_use: epsilon of one use of the mechanism (natural log); ``math.inf`` for a defence.
        uses: how often the mechanism is used on the record: its number of elements, or 1.
        per_record: what the record pays, ``per_use * uses`` rounded outward.

    Example:
        >>> print(Spend.of(2.0, 32768))
        ε 2 per element × 32,768 = 65,536 per record
    """

    per_use: float
    uses: int
    per_record: float

    @classmethod
    def of(cls, per_use: float, uses: int) -> Spend:
        """``uses`` independent uses of a mechanism on one record."""
        return cls(per_use, uses, scale_up(per_use, uses))

    @classmethod
    def infinite(cls, uses: int) -> Spend:
        """No mechanism: nothing bounds what is learned."""
        return cls(math.inf, uses, math.inf)

    def __str__(self) -> str:
        if math.isinf(self.per_record):
            return "ε ∞ per record (no mechanism bounds it)"
        if self.uses == 1:
            return f"ε {show(self.per_record)} per record"
        return f"ε {show(self.per_use)} per element × {self.uses:,} = {show(self.per_record)} per record"
