"""The figures of one point of a curve."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from splitpriv.attacks.estimate import Estimate, bootstrap, mean, proportion
from splitpriv.attacks.metrics import identification_rank, mse
from splitpriv.attacks.recovery.guess import VectorGuess
from splitpriv.attacks.recovery.result import RecoveryPoint

_EXACT = 1e-6  # relative to the value, plus a millionth of the root mean square of that element in all records
_RESAMPLES = 500


class Scorer:
    """Holds the truth, which no attack is shown."""

    def __init__(
        self,
        originals: Tensor,  # shape: (records, elements), float64
        guesses: Tensor,  # shape: (records, elements), float64
        vector: Tensor | None,  # shape: (elements,), float64
        *,
        confidence: float,
        seed: int,
        shape: Sequence[int] = (-1,),  # of a record, which says whether it is an image
    ) -> None:
        self._originals, self._vector = originals, vector
        self._confidence, self._seed, self._shape = confidence, seed, shape
        self._guessed = mse(guesses, originals)
        self._live = originals.abs().amax(0) > 0
        self._scale = originals.square().mean(0).sqrt()

    def point(
        self,
        count: int,
        reconstructed: Tensor,  # shape: (records, elements), float64
        guess: VectorGuess | None = None,
        likeliest: Tensor | None = None,  # shape: (records, elements), float64
    ) -> RecoveryPoint:
        """The figures of these reconstructions; ``likeliest``, where it differs, is what may be exact."""
        errors = mse(reconstructed, self._originals)
        near = _EXACT * (self._originals.abs() + self._scale)
        exact = (((reconstructed if likeliest is None else likeliest) - self._originals).abs() <= near).double().mean(1)
        rank = identification_rank(
            *(rows.reshape(len(rows), *self._shape) for rows in (reconstructed, self._originals))
        )
        rows = {name: values.cpu().numpy() for name, values in (("mse", errors), ("exact", exact), ("rank", rank))}
        recovered, claimed = self._elements(guess)
        level, seed = self._confidence, self._seed
        return RecoveryPoint(
            count=count,
            recovered=recovered,
            claimed=claimed,
            exact=mean(rows["exact"], confidence=level, seed=seed),
            error=mean(rows["mse"], confidence=level, seed=seed),
            relative=self._relative(rows["mse"]),
            identified=proportion(int((rank == 0).sum()), len(rank), confidence=level),
            per_record=rows,
        )

    def _elements(self, guess: VectorGuess | None) -> tuple[Estimate, float]:
        live = int(self._live.sum())
        if guess is None or self._vector is None or not live:
            return Estimate(math.nan, math.nan, math.nan, self._confidence, 0, "undefined"), math.nan
        claimed = guess.claimed & self._live
        near = (guess.vector - self._vector).abs() <= 1e-5 * self._vector.abs()
        hits = int((claimed & near).sum())
        return proportion(hits, live, confidence=self._confidence), int(claimed.sum()) / live

    def _relative(self, errors: np.ndarray) -> Estimate:
        both = np.stack([errors, self._guessed.cpu().numpy()], axis=1)
        if not both[:, 1].sum() > 0:
            return Estimate(math.nan, math.nan, math.nan, self._confidence, 0, "undefined")

        def ratio(rows: np.ndarray) -> float:
            top, bottom = rows.sum(0)
            return float(top / bottom) if bottom > 0 else math.nan

        return bootstrap(ratio, both, confidence=self._confidence, resamples=_RESAMPLES, seed=self._seed)


def shaped(
    rows: Tensor,  # shape: (records, elements)
    like: Tensor,  # shape: (records, *feature)
) -> Tensor:  # shape: (records, *feature), float32
    """Rows in the shape of records."""
    return rows.reshape(len(rows), *like.shape[1:]).to(torch.float32)
