"""What all membership attacks share: queries, scores that see no membership, thresholds from other models."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from splitpriv import _validation as check
from splitpriv._errors import InvalidParameterError
from splitpriv.attacks.attack import Attack, existing
from splitpriv.attacks.estimate import level_of
from splitpriv.attacks.membership_inference.result import HeldOut, MembershipResult, Scores, evaluate, held_out
from splitpriv.attacks.membership_inference.shadows import ShadowPool
from splitpriv.attacks.membership_inference.target import MembershipTarget, Observation, observed, query

Scorer = Callable[[Observation], Tensor]


@dataclass(frozen=True, kw_only=True)
class MembershipAttack(Attack):
    """Base of the membership attacks; a subclass gives ``_scorer`` and the number of shadows that it needs.

    Thresholds are chosen where the attacker knows the truth: pairs of shadow models play the target in turn, attacked
    with the help of all the others. The target is attacked with as many, the last pair left out, or its scores would be
    of another distribution than those that thresholds were chosen on. The target's own membership is read by the
    evaluation alone.

    Args:
        confidence: of all intervals, in (0, 1).
        calibration: number of pairs of shadow models that thresholds are chosen on, >= 1.
    """

    confidence: float = 0.95
    calibration: int = 4
    needs: ClassVar[int] = 2  # shadow models; 0 where it can do without

    def __post_init__(self) -> None:
        super().__post_init__()
        owner = type(self).__name__
        level_of(owner, self.confidence)
        check.integer(owner, "calibration", self.calibration, 1)

    def __call__(self, target: MembershipTarget, shadows: ShadowPool | None = None) -> MembershipResult:
        """Attack every candidate of the target.

        Raises:
            InvalidParameterError: these are no target and no pool, there are too few shadow models, or they are of
                other records than the target's.
            ShapeError, NonFiniteError: the target's outputs are not finite logits, or labels do not fit them.
        """
        owner = type(self).__name__
        if not isinstance(target, MembershipTarget):
            raise InvalidParameterError(check.message(owner, "target", "a MembershipTarget", target))
        if shadows is not None and not isinstance(shadows, ShadowPool):
            raise InvalidParameterError(check.message(owner, "shadows", "a ShadowPool, or None", shadows))
        labels, candidates = target.all_labels, len(target.labels)
        self._refuse(shadows, labels)
        if self.device is not None:
            existing(owner, self.device)
        logits = query(owner, target.outputs, target.all_records, self.batch_size, self.device)
        seen = observed(owner, logits, labels, candidates)
        if shadows is not None and shadows.outputs.shape[2] != logits.shape[1]:
            raise InvalidParameterError(
                f"{owner}: shadows must have the target's {logits.shape[1]} classes, got {shadows.outputs.shape[2]}."
            )
        pairs = self._calibrating(shadows)
        helping = shadows.without(shadows.pairs - 1) if shadows is not None and pairs else shadows
        scores = self._scorer(helping, labels)(seen)[:candidates].numpy()
        held = self._held_out(seen, shadows, pairs)
        members = target.members.cpu().numpy()
        return evaluate(self.title, self.to_dict(), scores, members, held, self.confidence)

    @property
    def title(self) -> str:
        """How reports name it."""
        return type(self).__name__

    @abstractmethod
    def _scorer(self, shadows: ShadowPool | None, labels: Tensor) -> Scorer:
        """What scores the records of an observed model, given shadow models of the same records."""

    def _calibrating(self, shadows: ShadowPool | None) -> int:
        """The number of pairs of shadow models that can play the target."""
        return 0 if shadows is None else max(0, min(self.calibration, (len(shadows) - max(self.needs, 2)) // 2))

    def _held_out(self, seen: Observation, shadows: ShadowPool | None, pairs: int) -> HeldOut:
        if shadows is None or not pairs:
            return self._without_shadows(seen, 0 if shadows is None else len(shadows))
        members: list[Scores] = []
        others: list[Scores] = []
        for pair in range(pairs):
            score = self._scorer(shadows.without(pair), shadows.labels)
            for number in (2 * pair, 2 * pair + 1):
                playing = Observation(shadows.outputs[number].double(), shadows.labels, seen.candidates)
                found, inside = score(playing)[: seen.candidates], shadows.membership[number, : seen.candidates]
                members.append(found[inside].numpy())
                others.append(found[~inside].numpy())
        return held_out(np.concatenate(members), np.concatenate(others), source=f"{2 * pairs} shadow models")

    def _without_shadows(self, seen: Observation, shadows: int) -> HeldOut:
        return HeldOut(None, None, None, f"{shadows} shadow models leave none to choose it on")

    def _refuse(self, shadows: ShadowPool | None, labels: Tensor) -> None:
        owner, count = type(self).__name__, 0 if shadows is None else len(shadows)
        if count < self.needs:
            fix = "Make them with train_shadows."
            raise InvalidParameterError(f"{owner}: shadows must be at least {self.needs} models, got {count}. {fix}")
        if shadows is not None and not torch.equal(shadows.labels, labels):
            raise InvalidParameterError(
                f"{owner}: shadows must be of the target's records (candidates, then public ones), got "
                f"{len(shadows.labels)} records for {len(labels)}, or other labels."
            )


def checked(owner: str, attacks: Any, shadows: int) -> list[MembershipAttack]:
    """The attacks as a list, if they are membership attacks for which so many shadow models are enough.

    Raises:
        InvalidParameterError: they are not.
    """
    found = list(attacks) if isinstance(attacks, Iterable) and not isinstance(attacks, str) else None
    if not found or not all(isinstance(one, MembershipAttack) for one in found):
        fix = "Such as [LiRA(), RMIA()]; None for the usual ones."
        constraint = "a list of one or more membership attacks"
        raise InvalidParameterError(check.message(owner, "attacks", constraint, attacks, fix))
    for one in found:
        if shadows < one.needs:
            constraint = f"{one.needs} or more for {type(one).__name__}"
            raise InvalidParameterError(check.message(owner, "shadows", constraint, shadows))
    return found


def in_and_out(values: Tensor, membership: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Means over the models with and without each record, and their numbers. # shapes: (shadows, records) -> (records,)

    NaN where there are none.
    """
    inside = membership.to(values.dtype)
    counts = inside.sum(0), (1 - inside).sum(0)
    return (values * inside).sum(0) / counts[0], (values * (1 - inside)).sum(0) / counts[1], *counts
