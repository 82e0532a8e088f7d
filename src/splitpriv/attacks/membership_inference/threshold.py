"""A threshold on one number read off the target's output."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from splitpriv import _validation as check
from splitpriv._errors import InvalidParameterError
from splitpriv.attacks.membership_inference.base import MembershipAttack, Scorer
from splitpriv.attacks.membership_inference.result import HeldOut, held_out
from splitpriv.attacks.membership_inference.shadows import ShadowPool
from splitpriv.attacks.membership_inference.signals import SIGNALS
from splitpriv.attacks.membership_inference.target import Observation
from splitpriv.attacks.metrics.classification import balanced_threshold


@dataclass(frozen=True, kw_only=True)
class ThresholdMembership(MembershipAttack):
    """Calls a record a member where the target's output on it is extreme: small loss, high confidence, low entropy.

    Called with a :class:`~splitpriv.attacks.MembershipTarget` and, if there are any, a
    :class:`~splitpriv.attacks.ShadowPool`. The threshold is chosen on shadow models; without, on public
    records (non-members) as that which a share ``fpr`` of them reaches; without either, only figures that need
    none are given.

    Args:
        score: ``"loss"``, ``"confidence"``, ``"entropy"`` or ``"modified entropy"``.
        per_class: choose the threshold for each class by itself, on shadow models: scores are then relative to that of
            their class. A class with fewer than ten members or non-members in the shadows takes the common one.
        fpr: false positive rate on public records, in (0, 1); see above.
        confidence: of all intervals, in (0, 1).
        calibration: number of pairs of shadow models that thresholds are chosen on, >= 1.
        batch_size, seed, device, progress: see :class:`~splitpriv.attacks.Attack`.

    Raises:
        InvalidParameterError: an argument is outside its range.

    Does not prove: that nothing leaks where it fails. It treats easy and hard records alike; :class:`LiRA` does not.

    Source: Yeom, Giacomelli, Fredrikson, Jha 2018 (loss); Salem et al. 2019 (confidence, entropy); Song, Mittal 2021
    (modified entropy, thresholds per class).

    Example:
        >>> ThresholdMembership(score="entropy").score
        'entropy'
    """

    score: str = "loss"
    per_class: bool = False
    fpr: float = 0.1
    needs: ClassVar[int] = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check.choice("ThresholdMembership", "score", self.score, tuple(SIGNALS))
        check.choice("ThresholdMembership", "per_class", self.per_class, (True, False))
        if check.positive("ThresholdMembership", "fpr", self.fpr) >= 1:
            raise InvalidParameterError(check.message("ThresholdMembership", "fpr", "below 1", self.fpr))

    @property
    def title(self) -> str:
        """How reports name it."""
        return f"threshold on {self.score}" + (", per class" if self.per_class else "")

    def _scorer(self, shadows: ShadowPool | None, labels: Tensor) -> Scorer:
        signal = SIGNALS[self.score]
        if not self.per_class:
            return lambda seen: signal(seen.logits, seen.labels)
        if shadows is None:
            raise InvalidParameterError(
                "ThresholdMembership: shadows must be given to choose a threshold per class, got shadows=None."
            )
        offsets = self._offsets(signal(shadows.outputs, labels), shadows.membership, labels, shadows.outputs.shape[2])
        return lambda seen: signal(seen.logits, seen.labels) - offsets[seen.labels]

    @staticmethod
    def _offsets(values: Tensor, membership: Tensor, labels: Tensor, classes: int) -> Tensor:  # shape: (classes,)
        known = membership.any(0)  # public records were never in: they would make a class look easy
        common = balanced_threshold(values[membership].numpy(), values[:, known][~membership[:, known]].numpy())
        offsets = torch.full((classes,), common, dtype=torch.float64)
        for label in range(classes):
            rows = known & (labels == label)
            inside = membership[:, rows]
            members, others = values[:, rows][inside], values[:, rows][~inside]
            if min(len(members), len(others)) >= 10:
                offsets[label] = balanced_threshold(members.numpy(), others.numpy())
        return offsets

    def _without_shadows(self, seen: Observation, shadows: int) -> HeldOut:
        public = SIGNALS[self.score](seen.logits, seen.labels)[seen.candidates :].numpy()
        if self.per_class or len(public) * self.fpr < 1:
            reason = f"{shadows} shadow models and {len(public)} public records leave none to choose it on"
            return HeldOut(None, None, None, reason)
        return held_out(None, public, source=f"{len(public)} public records", fpr=self.fpr)
