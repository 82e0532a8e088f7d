"""Packed symbols to features: a lookup in the decode table, public and quick."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from splitpriv._errors import InvalidParameterError, ReleaseFileError
from splitpriv.release.packing import Bytes, numpy_dtype, symbol_dtype, unpack_array, unpack_floats


class Decoder:
    """Looks up what each packed symbol stands for.

    Where a symbol is one bit and stands for one number, whole bytes are looked up, eight numbers at a
    time.

    Args:
        values: float32, (alphabet, *element); None where the bytes are float32 features themselves.
        elements: symbols per record.
        bits: width of one symbol.
        path: the file that holds the symbols; None where they are in memory.
    """

    def __init__(self, values: Tensor | None, elements: int, bits: int, path: str | None) -> None:
        # A copy: torch moves a tensor's memory when it is handed to another process, and frees the old one.
        self._values = None if values is None else values.numpy().copy()
        self._elements = elements
        self._bits = bits
        self._path = path
        self._by_byte = None  # shape: (256, 8)
        if self._values is not None and self._values.shape == (2,):
            every = np.arange(256, dtype=np.uint8).reshape(256, 1)
            self._by_byte = self._values[np.unpackbits(every, axis=1, bitorder="little")]

    def __call__(
        self,
        packed: Bytes,  # shape: (n, bytes_per_record)
        rows: object = None,
    ) -> Tensor:  # shape: (n, elements, *element), float32
        """Decode some records; which ones they are makes no difference here.

        Raises:
            ReleaseFileError: a symbol is outside the alphabet, so the mapped file was written to.
            InvalidParameterError: the same of symbols in memory.
        """
        if self._values is None:
            features = unpack_floats(packed)
        elif self._by_byte is not None:
            # No byte is outside the table; "wrap" spares numpy the search for one.
            eights = np.take(self._by_byte, packed, axis=0, mode="wrap").reshape(len(packed), 8 * packed.shape[1])
            features = np.ascontiguousarray(eights[:, : self._elements])
        else:
            symbols = unpack_array(packed, self._bits, self._elements, numpy_dtype(symbol_dtype(self._bits)))
            try:
                features = np.take(self._values, symbols, axis=0)
            except IndexError:  # which a loop over a data set takes for its end
                got = "Release: symbols must be in the alphabet, got a larger one."
                if self._path is None:
                    raise InvalidParameterError(f"{got} Their memory was written to after the check.") from None
                fix = "The file was written to while it was in use; load it again."
                raise ReleaseFileError(f"{got} {fix}") from None
        return torch.from_numpy(features)
