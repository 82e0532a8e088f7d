"""Checks that the attacks of this package share."""

from __future__ import annotations

from itertools import pairwise
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from splitpriv import _validation as check
from splitpriv._errors import InvalidParameterError, ShapeError


def counts(owner: str, name: str, values: Any, low: int = 1) -> tuple[int, ...]:
    """``values`` as a tuple, if they are ascending integers >= ``low``."""
    fix = "As many points as the curve shall have, such as (1, 2, 4, 8)."
    whole = isinstance(values, tuple) and all(isinstance(v, Integral) and not isinstance(v, bool) for v in values)
    if not whole or not values or values[0] < low or any(b <= a for a, b in pairwise(values)):
        constraint = f"a tuple of ascending integers >= {low}"
        raise InvalidParameterError(check.message(owner, name, constraint, values, fix))
    return tuple(int(v) for v in values)


def flat(owner: str, name: str, value: Any) -> Tensor:  # shape: (records, elements), float64
    """Records as rows."""
    return check.features(owner, value, name).detach().flatten(1).double()


def public_records(owner: str, value: Any) -> Tensor:  # shape: (records, elements), float64
    """Public records as rows, if there are enough of them for a mean and a variance.

    Raises:
        InvalidParameterError: there are fewer than two.
    """
    rows = flat(owner, "public", value)
    if len(rows) < 2:
        fix = "Their moments are what the attacker fills in with."
        raise InvalidParameterError(check.message(owner, "public", "two records or more", value, fix))
    return rows


def same_records(owner: str, first: Tensor, second: Tensor, what: str) -> None:
    """Whether two tensors hold as many records, at least one.

    Raises:
        ShapeError: they do not.
    """
    if len(first) != len(second) or not len(first):
        raise ShapeError(
            f"{owner}: {what} must hold one row for each of the same records, at least one, got "
            f"{len(first)} and {len(second)} rows."
        )


def same_elements(owner: str, **tensors: Tensor) -> None:
    """Whether all rows are equally long.

    Args:
        owner: who asks.
        tensors: rows, under the names of the parameters that they came from.

    Raises:
        ShapeError: they are not.
    """
    sizes = {name: tensor.shape[1] for name, tensor in tensors.items()}
    if len(set(sizes.values())) > 1:
        *names, last = sizes
        raise ShapeError(
            f"{owner}: {', '.join(names)} and {last} must have as many elements as each other, got "
            f"{', '.join(map(str, sizes.values()))} elements per record. A mask keeps the shape; for an encoder use "
            "EncoderInversion."
        )


def enough(owner: str, name: str, asked: tuple[int, ...], given: int) -> None:
    """Whether there are as many records as the largest count asks for.

    Raises:
        InvalidParameterError: there are fewer.
    """
    if asked[-1] > given:
        fix = "Give more records, or ask for fewer."
        raise InvalidParameterError(check.message(owner, name, f"at most the {given:,} records given", asked, fix))


def one_row(owner: str, name: str, value: Any, elements: int, device: torch.device) -> Tensor:  # shape: (elements,)
    """What has one number for each element of a record, float64.

    Raises:
        ShapeError: it is no tensor, or has another number of elements than a record.
        NonFiniteError: NaN or infinity.
    """
    row = flat(owner, name, value.unsqueeze(0) if isinstance(value, Tensor) and value.ndim else value).to(device)
    if row.numel() != elements:
        raise ShapeError(
            f"{owner}: {name} must have the {elements} elements of a record, got shape={tuple(value.shape)}."
        )
    return row[0]
