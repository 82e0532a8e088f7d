"""What labels that travel beside the features are, and what they add to a record's price."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from splitpriv._errors import InvalidParameterError, PrivacyError
from splitpriv._validation import message
from splitpriv.accounting import Price, Spend
from splitpriv.layers.embedded_labels import EmbeddedLabels
from splitpriv.layers.label_ldp import LabelLDP
from splitpriv.mechanisms.rounding import sum_up
from splitpriv.release import checks


@dataclass(frozen=True)
class Labels:
    """The declaration ``SplitModel(labels=...)``, checked.

    Attributes:
        kind: "public", "private", "ldp", "embedded", or None where no labels travel.
        layer: the label mechanism; None unless ``kind`` is "ldp".
        embedded: what puts labels into the features; None unless ``kind`` is "embedded".
    """

    kind: str | None
    layer: LabelLDP | None = None
    embedded: EmbeddedLabels | None = None

    @classmethod
    def of(cls, declared: Any) -> Labels:
        """What a user declared: a word, a label mechanism, or None.

        Raises:
            InvalidParameterError: it is none of these.
        """
        if isinstance(declared, LabelLDP):
            return cls("ldp", declared)
        if isinstance(declared, EmbeddedLabels):
            return cls("embedded", embedded=declared)
        if declared is not None and not (isinstance(declared, str) and declared in ("public", "private")):
            fix = "Say what labels that travel beside the features are; None where none travel."
            constraint = "'public' or 'private' or None or a LabelLDP or EmbeddedLabels"
            raise InvalidParameterError(message("SplitModel", "labels", constraint, declared, fix))
        return cls(declared)

    @property
    def epsilon(self) -> float:
        """What a label adds to the price of its record, ∞ of unprotected ones left out; 0 without a mechanism."""
        return self.layer.epsilon if self.layer is not None else 0.0

    @property
    def key(self) -> str:
        """What tells these labels from others in a cache: of a mechanism all that its table follows from."""
        layer = self.layer
        return str(self) if layer is None else f"{self} {layer.classes} {layer.kept} {layer.asked!r}"

    @property
    def secure(self) -> bool:
        """False when labels are drawn from a seed."""
        return self.layer is None or self.layer.secure

    def priced(self, price: Price) -> Price:
        """The price of a record's features with that of its label added.

        Where the edge has learned from the records, each row costs each of them its label as well: those
        labels depend on one record each, so this is more than is lost, never less.
        """
        if self.layer is None:
            return price
        own = price.spend
        label = Spend.of(self.epsilon, 1, self.layer.channel())
        total = sum_up([own.per_record, self.epsilon])
        spend = replace(own, per_record=total, labels=self.epsilon, parts=(own, label))
        return replace(price, spend=spend, tied=sum_up([price.tied, self.epsilon]))

    def check(self, given: Tensor | None, records: int) -> None:
        """Refuse labels that cannot be released as declared, before anything is charged.

        Raises:
            PrivacyError: there are labels, and nothing was declared of them.
            ShapeError: they are not one per record, or not what the label mechanism takes.
        """
        if given is not None and self.kind is None:
            raise PrivacyError(
                "SplitModel: labels must be declared to release labelled data, got labels=None. "
                'Use labels=LabelLDP(...) (private), labels="public" (not covered by epsilon), '
                'labels="private" (epsilon is infinite), or release the records without labels.'
            )
        checks.labels("release", given, records)
        if given is not None and self.layer is not None:
            self.layer.quantize(given)

    def joined(self, features: Tensor, given: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Features and labels as they reach the cut: embedded labels become part of the features.

        Raises:
            PrivacyError: labels are to be embedded, and there are none.
            ShapeError: they are not what is embedded.
        """
        if self.embedded is None:
            return features, given
        if given is None:
            fix = "Release (record, label) pairs, or infer with model.local(x)."
            raise PrivacyError(f"SplitModel: labels must be there to be embedded, got records without labels. {fix}")
        return self.embedded.embed(features, given), None

    def shape(self, features: Sequence[int]) -> tuple[int, ...]:
        """The shape at the cut of one record's features, its embedded label with them."""
        return tuple(features) if self.embedded is None else (self.embedded.classes * math.prod(features),)

    def refuse_call(self) -> None:
        """Refuse a call of a model whose cut takes features and label together.

        Raises:
            PrivacyError: labels are embedded.
        """
        if self.embedded is not None:
            fix = "Use model.local(x), or model.release((x, labels)); infer at the server by a model without them."
            raise PrivacyError(f"SplitModel: labels must be given where they are embedded, got a call without. {fix}")

    def clean(self, features: Tensor, expected: Callable[[Tensor], Tensor]) -> Tensor:
        """What ``expected`` makes of features without their label."""
        if self.embedded is None:
            return expected(features)
        first = torch.zeros(len(features), dtype=torch.int64, device=features.device)
        return self.embedded.block(expected(self.embedded.embed(features, first)), 0)

    def claimed(self, travel: bool) -> dict[str, Any]:
        """What a release claims of its labels."""
        if self.embedded is not None:
            return {"labels": "embedded", "classes": self.embedded.classes}
        return {"labels": (self.kind or "none") if travel else "none"}

    def encode(self, given: Tensor | None) -> Tensor | None:
        """What of a batch's labels leaves the device."""
        return given if given is None or self.layer is None else self.layer.encode(given)

    def __str__(self) -> str:
        if self.layer is None:
            words = {"public": "public (ε covers features only)", "private": "private, unprotected (ε ∞)"}
            return words.get(self.kind or "", "none") if self.embedded is None else repr(self.embedded)
        return repr(self.layer)


def spent(price: Price, per_record: float) -> Spend:
    """What a record pays in all, where rows or labels make it more than the uses of mechanisms add up to."""
    return replace(price.spend, per_record=per_record, parts=(Spend.of(per_record, 1),))
