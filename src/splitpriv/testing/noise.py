"""What the channel made of a record: the part of a release that is noise, freed of what is public or the record's."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from splitpriv.mechanisms import KClosest


def sets_channel(layer: Any, shape: tuple[int, ...]) -> KClosest | None:
    """The channel of a layer whose records name m of N symbols, where the layer also says which; else None.

    Raises:
        AssertionError: its two weights are not integers, the larger one first, that sum to its total.
    """
    channel = layer.channel(shape) if callable(getattr(layer, "channel", None)) else None
    known = any(callable(getattr(layer, name, None)) for name in ("channel_pairs", "quantize"))
    if not isinstance(channel, KClosest) or not known:
        return None
    near, far, m = channel.near, channel.far, channel.closest
    whole = all(isinstance(weight, int) for weight in (near, far)) and near >= far > 0
    if not whole or m * near + (channel.size - m) * far != channel.total:
        raise AssertionError(
            f"assert_ldp: the weights of a row must be integers of sum {channel.total}, the larger one first, got "
            f"{m} of {near} and {channel.size - m} of {far}."
        )
    return channel


def channel_pairs(
    layer: Any,
    symbols: Tensor,  # shape: (batch,)
    features: Tensor,  # shape: (batch, *feature)
) -> tuple[Tensor, Tensor]:  # shapes: (batch,) or (batch, m), and (batch,)
    """What the channel read and wrote for each symbol: as the layer says, or as ``quantize`` and the symbols do."""
    if callable(getattr(layer, "channel_pairs", None)):
        read, written = layer.channel_pairs(symbols, features)
        return read, written
    return layer.quantize(features), symbols.long()


def place_in_row(
    read: Tensor,  # shape: (batch,) or (batch, m), integers in [0, N)
    written: Tensor,  # shape: (batch,), integers in [0, N)
) -> Tensor:  # shape: (batch,), int64 in [0, N)
    """Where a symbol stands if those that its record names come first, in ascending order, then the others.

    One to one for each record; m symbols of weight A come first, N - m of weight B after them, whatever the record.
    """
    sets, written = read.reshape(len(read), -1).long().sort(dim=1).values, written.long()
    same, below = sets == written.unsqueeze(1), (sets < written.unsqueeze(1)).sum(dim=1)
    return torch.where(same.any(dim=1), below, sets.shape[1] + written - below)


def noise_of(
    layer: Any,
    symbols: Tensor,  # shape: (batch, *symbol)
    features: Tensor,  # shape: (batch, *feature)
) -> Tensor:  # shape: (batch, *symbol)
    """The symbols; where the layer says what its channel read, their place in the row.

    Symbols that number codewords of ever new books differ without any noise.
    """
    if not callable(getattr(layer, "channel_pairs", None)) or not len(symbols):
        return symbols
    read, written = layer.channel_pairs(symbols, features)
    return place_in_row(read, written) if sets_channel(layer, tuple(features.shape[1:])) else written


def encoded_noise(layer: Any, features: Tensor) -> Tensor:
    """:func:`noise_of` of what the layer encodes now."""
    return noise_of(layer, layer.encode(features), features)
