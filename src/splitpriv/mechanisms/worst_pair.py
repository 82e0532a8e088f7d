"""The two rows of a channel that are hardest to hide from each other, where they are known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class WorstPair:
    r"""Two output distributions whose hockey-stick curve bounds that of *every* two rows.

    For all rows x, x' and every :math:`\alpha > 0`, with p and q over the channel's total,

    .. math:: \sum_y \bigl(\Pr[y|x] - \alpha \Pr[y|x']\bigr)_+ \le
              e^{\kappa} \sum_{(p, q)} n_{p,q} \, \bigl(p - \alpha e^{-2\kappa} q\bigr)_+

    Attributes:
        outcomes: (p, q) to the number n of outputs with these two weights.
        stretch: κ >= 0, for families whose integers are a rounded form of one in which the pair is worst.

    Example:
        >>> WorstPair.of([3, 1], [1, 3]).outcomes
        {(3, 1): 1, (1, 3): 1}
    """

    outcomes: Mapping[tuple[int, int], int]
    stretch: float = 0.0

    @classmethod
    def of(cls, first: Iterable[int], second: Iterable[int], stretch: float = 0.0) -> WorstPair:
        """From two rows, in this order."""
        return cls(dict(Counter(zip(first, second, strict=True))), stretch)
