"""Symbols to bytes and back: the fewest whole bits per symbol, whole bytes per record."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from splitpriv import _validation as check
from splitpriv._errors import InvalidParameterError, NonFiniteError, ShapeError

Array = npt.NDArray[Any]
Bytes = npt.NDArray[np.uint8]

_CHUNK = 1 << 18  # symbols unpacked at a time: temporaries of a few MB, which stay in cache
_FLOAT = np.dtype("<f4")


def bits_for(alphabet: int) -> int:
    """The fewest whole bits that hold the symbols 0 .. alphabet - 1.

    Args:
        alphabet: number of symbols, in [2, 2^32].

    Returns:
        Bits, in [1, 32].

    Raises:
        InvalidParameterError: ``alphabet`` is not an integer in that range.

    Example:
        >>> bits_for(2), bits_for(256), bits_for(257)
        (1, 8, 9)
    """
    return (check.integer("bits_for", "alphabet", alphabet, 2, 1 << 32) - 1).bit_length()


def bytes_for(elements: int, bits: int) -> int:
    """Whole bytes that one record of ``elements`` symbols of ``bits`` bits takes."""
    return -(-elements * bits // 8)


def pack(
    symbols: Tensor,  # shape: (batch, *symbol), integers
    bits: int,
) -> Tensor:  # shape: (batch, bytes_per_record), uint8
    """Pack each record on its own into ``ceil(elements * bits / 8)`` bytes.

    Symbol i of a record takes the bits ``i * bits`` to ``(i + 1) * bits - 1``, counted from the
    least significant bit of its first byte. What is left of the last byte is zero.

    Args:
        symbols: integers in [0, 2^bits) (bool counts as integer), at least one per record.
        bits: width of one symbol, in [1, 32].

    Returns:
        The packed records, on the CPU.

    Raises:
        InvalidParameterError: ``bits`` is not in [1, 32].
        ShapeError: ``symbols`` is no integer batch, or holds a value outside [0, 2^bits).

    Example:
        >>> pack(torch.tensor([[1, 0, 1]]), bits=1)
        tensor([[5]], dtype=torch.uint8)
    """
    bits = check.integer("pack", "bits", bits, 1, 32)
    return torch.from_numpy(pack_array("pack", symbol_array("pack", symbols), bits, 1 << bits))


def unpack(
    packed: Tensor,  # shape: (batch, bytes_per_record), uint8
    bits: int,
    shape: Sequence[int],
    dtype: torch.dtype | None = None,
) -> Tensor:  # shape: (batch, *shape)
    """The inverse of :func:`pack`.

    Args:
        packed: what :func:`pack` returned.
        bits: width of one symbol, in [1, 32].
        shape: symbol shape of one record, without batch; ``()`` for one symbol per record.
        dtype: integer dtype that holds 2^bits - 1; None for the smallest of uint8, int16, int32
            and int64 that does.

    Returns:
        The symbols, on the CPU.

    Raises:
        InvalidParameterError: ``bits`` is not in [1, 32], or ``dtype`` cannot hold the symbols.
        ShapeError: ``packed`` does not have the bytes that ``bits`` and ``shape`` ask for.

    Does not check: that padding bits are zero; a :class:`Release` does.

    Example:
        >>> unpack(torch.tensor([[5]], dtype=torch.uint8), bits=1, shape=(3,))
        tensor([[1, 0, 1]], dtype=torch.uint8)
    """
    bits = check.integer("unpack", "bits", bits, 1, 32)
    dims = symbol_shape_of("unpack", shape)
    dtype = symbol_dtype(bits) if dtype is None else dtype
    if dtype not in (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64) or (
        torch.iinfo(dtype).max < (1 << bits) - 1
    ):
        constraint = f"an integer dtype that holds {(1 << bits) - 1}"
        raise InvalidParameterError(check.message("unpack", "dtype", constraint, dtype))
    size = bytes_for(math.prod(dims), bits)
    if not isinstance(packed, Tensor) or packed.dtype != torch.uint8 or tuple(packed.shape[1:]) != (size,):
        got = f"{packed.dtype} {tuple(packed.shape)}" if isinstance(packed, Tensor) else type(packed).__name__
        raise ShapeError(f"unpack: packed must be a uint8 tensor of shape (batch, {size}), got {got}.")
    rows = packed.detach().cpu().numpy()
    symbols = unpack_array(rows, bits, math.prod(dims), numpy_dtype(dtype))
    return torch.from_numpy(symbols).reshape(len(rows), *dims)


def symbol_dtype(bits: int) -> torch.dtype:
    """The smallest of uint8, int16, int32 and int64 that holds every symbol of ``bits`` bits."""
    if bits <= 8:
        return torch.uint8
    return torch.int16 if bits <= 15 else torch.int32 if bits <= 31 else torch.int64


def numpy_dtype(dtype: torch.dtype) -> np.dtype[Any]:
    """The numpy dtype of the same name."""
    return torch.empty(0, dtype=dtype, device="cpu").numpy().dtype


def symbol_shape_of(owner: str, shape: Sequence[int]) -> tuple[int, ...]:
    """Return ``shape`` as a tuple; unlike a feature shape it may be (): one symbol per record."""
    return check.feature_shape(owner, shape) if len(shape) else ()


def symbol_array(owner: str, symbols: Tensor) -> Array:
    """``(batch, *symbol)`` tensor to ``(batch, elements)`` array, refused unless it is a batch."""
    if not isinstance(symbols, Tensor):
        got = type(symbols).__name__
        raise ShapeError(f"{owner}: symbols must be a torch.Tensor, got {got}. Convert with torch.as_tensor.")
    elements = math.prod(symbols.shape[1:])
    if symbols.ndim < 1 or elements < 1:
        raise ShapeError(
            f"{owner}: symbols must have shape (batch, *symbol) with at least one symbol per record, "
            f"got shape={tuple(symbols.shape)}."
        )
    return symbols.detach().cpu().reshape(len(symbols), elements).numpy()


def pack_array(
    owner: str,
    symbols: Array,  # shape: (batch, elements), integers
    bits: int,
    alphabet: int,
) -> Bytes:  # shape: (batch, bytes_per_record)
    """:func:`pack` on arrays, which also refuses symbols outside the alphabet."""
    if symbols.dtype.kind not in "biu":
        raise ShapeError(f"{owner}: symbols must have an integer dtype, got dtype={symbols.dtype}.")
    if symbols.size and not (symbols.min() >= 0 and symbols.max() < alphabet):
        low, high = int(symbols.min()), int(symbols.max())
        raise ShapeError(f"{owner}: symbols must be in [0, {alphabet}), got values in [{low}, {high}].")
    if bits == 1:
        return np.packbits(symbols.astype(bool, copy=False), axis=1, bitorder="little")
    if bits in (8, 16, 32):
        return np.ascontiguousarray(symbols, dtype=f"<u{bits // 8}").view(np.uint8)
    packed = np.empty((len(symbols), bytes_for(symbols.shape[1], bits)), dtype=np.uint8)
    for rows in _chunks(*symbols.shape):
        packed[rows] = _pack_groups(symbols[rows], bits)
    return packed


def unpack_array(
    packed: Bytes,  # shape: (batch, bytes_per_record)
    bits: int,
    elements: int,
    dtype: npt.DTypeLike,
) -> Array:  # shape: (batch, elements)
    """:func:`unpack` on arrays."""
    if bits == 1:
        return np.unpackbits(packed, axis=1, count=elements, bitorder="little").astype(dtype, copy=False)
    if bits in (8, 16, 32):
        return np.array(packed).view(f"<u{bits // 8}").astype(dtype, copy=False)
    symbols = np.empty((len(packed), elements), dtype=dtype)
    for rows in _chunks(len(packed), elements):
        symbols[rows] = _unpack_groups(packed[rows], bits, elements)
    return symbols


def pack_floats(
    owner: str,
    features: Array,  # shape: (batch, elements), float32
) -> Bytes:  # shape: (batch, 4 * elements)
    """The bytes of features that cross the cut as they are: little-endian float32."""
    if features.dtype != np.float32:
        raise ShapeError(f"{owner}: symbols must be float32 where values is None, got dtype={features.dtype}.")
    if not np.isfinite(features).all():
        raise NonFiniteError(f"{owner}: symbols must be finite, got NaN or infinity.")
    return np.ascontiguousarray(features, dtype=_FLOAT).view(np.uint8)


def unpack_floats(packed: Bytes) -> Array:
    """The inverse of :func:`pack_floats`."""
    return np.array(packed).view(_FLOAT).astype(np.float32, copy=False)


def check_packed(owner: str, packed: Bytes, elements: int, bits: int, alphabet: int | None) -> None:
    """Refuse bytes that :func:`pack` cannot have written: stray padding bits, unknown symbols, NaN."""
    if alphabet is not None and (padding := -elements * bits % 8):
        stray = np.flatnonzero(packed[:, -1] >> (8 - padding))
        if len(stray):
            raise InvalidParameterError(f"{owner}: padding bits must be zero, got stray bits in record {stray[0]}.")
    if alphabet == 1 << bits:
        return  # every bit pattern is a symbol
    for rows in _chunks(len(packed), elements):
        if alphabet is None:
            if not np.isfinite(unpack_floats(packed[rows])).all():
                raise NonFiniteError(f"{owner}: packed must hold finite features, got NaN or infinity.")
        elif int(unpack_array(packed[rows], bits, elements, np.uint32).max()) >= alphabet:
            raise InvalidParameterError(f"{owner}: packed must hold symbols in [0, {alphabet}), got a larger one.")


def _chunks(records: int, elements: int) -> Iterator[slice]:
    """Slices of records that hold about ``_CHUNK`` symbols, at least one record each."""
    step = max(1, _CHUNK // elements)
    return (slice(start, start + step) for start in range(0, records, step))


# Eight symbols of any width fill `bits` bytes exactly. So a record is a row of such groups, and every
# byte of a group is made of the same few symbols, shifted by the same amounts, in all groups at once.


def _pack_groups(symbols: Array, bits: int) -> Bytes:
    records, elements = symbols.shape
    groups = -(-elements // 8)
    padded = np.zeros((records, groups * 8), dtype=np.uint32)
    padded[:, :elements] = symbols
    lanes = np.ascontiguousarray(padded.reshape(-1, 8).T)  # shape: (8, groups in all)
    columns = np.empty((bits, lanes.shape[1]), dtype=np.uint8)
    for byte in range(bits):
        word = np.zeros(lanes.shape[1], dtype=np.uint32)
        for symbol in range(8 * byte // bits, min(8, -(-8 * (byte + 1) // bits))):
            word |= _shift(lanes[symbol], symbol * bits - 8 * byte)
        columns[byte] = word & np.uint32(255)
    rows: Bytes = columns.T.reshape(records, groups * bits)[:, : bytes_for(elements, bits)]
    return rows


def _unpack_groups(packed: Bytes, bits: int, elements: int) -> Array:
    records, size = packed.shape
    groups = -(-elements // 8)
    padded = np.zeros((records, groups * bits), dtype=np.uint8)
    padded[:, :size] = packed
    columns = np.ascontiguousarray(padded.reshape(-1, bits).T).astype(np.uint32)
    lanes = np.empty((8, columns.shape[1]), dtype=np.uint32)
    for symbol in range(8):
        word = np.zeros(columns.shape[1], dtype=np.uint32)
        for byte in range(symbol * bits // 8, -(-(symbol + 1) * bits // 8)):
            word |= _shift(columns[byte], 8 * byte - symbol * bits)
        lanes[symbol] = word & np.uint32((1 << bits) - 1)
    rows: Array = lanes.T.reshape(records, groups * 8)[:, :elements]
    return rows


def _shift(words: Array, by: int) -> Array:
    """Shift left, or right where ``by`` is negative; bits beyond the 32nd belong to a neighbour."""
    shifted: Array = words << np.uint32(by) if by >= 0 else words >> np.uint32(-by)
    return shifted
