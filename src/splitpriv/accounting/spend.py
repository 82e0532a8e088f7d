"""What one release of one record costs: a frozen record; others count it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from splitpriv.mechanisms import Channel
from splitpriv.mechanisms.rounding import scale_up, show, sum_up


@dataclass(frozen=True)
class Spend:
    """The cost of releasing one record once.

    Attributes:
        per_use: epsilon of one use of the mechanism (natural log); ``math.inf`` for a defence.
        uses: how often the mechanism is used on the record: its number of elements, or 1.
        per_record: what the record pays, ``per_use * uses`` rounded outward, plus ``labels``.
        labels: the part of ``per_record`` that goes to the record's label; 0 where none travels, or a
            public one.
        channel: what each use runs, if known: (epsilon, delta) composition is then tighter.
        parts: what several mechanisms on the record cost one by one; empty for one mechanism.

    Example:
        >>> print(Spend.of(2.0, 32768))
        ε 2 per element × 32,768 = 65,536 per record
    """

    per_use: float
    uses: int
    per_record: float
    labels: float = 0.0
    channel: Channel | None = field(default=None, compare=False, repr=False)
    parts: tuple[Spend, ...] = field(default=(), compare=False, repr=False)

    @classmethod
    def of(cls, per_use: float, uses: int, channel: Channel | None = None) -> Spend:
        """``uses`` independent uses of a mechanism on one record."""
        return cls(per_use, uses, scale_up(per_use, uses), channel=channel)

    @classmethod
    def together(cls, *spends: Spend) -> Spend:
        """Several mechanisms on the same record, such as one for its features and one for its label.

        Example:
            >>> print(Spend.together(Spend.of(0.5, 4), Spend.of(1.0, 1)))
            ε 0.5 per element × 4 = 2 per record + ε 1 per record = ε 3 per record
        """
        if len(spends) == 1:
            return spends[0]
        total = sum_up(spend.per_record for spend in spends)
        return cls(total, 1, total, parts=spends)

    @classmethod
    def infinite(cls, uses: int) -> Spend:
        """No mechanism: nothing bounds what is learned."""
        return cls(math.inf, uses, math.inf)

    def __str__(self) -> str:
        if math.isinf(self.per_record):
            return "ε ∞ per record (no mechanism bounds it)"
        if self.labels:
            return self._with_labels()
        if len(self.parts) > 1:
            return f"{' + '.join(map(str, self.parts))} = ε {show(self.per_record)} per record"
        if self.uses == 1:
            return f"ε {show(self.per_record)} per record"
        return f"ε {show(self.per_use)} per element × {self.uses:,} = {show(self.per_record)} per record"

    def _with_labels(self) -> str:
        features, total = scale_up(self.per_use, self.uses), show(self.per_record)
        if not math.isclose(sum_up([features, self.labels]), self.per_record, rel_tol=1e-9):
            uses = f"ε {show(self.per_use)} per element × {self.uses:,} and {show(self.labels)} for labels"
            return f"{uses}, in all {total} per record"
        uses = f" ({show(self.per_use)} per element × {self.uses:,})" if self.uses > 1 else ""
        return f"ε {total} per record = {show(features)} features{uses} + {show(self.labels)} labels"
