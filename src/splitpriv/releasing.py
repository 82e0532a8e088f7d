"""One-shot release: every record runs through the edge and crosses the cut once."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from splitpriv import accounting
from splitpriv._errors import InvalidParameterError, PrivacyError
from splitpriv.accounting.pricing import chain_shapes
from splitpriv.mechanisms.rounding import scale_up
from splitpriv.release import Claims, Release, checks
from splitpriv.release.records import Records

if TYPE_CHECKING:
    from splitpriv.split_model import SplitModel


def release_records(
    model: SplitModel,
    data: Any,
    *,
    batch_size: int,
    ids: Sequence[str | int] | None,
    progress: bool,
    dataset: str,
) -> Release:
    """Encode, charge, draw and pack; see :meth:`SplitModel.release`.

    The first batch runs through the edge before the charge, to learn the feature shape; nothing
    is drawn before every ledger in force has accepted it.
    """
    records = Records(data, batch_size)
    ids = _checked_ids(ids, records)
    modes = [(module, module.training) for module in model.edge.modules()]
    model.edge.eval()
    try:
        with torch.no_grad():
            batches = _features(model, records)
            features, labels = next(batches)
            if labels is not None and model.labels is None:
                raise PrivacyError(
                    "SplitModel: labels must be declared to release labelled data, got labels=None. "
                    'Use labels="public" (not covered by epsilon), labels="private" (epsilon is infinite), '
                    "or release the records without labels."
                )
            checks.labels("release", labels, len(features))
            values = _decode_table(model)
            epsilon = _charge(model, records.count, ids, dataset, labels is not None)
            with tqdm(total=records.count, desc="release", unit="record", disable=not progress) as bar:
                drawn = _symbols(model, chain([(features, labels)], batches), bar)
                first = next(drawn)  # from here on every layer knows its shape, and says what a record pays
                claims = _claims(model, epsilon, labels is not None)
                return Release.from_batches(chain([first], drawn), values=values, claims=claims, ids=ids)
    finally:
        for module, mode in modes:
            module.training = mode


def _checked_ids(ids: Sequence[str | int] | None, records: Records) -> list[str | int] | None:
    if ids is None:
        return None
    checked = checks.ids("release", ids, records.count)
    if not records.ordered:
        fix = "Use shuffle=False, or pass the Dataset."
        raise InvalidParameterError(f"release: ids must follow the order of data, got a shuffling DataLoader. {fix}")
    return list(checked.tolist() if isinstance(checked, Tensor) else checked or ())


def _features(model: SplitModel, records: Records) -> Iterator[tuple[Tensor, Tensor | None]]:
    parameter = next(chain(model.edge.parameters(), model.edge.buffers()), None)
    seen = 0
    for x, labels in records:
        seen += len(x)
        if seen > records.count:
            raise PrivacyError(f"release: data must yield {records.count} records as its length says, got more.")
        yield model._features(x if parameter is None else x.to(parameter.device)), labels


def _charge(model: SplitModel, rows: int, ids: list[str | int] | None, dataset: str, labelled: bool) -> float:
    """Charge the ledgers in force; returns what the worst record pays."""
    if labelled and model.labels == "private":
        accounting.charge(math.inf, ids=ids, dataset=dataset)
        return math.inf
    # Several rows of one id are several releases of that record.
    times = max(Counter(ids).values()) if ids else 1
    return scale_up(model._charge(rows, ids, dataset), times)


def _claims(model: SplitModel, epsilon: float, labelled: bool) -> Claims:
    found = model.price()
    notes = [*found.notes]
    if labelled and model.labels == "private":
        notes.append("labels travel unprotected")
    if model.joint:
        notes.append("the edge was trained jointly: its exported weights would be infinite")
    return Claims(
        layers=tuple(repr(layer) for layer in model.cut),
        per_use=found.spend.per_use,
        uses=found.spend.uses,
        per_record=found.spend.per_record,
        epsilon=epsilon,
        labels=(model.labels or "none") if labelled else "none",
        edge_data=model.edge_data,
        secure=all(getattr(layer, "secure", True) for layer in model.cut),
        simulated=accounting.simulating(),
        joint=model.joint,
        notes=tuple(notes),
    )


def _symbols(
    model: SplitModel, batches: Iterator[tuple[Tensor, Tensor | None]], bar: Any
) -> Iterator[tuple[Tensor, Tensor | None]]:
    for features, labels in batches:
        yield model.encode(features).cpu(), labels
        bar.update(len(features))


def _decode_table(model: SplitModel) -> Tensor | None:
    """The value of each symbol that crosses; None where float32 features do."""
    if not len(model.cut):
        return None
    layer, shape = model.cut[-1], model.feature_shape
    assert shape is not None
    last = chain_shapes(list(model.cut)[:-1], shape)[-1]
    if hasattr(layer, "decode_table"):
        table: Tensor = layer.decode_table(last)  # type: ignore[operator]
        return table
    if math.isinf(layer.spend(last).per_record):  # type: ignore[operator]
        return None
    fix = "Add decode_table(shape) -> Tensor (outputs,): the value of each symbol."
    kind = type(layer).__name__
    raise InvalidParameterError(f"release: the last layer must offer decode_table, got {kind}. {fix}")
