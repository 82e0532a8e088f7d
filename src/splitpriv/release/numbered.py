"""Records whose symbols are numbers of an endless codebook: an index on the wire, a position beside it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from splitpriv._errors import InvalidParameterError, ReleaseFileError, ShapeError
from splitpriv.mechanisms.endless_codebook import EndlessCodebook
from splitpriv.release.packing import Bytes, unpack_array

Numbers = npt.NDArray[np.int64]

_FIELDS = {"key", "dim", "size", "scale", "first"}


class BookDecoder:
    """Expands the codewords that packed records stand for.

    Args:
        book: the codebook.
        positions: of each record, or that of the first where the others follow it.
        bits: width of one index.
    """

    def __init__(self, book: EndlessCodebook, positions: int | Tensor, bits: int) -> None:
        self.book = book
        # A copy: torch moves a tensor's memory when it is handed to another process.
        self._positions = positions if isinstance(positions, int) else positions.numpy().copy()
        self._bits = bits

    @property
    def positions(self) -> int | Tensor:
        """That of each record, as a copy, or of the first."""
        places = self._positions
        return places if isinstance(places, int) else torch.from_numpy(places.copy())

    def places(self, rows: Numbers) -> Numbers:
        """The positions of some records."""
        return rows + self._positions if isinstance(self._positions, int) else self._positions[rows]

    def numbers(
        self,
        packed: Bytes,  # shape: (n, bytes_per_record)
        rows: Numbers,  # shape: (n,)
    ) -> Tensor:  # shape: (n,), int64
        """The symbols of some records: position * size + index."""
        index = unpack_array(packed, self._bits, 1, np.int64).reshape(-1)
        return torch.from_numpy(self.places(rows) * self.book.size + index)

    def __call__(
        self,
        packed: Bytes,  # shape: (n, bytes_per_record)
        rows: Numbers,  # shape: (n,)
    ) -> Tensor:  # shape: (n, dim), float32
        """Decode some records. An index that was written to after the check decodes to another record's codeword."""
        return self.book.codewords(self.numbers(packed, rows))


def positions(owner: str, book: EndlessCodebook | None, given: Any, records: int) -> int | Tensor | None:
    """The first position where the others follow it, else all of them; None without a codebook.

    Raises:
        InvalidParameterError: positions are given exactly where there is no codebook, or lie outside it.
        ShapeError: they are no integers, or not one per record.
    """
    if (book is None) != (given is None):
        text = f"{owner}: positions must be given exactly where values is an EndlessCodebook"
        raise InvalidParameterError(f"{text}, got {'none' if given is None else 'some'}.")
    if book is None:
        return None
    if isinstance(given, Tensor):
        if given.dtype != torch.int64 or given.shape != (records,):
            got = f"{given.dtype} {tuple(given.shape)}"
            raise ShapeError(f"{owner}: positions must be int64 of shape ({records},), got {got}.")
        given = given.detach().cpu().clone()
        low, high = int(given.min()), int(given.max())
        if high - low == records - 1 and torch.equal(given, torch.arange(low, high + 1)):
            given = low
    elif type(given) is not int:
        got = type(given).__name__
        raise ShapeError(f"{owner}: positions must be an int or an int64 tensor, got {got}.")
    if isinstance(given, int):
        low, high = given, given + records - 1
    if low < 0 or high >= book.positions:
        got = f"values in [{low}, {high}]"
        raise InvalidParameterError(f"{owner}: positions must be in [0, {book.positions}), got {got}.")
    places: int | Tensor = given
    return places


def to_header(decoder: BookDecoder) -> dict[str, Any]:
    """What the header of a file says of the codebook; positions that do not follow each other are a tensor."""
    book, places = decoder.book, decoder.positions
    first = places if isinstance(places, int) else None
    return {"key": book.key.hex(), "dim": book.dim, "size": book.size, "scale": book.scale, "first": first}


def from_header(field: Any) -> EndlessCodebook:
    """The codebook that a header describes.

    Raises:
        ReleaseFileError: it describes none.
        InvalidParameterError: a parameter is outside its range.
    """
    if not isinstance(field, dict) or set(field) != _FIELDS or not isinstance(field["key"], str):
        raise ReleaseFileError(f"Its codebook is not described by {', '.join(sorted(_FIELDS))}.")
    try:
        key = bytes.fromhex(field["key"])
    except ValueError:
        key = b""
    if key.hex() != field["key"]:
        raise ReleaseFileError("Its codebook's key is not written in hexadecimal digits.")
    if type(field["scale"]) is not float:
        raise ReleaseFileError("Its codebook's scale is not a float.")
    return EndlessCodebook(key, field["dim"], field["size"], field["scale"])
