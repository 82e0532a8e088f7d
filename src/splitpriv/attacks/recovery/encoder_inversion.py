"""Records from what a private encoder released of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from splitpriv import _validation as check
from splitpriv._errors import ShapeError
from splitpriv.attacks.attack import Attack
from splitpriv.attacks.estimate import proportion
from splitpriv.attacks.recovery.checking import counts, enough, flat, public_records, same_elements, same_records
from splitpriv.attacks.recovery.kernel_ridge import Fit, fit_ridge
from splitpriv.attacks.recovery.result import RecoveryResult
from splitpriv.attacks.recovery.scoring import Scorer, shaped
from splitpriv.attacks.recovery.surrogate import surrogate_decoder, whitener

ALIGNMENTS = ("auto", "none", "moments")


@dataclass(frozen=True, kw_only=True)
class EncoderInversion(Attack):
    r"""A decoder against an encoder whose weights nobody else has: from leaked pairs, or from public data alone.

    With m leaked pairs (record x, released code z), kernel ridge regression of x on z, whitened by all released
    codes (these need no records). Linear and Gaussian kernels and the ridge compete on pairs left out; so does
    giving up, which is the public mean. With 0 pairs the attacker has encoders of its own, trained on public records:
    it learns to decode those, and applies that to the released codes, as they are or after both have been brought to
    mean 0 and covariance 1 (which no rotation can tell apart); what works on a surrogate that was left out is taken.
    With pairs and surrogates, pairs correct the surrogates' decoder where that helps on pairs left out.

    Args:
        pairs: numbers of leaked pairs to report for, ascending, >= 0; 0 is public data alone.
        align: how released codes are brought to those of the surrogates: ``"none"``, ``"moments"``, or
            ``"auto"`` for whichever is better on a surrogate left out.
        confidence: of the intervals, in (0, 1).
        batch_size: see :class:`~splitpriv.attacks.Attack`.
        seed: see :class:`~splitpriv.attacks.Attack`.
        device: see :class:`~splitpriv.attacks.Attack`.
        progress: see :class:`~splitpriv.attacks.Attack`.

    Raises:
        InvalidParameterError: a parameter is outside its range.

    Does not prove: that an encoder protects where this fails. A code of k numbers fixes at most k numbers of a record,
    which bounds the error from below whatever the decoder; better public data, or more pairs, may come closer to it.
    A single surrogate cannot be judged by another: give two or more, or the decoder may be worse than the mean.

    Source: Allen 1974 for the choice by records left out; the decoder attack on split learning in He, Zhang, Lee 2019.

    Example:
        >>> x = torch.randn(80, 8, generator=torch.Generator().manual_seed(0))
        >>> z = torch.tanh(x @ torch.eye(8).roll(1, 0) / 2)
        >>> result = EncoderInversion(pairs=(2, 40))(z[40:], x[40:], x[:10], known=x[:40], known_released=z[:40])
        >>> result.at(40).relative.value < 0.2
        True
    """

    pairs: tuple[int, ...] = (0, 4, 16, 64)
    align: str = "auto"
    confidence: float = 0.95

    def __post_init__(self) -> None:
        super().__post_init__()
        counts("EncoderInversion", "pairs", self.pairs, 0)
        check.choice("EncoderInversion", "align", self.align, ALIGNMENTS)
        proportion(0, 1, confidence=self.confidence)

    def __call__(
        self,
        released: Tensor,  # shape: (records, dim)
        originals: Tensor,  # shape: (records, *feature)
        public: Tensor,  # shape: (n, *feature)
        *,
        known: Tensor | None = None,  # shape: (pairs, *feature)
        known_released: Tensor | None = None,  # shape: (pairs, dim)
        surrogates: Sequence[Tensor] = (),  # shape of each: (n, dim)
    ) -> RecoveryResult:
        """Run it.

        Args:
            released: codes of other records.
            originals: these other records, as they were at the cut; to evaluate only.
            public: public records at the cut; their mean is what the attacker says if it knows nothing.
            known: leaked records; the curve takes them in this order.
            known_released: their codes.
            surrogates: for each encoder of the attacker's own, its codes of the public records.

        Raises:
            ShapeError: shapes do not fit each other.
            NonFiniteError: NaN or infinity.
            InvalidParameterError: there are fewer pairs than ``pairs`` asks for, or fewer than two public records.
        """
        owner = "EncoderInversion"
        codes = flat(owner, "released", released).to(self._on(released))
        truth = flat(owner, "originals", originals).to(codes.device)
        seen = public_records(owner, public).to(codes.device)
        same_elements(owner, originals=truth, public=seen)
        same_records(owner, codes, truth, what="released and originals")
        leaked, leaked_codes = self._leaked(known, known_released, seen, codes)
        own = self._surrogates(surrogates, seen, codes)
        mean = seen.mean(0)
        scorer = Scorer(
            truth, mean.expand_as(truth), None, confidence=self.confidence, seed=self.seed, shape=originals.shape[1:]
        )
        start = surrogate_decoder(own, seen - mean, codes, self.align, self.seed) if own else _nothing(seen)
        points = []
        for count in self.pairs:
            fit = self._with_pairs(start, leaked[:count] - mean, leaked_codes[:count], codes)
            parts = self._batches(len(codes), f"{count} pairs")
            found = torch.cat([mean + fit.predict(codes[part]) for part in parts])
            points.append(scorer.point(count, found))
        return RecoveryResult(self, "leaked pairs", tuple(points), None, shaped(found, originals), fit.note)

    def _with_pairs(self, start: Fit, leaked: Tensor, leaked_codes: Tensor, codes: Tensor) -> Fit:
        """The best on pairs left out: from the mean, from the surrogates' decoder, or the latter as it is."""
        if len(leaked) < 2:
            return start
        white, groups = whitener(codes), torch.arange(len(leaked), device=leaked.device)
        alone = fit_ridge(white(leaked_codes), leaked, groups)
        guess = start.predict(leaked_codes)
        both = fit_ridge(white(leaked_codes), leaked - guess, groups)
        if both.error < alone.error:
            note = f"{start.note}, corrected by pairs with {both.note}"
            return Fit(lambda new: start.predict(new) + both.predict(white(new)), both.error, note)
        return Fit(lambda new: alone.predict(white(new)), alone.error, alone.note)

    def _leaked(
        self, known: Tensor | None, known_released: Tensor | None, seen: Tensor, codes: Tensor
    ) -> tuple[Tensor, Tensor]:
        owner = "EncoderInversion"
        if known is None or known_released is None:
            enough(owner, "pairs", self.pairs, 0)
            return seen[:0], codes[:0]
        leaked = flat(owner, "known", known).to(seen.device)
        leaked_codes = flat(owner, "known_released", known_released).to(seen.device)
        same_records(owner, leaked, leaked_codes, what="known and known_released")
        enough(owner, "pairs", self.pairs, len(leaked))
        same_elements(owner, known=leaked, public=seen)
        _same_codes(codes, known_released=leaked_codes)
        return leaked, leaked_codes

    def _surrogates(self, surrogates: Sequence[Tensor], seen: Tensor, codes: Tensor) -> list[Tensor]:
        own = []
        for number, given in enumerate(surrogates):
            name = f"surrogates[{number}]"
            found = flat("EncoderInversion", name, given).to(seen.device)
            same_records("EncoderInversion", found, seen, what=f"{name} and public")
            _same_codes(codes, **{name: found})
            own.append(found)
        return own


def _same_codes(codes: Tensor, **others: Tensor) -> None:
    for name, other in others.items():
        if codes.shape[1] != other.shape[1]:
            raise ShapeError(
                f"EncoderInversion: {name} must have codes of the {codes.shape[1]} elements of the released ones, got "
                f"{other.shape[1]} elements per record."
            )


def _nothing(seen: Tensor) -> Fit:
    return Fit(lambda new: seen.new_zeros(len(new), seen.shape[1]), float("inf"), "the public mean")
