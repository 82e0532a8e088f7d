"""What the parts of a release must be to fit each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from splitpriv import _validation as check
from splitpriv._errors import InvalidParameterError, NonFiniteError, ShapeError
from splitpriv.mechanisms.endless_codebook import EndlessCodebook
from splitpriv.release.claims import Claims, is_text
from splitpriv.release.header import DTYPES
from splitpriv.release.mapped import MappedRows
from splitpriv.release.packing import bytes_for, check_packed

Ids = Sequence[int] | Sequence[str] | Sequence[int | str] | Tensor


@dataclass(frozen=True)
class Owned:
    """Packed records that nobody else can write to, so that they need not be copied."""

    rows: Tensor  # shape: (records, bytes_per_record)


def values(
    owner: str,
    table: Any,  # shape: (alphabet, *element), an EndlessCodebook, or None
) -> Tensor | EndlessCodebook | None:
    """Return the decode table on the CPU: finite float32, one row for each of 2 to 2^32 symbols."""
    if table is None or isinstance(table, EndlessCodebook):
        return table
    if not isinstance(table, Tensor) or table.dtype != torch.float32 or table.ndim < 1 or not table.numel():
        got = described(table)
        raise ShapeError(f"{owner}: values must be float32 of shape (alphabet, *element), or None, got {got}.")
    if not 2 <= len(table) <= 1 << 32:
        raise ShapeError(f"{owner}: values must have one row for each of 2 or more symbols, got {len(table)}.")
    if not bool(torch.isfinite(table).all()):
        raise NonFiniteError(f"{owner}: values must be finite, got NaN or infinity.")
    return own(table)


def payload(
    owner: str,
    packed: Any,  # shape: (records, bytes_per_record)
    elements: int,
    bits: int,
    alphabet: int | None,
) -> Tensor | MappedRows:
    """Return the packed records, in memory or in a file, if they hold ``elements`` symbols each."""
    size = bytes_for(elements, bits)
    if isinstance(packed, Owned):
        packed = packed.rows
    elif isinstance(packed, Tensor):
        packed = own(packed)
    rows = packed.rows if isinstance(packed, MappedRows) else packed
    if not (isinstance(packed, MappedRows) or (isinstance(packed, Tensor) and packed.dtype == torch.uint8)) or (
        rows.ndim != 2 or len(rows) < 1 or rows.shape[1] != size
    ):
        got = described(packed)
        raise ShapeError(f"{owner}: packed must be uint8 of shape (records, {size}), records >= 1, got {got}.")
    check_packed(owner, rows.numpy() if isinstance(rows, Tensor) else rows, elements, bits, alphabet)
    return packed


def labels(
    owner: str,
    given: Any,  # shape: (records, *label), or None
    records: int,
) -> Tensor | None:
    """Return the labels on the CPU, if there is one per record, of a dtype that a file can hold."""
    if given is None:
        return None
    if not isinstance(given, Tensor) or given.dtype not in DTYPES.values():
        known = ", ".join(str(dtype) for dtype in DTYPES.values())
        raise ShapeError(f"{owner}: labels must be a tensor of one of {known}, got {described(given)}.")
    if given.ndim < 1 or len(given) != records or not given.numel():
        raise ShapeError(f"{owner}: labels must have shape ({records}, *label), got {described(given)}.")
    check_dense(owner, given)
    return own(given)


def check_dense(owner: str, given: Tensor) -> None:
    """Refuse labels that are not there as plain memory: sparse ones, and those without data."""
    if given.layout != torch.strided or given.is_meta:
        got = f"{given.layout} on {given.device}"
        raise ShapeError(f"{owner}: labels must be dense and have data, got {got}. Convert with to_dense.")


def own(tensor: Tensor) -> Tensor:
    """A contiguous copy on the CPU: what is done to the tensor later does not reach what was checked."""
    return tensor.detach().cpu().resolve_neg().clone(memory_format=torch.contiguous_format)


def id_list(owner: str, given: Ids, records: int) -> list[Any]:
    """Return one id per record, as plain ints or strings."""
    checked = ids(owner, given, records)
    return checked.tolist() if isinstance(checked, Tensor) else list(checked or ())


def named(owner: str, given: Ids | None, records: int) -> list[Any]:
    """Return one id per record, which a cache needs, as plain ints or strings."""
    if given is None:
        fix = "They are what stored symbols are found by."
        raise InvalidParameterError(f"{owner}: ids must be given with a cache, got ids=None. {fix}")
    return id_list(owner, given, records)


def ids(owner: str, given: Ids | None, records: int) -> Tensor | list[str] | None:
    """Return one id per record: an int64 tensor, or a list of strings that a file can hold."""
    if given is None:
        return None
    listed: list[Any] = given.tolist() if isinstance(given, Tensor) else list(given)
    if isinstance(given, (str, bytes)):
        raise InvalidParameterError(f"{owner}: ids must be a list of {records}, got one string.")
    if len(listed) != records:
        raise InvalidParameterError(f"{owner}: ids must be {records}, one per record, got {len(listed)}.")
    if all(isinstance(name, str) and name and is_text(name) for name in listed):
        return listed
    if all(_is_int64(number) for number in listed):
        return torch.tensor(listed, dtype=torch.int64, device="cpu")
    raise InvalidParameterError(
        f"{owner}: ids must be all non-empty strings (Unicode text) or all 64-bit integers, got another kind or a mix."
    )


def claims(owner: str, stated: Any, given_labels: Tensor | None, given_ids: Any = None) -> Claims:
    """Return the claims, if they say something of labels exactly where there are some, and fit the ids."""
    if not isinstance(stated, Claims):
        raise InvalidParameterError(check.message(owner, "claims", "a Claims", stated))
    if (stated.labels in ("none", "embedded")) != (given_labels is None):
        fix = "Say what labels are: public (epsilon does not cover them), or private (they cost ∞)."
        constraint = '"none" or "embedded" exactly where no labels travel'
        raise InvalidParameterError(check.message(owner, "claims.labels", constraint, stated.labels, fix))
    if stated.anonymous and given_ids is not None:
        raise InvalidParameterError(f"{owner}: ids must be None where claims.anonymous is True, got {len(given_ids)}.")
    return stated


def label_channel(
    owner: str,
    given: Any,  # shape: (classes, symbols), or None
    stated: Claims,
    released: Tensor | None,  # shape: (records,)
) -> Tensor | None:
    """Return Pr[released label | true label], if it is there exactly where labels are "ldp", and fits them."""
    if (stated.labels == "ldp") != (given is not None):
        fix = "It says how the labels were drawn."
        constraint = 'given exactly where claims.labels is "ldp"'
        raise InvalidParameterError(check.message(owner, "label_channel", constraint, given, fix))
    if given is None or released is None:
        return None
    if not isinstance(given, Tensor) or given.dtype != torch.float64 or given.ndim != 2 or min(given.shape) < 2:
        got = described(given)
        raise ShapeError(f"{owner}: label_channel must be float64 of shape (classes, symbols), got {got}.")
    table = own(given)
    if not bool((table >= 0).all()) or not bool(((table.sum(1) - 1).abs() < 1e-9).all()):  # NaN fails both
        constraint = "rows of probabilities that sum to one"
        raise InvalidParameterError(check.message(owner, "label_channel", constraint, given))
    worst = float((table.amax(0).log() - table.amin(0).log()).nan_to_num(nan=0.0).max())  # NaN: never released
    if worst > stated.label_epsilon + 1e-9 * (1 + stated.label_epsilon):
        constraint = f"within claims.label_epsilon={stated.label_epsilon!r}"
        raise InvalidParameterError(check.message(owner, "label_channel", constraint, given, f"It costs {worst!r}."))
    if released.dtype != torch.int64 or released.ndim != 1:
        got = described(released)
        raise ShapeError(f"{owner}: labels must be int64 of shape (records,) with a label_channel, got {got}.")
    low, high = (int(v) for v in torch.aminmax(released))
    if low < 0 or high >= table.shape[1]:
        constraint = f"symbols of label_channel, in [0, {table.shape[1]})"
        raise InvalidParameterError(check.message(owner, "labels", constraint, released))
    return table


def described(value: Any) -> str:
    """A tensor's dtype and shape, or another value's type."""
    return f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


def _is_int64(value: Any) -> bool:
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    return whole and -(1 << 63) <= int(value) < 1 << 63
