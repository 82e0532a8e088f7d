"""The robust membership attack: does the record gain more from this model than other records do?"""

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
from splitpriv.attacks.membership_inference.signals import loss
from splitpriv.attacks.membership_inference.target import Observation


@dataclass(frozen=True, kw_only=True)
class RMIA(MembershipAttack):
    r"""Share of population records z that the record x outdoes in a pairwise likelihood ratio.

    .. math:: \Pr_z \left[ \frac{p(x \mid \theta) / p(x)}{p(z \mid \theta) / p(z)} \ge \gamma \right], \qquad
              \text{offline: } p(x) = \tfrac12 \left( (1 + a)\, \bar p_{out}(x) + 1 - a \right),

    with p(x | θ) the target's probability of x's label, and the mean over shadow models that were not trained on x;
    online, p(x) is the mean of the means with and without x. The z are the target's public records, or else the
    candidates themselves (of which the attacker does not know the members). Few shadow models are enough.

    Called with a :class:`~splitpriv.attacks.MembershipTarget` and a :class:`~splitpriv.attacks.ShadowPool` of two or
    more models.

    Args:
        mode: ``"offline"`` or ``"online"``.
        a: in [0, 1]: how the probability with the record follows from that without it, a p + 1 - a; smaller where
            models memorise more. Choose it on shadow models or on public data.
        gamma: >= 1. All candidates share the z, so it changes their order only by making ties.
        confidence: of all intervals, in (0, 1).
        calibration: number of pairs of shadow models that thresholds are chosen on, >= 1.
        batch_size, seed, device, progress: see :class:`~splitpriv.attacks.Attack`.

    Raises:
        InvalidParameterError: an argument is outside its range.

    Does not prove: that nothing leaks where it fails. Where the candidates are the population, a score depends on who
    else is asked about, so that thresholds of shadow models carry over to a target with another share of members only
    roughly: read the false positive rate beside each figure, or give public records.

    Source: Zarifzadeh, Liu, Shokri 2024, "Low-cost high-power membership inference attacks", section 3.

    Example:
        >>> RMIA(gamma=2.0).title
        'RMIA, offline'
    """

    mode: str = "offline"
    a: float = 0.3
    gamma: float = 1.0
    needs: ClassVar[int] = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        check.choice("RMIA", "mode", self.mode, ("offline", "online"))
        if not 0 <= check.finite("RMIA", "a", self.a) <= 1:
            raise InvalidParameterError(check.message("RMIA", "a", "in [0, 1]", self.a))
        if check.finite("RMIA", "gamma", self.gamma) < 1:
            raise InvalidParameterError(check.message("RMIA", "gamma", "at least 1", self.gamma))

    @property
    def title(self) -> str:
        """How reports name it."""
        return f"RMIA, {self.mode}"

    def _scorer(self, shadows: ShadowPool | None, labels: Tensor) -> Scorer:
        assert shadows is not None
        with_x, without, _, _ = in_and_out(loss(shadows.outputs, labels).exp(), shadows.membership)
        expected = 0.5 * ((1 + self.a) * without + 1 - self.a)
        if self.mode == "online":
            expected = torch.where(with_x.isnan(), expected, 0.5 * (with_x + without))
        usual = expected.clamp(min=1e-300).log()

        def score(seen: Observation) -> Tensor:
            gains = loss(seen.logits, seen.labels) - usual
            population = gains[seen.candidates :] if len(gains) > seen.candidates else gains
            ordered = population.sort().values
            outdone = torch.searchsorted(ordered, gains - math.log(self.gamma), right=True)
            return outdone.double() / len(ordered)

        return score
