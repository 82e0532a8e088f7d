"""Anonymous releases: rows that can be told apart are refused, the others are put in a secret order."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from splitpriv._errors import InvalidParameterError, PrivacyError
from splitpriv.accounting import Price
from splitpriv.accounting.pricing import chain_shapes
from splitpriv.mechanisms.randomness import SecureSource, permutation
from splitpriv.release import Release


def refuse_linked(
    *,
    ids: Any,
    labels: str | None,
    learned: bool,
    layers: Sequence[Any],
    shape: Sequence[int],
    price: Price,
) -> None:
    """Refuse a release in which a row, or what travels beside it, says whose it is.

    Raises:
        InvalidParameterError: there are ids.
        PrivacyError: for any other reason.
    """
    if ids is not None:
        fix = "An id says whose row it is; leave ids out, or anonymous."
        raise InvalidParameterError(f"release: ids must be None where anonymous=True, got {len(ids)}. {fix}")
    reason = _tie(labels, learned, price) or _tell_tale(layers, shape)
    if reason is not None:
        raise PrivacyError(f"release: anonymous must be False {reason}, got anonymous=True.")


def _tie(labels: str | None, learned: bool, price: Price) -> str | None:
    if labels in ("public", "private"):
        return f"with labels={labels!r}, which tell rows apart"
    if learned or price.rows != 0:
        return "where the edge or an encoder has learned from records, which ties rows together"
    return None


def _tell_tale(layers: Sequence[Any], shape: Sequence[int]) -> str | None:
    if not layers:
        return "where no mechanism stands at the cut"
    for layer, before in zip(layers, chain_shapes(layers, shape), strict=False):
        kind = type(layer).__name__
        if getattr(layer, "positions_public", False):
            return f"with {kind}, whose symbols show their place in the release"
        if math.isinf(layer.spend(before).per_record):
            return f"with the defence {kind}, by whose parameters a participant may be known"
    return None


def in_secret_order(release: Release) -> Release:
    """The same records, symbols and labels together, in a uniformly random order that nobody keeps.

    The order never comes from a seed, that of the layers included.
    """
    return release.subset(torch.from_numpy(permutation(SecureSource(), len(release))))
