"""Leaked pairs against a mask with a threshold behind it: what survives reveals, and so does what does not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from splitpriv import _validation as check
from splitpriv.attacks.recovery.alphabet import ENTRIES, alphabet
from splitpriv.attacks.recovery.guess import VectorGuess
from splitpriv.attacks.recovery.known_plaintext import KnownPlaintext
from splitpriv.attacks.recovery.version_space import agreement, narrowed


@dataclass(frozen=True, kw_only=True)
class KnownPlaintextRelu(KnownPlaintext):
    r"""Recovers the vector behind a ``ReluSanitizer`` from leaked pairs (record, released record), and then records.

    For each element it keeps the entries a of the public alphabet that turn every leaked x into what was released:

    .. math:: s = a x \text{ where } s \ne 0, \qquad a x \le t \text{ where } s = 0 .

    An element is claimed once one entry is left; nothing more can be learned from these pairs. A zeroed element tells
    as well: with signs, one of size above the threshold leaves one entry, so that on continuous data and threshold
    0 a single pair reveals the whole vector. Dyadic entries need one pair of which the element survives: of
    centred data half do, and a share of :math:`1 - 2^{-m}` is known after m pairs. (Pairs that contradict each other
    vote: the entries with the most votes are kept.)

    What survived of other records is then exact. What was zeroed is filled in by its mean under a Gaussian with public
    moments given the record's surviving elements (up to 1,024 elements, beyond that without them) and given that
    :math:`v x \le t`; with 0 where there are no public records.

    Args:
        threshold: t of the layer, in units of the features.
        entries: the public alphabet, ``"sign"`` or ``"dyadic"``.
        pairs: numbers of leaked pairs to report for, ascending, >= 1.
        confidence: of the intervals, in (0, 1).
        batch_size: see :class:`~splitpriv.attacks.Attack`.
        seed: see :class:`~splitpriv.attacks.Attack`.
        device: see :class:`~splitpriv.attacks.Attack`.
        progress: see :class:`~splitpriv.attacks.Attack`.

    Raises:
        InvalidParameterError: a parameter is outside its range.

    Does not prove: that zeroed elements are lost. They are not in the release, but public data or another release of
    the same record may tell them.

    Source: paper A of the project's references, Case 2; version spaces: Mitchell 1982.

    Example:
        >>> x = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
        >>> s = torch.relu(x * torch.tensor([1.0, -1, -1, 1, 1, -1, 1, -1]))
        >>> result = KnownPlaintextRelu(pairs=(1,))(x[:1], s[:1], s[1:], x[1:])
        >>> result.vector.tolist()
        [1.0, -1.0, -1.0, 1.0, 1.0, -1.0, 1.0, -1.0]
    """

    threshold: float = 0.0
    entries: str = "sign"

    def __post_init__(self) -> None:
        super().__post_init__()
        check.finite("KnownPlaintextRelu", "threshold", self.threshold)
        check.choice("KnownPlaintextRelu", "entries", self.entries, ENTRIES)

    def _guesses(self, known: Tensor, released: Tensor) -> Iterator[tuple[int, VectorGuess]]:
        entries = alphabet(self.entries).to(known.device)
        votes = torch.zeros(known.shape[1], len(entries), device=known.device)
        for number in range(self.pairs[-1]):
            votes += agreement(known[number], released[number], entries, self.threshold)
            if number + 1 in self.pairs:
                yield number + 1, narrowed(votes, entries)

    def _cutoff(self) -> float:
        return self.threshold
