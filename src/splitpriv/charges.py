"""What a call or a release of a SplitModel charges, and when it warns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from splitpriv import accounting
from splitpriv._warnings import warn
from splitpriv.accounting import Price, Spend
from splitpriv.layers.compilation import eager
from splitpriv.mechanisms.rounding import scale_up
from splitpriv.release import checks

if TYPE_CHECKING:
    from splitpriv.split_model import SplitModel


@eager
def charge_call(model: SplitModel, features: Tensor, ids: Sequence[str | int] | Tensor | None, dataset: str) -> None:
    """Charge for a batch that one call is about to send, without labels."""
    listed = None if ids is None else checks.id_list("SplitModel", ids, len(features))
    shape = tuple(features.shape[1:])
    charge_rows(model, model._features_price(shape), len(features), listed, dataset)
    model._feature_shape = shape
    _warn_if_looped(model, listed, dataset)
    if features.requires_grad:  # joint: from the first gradient on, the edge's weights know the records
        features.register_hook(lambda gradient: model._learn())  # type: ignore[no-untyped-call]


def as_uses(spend: Spend, cost: float) -> tuple[float, int]:
    """(epsilon of one use, number of uses) that a record pays; the cost as one use where ties make it larger."""
    plain = scale_up(spend.per_use, spend.uses) == cost
    return (spend.per_use, spend.uses) if plain else (cost, 1)


def charge_rows(model: SplitModel, price: Price, rows: int, ids: Sequence[str | int] | None, dataset: str) -> float:
    """Charge for ``rows`` rows before they are drawn; returns what the worst record pays."""
    cost = price.per_record(rows)
    learned = model.joint and model._has_learned()
    if learned:
        cost = max(cost, scale_up(price.tied, rows))
    epsilon, uses = as_uses(price.spend, cost)
    if learned or price.rows != 0:
        ids = None  # any record that the weights have learned from pays, whatever its id
        epsilon, uses = cost, 1  # what ties rows may be another mechanism than the one whose uses cost as much
    accounting.charge(epsilon, ids=ids, dataset=dataset, uses=uses)
    warn_if_unbounded(model, price, cost)
    return cost


def warn_if_unbounded(model: SplitModel, price: Price, cost: float) -> None:
    """Once, where nothing bounds what was sent."""
    if math.isinf(cost) and not (model._warned_unbounded or accounting.simulating()):
        model._warned_unbounded = True
        warn(f"SplitModel: released with epsilon infinite: {'; '.join(price.notes)}.")


def _warn_if_looped(model: SplitModel, ids: list[Any] | None, dataset: str) -> None:
    """Once, at the second call without ids, or where the first id that was seen comes again."""
    if model.joint or accounting.simulating() or model._first_call == "warned":
        return
    if model._first_call is None:
        model._first_call = (dataset, ids and ids[0])
    elif ids is None or model._first_call in [(dataset, i) for i in ids]:
        model._first_call = "warned"
        warn(
            "SplitModel: every forward call is a release and its cost adds up. With a frozen edge, use "
            "model.release(...) once and train the server on it; ids= tells records apart."
        )
