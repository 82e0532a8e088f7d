"""The likelihood ratio attack: how unusual is this output for a model with, or without, this very record?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from splitpriv import _validation as check
from splitpriv._errors import InvalidParameterError
from splitpriv.attacks.membership_inference.base import MembershipAttack, Scorer, in_and_out
from splitpriv.attacks.membership_inference.shadows import ShadowPool
from splitpriv.attacks.membership_inference.signals import scaled_confidence
from splitpriv.attacks.membership_inference.target import Observation

ENOUGH = 64  # shadow models from which on a variance per record is better (Carlini et al. 2022, section VI-C)
_FLOOR = 1e-12


@dataclass(frozen=True, kw_only=True)
class LiRA(MembershipAttack):
    r"""Likelihood ratio of a record's logit-scaled confidence under Gaussians fitted to shadow models.

    .. math:: \phi = \ln \frac{p_y}{1 - p_y}, \qquad \text{online: } \ln \frac{N(\phi; \mu_{in}, \sigma_{in}^2)}
              {N(\phi; \mu_{out}, \sigma_{out}^2)}, \qquad \text{offline: } \frac{\phi - \mu_{out}}{\sigma_{out}},

    with a mean for each record over the shadow models that were (in), or were not (out), trained on it. Offline needs
    no model that was trained on a candidate; its score orders records as the paper's one-sided probability does.

    Called with a :class:`~splitpriv.attacks.MembershipTarget` and a :class:`~splitpriv.attacks.ShadowPool` of four or
    more models.

    Args:
        mode: ``"online"`` or ``"offline"``.
        variance: ``"fixed"``: one for all records, around each record's own mean; ``"record"``: one for each;
            ``"auto"``: for each record where scores rest on 64 shadow models or more (so many and a pair, where
            thresholds are chosen on some).
        confidence: of all intervals, in (0, 1).
        calibration: number of pairs of shadow models that thresholds are chosen on, >= 1.
        batch_size, seed, device, progress: see :class:`~splitpriv.attacks.Attack`.

    Raises:
        InvalidParameterError: an argument is outside its range.

    Does not prove: that nothing leaks where it fails. One query per record; more queries (augmented records, or
    repeated ones through a noisy layer) say more.

    Source: Carlini, Chien, Nasr, Song, Terzis, Tramer 2022, algorithm 1 and section VI.

    Example:
        >>> LiRA(mode="offline").title
        'LiRA, offline'
    """

    mode: str = "online"
    variance: str = "auto"
    needs: ClassVar[int] = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        check.choice("LiRA", "mode", self.mode, ("online", "offline"))
        check.choice("LiRA", "variance", self.variance, ("auto", "fixed", "record"))

    @property
    def title(self) -> str:
        """How reports name it."""
        return f"LiRA, {self.mode}"

    def _scorer(self, shadows: ShadowPool | None, labels: Tensor) -> Scorer:
        assert shadows is not None
        fixed = self.variance == "fixed" or (self.variance == "auto" and len(shadows) < ENOUGH)
        values, inside = scaled_confidence(shadows.outputs, labels), shadows.membership
        mean_in, mean_out, _, _ = in_and_out(values, inside)
        spread_out = _variance(values, ~inside, mean_out, fixed)
        if self.mode == "offline":
            return lambda seen: (scaled_confidence(seen.logits, seen.labels) - mean_out) / spread_out.sqrt()
        spread_in = _variance(values, inside, mean_in, fixed)

        def score(seen: Observation) -> Tensor:
            phi = scaled_confidence(seen.logits, seen.labels)[: seen.candidates]
            mean, spread = mean_in[: seen.candidates], spread_in[: seen.candidates]
            if bool(mean.isnan().any()):
                raise InvalidParameterError(
                    "LiRA: shadows must have been trained on each candidate for the online mode, got candidates that "
                    'were held out. Use mode="offline".'
                )
            outside = _log_density(phi, mean_out[: seen.candidates], spread_out[: seen.candidates])
            return _log_density(phi, mean, spread) - outside

        return score


def _variance(values: Tensor, chosen: Tensor, means: Tensor, fixed: bool) -> Tensor:  # shape: (records,)
    """Unbiased, around each record's mean over the chosen models; of all records together where it is fixed."""
    squares = torch.where(chosen, (values - means) ** 2, 0.0).sum(0)
    freedom = (chosen.sum(0) - 1).clamp(min=0).double()
    if fixed:
        squares, freedom = squares.sum().expand(len(squares)), freedom.sum().expand(len(freedom))
    return (squares / freedom.clamp(min=1)).clamp(min=_FLOOR)


def _log_density(values: Tensor, means: Tensor, variances: Tensor) -> Tensor:
    return -0.5 * ((values - means) ** 2 / variances + (2 * math.pi * variances).log())
