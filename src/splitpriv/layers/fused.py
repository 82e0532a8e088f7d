"""Features to symbols block by block: checked, quantised and randomised while they are in the cache."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from splitpriv import _validation as check
from splitpriv.mechanisms import DiscreteLaplace, RandomizedResponse, Source
from splitpriv.mechanisms.blocks import Scratch, in_blocks

Array = npt.NDArray[Any]

# For float32 and float64: the integers of the same width, and the bits of infinity.
_BITS_OF: dict[int, tuple[np.dtype[Any], np.dtype[Any], int]] = {
    4: (np.dtype(np.int32), np.dtype(np.uint32), 0x7F8 << 20),
    8: (np.dtype(np.int64), np.dtype(np.uint64), 0x7FF << 52),
}
_BLOCK = 1 << 17  # elements: a block of float32 takes 512 KB
_BITS = 1 << 21  # bits that are randomised at once


def randomize_bits(
    owner: str,
    features: Tensor,  # shape: (batch, *feature), on the CPU
    threshold: Tensor,  # shape: () or (channels,), float32
    channel: RandomizedResponse,
    source: Source,
) -> Array:  # shape: (batch, ceil(elements / 8)), uint8
    """One randomised bit ``x > threshold`` for each element, each record packed on its own.

    Raises:
        NonFiniteError: features hold NaN or infinity, wherever; nothing is returned then.
    """
    elements = math.prod(features.shape[1:])
    packed = np.empty((len(features), -(-elements // 8)), dtype=np.uint8)
    if not packed.size:
        return packed
    flat, bytes_out = features.reshape(-1), packed.reshape(-1)
    limit = threshold.numpy().reshape(-1, 1)
    # What is packed at a time: a byte, unless records end inside one or each channel has its threshold.
    size = 8 if elements % 8 == 0 and threshold.ndim == 0 else elements
    width = -(-size // 8)

    def bits(start: int, stop: int, scratch: Scratch) -> None:
        values = _finite(owner, features, flat[start * size : stop * size])
        above = scratch("above", values.size, np.bool_)
        lanes = (1, 1, values.size) if threshold.ndim == 0 else (stop - start, len(limit), -1)
        np.greater(values.reshape(lanes), limit.astype(values.dtype), out=above.reshape(lanes))
        rows = above if size == 8 else above.reshape(-1, size)
        bytes_out[start * width : stop * width] = np.packbits(rows, axis=-1, bitorder="little").reshape(-1)

    def work(start: int, stop: int, source: Source, scratch: Scratch) -> None:
        step = max(1, _BLOCK // size)
        for first in range(start, stop, step):
            bits(first, min(first + step, stop), scratch)
        mine = bytes_out[start * width : stop * width]
        channel.flip(mine, source, scratch)
        if size % 8:  # the rest of each record's last byte is no symbol
            mine.reshape(-1, width)[:, -1] &= np.uint8((1 << size % 8) - 1)

    in_blocks(flat.numel() // size, max(1, _BITS // size), source, work)
    return packed


def randomize_grid(
    owner: str,
    features: Tensor,  # shape: (batch, *feature), on the CPU
    width: float,
    outside: str,
    channel: DiscreteLaplace,
    source: Source,
) -> Array:  # shape: (elements of all records,), integers
    """The grid point of each element in an interval of this width, with the channel's noise.

    Raises:
        NonFiniteError: features hold NaN or infinity, wherever; nothing is returned then.
    """
    flat = features.reshape(-1)
    out = np.empty(flat.numel(), dtype=np.uint8 if channel.outputs <= 256 else np.int16)

    def work(start: int, stop: int, source: Source, scratch: Scratch) -> None:
        values = _finite(owner, features, flat[start:stop])
        points = grid_points(values, width, outside, channel.inputs - 1, scratch)
        out[start:stop] = channel.draw_block(points, source, scratch)

    in_blocks(flat.numel(), _BLOCK, source, work)
    return out


def grid_points(values: Array, width: float, outside: str, steps: int, scratch: Scratch) -> Array:
    """round((values / width + 1/2) * steps) of what lies inside the interval, as int16 in [0, steps].

    Args:
        values: finite float32 or float64. # shape: (count,)
        width: of the interval around 0.
        outside: "zero" or "clamp": what becomes of values outside.
        steps: of the grid.
        scratch: memory to work in; the result is in it until it is used again.
    """
    kind = values.dtype.type
    half = kind(width / 2)
    place = scratch("place", values.size, values.dtype)
    if outside == "clamp":
        np.clip(values, -half, half, out=place)
    else:
        _zero_outside(values, half, place, scratch)
    # |place| <= half now, so that the result is on the grid whatever rounding does.
    place /= kind(width)
    place += kind(0.5)
    place *= kind(steps)
    np.rint(place, out=place)
    points = scratch("points", values.size, np.int16)
    np.copyto(points, place, casting="unsafe")
    return points


def _zero_outside(values: Array, half: Any, out: Array, scratch: Scratch) -> None:
    """``values`` where |values| < half, else 0, without branches.

    Floats that are not negative are in the order of their bits: the sign of a difference of bits is
    a mask.
    """
    signed = _BITS_OF[values.itemsize][0]
    raw, mask = values.view(signed), scratch("mask", values.size, signed)
    np.bitwise_and(raw, np.iinfo(signed).max, out=mask)
    mask -= np.asarray(half).view(signed)
    mask >>= signed.itemsize * 8 - 1
    np.bitwise_and(raw, mask, out=out.view(signed))


def _finite(owner: str, features: Tensor, block: Tensor) -> Array:
    """A block of features as float32 or float64, if it is finite."""
    wide = block if block.dtype == torch.float64 else block.float()
    values: Array = wide.resolve_neg().numpy()
    if not all_finite(values):
        raise check.not_finite(owner, features)
    return values


def all_finite(values: Array) -> bool:
    """Whether float32 or float64 values hold neither NaN nor infinity.

    Read as a signed integer, a positive infinity or NaN is at least the bits of infinity, which all
    other numbers are below; read as an unsigned one, so is a negative infinity or NaN with the sign bit.
    """
    signed, unsigned, infinity = _BITS_OF[values.itemsize]
    sign = 1 << (8 * values.itemsize - 1)
    return bool(values.view(signed).max() < infinity and values.view(unsigned).max() < infinity + sign)
