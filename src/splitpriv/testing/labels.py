"""``assert_ldp`` for labels: integers in, integers out, one table."""

from __future__ import annotations

import math

import numpy as np
import torch

from splitpriv.layers import LabelLDP
from splitpriv.mechanisms.rounding import log_up, show
from splitpriv.testing.result import LDPResult
from splitpriv.testing.sources import Played, playing
from splitpriv.testing.statistics import Array, law_p
from splitpriv.testing.tables import Table, declared_table, exceeds, worst_pair
from splitpriv.testing.words import WORDS, PlayedWords

_BLOCK = 1 << 18


def assert_label_ldp(
    layer: LabelLDP, *, draws: int = 1 << 20, failure_probability: float = 1e-6, seed: int = 0
) -> LDPResult:
    """Assert that a label costs no more than is claimed, and that ``encode`` follows the table for every label.

    Args:
        layer: to test.
        draws: labels to draw in all.
        failure_probability: of rejecting a layer that keeps its claim.
        seed: of the bytes that are played.

    Raises:
        AssertionError: the table costs more than the claim, ``encode`` does not follow it, or what a server corrects
            its loss by is another table.
    """
    table = declared_table(layer, ())
    assert table is not None  # 2**10 classes are the most
    ratio, one, other = worst_pair(table)
    if exceeds(ratio, layer.spend().per_use):
        raise AssertionError(
            f"assert_label_ldp: the table must cost at most the epsilon claimed, {show(layer.spend().per_use)}, got "
            f"{show(log_up(ratio))} between labels {one} and {other}."
        )
    laws = np.array([[entry / sum(row) for entry in row] for row in table])
    if not np.allclose(layer.transition.numpy(), laws, rtol=1e-12, atol=0.0):
        raise AssertionError("assert_label_ldp: transition must be the table over its total, got another one.")
    times = math.ceil(draws / len(table))
    with playing(layer, Played(seed)):
        for label, law in enumerate(laws):
            counts = np.zeros(len(table), dtype=np.int64)
            for start in range(0, times, _BLOCK):
                counts += _counts(layer, label, min(_BLOCK, times - start), len(table))
            if law_p(counts, law) * len(table) < failure_probability:
                raise AssertionError(
                    f"assert_label_ldp: encode must follow the table that the layer declares, got {counts.tolist()} "
                    f"of label {label}, where {(times * law).round(1).tolist()} are expected."
                )
    rows = _enumerated(layer, table, laws, seed)
    said = f"every 16-bit word at {rows} of {len(table)} labels and " if rows else ""
    driven = f"{said}{times * len(table):,} draws at {len(table)} of {len(table)} labels"
    return LDPResult("exact", layer.spend().per_use, log_up(ratio), failure_probability, driven)


def _counts(layer: LabelLDP, label: int, draws: int, classes: int) -> Array:
    symbols = layer.encode(torch.full((draws,), label))
    low, high = (int(v) for v in torch.aminmax(symbols))
    if low < 0 or high >= classes:
        raise AssertionError(
            f"assert_label_ldp: encode must give labels in [0, {classes}), got values in [{low}, {high}]."
        )
    return np.bincount(layer.decode(symbols).numpy(), minlength=classes)


def _enumerated(layer: LabelLDP, table: Table, laws: Array, seed: int) -> int:
    """At how many labels every leading 16-bit word gives the counts of the table; 0 unless at all of them."""
    if sum(table[0]) < (1 << 64) * (1 - 2.0**-18):
        return 0  # words beyond the total are drawn again, and shift the others
    for label, law in enumerate(laws):
        with playing(layer, PlayedWords(WORDS, seed)):
            if np.abs(_counts(layer, label, WORDS, len(table)) - WORDS * law).max() > 2:
                return 0
    return len(table)
