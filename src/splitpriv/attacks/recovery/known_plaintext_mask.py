"""From a few records and what was released of them to everybody's records."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from splitpriv import _validation as check
from splitpriv.attacks.recovery.alphabet import ENTRIES, snap
from splitpriv.attacks.recovery.guess import VectorGuess, exactly
from splitpriv.attacks.recovery.known_plaintext import KnownPlaintext
from splitpriv.attacks.recovery.least_deviation import least_deviation_ratio

_TINY = torch.finfo(torch.float32).tiny  # what crosses is float32: below it a ratio is mostly rounding


@dataclass(frozen=True, kw_only=True)
class KnownPlaintextMask(KnownPlaintext):
    r"""Recovers a mask's vector from leaked pairs (record, masked record), and unmasks everyone.

    .. math:: \hat v_i = \arg\min_v \sum_{r \le m} |s_{ri} - v x_{ri}|

    over the first m pairs, then the closest entry of the alphabet. An element that is zero in every leaked record
    (or too small for a normal float32) stays unknown. One pair reveals all the others: the attack that paper A calls
    differential.

    The curve takes the pairs in the order given. Intervals are over elements or records; they say nothing of other
    pairs or another nonce.

    Args:
        pairs: numbers of leaked pairs to report for, ascending, >= 1.
        entries: the public alphabet, ``"sign"`` or ``"dyadic"``; None where it is not known.
        confidence: of the intervals, in (0, 1).
        batch_size: see :class:`~splitpriv.attacks.Attack`.
        seed: see :class:`~splitpriv.attacks.Attack`.
        device: see :class:`~splitpriv.attacks.Attack`.
        progress: see :class:`~splitpriv.attacks.Attack`.

    Raises:
        InvalidParameterError: a parameter is outside its range.

    Does not prove: that a mask holds where this fails. Leaked records that are wrong by more than rounding are
    tolerated only while they carry less than half of an element's weight.

    Source: paper A of the project's references, Case 1 (differential attack).

    Example:
        >>> x = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
        >>> s = x * torch.tensor([1.0, -1, -1, 1, 1, -1, 1, -1])
        >>> result = KnownPlaintextMask(pairs=(1,), entries="sign")(x[:1], s[:1], s[1:], x[1:])
        >>> result.last.exact.value, result.vector.tolist()
        (1.0, [1.0, -1.0, -1.0, 1.0, 1.0, -1.0, 1.0, -1.0])
    """

    entries: str | None = "sign"

    def __post_init__(self) -> None:
        super().__post_init__()
        check.choice("KnownPlaintextMask", "entries", self.entries, (*ENTRIES, None))

    def _guesses(self, known: Tensor, released: Tensor) -> Iterator[tuple[int, VectorGuess]]:
        for count in self.pairs:
            yield count, self._guess(known[:count], released[:count])

    def _guess(self, known: Tensor, released: Tensor) -> VectorGuess:
        vector = least_deviation_ratio(known, released)
        claimed = (torch.minimum(known.abs(), released.abs()) >= _TINY).any(0)
        # A ratio of 0 says that the two do not belong together: no mask has an entry of 0.
        claimed = claimed & (vector != 0)
        return exactly(vector if self.entries is None else snap(vector, self.entries), claimed)
