"""Which features a layer is tested on: the example, extremes around it, and one for each input symbol."""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
from torch import Tensor, nn

from splitpriv._errors import InvalidParameterError
from splitpriv._validation import features as checked
from splitpriv.mechanisms import EndlessCodebook


def example_batch(
    owner: str,
    example: Tensor,  # shape: (batch, *feature)
) -> Tensor:  # shape: (batch, *feature)
    """Return the example, detached, if it is a finite floating-point batch of one record or more."""
    example = checked(owner, example).detach()
    if not len(example):
        raise InvalidParameterError(f"{owner}: example must hold at least one record, got an empty batch.")
    return example


def input_symbols(
    layer: Any,
    features: Tensor,  # shape: (batch, *feature)
    inputs: int,
    symbol_shape: tuple[int, ...],
) -> Tensor | None:  # shape: (batch, *symbol), int64
    """What ``quantize`` makes of features; None where a layer has none that gives the channel's input symbols."""
    if not callable(getattr(layer, "quantize", None)):
        return None
    rows: Any = layer.quantize(features)
    whole = isinstance(rows, Tensor) and not rows.is_floating_point() and tuple(rows.shape[1:]) == symbol_shape
    if not whole or (rows.numel() and not 0 <= int(rows.min()) <= int(rows.max()) < inputs):
        return None
    found: Tensor = rows.long()
    return found


def values_by_input(
    layer: Any,
    example: Tensor,  # shape: (batch, *feature)
    inputs: int,
    symbol_shape: tuple[int, ...],
) -> dict[int, float]:
    """For each input symbol that can be found, a number: a record full of it has that symbol somewhere.

    Looks on a grid around the example, at extremes, and by halving wherever neighbours are two or more
    symbols apart.
    """
    reach = float(example.double().abs().median().clamp(1e-6, 1e6))
    top = min(1e30, torch.finfo(example.dtype).max / 2)
    grid = [min(top, reach * 3.0) * (i / 256 - 1) for i in range(513)]
    grid += [sign * min(top, 10.0 ** (power / 4)) for power in range(-32, 33) for sign in (1, -1)]
    found: dict[int, float] = {}
    seen: dict[float, set[int]] = {}
    wanted = sorted(set(grid) | {0.0})
    for _ in range(16):
        for value, rows in zip(wanted, _rows_of(layer, example, wanted, inputs, symbol_shape), strict=True):
            seen[value] = rows
            for row in rows:
                found.setdefault(row, value)
        if len(found) == inputs:
            break
        pairs = itertools.pairwise(sorted(seen))
        wanted = [(a + b) / 2 for a, b in pairs if _gap(seen[a], seen[b]) > 1 and not math.isclose(a, b)][:2048]
        if not wanted:
            break
    return found


def _gap(first: set[int], second: set[int]) -> int:
    return max(abs(min(first, default=0) - min(second, default=0)), abs(max(first, default=0) - max(second, default=0)))


def _rows_of(
    layer: Any, example: Tensor, values: list[float], inputs: int, symbol_shape: tuple[int, ...]
) -> list[set[int]]:
    """The input symbols in a record full of each value."""
    found: list[set[int]] = []
    step = max(1, (1 << 18) // example[0].numel())
    for start in range(0, len(values), step):
        part = torch.tensor(values[start : start + step], dtype=example.dtype, device=example.device)
        batch = part.reshape(-1, *[1] * (example.ndim - 1)).expand(-1, *example.shape[1:])
        rows = input_symbols(layer, batch, inputs, symbol_shape)
        if rows is None:
            return [set() for _ in values]
        found += [set(row.unique().tolist()) for row in rows.reshape(len(rows), -1)]
    return found


def claims_epsilon(layer: nn.Module, example: Tensor) -> bool:
    """Whether a layer claims a finite epsilon for such records; a defence does not."""
    spend: Any = layer.spend  # found by name, as everything that a layer offers
    return math.isfinite(spend(tuple(example.shape[1:])).per_record)


def channel_outputs(layer: Any, example: Tensor) -> int | None:
    """How many symbols a layer's channel writes; None where it declares none."""
    channel = layer.channel(tuple(example.shape[1:])) if callable(getattr(layer, "channel", None)) else None
    return None if channel is None else int(channel.outputs)


def table_size(layer: Any, example: Tensor) -> int | None:
    """How many symbols a layer's ``decode_table`` gives a value; None where it has none."""
    if not callable(getattr(layer, "decode_table", None)):
        return None
    table: Any = layer.decode_table(tuple(example.shape[1:]))
    return table.size * table.positions if isinstance(table, EndlessCodebook) else len(table)
