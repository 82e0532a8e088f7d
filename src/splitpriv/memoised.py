"""Sending through a cache: charge, draw, store the symbols, commit, and only then hand on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from splitpriv._errors import InvalidParameterError, PrivacyError
from splitpriv._validation import message
from splitpriv.accounting import Price
from splitpriv.cache import ReleaseCache
from splitpriv.charges import as_uses, warn_if_unbounded
from splitpriv.independence import refuse_mixing
from splitpriv.layers.compilation import eager
from splitpriv.layers.straight_through import cast
from splitpriv.release import checks

if TYPE_CHECKING:
    from splitpriv.split_model import SplitModel


@eager
def send_batch(
    model: SplitModel,
    x: Tensor,  # shape: (batch, *input)
    ids: Sequence[str | int] | Tensor | None,
    dataset: str,
    cache: ReleaseCache,
) -> Tensor:  # shape: (batch, *released)
    """What the server sees of one batch, in the dtype and on the device of the edge."""
    symbols = Sender(model, cache, dataset).send(x, checks.named("SplitModel", ids, len(x)))
    like = next((p for p in model.edge.parameters() if p.is_floating_point()), x)
    return cast(model.cut.decode(symbols).to(like.device), like.dtype)


class Sender:
    """Sends the records of a model through a cache.

    Args:
        model: with a frozen edge that was fitted on public data, so that a record pays for its own row only.
        cache: where the symbols are kept.
        dataset: name of the set that the ids belong to.

    Raises:
        PrivacyError: the model trains jointly, or its weights were fitted on private records.
        InvalidParameterError: ``cache`` is none.
    """

    def __init__(self, model: SplitModel, cache: ReleaseCache, dataset: str) -> None:
        if not isinstance(cache, ReleaseCache):
            raise InvalidParameterError(message("SplitModel", "cache", "a ReleaseCache", cache))
        if model.joint:
            raise PrivacyError("SplitModel: cache must be None in joint training, whose edge changes at every step.")
        self._model = model
        self._features = cache.memo([model.edge, model.cut], dataset)
        self._label_rows = cache.memo(["labels", model._labels.key], dataset)
        self._listed: Sequence[Any] | None = None
        self._looked = False

    def price(self, labelled: bool) -> Price:
        """What a record that was sent has paid, its label included where one was."""
        shape = self._features.feature_shape() or ()
        price, self._model._feature_shape = self._priced(shape), shape
        self._features.refuse_other_price(*as_uses(price.spend, price.per_record()))
        return self._model._labels.priced(price) if labelled else price

    def _priced(self, shape: Sequence[int]) -> Price:
        price = self._model._features_price(shape)
        if price.rows != 0:
            raise PrivacyError(
                "SplitModel: cache must be None where rows are tied together, got weights fitted on private records: "
                "they pay for every row. " + "; ".join(price.notes)
            )
        return price

    def announce(self, ids: Sequence[Any]) -> None:
        """All records that will be sent: they are charged together, before the first of them is drawn."""
        self._listed = ids

    def send(
        self,
        x: Tensor,  # shape: (batch, *input)
        ids: Sequence[Any],
        labels: Tensor | None = None,  # shape: (batch, *label)
    ) -> Tensor:  # shape: (batch, *symbol)
        """The symbols of a batch: what is stored; for the others charged, drawn and stored first."""
        missing = self._features.missing(ids)
        if missing:
            features = self._model._features(x[missing])
            if self._listed is not None and not self._looked:
                refuse_mixing(self._model.edge, x[missing], features)
                self._looked = True
            some = None if labels is None else labels[missing]
            features, beside = self._model._labels.joined(features, some)
            self._charge(tuple(features.shape[1:]), ids if self._listed is None else self._listed, beside is not None)
            symbols = self._model.cut.encode(features).cpu()
            self._features.store([ids[position] for position in missing], symbols)
        return self._features.load(ids)

    def _charge(self, shape: tuple[int, ...], ids: Sequence[Any], labelled: bool) -> None:
        price = self._priced(shape)
        epsilon, uses = as_uses(price.spend, price.per_record())
        if labelled and self._label_epsilon:  # first: private ones are refused by any limit, and nothing is charged
            self._charge_labels(ids)
        self._features.charge(ids, epsilon, uses=uses, shape=shape)
        self._model._feature_shape = shape
        warn_if_unbounded(self._model, price, price.per_record())

    def _charge_labels(self, ids: Sequence[Any]) -> None:
        self._label_rows.charge(ids, self._label_epsilon, uses=1, shape=())

    @property
    def _label_epsilon(self) -> float:
        return math.inf if self._model.labels == "private" else self._model._labels.epsilon

    def send_labels(
        self,
        labels: Tensor | None,  # shape: (batch, *label)
        ids: Sequence[Any],
    ) -> Tensor | None:  # shape: (batch, *label)
        """The labels of a batch, memoised like the symbols: an id keeps the label that was sent first."""
        if labels is None or self._model._labels.embedded is not None:
            return None
        missing = self._label_rows.missing(ids)
        if missing:
            self._charge_labels(ids)
            released = self._model._labels.encode(labels[missing])
            assert released is not None
            self._label_rows.store([ids[position] for position in missing], released)
        return self._label_rows.load(ids)
