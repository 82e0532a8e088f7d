"""One-shot release: every record runs through the edge and crosses the cut once."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from splitpriv import _validation as check
from splitpriv import accounting
from splitpriv._errors import InvalidParameterError, PrivacyError, ShapeError
from splitpriv._modes import modes_kept
from splitpriv.accounting import Price
from splitpriv.anonymity import in_secret_order, refuse_linked
from splitpriv.cache import ReleaseCache
from splitpriv.charges import charge_rows
from splitpriv.independence import refuse_mixing
from splitpriv.mechanisms.rounding import scale_up
from splitpriv.memoised import Sender
from splitpriv.release import Claims, Release, checks
from splitpriv.release.collect import Packed
from splitpriv.release.records import Records

if TYPE_CHECKING:
    from splitpriv.split_model import SplitModel


def release_records(
    model: SplitModel,
    data: Any,
    *,
    batch_size: int,
    ids: Sequence[str | int] | Tensor | None,
    progress: bool,
    dataset: str,
    anonymous: bool,
    cache: ReleaseCache | None,
) -> Release:
    """Encode, charge, draw and pack; see :meth:`SplitModel.release`.

    The first batch runs through the edge before the charge, to learn the feature shape; nothing
    is drawn before every ledger in force has accepted it.
    """
    check.choice("release", "anonymous", anonymous, (True, False))
    records = Records(data, batch_size)
    listed = _checked_ids(ids, records)
    with modes_kept(model.edge, model.cut), torch.no_grad():
        model.edge.eval()
        model.cut.eval()
        if cache is not None:
            checks.named("release", ids, records.count)
            if anonymous:
                fix = "Equal symbols under one id can be linked."
                raise PrivacyError(f"release: anonymous must be False with a cache, got anonymous=True. {fix}")
            return _release_memoised(model, records, listed or [], dataset, cache, progress)
        batches = _features(model, records)
        features, labels = next(batches)
        model._labels.check(labels, len(features))
        shape = tuple(features.shape[1:])
        price = model._features_price(shape) if labels is None else model.price(shape)
        values = model.cut.decode_table(shape)
        if anonymous:
            kind, learned = None if labels is None else model.labels, model.joint or model._has_learned()
            refuse_linked(ids=ids, labels=kind, learned=learned, layers=list(model.cut), shape=shape, price=price)
        epsilon = _charge(model, price, records.count, listed, dataset, labels is not None)
        model._feature_shape = shape
        with tqdm(total=records.count, desc="release", unit="record", disable=not progress) as bar:
            drawn = _symbols(model, shape, chain([(features, labels)], batches), bar)
            first = next(drawn)  # from here on every layer knows its shape, and says what a record pays
            claims = _claims(model, price, epsilon, labels is not None, anonymous)
            sent, channel = chain([first], drawn), _channel(model, labels is not None)
            release = Release.from_batches(sent, values=values, claims=claims, ids=listed, label_channel=channel)
            return in_secret_order(release) if anonymous else release


def _release_memoised(
    model: SplitModel, records: Records, listed: list[Any], dataset: str, cache: ReleaseCache, progress: bool
) -> Release:
    """The same through a cache: only what is not stored is charged and drawn, and nothing leaves unstored."""
    with tqdm(total=records.count, desc="release", unit="record", disable=not progress) as bar:
        sender = Sender(model, cache, dataset)
        sender.announce(listed)
        sent = _memoised(model, sender, records, listed, bar)
        first = next(sent)
        labelled = first[1] is not None
        price = sender.price(labelled)
        epsilon = math.inf if labelled and model.labels == "private" else price.per_record()
        claims = _claims(model, price, epsilon, labelled, anonymous=False)
        claims = replace(claims, notes=(*claims.notes, "memoised: releases of one record are equal, and so linkable"))
        values, channel = model.cut.decode_table(model.feature_shape or ()), _channel(model, labelled)
        batches = chain([first], sent)
        return Release.from_batches(batches, values=values, claims=claims, ids=listed, label_channel=channel)


def _memoised(
    model: SplitModel, sender: Sender, records: Records, listed: list[Any], bar: Any
) -> Iterator[tuple[Tensor, Tensor | None]]:
    seen = 0
    for x, labels in _visited(model, records):
        some, seen = listed[seen : seen + len(x)], seen + len(x)
        model._labels.check(labels, len(x))
        yield sender.send(x, some, labels), sender.send_labels(labels, some)
        bar.update(len(x))


def _checked_ids(ids: Sequence[str | int] | Tensor | None, records: Records) -> list[Any] | None:
    """Ids as a list, one per record, in the order of the records."""
    if ids is None:
        return None
    listed = checks.id_list("release", ids, records.count)
    if not records.ordered:
        fix = "Use shuffle=False, or pass the Dataset."
        raise InvalidParameterError(f"release: ids must follow the order of data, got a shuffling DataLoader. {fix}")
    return listed


def _features(model: SplitModel, records: Records) -> Iterator[tuple[Tensor, Tensor | None]]:
    first = True
    for x, labels in _visited(model, records):
        features = model._features(x)
        if first:
            refuse_mixing(model.edge, x, features)
        first = False
        yield model._labels.joined(features, labels)


def _channel(model: SplitModel, labelled: bool) -> Tensor | None:
    layer = model.label_layer if labelled else None
    return None if layer is None else layer.transition


def _visited(model: SplitModel, records: Records) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Batches where the edge is, and no more of them than were counted."""
    parameter = next(chain(model.edge.parameters(), model.edge.buffers()), None)
    seen = 0
    for x, labels in records:
        seen += len(x)
        if seen > records.count:
            raise PrivacyError(f"release: data must yield {records.count} records as its length says, got more.")
        yield (x if parameter is None else x.to(parameter.device)), labels


def _charge(model: SplitModel, price: Price, rows: int, ids: list[Any] | None, dataset: str, labelled: bool) -> float:
    """Charge the ledgers in force; returns what the worst record pays."""
    private_labels = labelled and model.labels == "private"
    if private_labels:  # refused by any limit, so that what follows is accepted too
        accounting.charge(math.inf, ids=ids, dataset=dataset)
    # Several rows of one id are several releases of that record.
    times = max(Counter(ids).values()) if ids else 1
    epsilon = scale_up(charge_rows(model, price, rows, ids, dataset), times)
    return math.inf if private_labels else epsilon


def _claims(model: SplitModel, price: Price, epsilon: float, labelled: bool, anonymous: bool) -> Claims:
    notes = [*price.notes]
    if labelled and model.labels == "private":
        notes.append("labels travel unprotected")
    if model.joint:
        notes.append("the edge was trained jointly: its exported weights would be infinite")
    return Claims(
        layers=tuple(repr(layer) for layer in model.cut),
        per_use=price.spend.per_use,
        uses=price.spend.uses,
        per_record=price.spend.per_record,
        epsilon=epsilon,
        edge_data=model.edge_data,
        secure=model.cut.secure and (model._labels.secure or not labelled),
        simulated=accounting.simulating(),
        joint=model.joint,
        notes=tuple(notes),
        label_epsilon=price.spend.labels,
        anonymous=anonymous,
        **model._labels.claimed(labelled),
    )


def _symbols(
    model: SplitModel, shape: tuple[int, ...], batches: Iterator[tuple[Tensor, Tensor | None]], bar: Any
) -> Iterator[tuple[Tensor | Packed, Tensor | None]]:
    for features, labels in batches:
        if features.shape[1:] != shape:
            got = f"{tuple(features.shape[1:])} after {shape}"
            raise ShapeError(f"release: features must have one shape in all batches, got {got}.")
        packed = model.cut.encode_packed(features)  # the last layer's symbols, where it packs them itself
        yield (model.cut.encode(features).cpu() if packed is None else Packed(*packed)), model._labels.encode(labels)
        bar.update(len(features))
