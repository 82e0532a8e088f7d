"""Shadow models and an attack model: a classifier that has learned how outputs on members look."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from splitpriv import _validation as check
from splitpriv.attacks.attack import generator
from splitpriv.attacks.membership_inference.base import MembershipAttack, Scorer
from splitpriv.attacks.membership_inference.shadows import ShadowPool
from splitpriv.attacks.membership_inference.signals import loss, scaled_confidence
from splitpriv.attacks.membership_inference.target import Observation

_TOP = 10  # sorted log-probabilities that the attack model reads
_ROWS = 20_000  # outputs that it is trained on, at most


@dataclass(frozen=True, kw_only=True)
class ShadowMembership(MembershipAttack):
    """An attack model, trained on the outputs of shadow models, tells members from non-members.

    It reads the ten largest log-probabilities in order, the log-probability of the label, its logit-scaled
    confidence, and the class. Called with a :class:`~splitpriv.attacks.MembershipTarget` and a
    :class:`~splitpriv.attacks.ShadowPool` of two or more models.

    Args:
        model: ``"mlp"`` (one hidden layer) or ``"logistic"`` (regression).
        per_class: one attack model for each class, as in the paper, in place of one that reads the class. A class
            with fewer than ten members or non-members in the shadows takes that of all classes.
        hidden: width of the hidden layer, >= 1.
        steps: of Adam, each on all rows, >= 1.
        lr: learning rate, > 0.
        confidence: of all intervals, in (0, 1).
        calibration: number of pairs of shadow models that thresholds are chosen on, >= 1; each pair trains another
            attack model.
        batch_size, seed, device, progress: see :class:`~splitpriv.attacks.Attack`.

    Raises:
        InvalidParameterError: an argument is outside its range.

    Does not prove: that nothing leaks where it fails. It treats easy and hard records alike; :class:`LiRA` does not.

    Source: Shokri, Stronati, Song, Shmatikov 2017.

    Example:
        >>> ShadowMembership(model="logistic").title
        'shadow models, logistic'
    """

    model: str = "mlp"
    per_class: bool = False
    hidden: int = 32
    steps: int = 200
    lr: float = 0.02
    calibration: int = 1
    needs: ClassVar[int] = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        check.choice("ShadowMembership", "model", self.model, ("mlp", "logistic"))
        check.choice("ShadowMembership", "per_class", self.per_class, (True, False))
        check.integer("ShadowMembership", "hidden", self.hidden, 1)
        check.integer("ShadowMembership", "steps", self.steps, 1)
        check.positive("ShadowMembership", "lr", self.lr)

    @property
    def title(self) -> str:
        """How reports name it."""
        return f"shadow models, {self.model}" + (", per class" if self.per_class else "")

    def _scorer(self, shadows: ShadowPool | None, labels: Tensor) -> Scorer:
        assert shadows is not None
        known = shadows.membership.any(0)  # records that were held out of all would be non-members only
        number, record = known.expand(len(shadows), -1).nonzero(as_tuple=True)
        draw = generator(self.seed, stream="rows")
        kept = torch.randperm(len(number), generator=draw)[:_ROWS]
        number, record = number[kept], record[kept]
        x, y = _read(shadows.outputs[number, record], labels[record]), shadows.membership[number, record].float()
        common = self._fit(x, y)
        if not self.per_class:
            return lambda seen: common(_read(seen.logits, seen.labels))
        own = {}
        for label in range(shadows.outputs.shape[2]):
            rows = labels[record] == label
            if 10 <= int(y[rows].sum()) <= int(rows.sum()) - 10:
                own[label] = self._fit(x[rows], y[rows])
        return lambda seen: _by_class(seen, own, common)

    def _fit(self, x: Tensor, y: Tensor) -> Callable[[Tensor], Tensor]:
        """Logits of membership, from standardised inputs."""
        centre, scale = x.mean(0), x.std(0, correction=0).clamp(min=1e-6)
        draw = generator(self.seed, stream="attack model")
        widths = [x.shape[1], *([self.hidden] if self.model == "mlp" else []), 1]
        layers = [
            (torch.randn(b, a, generator=draw).div(a**0.5).requires_grad_(), torch.zeros(b).requires_grad_())
            for a, b in pairwise(widths)
        ]

        def logits(inputs: Tensor) -> Tensor:
            found = ((inputs - centre) / scale).float()
            for depth, (weight, bias) in enumerate(layers):
                found = F.linear(found if depth == 0 else F.relu(found), weight, bias)
            return found.squeeze(1)

        optimizer = torch.optim.AdamW([p for layer in layers for p in layer], lr=self.lr, weight_decay=1e-3)
        for _ in self._steps(self.steps, "attack model"):
            penalty = F.binary_cross_entropy_with_logits(logits(x), y)
            optimizer.zero_grad()
            penalty.backward()  # type: ignore[no-untyped-call]
            optimizer.step()

        def score(inputs: Tensor) -> Tensor:
            with torch.no_grad():
                return logits(inputs).double()

        return score


def _read(logits: Tensor, labels: Tensor) -> Tensor:  # shapes: (rows, classes), (rows,) -> (rows, inputs)
    top = torch.log_softmax(logits.double(), -1).sort(-1, descending=True).values[:, :_TOP].clamp(min=-30)
    own = torch.stack([loss(logits, labels).clamp(min=-30), scaled_confidence(logits, labels)], 1)
    return torch.cat([top, own, F.one_hot(labels, logits.shape[1]).double()], 1)


def _by_class(
    seen: Observation, own: dict[int, Callable[[Tensor], Tensor]], common: Callable[[Tensor], Tensor]
) -> Tensor:
    inputs = _read(seen.logits, seen.labels)
    scores = common(inputs)
    for label, model in own.items():
        rows = seen.labels == label
        scores[rows] = model(inputs[rows])
    return scores
