"""What a record pays for anything that can cost privacy, as spends that can be composed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from splitpriv._errors import InvalidParameterError
from splitpriv._validation import message
from splitpriv.accounting.charging import current
from splitpriv.accounting.ledger import Ledger
from splitpriv.accounting.spend import Spend
from splitpriv.mechanisms.rounding import sum_up


def paid(owner: str, what: Any, shape: Sequence[int] | None) -> list[Spend]:
    """The costs of ``what`` to one record; of a list, those of all its items together."""
    if isinstance(what, type):
        raise InvalidParameterError(message(owner, "what", "an instance, not a class", what))
    if isinstance(what, (list, tuple)):
        return [s for part in what for s in paid(owner, part, shape if _has_shape(part) else None)]
    if hasattr(what, "spend"):  # a layer, or a SplitModel
        return [what.spend(shape)]
    if shape is not None:
        fix = "Only layers and models are priced by shape."
        raise InvalidParameterError(f"{owner}: shape must be None here, got shape={shape!r}. {fix}")
    if what is None:
        return [Spend.of(current().epsilon, 1)]
    if hasattr(what, "claims"):  # a Release
        return [_of_release(float(what.epsilon), what.claims)]
    if isinstance(what, Ledger):
        return [Spend.of(what.epsilon, 1)]
    fix = "Pass a layer, a SplitModel, a Release, a Ledger, a list of them, or nothing."
    kind = type(what).__name__
    raise InvalidParameterError(f"{owner}: what must be something with a cost, got {kind}. {fix}")


def _has_shape(part: Any) -> bool:
    return isinstance(part, (list, tuple)) or hasattr(part, "spend")


def _of_release(epsilon: float, claims: Any) -> Spend:
    """Features and labels of one row where nothing else is claimed; in doubt one unknown mechanism."""
    whole = Spend.of(epsilon, 1)
    tied = claims.joint or claims.edge_data != "public" or claims.notes or claims.labels == "private"
    if tied or math.isinf(epsilon):
        return whole
    features = Spend.of(claims.per_use, claims.uses)
    label = Spend.of(float(getattr(claims, "label_epsilon", 0.0)), 1)
    added = sum_up([features.per_record, label.per_record])
    if epsilon == claims.per_record == added:
        return Spend(whole.per_use, 1, epsilon, parts=(features, label))
    return whole
