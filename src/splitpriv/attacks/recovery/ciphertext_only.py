"""A mask's vector from what everybody released and public data of the same kind: no pair has leaked."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from splitpriv import _validation as check
from splitpriv._errors import InvalidParameterError
from splitpriv.attacks.attack import Attack
from splitpriv.attacks.estimate import proportion
from splitpriv.attacks.recovery.alphabet import ENTRIES, alphabet
from splitpriv.attacks.recovery.arithmetic import grid_fit, on_grid, rounding
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
from splitpriv.attacks.recovery.marginals import Marginals
from splitpriv.attacks.recovery.pairwise import WIDEST, Pairwise, cut_off
from splitpriv.attacks.recovery.rehearsal import trust
from splitpriv.attacks.recovery.result import RecoveryResult
from splitpriv.attacks.recovery.scoring import Scorer, shaped

_WEIGHT = 4.0  # of an element's own evidence against that of its pairs with all others; set on digits and Fashion-MNIST
_CERTAIN = 1e3  # log-likelihood per record: more than any pair of elements can outweigh


@dataclass(frozen=True, kw_only=True)
class CiphertextOnlyMask(Attack):
    r"""Recovers a mask's vector, with or without a threshold behind it, from released records alone.

    Public records of the same kind say how each element is distributed and how elements move together. For each element
    the likelihood of what crossed, :math:`\sum_r \ln p_i(s_{ri} / a) - \ln |a|` with a public histogram
    :math:`p_i` (and behind a threshold the probability of a zero), leaves the best positive and the best negative
    entry. Which of the two is decided for all elements together, by that likelihood and by second moments:
    :math:`\mathrm{E}[s_i s_j] = v_i v_j \mathrm{E}[x_i x_j]`, behind a threshold those of the
    thresholded public records. The search changes one element at a time from two starts, one of them spectral. Every
    sign of which anything was learned is claimed: chance is one half. A dyadic entry is claimed where its likelihood
    exceeds that of all other sizes together; elsewhere records are divided by the mean size.

    How likely each sign is comes from rehearsals, in which one half of the public records plays the private ones.
    Reconstructions are moved toward the public mean by as much (the squared error of a wrong sign is four times
    that of no answer); the elements counted as exact are those of the likeliest signs.

    Where records are multiples of a known ``step`` (pixels, counts, rounded measurements) before something known is
    added, arithmetic does better: all s/a of an element must lie on that grid, which a wrong a does not
    achieve by chance. A few released records then reveal dyadic entries exactly.

    Args:
        records: numbers of released records to use, ascending, >= 2: a point of the curve for each.
        entries: the public alphabet, ``"sign"`` or ``"dyadic"``.
        threshold: of a ``ReluSanitizer``; None for a mask alone.
        step: x - offset is an integer times this, > 0; None where that is not so, or not known.
        confidence: of the intervals, in (0, 1).
        batch_size: see :class:`~splitpriv.attacks.Attack`.
        seed: see :class:`~splitpriv.attacks.Attack`.
        device: see :class:`~splitpriv.attacks.Attack`.
        progress: see :class:`~splitpriv.attacks.Attack`.

    Raises:
        InvalidParameterError: a parameter is outside its range.

    Does not prove: that a mask holds where this fails. Features that are symmetric about 0 in every element and
    uncorrelated hide the signs; nothing hides the sizes. Second moments are used up to 4,096 elements. A dyadic entry
    that is claimed may be wrong: private records are not distributed as public ones, and the likelihood does not know.
    Nor do rehearsals: where the two differ much, the error may exceed that of guessing.

    Source: for the spectral start Singer 2011 (angular synchronisation); for the trust in signs, isotonic regression
    (Ayer, Brunk, Ewing, Reid, Silverman 1955).

    Example:
        >>> x = torch.rand(64, 8, generator=torch.Generator().manual_seed(0)) ** 4 - 0.2
        >>> v = torch.tensor([1.0, -1, -1, 1, 1, -1, 1, -1])
        >>> CiphertextOnlyMask(records=(32,))((x * v)[:32], x[:32], x[32:], vector=v).last.recovered.value
        1.0
    """

    records: tuple[int, ...] = (16, 64)
    entries: str = "sign"
    threshold: float | None = None
    step: float | None = None
    confidence: float = 0.95

    def __post_init__(self) -> None:
        super().__post_init__()
        owner = "CiphertextOnlyMask"
        counts(owner, "records", self.records, 2)
        check.choice(owner, "entries", self.entries, ENTRIES)
        if self.threshold is not None:
            check.finite(owner, "threshold", self.threshold)
        if self.step is not None:
            check.positive(owner, "step", self.step)
        proportion(0, 1, confidence=self.confidence)

    def __call__(
        self,
        released: Tensor,  # shape: (records, *feature)
        originals: Tensor,  # shape: (records, *feature)
        public: Tensor,  # shape: (n, *feature)
        *,
        offset: Tensor | None = None,  # shape: (*feature)
        vector: Tensor | None = None,  # shape: (*feature)
    ) -> RecoveryResult:
        """Run it.

        Args:
            released: what crossed; the curve uses the first ones, and reconstructs all.
            originals: what it was before; to evaluate only.
            public: public records at the cut, two or more.
            offset: with ``step``, what is added to multiples of it (minus the public mean, if that centres them).
            vector: the true vector; to evaluate only.

        Raises:
            ShapeError: shapes do not fit each other.
            NonFiniteError: NaN or infinity.
            InvalidParameterError: there are fewer records than ``records`` asks for, fewer than two public ones, or
                an offset without a step.
        """
        owner = "CiphertextOnlyMask"
        device = self._on(released)
        seen, truth = (
            flat(owner, name, value).to(device) for name, value in (("released", released), ("originals", originals))
        )
        known = public_records(owner, public).to(device)
        same_elements(owner, released=seen, originals=truth, public=known)
        same_records(owner, seen, truth, what="released and originals")
        enough(owner, "records", self.records, len(seen))
        shift = self._offset(offset, seen)
        background = Background(known)
        true = None if vector is None else one_row(owner, "vector", vector, seen.shape[1], device)
        scorer = Scorer(
            truth, background.guess(truth), true, confidence=self.confidence, seed=self.seed, shape=originals.shape[1:]
        )
        points = []
        for count in self.records:
            guess = self._guess(seen[:count], known, shift)
            parts = self._batches(len(seen), f"{count} records")
            both = [
                [complete(one, seen[part], self.threshold, background) for one in (guess, guess.likeliest)]
                for part in parts
            ]
            found, likeliest = map(torch.cat, zip(*both, strict=True))
            points.append(scorer.point(count, found, guess, likeliest))
        note = "signs of single elements only" if seen.shape[1] > WIDEST else ""
        return RecoveryResult(
            self, "released records", tuple(points), guess.vector.float(), shaped(found, originals), note
        )

    def _offset(self, offset: Tensor | None, seen: Tensor) -> Tensor:
        if offset is None:
            return torch.zeros_like(seen[0])
        if self.step is None:
            fix = "Give both, or neither."
            raise InvalidParameterError(
                check.message("CiphertextOnlyMask", "offset", "None without a step", offset, fix)
            )
        return one_row("CiphertextOnlyMask", "offset", offset, seen.shape[1], seen.device)

    def _guess(self, seen: Tensor, public: Tensor, offset: Tensor) -> VectorGuess:
        letters = alphabet(self.entries).to(seen.device)
        search = partial(self._search, offset=offset, letters=letters)
        trusted = trust(
            lambda played, known: search(played, known)[:2],
            self._release,
            public,
            letters,
            count=len(seen),
            seed=self.seed,
        )
        signs, margin, score = search(seen, public)
        return _posterior(score, signs, letters[: len(letters) // 2], trusted(margin))

    def _release(self, records: Tensor, vector: Tensor) -> Tensor:
        """What would cross of records under that vector."""
        return cut_off(records * vector, self.threshold)

    def _search(
        self, seen: Tensor, public: Tensor, offset: Tensor, letters: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:  # shapes: (elements,), (elements,), (elements, sizes)
        """Signs, their margins, and the likelihood of sizes given the signs."""
        score = Marginals(public, seen, self.threshold).log_likelihood(seen, letters)
        if self.step is not None:
            fits = on_grid(*grid_fit(seen, letters, self.step, offset), rounding(seen, self.step))
            score = torch.where(fits, score, -_CERTAIN * len(seen))
        half = len(letters) // 2
        (positive, first), (negative, second) = score[:, :half].max(1), score[:, half:].max(1)
        unary = (negative - positive) / len(seen)
        choice, margin = (unary > 0).long(), unary.abs()
        if seen.shape[1] <= WIDEST:
            candidates = torch.stack([letters[first], letters[half + second]], dim=1)
            pairs = Pairwise(public, seen, candidates, self.threshold)
            choice, margin = pairs.ascend(_WEIGHT * seen.shape[1] * unary)
        signs = torch.where(unary != 0, 1 - 2 * choice, 0).to(seen.dtype)
        return signs, margin, torch.where(choice.unsqueeze(1) == 0, score[:, :half], score[:, half:])


def _posterior(
    score: Tensor,  # shape: (elements, sizes)
    sign: Tensor,  # shape: (elements,), 0 where nothing was learned
    sizes: Tensor,  # shape: (sizes,)
    certainty: Tensor,  # shape: (elements,)
) -> VectorGuess:
    """Given the signs, the sizes by their likelihood; claimed where one of them has more than half of it."""
    share = score.softmax(1)
    claimed = (sign != 0) & (share.amax(1) > 0.5)
    return VectorGuess(sign * sizes[score.argmax(1)], sign * (share @ (1 / sizes)), claimed, certainty * sign.abs())
