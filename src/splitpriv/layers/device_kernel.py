"""The fused kernel, in Triton: features to marked symbols, read once and written once.

What :mod:`splitpriv.layers.device_encode` does with many operations of torch, word for word: ChaCha20, the
bit or grid point, the look-up, the mark, and the check for NaN and infinity; a second kernel settles the ties.
Imported only where features lie on a CUDA device. torch.compile is not used: it cuts the rounds of ChaCha20 into
some thirty kernels that pass their state through memory, and takes half a minute to do so.
"""

from __future__ import annotations

import importlib
import importlib.util
from functools import partial
from typing import Any

import torch
from torch import Tensor

from splitpriv.mechanisms.device_draw import TILE, WIDTH, DeviceDraw

_INSTALLED = importlib.util.find_spec("triton") is not None  # it comes with the CUDA builds of torch
triton: Any = importlib.import_module("triton") if _INSTALLED else None
tl: Any = importlib.import_module("triton.language") if _INSTALLED else None


def _jit(function: Any, **options: Any) -> Any:
    return triton.jit(function, **options) if _INSTALLED else function


@_jit
def _quarter_round(a, b, c, d):
    a += b
    d ^= a
    d = (d << 16) | (d >> 16)
    c += d
    b ^= c
    b = (b << 12) | (b >> 20)
    a += b
    d ^= a
    d = (d << 8) | (d >> 24)
    c += d
    b ^= c
    b = (b << 7) | (b >> 25)
    return a, b, c, d


@_jit
def _fours(a, b, c, d):
    """Words of one column of the state, 8 apart before 4 apart. # shape: (WIDTH, 2, 2)"""
    return tl.join(tl.join(a, c), tl.join(b, d))


@_jit
def _block(key, number, stream, WIDTH: tl.constexpr):
    """The words of ChaCha20 for some block numbers. # shape: (WIDTH, 16), uint32"""
    zero = tl.zeros([WIDTH], tl.uint32)
    k0 = zero + tl.load(key).to(tl.uint32, bitcast=True)
    k1 = zero + tl.load(key + 1).to(tl.uint32, bitcast=True)
    k2 = zero + tl.load(key + 2).to(tl.uint32, bitcast=True)
    k3 = zero + tl.load(key + 3).to(tl.uint32, bitcast=True)
    k4 = zero + tl.load(key + 4).to(tl.uint32, bitcast=True)
    k5 = zero + tl.load(key + 5).to(tl.uint32, bitcast=True)
    k6 = zero + tl.load(key + 6).to(tl.uint32, bitcast=True)
    k7 = zero + tl.load(key + 7).to(tl.uint32, bitcast=True)
    low, high = number.to(tl.uint32), (number >> 32).to(tl.uint32)
    a0, a1, a2, a3 = zero + 0x61707865, zero + 0x3320646E, zero + 0x79622D32, zero + 0x6B206574
    b0, b1, b2, b3, c0, c1, c2, c3 = k0, k1, k2, k3, k4, k5, k6, k7
    third = zero + stream
    d0, d1, d2, d3 = low, high, third, zero
    for _ in tl.static_range(10):
        a0, b0, c0, d0 = _quarter_round(a0, b0, c0, d0)
        a1, b1, c1, d1 = _quarter_round(a1, b1, c1, d1)
        a2, b2, c2, d2 = _quarter_round(a2, b2, c2, d2)
        a3, b3, c3, d3 = _quarter_round(a3, b3, c3, d3)
        a0, b1, c2, d3 = _quarter_round(a0, b1, c2, d3)
        a1, b2, c3, d0 = _quarter_round(a1, b2, c3, d0)
        a2, b3, c0, d1 = _quarter_round(a2, b3, c0, d1)
        a3, b0, c1, d2 = _quarter_round(a3, b0, c1, d2)
    a0, a1, a2, a3 = a0 + 0x61707865, a1 + 0x3320646E, a2 + 0x79622D32, a3 + 0x6B206574
    b0, b1, b2, b3, c0, c1, c2, c3 = b0 + k0, b1 + k1, b2 + k2, b3 + k3, c0 + k4, c1 + k5, c2 + k6, c3 + k7
    d0, d1, d2 = d0 + low, d1 + high, d2 + third
    # Each join adds a last dimension: the first one has the most significant digit of the word's number.
    even, odd = (
        tl.join(_fours(a0, b0, c0, d0), _fours(a2, b2, c2, d2)),
        tl.join(_fours(a1, b1, c1, d1), _fours(a3, b3, c3, d3)),
    )
    return tl.reshape(tl.join(even, odd), [WIDTH, 16])


@_jit
def _picked(words, which):
    """One of the 16 words in each row. # shape: (WIDTH,)"""
    here = tl.arange(0, 16)[None, :] == which[:, None]
    return tl.sum(tl.where(here, words.to(tl.int64), 0), axis=1)


@_jit
def _point(x, half, width, scale, CLAMP: tl.constexpr):
    """The grid point of each element: IEEE division, no fused multiply-add (see launch), ties to even."""
    limited = tl.minimum(tl.maximum(x, -half), half) if CLAMP else tl.where(tl.abs(x) < half, x, 0.0)
    position = (tl.div_rn(limited, width) + 0.5) * scale
    below = position.to(tl.int32)
    above = position - below.to(tl.float32)
    up = (above > 0.5) | ((above == 0.5) & ((below & 1) == 1))
    return below + up.to(tl.int32)


@partial(_jit, do_not_specialize=("count", "steps", "last", "tie"))
def _encode(
    features,
    out,
    flags,
    key,
    decided,
    threshold,
    count,
    half,
    width,
    scale,
    steps,
    last,
    tie,
    GRID: tl.constexpr,
    CLAMP: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """One tile: 32 lanes of WIDTH elements."""
    tile = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, WIDTH)
    words = _block(key, tile * WIDTH + column, 0, WIDTH)
    word = tl.reshape(tl.join(words & 0xFFFF, words >> 16), [WIDTH, 32]).to(tl.int32)
    lane = tl.arange(0, 32)
    place = tile * 32 * WIDTH + (column[:, None] + WIDTH * lane[None, :])
    inside = place < count
    x = tl.load(features + place, mask=inside, other=0.0).to(tl.float32)
    if GRID:
        point = _point(x, half, width, scale, CLAMP)
        noise = tl.load(decided + word).to(tl.int32)
        symbol = tl.minimum(tl.maximum(point + noise - steps, 0), last)
        symbol = tl.where(noise < 0, -1 - point, symbol)
    else:
        bit = (x > tl.load(threshold)).to(tl.int32)
        symbol = tl.where(word == tie, -1 - bit, bit ^ (word < tie).to(tl.int32))
    tl.store(out + place, symbol.to(out.dtype.element_ty), mask=inside)
    # Infinity and NaN are at least the bits of infinity. A tile that is not run stays refused.
    size = x.to(tl.int32, bitcast=True) & 0x7FFFFFFF
    finite = tl.max(tl.max(size, axis=1), axis=0) < 0x7F800000
    tl.store(flags + tile, finite.to(tl.int8))


@partial(_jit, do_not_specialize=("count", "edge_count", "steps", "last"))
def _settle(
    places,
    inputs,
    out,
    key,
    edges,
    count,
    edge_count,
    steps,
    last,
    GRID: tl.constexpr,
    DEPTH: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """All 64 bits of WIDTH tied elements."""
    rank = tl.program_id(0).to(tl.int64) * WIDTH + tl.arange(0, WIDTH)
    inside = rank < count
    place = tl.load(places + rank, mask=inside, other=0)
    x = tl.load(inputs + rank, mask=inside, other=0)
    lane = (place // WIDTH) % 32
    words = _block(key, (place // (32 * WIDTH)) * WIDTH + place % WIDTH, 0, WIDTH)
    leading = (_picked(words, lane // 2) >> (16 * (lane % 2))) & 0xFFFF
    words = _block(key, rank // 8, 1, WIDTH)
    rest = ((_picked(words, rank % 8 + 8) & 0xFFFF) << 32) | _picked(words, rank % 8)
    # The order of signed integers: the sign bit flipped, as in the edges.
    word = ((leading ^ 0x8000) << 48) | rest
    outcome = tl.zeros([WIDTH], tl.int32)
    for level in tl.static_range(DEPTH):
        further = outcome + (1 << (DEPTH - 1 - level))
        there = inside & (further <= edge_count)
        edge = tl.load(edges + further - 1, mask=there, other=0)
        outcome = tl.where(there & (edge <= word), further, outcome)
    symbol = tl.minimum(tl.maximum(x + outcome - steps, 0), last) if GRID else x ^ (outcome == 0).to(tl.int32)
    tl.store(out + rank, symbol.to(out.dtype.element_ty), mask=inside)


def launch(
    features: Tensor,  # shape: (count,), contiguous; float32, float16 or bfloat16
    draw: DeviceDraw,
    key: Tensor,  # shape: (8,), int32
    *,
    threshold: Tensor | None = None,  # shape: (), float32
    grid: tuple[float, str] | None = None,
) -> Tensor | None:  # shape: (count,)
    """What ``DeviceDraw.mark`` gives for each element, before its ties are settled; None: not all finite.

    Args:
        features: of all records, at least one.
        draw: a table of 64 bits on the same device.
        key: of this call.
        threshold: of the bits; None with ``grid``.
        grid: width of the interval, and "zero" or "clamp" for what lies outside.
    """
    kernel, count = draw.kernel, features.numel()
    assert kernel.bits == 64
    marked = torch.empty(count, dtype=draw.dtype, device=features.device)
    finite = torch.zeros(-(-count // TILE), dtype=torch.int8, device=features.device)
    width, outside = grid or (1.0, "")
    steps, last = draw.steps, draw.last
    with torch.cuda.device_of(features):
        _encode[(finite.numel(),)](
            *(features, marked, finite, key, draw.decided, features if threshold is None else threshold),
            *(count, width / 2, width, float(steps), steps, last, int(kernel.edges[0]) >> kernel.rest_bits),
            **{"GRID": grid is not None, "CLAMP": outside == "clamp", "WIDTH": WIDTH},
            enable_fp_fusion=False,
        )
    return marked if bool(finite.all()) else None


def settle(marked: Tensor, draw: DeviceDraw, key: Tensor) -> None:
    """``DeviceDraw.settle``; marks are replaced after all symbols are there, or not at all."""
    places = (marked < 0).nonzero()[:, 0]
    count = places.numel()
    if not count:
        return
    inputs = -1 - marked[places].int()
    symbols = torch.full((count,), -1, dtype=draw.dtype, device=marked.device)
    edge_count = draw.edges.numel()
    with torch.cuda.device_of(marked):
        _settle[(-(-count // WIDTH),)](
            *(places, inputs, symbols, key, draw.edges, count, edge_count, draw.steps, draw.last),
            **{"GRID": draw.dtype == torch.int16, "DEPTH": edge_count.bit_length(), "WIDTH": WIDTH},
            enable_fp_fusion=False,
        )
    marked[places] = symbols
