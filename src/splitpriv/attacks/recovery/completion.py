"""From released elements and a guess of the vector back to records; what is missing is filled in from public data."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from splitpriv.attacks.recovery.guess import VectorGuess

WIDEST = 1024  # elements up to which missing ones are predicted from the others of the same record
_RIDGE = 1e-2  # of the mean variance


class Background:
    """Mean and covariance of public records; without any, zero and nothing."""

    def __init__(
        self,
        public: Tensor | None,  # shape: (records, elements), float64
    ) -> None:
        self.known = public is not None
        self._last: tuple[Tensor, Tensor, Tensor] | None = None
        if public is None:
            return
        self.mean = public.mean(0)
        centred = public - self.mean
        ridge = _RIDGE * centred.square().mean() + 1e-12
        self.variance = centred.square().mean(0) + ridge
        self.covariance = None
        if public.shape[1] <= WIDEST:
            eye = torch.eye(public.shape[1], dtype=public.dtype, device=public.device)
            self.covariance = centred.T @ centred / len(public) + ridge * eye

    def guess(self, like: Tensor) -> Tensor:  # shape: (records, elements)
        """What to say of records of which nothing is known."""
        return self.mean.expand_as(like) if self.known else torch.zeros_like(like)

    def moments(
        self,
        row: Tensor,  # shape: (elements,)
        missing: Tensor,  # shape: (elements,), bool
    ) -> tuple[Tensor, Tensor]:  # shapes: (missing,), (missing,)
        """Mean and variance of the missing elements, given the others where these are few enough."""
        mean, variance = self.mean[missing], self.variance[missing]
        if self.covariance is None or not bool((~missing).any()):
            return mean, variance
        kept, (factor, left) = ~missing, self._regression(missing)
        return mean + (row[kept] - self.mean[kept]) @ factor, left

    def _regression(self, missing: Tensor) -> tuple[Tensor, Tensor]:
        """Of the missing elements on the others, and the variance that is left; kept for the next record alike."""
        if self._last is None or not torch.equal(self._last[0], missing):
            assert self.covariance is not None
            kept, variance = ~missing, self.variance[missing]
            across = self.covariance[kept][:, missing]
            factor = torch.linalg.solve(self.covariance[kept][:, kept], across)
            left = (variance - (across * factor).sum(0)).clamp_min(1e-3 * variance)
            self._last = (missing.clone(), factor, left)
        return self._last[1:]


def complete(
    guess: VectorGuess,
    released: Tensor,  # shape: (records, elements), float64
    threshold: float | None,
    background: Background,
) -> Tensor:  # shape: (records, elements), float64
    r"""Each record as well as the guess allows.

    A released element is divided by its entry of the vector; one whose sign is unknown, or that the threshold
    zeroed, is missing. Missing elements get their mean given the record's other elements under a Gaussian with public
    moments, and where the sign of v is known, given also that :math:`v x \le \text{threshold}`; without public
    data they stay 0. What rests on a sign that is not certain is moved toward what would be said without it.

    Args:
        guess: what is known of the vector.
        released: what crossed.
        threshold: of a ReluSanitizer; None for a mask alone, of which a zero is a zero.
        background: public moments.

    Source: for the mean of a truncated Gaussian Johnson, Kotz, Balakrishnan 1994, section 10.1.
    """
    found = released * guess.inverse
    unknown = guess.side == 0
    missing = (released != 0) & unknown if threshold is None else (released == 0) | unknown
    if not background.known:
        return found
    found = torch.where(released == 0, found, torch.lerp(background.guess(found), found, guess.certainty))
    for row, gaps, seen in zip(found, missing, released, strict=True):
        if bool(gaps.any()):
            mean, variance = background.moments(row, gaps)
            if threshold is not None:
                sides = torch.where(seen[gaps] == 0, guess.side[gaps], torch.zeros_like(mean))
                cut = truncated_mean(mean, variance, sides, threshold * guess.inverse[gaps].abs())
                mean = torch.lerp(mean, cut, guess.certainty[gaps])
            row[gaps] = mean
    return found


def truncated_mean(mean: Tensor, variance: Tensor, side: Tensor, bound: Tensor) -> Tensor:
    """E[x | side x <= bound] of a Gaussian, element by element; side 0 bounds nothing."""
    spread = variance.sqrt()
    flipped = mean * side
    level = (bound - flipped) / spread
    log_ratio = -level.square() / 2 - 0.5 * math.log(2 * math.pi) - torch.special.log_ndtr(level)
    return torch.where(side == 0, mean, side * torch.minimum(flipped - spread * log_ratio.exp(), bound))
