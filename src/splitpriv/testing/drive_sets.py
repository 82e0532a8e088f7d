"""Runs ``encode`` of a layer whose records name m of N symbols, and holds each record against its row."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from splitpriv.attacks.auditing.candidates import accepts, copies, records
from splitpriv.mechanisms import KClosest
from splitpriv.testing.noise import channel_pairs, place_in_row
from splitpriv.testing.sources import Played, playing
from splitpriv.testing.statistics import Array, law_p

_ELEMENTS = 1 << 20  # of the features in one call
_RECORDS = 20


def drive_sets(
    layer: Any,
    example: Tensor,  # shape: (batch, *feature)
    channel: KClosest,
    *,
    draws: int,
    alpha: float,
    seed: int,
) -> str:
    """Encode records alone and beside each other, and compare what is drawn with the two weights of the row.

    A symbol's place in its row is one to one for each record, so that this tests every entry of every record
    tried. What a record names is asked for apart from the others, so that encode may not look at these.

    Returns:
        What was driven, in words.

    Raises:
        AssertionError: symbols do not follow the row, or are outside the alphabet.
    """
    size, m = channel.size, channel.closest
    law = np.array([channel.near / channel.total] * m + [channel.far / channel.total] * (size - m))
    with playing(layer, Played(seed)) as injected:
        tried = _records(layer, example)
        alone = np.zeros((len(tried), size), dtype=np.int64)
        beside = np.zeros_like(alone)
        times = math.ceil(draws / (2 * len(tried)))
        block = max(1, _ELEMENTS // max(size, example[0].numel()))
        for number, record in enumerate(tried):
            for start in range(0, times, block):
                batch = copies(record, min(block, times - start))
                alone[number] += _places(layer, layer.encode(batch), batch, size)
        together, rounds = torch.stack(tried), max(1, block // len(tried))
        for start in range(0, times, rounds):
            turns = min(rounds, times - start)
            symbols = layer.encode(together.repeat(turns, *[1] * (together.ndim - 1)))
            for number, record in enumerate(tried):
                own = symbols[number :: len(tried)]
                beside[number] += _places(layer, own, copies(record, turns), size)
    for where, counts in (("", alone), (" beside the others", beside)):
        for number in range(len(tried)):
            if law_p(counts[number], law) * 2 * len(tried) < alpha:
                _refuse(counts[number], law, m, f"record {number} of the trial{where}")
    own_source = "" if injected else " from its own source (it keeps none where a test could replace it)"
    return f"{int(alone.sum() + beside.sum()):,} draws at {len(tried)} records, alone and together{own_source}"


def _records(layer: Any, example: Tensor) -> list[Tensor]:
    """Records far apart, and what symbols stand for; none on the border between two inputs.

    There floating-point sums of batches of different sizes decide.
    """
    tried = records(layer, example)
    table = layer.decode_table(tuple(example.shape[1:])) if callable(getattr(layer, "decode_table", None)) else None
    if isinstance(table, Tensor) and table.shape[1:] == example.shape[1:]:
        spread = torch.linspace(0, len(table) - 1, min(len(table), _RECORDS), device=table.device).long()
        tried += [record for record in table[spread].to(example) if accepts(layer, record[None])]
    if callable(getattr(layer, "channel_pairs", None)):
        return tried
    sizes = (1, 2, 61)
    steady = [r for r in tried if len({tuple(row) for n in sizes for row in _inputs(layer, copies(r, n))}) == 1]
    if not steady:
        raise AssertionError(
            f"assert_ldp: quantize must give copies of a record the same symbols, got others for all of {len(tried)}. "
            "It is what the layer encodes before any noise."
        )
    return steady


def _inputs(layer: Any, batch: Tensor) -> Any:
    return layer.quantize(batch).reshape(len(batch), -1).tolist()


def _places(layer: Any, symbols: Tensor, features: Tensor, size: int) -> Array:
    """How often each place in the row was drawn. # shape: (N,)"""
    read, written = channel_pairs(layer, symbols, features)
    low, high = (int(v) for v in torch.aminmax(written))
    if low < 0 or high >= size:
        raise AssertionError(
            f"assert_ldp: encode must give symbols in [0, {size}), the columns of its table, "
            f"got values in [{low}, {high}]."
        )
    return np.bincount(place_in_row(read, written).cpu().numpy(), minlength=size)


def _refuse(counts: Array, law: Array, closest: int, whose: str) -> None:
    draws, near = int(counts.sum()), int(counts[:closest].sum())
    expected = draws * float(law[:closest].sum())
    place = int((np.abs(counts - draws * law) / np.sqrt(draws * law * (1 - law))).argmax())
    raise AssertionError(
        f"assert_ldp: encode must follow the channel that the layer declares, got one of the {closest} symbols that "
        f"{whose} names in {near:,} of {draws:,} draws, where {expected:,.1f} are expected, and place {place} of the "
        f"row in {counts[place]:,}, for {draws * law[place]:,.1f}. "
        "Draw with the channel that is declared, or declare the one that is drawn with."
    )
