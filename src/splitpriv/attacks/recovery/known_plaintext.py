"""What attacks on a mask by leaked pairs have in common."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from splitpriv.attacks.attack import Attack
from splitpriv.attacks.estimate import proportion
from splitpriv.attacks.recovery.checking import (
    counts,
    enough,
    flat,
    one_row,
    public_records,
    same_elements,
    same_records,
)
from splitpriv.attacks.recovery.completion import Background, complete
from splitpriv.attacks.recovery.guess import VectorGuess
from splitpriv.attacks.recovery.result import RecoveryResult
from splitpriv.attacks.recovery.scoring import Scorer, shaped


@dataclass(frozen=True, kw_only=True)
class KnownPlaintext(Attack):
    """A guess of the vector for each number of pairs (``_guesses``), scored on other records.

    Private to this package.
    """

    pairs: tuple[int, ...] = (1, 2, 4)
    confidence: float = 0.95

    def __post_init__(self) -> None:
        super().__post_init__()
        counts(type(self).__name__, "pairs", self.pairs)
        proportion(0, 1, confidence=self.confidence)

    def __call__(
        self,
        known: Tensor,  # shape: (pairs, *feature)
        known_released: Tensor,  # shape: (pairs, *feature)
        released: Tensor,  # shape: (records, *feature)
        originals: Tensor,  # shape: (records, *feature)
        *,
        public: Tensor | None = None,  # shape: (n, *feature)
        vector: Tensor | None = None,  # shape: (*feature)
    ) -> RecoveryResult:
        """Run it.

        Args:
            known: leaked records, as they were at the cut; the curve takes them in this order.
            known_released: what was released of them.
            released: what was released of other records.
            originals: these other records; to evaluate only.
            public: records that the attacker may use to fill in what it does not know.
            vector: the true vector; to evaluate only.

        Raises:
            ShapeError: shapes do not fit each other.
            NonFiniteError: NaN or infinity.
            InvalidParameterError: there are fewer pairs than ``pairs`` asks for, or fewer than two public records.
        """
        owner = type(self).__name__
        device = self._on(released)
        tensors = {"known": known, "known_released": known_released, "released": released, "originals": originals}
        rows = {name: flat(owner, name, value).to(device) for name, value in tensors.items()}
        ours = {} if public is None else {"public": public_records(owner, public).to(device)}
        same_elements(owner, **rows, **ours)
        given, background = list(rows.values()), Background(ours.get("public"))
        same_records(owner, given[0], given[1], "known and known_released")
        same_records(owner, given[2], given[3], "released and originals")
        enough(owner, "pairs", self.pairs, len(known))
        truth = None if vector is None else one_row(owner, "vector", vector, given[0].shape[1], device)
        scorer = Scorer(
            given[3],
            background.guess(given[3]),
            truth,
            confidence=self.confidence,
            seed=self.seed,
            shape=originals.shape[1:],
        )
        points = []
        for count, guess in self._guesses(*given[:2]):
            parts = self._batches(len(released), f"{count} pairs")
            found = torch.cat([complete(guess, given[2][part], self._cutoff(), background) for part in parts])
            points.append(scorer.point(count, found, guess))
        return RecoveryResult(self, "leaked pairs", tuple(points), guess.vector.float(), shaped(found, originals))

    def _guesses(self, known: Tensor, released: Tensor) -> Iterator[tuple[int, VectorGuess]]:
        """(count, guess) for each of ``pairs``."""
        raise NotImplementedError

    def _cutoff(self) -> float | None:
        """The threshold behind the mask; None where there is none."""
        return None
