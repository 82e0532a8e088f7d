"""Batches of symbols and labels, gathered in the memory of what they are packed into."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from splitpriv._errors import ShapeError
from splitpriv.mechanisms.endless_codebook import EndlessCodebook
from splitpriv.release.checks import check_dense, described
from splitpriv.release.packing import Bytes, bits_for, bytes_for, pack_array, pack_floats, symbol_array

_OWNER = "Release.from_batches"


@dataclass(frozen=True)
class Packed:
    """A batch that a layer has packed itself, as :func:`~splitpriv.release.pack` would have."""

    rows: Tensor  # shape: (batch, bytes_per_record), uint8
    shape: tuple[int, ...]  # of one record's symbols


def collect(
    batches: Iterable[tuple[Tensor | Packed, Tensor | None]],  # shapes: (batch, *symbol), (batch, *label)
    alphabet: int | None,
    book: EndlessCodebook | None = None,
) -> tuple[Tensor, tuple[int, ...], Tensor | None, Tensor | None]:
    """Pack batch after batch.

    Returns:
        Packed records (records, bytes_per_record), the symbol shape, labels (records, *label), positions
        (records,) where the symbols are numbers of a ``book``.

    Raises:
        ShapeError: a batch differs from the first one in shape or dtype, holds a symbol outside the
            alphabet, or there is none.
        NonFiniteError: NaN or infinity in float32 symbols.
    """
    packed, labels, shape = bytearray(), _Labels(), None
    records, positions = 0, []
    for symbols, given in batches:
        symbols, places = _without_positions(symbols, book)
        positions += places
        rows, here = _packed(symbols, alphabet)
        if shape not in (None, here):
            got = f"{here} after {shape}" if isinstance(symbols, Packed) else described(symbols)
            raise ShapeError(f"{_OWNER}: symbols must have shape (batch, *{shape}), got {got}.")
        shape = here
        labels.add(given, len(rows))
        # A bytearray grows in place: no list of batches that is joined, and so doubled, in the end.
        packed += rows.data
        records += len(rows)
    if shape is None or not records:
        raise ShapeError(f"{_OWNER}: batches must hold at least one record, got none.")
    joined = torch.cat(positions) if positions else None
    return torch.frombuffer(packed, dtype=torch.uint8).reshape(records, -1), shape, labels.joined(records), joined


def _without_positions(symbols: Any, book: EndlessCodebook | None) -> tuple[Any, list[Tensor]]:
    """Numbers of an endless codebook as indices into their books, and the positions of these."""
    if book is None or not isinstance(symbols, Tensor) or symbols.is_floating_point():
        return symbols, []
    return symbols % book.size, [(symbols // book.size).cpu().long().reshape(-1)]


def _packed(symbols: Any, alphabet: int | None) -> tuple[Bytes, tuple[int, ...]]:
    """The packed records of a batch, and the shape of their symbols."""
    if isinstance(symbols, Packed) and alphabet is not None:
        size = bytes_for(math.prod(symbols.shape), bits_for(alphabet))
        rows = symbols.rows
        if rows.dtype != torch.uint8 or rows.shape[1:] != (size,):
            raise ShapeError(f"{_OWNER}: packed symbols must be uint8 of shape (batch, {size}), got {described(rows)}.")
        return rows.detach().cpu().contiguous().numpy(), symbols.shape
    array = symbol_array(_OWNER, symbols)
    packed = pack_floats(_OWNER, array) if alphabet is None else pack_array(_OWNER, array, bits_for(alphabet), alphabet)
    return packed, tuple(symbols.shape[1:])


class _Labels:
    """Labels of any dtype and shape, as bytes until they are all there."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._kind: tuple[torch.dtype, tuple[int, ...]] | None = None
        self._started = False

    def add(self, given: Tensor | None, records: int) -> None:
        kind = None
        if given is not None:
            if not isinstance(given, Tensor) or given.ndim < 1 or len(given) != records or 0 in given.shape[1:]:
                raise ShapeError(f"{_OWNER}: labels must have shape ({records}, *label), got {described(given)}.")
            check_dense(_OWNER, given)
            kind = (given.dtype, tuple(given.shape[1:]))
            self._bytes += given.detach().cpu().resolve_neg().contiguous().reshape(-1).view(torch.uint8).numpy().data
        if self._started and kind != self._kind:
            got = f"{self._kind} first and {kind} later"
            raise ShapeError(f"{_OWNER}: labels must be alike in all batches, got {got} (dtype, shape).")
        self._kind, self._started = kind, True

    def joined(self, records: int) -> Tensor | None:
        if self._kind is None:
            return None
        dtype, shape = self._kind
        return torch.frombuffer(self._bytes, dtype=dtype).reshape(records, *shape)
