"""``Release``: what crossed the cut, as a data set to train on."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from splitpriv import _validation as check
from splitpriv._errors import InvalidParameterError, ShapeError
from splitpriv.mechanisms.endless_codebook import EndlessCodebook
from splitpriv.release import checks, file, numbered
from splitpriv.release import packing as pk
from splitpriv.release.checks import Ids
from splitpriv.release.claims import Claims
from splitpriv.release.collect import Packed, collect
from splitpriv.release.decode import Decoder
from splitpriv.release.describe import describe
from splitpriv.release.mapped import MappedRows
from splitpriv.release.numbered import BookDecoder

Item = Tensor | tuple[Tensor, Tensor]

_MAX_FEATURES = 1 << 28  # elements in the features of one record: 1 GiB


class Release(Dataset[Item]):
    """Packed symbols, a table that decodes them, and the claims of whoever made them.

    A ``torch.utils.data.Dataset`` of (features, label), or of features alone where there are no
    labels. What was released is the symbols; decoding them is public, so a release can be read any
    number of times at no cost. ``SplitModel.release`` makes one; so does :meth:`from_batches`.

    Args:
        packed: uint8, (records, bytes_per_record), what :func:`pack` returns; for float32
            payloads the little-endian bytes.
        symbol_shape: symbol shape of one record, without batch; () for one symbol per record.
        values: float32, (alphabet, *element): what each of 2 or more symbols stands for; ``element``
            is () where a symbol is one number, (dim,) where it is a codeword. Or an
            :class:`~splitpriv.mechanisms.EndlessCodebook`, whose indices are packed. None where
            float32 features cross the cut as they are.
        claims: what the release costs, and what it does not cover.
        labels: (records, *label), or None.
        ids: one int or one non-empty string per record, or None. They travel with the release.
        label_channel: float64, (classes, symbols): Pr[released label | true label], exactly where
            ``claims.labels`` is "ldp"; the labels are symbols of it then.
        positions: of each record's book in an endless codebook, int64 (records,), or that of the first where
            the others follow it; None for other ``values``.

    Raises:
        ShapeError: a tensor does not have the shape or the dtype that the others ask for.
        InvalidParameterError: ``ids`` or ``claims`` do not fit, or ``packed`` holds what :func:`pack`
            cannot have written.
        NonFiniteError: NaN or infinity in ``values`` or in a float32 payload.

    Does not protect: labels and ids, which stand there as they are; see ``claims.labels``.

    Example:
        >>> claims = Claims(layers=(), per_use=2.0, uses=3, per_record=6.0, epsilon=6.0,
        ...                 labels="none", edge_data="public", secure=True)
        >>> from splitpriv.release import pack
        >>> packed = pack(torch.tensor([[1, 0, 1], [0, 0, 1]]), bits=1)
        >>> release = Release(packed, symbol_shape=(3,),
        ...                   values=torch.tensor([-1.0, 1.0]), claims=claims)
        >>> release[0]
        tensor([ 1., -1.,  1.])
    """

    def __init__(
        self,
        packed: Tensor | MappedRows,  # shape: (records, bytes_per_record)
        *,
        symbol_shape: Sequence[int],
        values: Tensor | EndlessCodebook | None,  # shape: (alphabet, *element)
        claims: Claims,
        labels: Tensor | None = None,  # shape: (records, *label)
        ids: Ids | None = None,
        label_channel: Tensor | None = None,  # shape: (classes, symbols)
        positions: Tensor | int | None = None,  # shape: (records,)
    ) -> None:
        self._symbol_shape = pk.symbol_shape_of("Release", symbol_shape)
        self._values = checks.values("Release", values)
        self._bits = 32 if self._values is None else pk.bits_for(self._table[0])
        self._payload = checks.payload("Release", packed, math.prod(self._symbol_shape), self._bits, self.alphabet)
        self._labels = checks.labels("Release", labels, len(self))
        self._ids = checks.ids("Release", ids, len(self))
        self._claims = checks.claims("Release", claims, labels, self._ids)
        self._label_channel = checks.label_channel("Release", label_channel, claims, self._labels)
        self._decoder = self._made_decoder(positions)
        if math.prod(self.feature_shape) > _MAX_FEATURES:
            constraint = f"at most {_MAX_FEATURES} elements per record"
            raise ShapeError(check.message("Release", "feature_shape", constraint, self.feature_shape))

    @property
    def _table(self) -> tuple[int, ...]:
        """(alphabet, *element) of what decodes the symbols."""
        if isinstance(self._values, EndlessCodebook):
            return (self._values.size, self._values.dim)
        return (0,) if self._values is None else tuple(self._values.shape)

    def _made_decoder(self, positions: Tensor | int | None) -> Decoder | BookDecoder:
        book = self._values if isinstance(self._values, EndlessCodebook) else None
        places = numbered.positions("Release", book, positions, len(self))
        if isinstance(self._values, EndlessCodebook) and places is not None:
            if self._symbol_shape:
                constraint = "() where values is an EndlessCodebook"
                raise ShapeError(check.message("Release", "symbol_shape", constraint, self._symbol_shape))
            return BookDecoder(self._values, places, self._bits)
        table = self._values if isinstance(self._values, Tensor) else None
        return Decoder(table, math.prod(self._symbol_shape), self._bits, self.path)

    @classmethod
    def from_batches(
        cls,
        batches: Iterable[tuple[Tensor | Packed, Tensor | None]],  # shapes: (batch, *symbol), (batch, *label)
        *,
        values: Tensor | EndlessCodebook | None,  # shape: (alphabet, *element)
        claims: Claims,
        ids: Ids | None = None,
        label_channel: Tensor | None = None,  # shape: (classes, symbols)
    ) -> Release:
        """Pack symbols as they come; the memory needed is that of the packed data and one batch.

        Args:
            batches: pairs of symbols (integers in [0, alphabet), or numbers of an endless codebook;
                float32 where ``values`` is None) and labels (None in all batches, or in none).
            values: what each symbol stands for, see :class:`Release`.
            claims: what the release costs, and what it does not cover.
            ids: one per record, in the order of the batches, or None.
            label_channel: how the labels were drawn, see :class:`Release`.

        Raises:
            ShapeError: a batch differs from the first one in shape or dtype, holds a symbol outside
                the alphabet, or there is none.
            NonFiniteError: NaN or infinity in float32 symbols.
            InvalidParameterError: see :class:`Release`.
        """
        values = checks.values("Release", values)
        book = values if isinstance(values, EndlessCodebook) else None
        alphabet = len(values) if isinstance(values, Tensor) else None if book is None else book.size
        packed, symbol_shape, labels, positions = collect(batches, alphabet, book)
        rows: Any = checks.Owned(packed)  # not a public kind of payload
        parts: Any = {"values": values, "labels": labels, "label_channel": label_channel}
        parts["positions"] = positions
        return cls(rows, symbol_shape=symbol_shape, claims=claims, ids=ids, **parts)

    # What it holds -------------------------------------------------------------------------

    @property
    def path(self) -> str | None:
        """The file that holds the packed symbols; None where they are in memory."""
        return self._payload.path if isinstance(self._payload, MappedRows) else None

    @property
    def symbol_shape(self) -> tuple[int, ...]:
        """Symbol shape of one record, without batch."""
        return self._symbol_shape

    @property
    def feature_shape(self) -> tuple[int, ...]:
        """Shape of one record's decoded features: ``symbol_shape + element``."""
        return self._symbol_shape + self._table[1:]

    @property
    def alphabet(self) -> int | None:
        """Number of symbols; None where float32 features crossed the cut."""
        return None if self._values is None else self._table[0]

    @property
    def bits(self) -> int:
        """Bits per symbol on the wire."""
        return self._bits

    @property
    def values(self) -> Tensor | EndlessCodebook | None:  # shape: (alphabet, *element)
        """What each symbol stands for, as a copy; None where float32 features crossed the cut."""
        return self._values.clone() if isinstance(self._values, Tensor) else self._values

    @property
    def positions(self) -> Tensor | None:  # shape: (records,), int64
        """The position of each record's book in an endless codebook; None without one."""
        if not isinstance(self._decoder, BookDecoder):
            return None
        return torch.from_numpy(self._decoder.places(np.arange(len(self))))

    @property
    def labels(self) -> Tensor | None:  # shape: (records, *label)
        """The labels of all records, or None."""
        return self._labels

    @property
    def label_channel(self) -> Tensor | None:  # shape: (classes, symbols), float64
        """Pr[released label | true label], one row per true label, as a copy; None unless labels are "ldp"."""
        return None if self._label_channel is None else self._label_channel.clone()

    @property
    def ids(self) -> list[int] | list[str] | None:
        """The id of each record, or None."""
        return self._ids.tolist() if isinstance(self._ids, Tensor) else self._ids

    @property
    def claims(self) -> Claims:
        """What whoever made the release says of it."""
        return self._claims

    @property
    def epsilon(self) -> float:
        """What the worst record in it paid (natural log), as claimed; ``inf`` without a mechanism."""
        return self._claims.epsilon

    @property
    def bytes_per_record(self) -> int:
        """Bytes that one record's symbols take on the wire."""
        return int(self._array().shape[1])

    @property
    def nbytes(self) -> int:
        """Bytes that all packed symbols take, labels and ids not counted."""
        return len(self) * self.bytes_per_record

    # As a data set -------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._array())

    def __getitem__(self, index: int) -> Item:
        """The features of one record, with its label where there are labels.

        Raises:
            IndexError: ``index`` is not in [-len, len).
            InvalidParameterError: ``index`` is not an integer.
        """
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Item]:
        """Many items, decoded together: what a DataLoader asks for."""
        features, labels = self.batch(indices)
        rows = features.unbind()
        return list(rows) if labels is None else list(zip(rows, labels.unbind(), strict=True))

    def batch(
        self,
        indices: Sequence[int] | Tensor | slice,
    ) -> tuple[Tensor, Tensor | None]:  # shapes: (n, *feature), (n, *label)
        """Features (float32) and labels of several records, as tensors on the CPU.

        Args:
            indices: integers in [-len, len), or a slice.

        Raises:
            IndexError: an index is not in that range.
            InvalidParameterError: ``indices`` are not integers.
        """
        rows = self._rows(indices)
        features = self._decoder(self._array()[rows], rows).reshape(len(rows), *self.feature_shape)
        return features, None if self._labels is None else self._labels[torch.from_numpy(rows)]

    def subset(self, indices: Sequence[int] | Tensor | slice) -> Release:
        """Some of the records as a release of its own, e.g. to validate on; see :meth:`batch` for ``indices``.

        The claims are those of the whole: each record in it paid what it paid.
        """
        rows, ids, positions = self._rows(indices), self.ids, self.positions
        packed: Any = checks.Owned(torch.from_numpy(self._array()[rows]))
        return Release(
            packed,
            symbol_shape=self._symbol_shape,
            values=self._values,
            claims=self._claims,
            labels=None if self._labels is None else self._labels[torch.from_numpy(rows)],
            ids=None if ids is None else [ids[row] for row in rows.tolist()],
            label_channel=self._label_channel,
            positions=None if positions is None else positions[torch.from_numpy(rows)],
        )

    def symbols(
        self,
        indices: Sequence[int] | Tensor | slice,
    ) -> Tensor:  # shape: (n, *symbol), uint8, int16, int32 or int64; float32 where alphabet is None
        """The symbols of several records as they left the edge; see :meth:`batch` for ``indices``."""
        rows = self._rows(indices)
        packed = torch.from_numpy(self._array()[rows])
        if isinstance(self._decoder, BookDecoder):
            return self._decoder.numbers(packed.numpy(), rows)
        if self._values is None:
            return torch.from_numpy(pk.unpack_floats(packed.numpy())).reshape(len(packed), *self._symbol_shape)
        return pk.unpack(packed, self._bits, self._symbol_shape)

    def _array(self) -> pk.Bytes:  # shape: (records, bytes_per_record)
        """The packed records, for use at once only.

        Handing a release to another process moves a tensor's memory, and leaves arrays over it dangling.
        """
        return self._payload.rows if isinstance(self._payload, MappedRows) else self._payload.numpy()

    def _rows(self, indices: Any) -> npt.NDArray[np.int64]:
        """Indices as an array of integers in [0, len)."""
        records = len(self)
        if isinstance(indices, slice):
            return np.arange(*indices.indices(records), dtype=np.int64)
        try:
            listed = indices.tolist() if isinstance(indices, (Tensor, np.ndarray)) else indices
            rows = np.array([_index(index) for index in listed], dtype=np.int64)
        except (TypeError, OverflowError):
            fix = "Choose records by position; a mask becomes positions with mask.nonzero().flatten()."
            raise InvalidParameterError(check.message("Release", "index", "an integer", indices, fix)) from None
        wrong = (rows < -records) | (rows >= records)
        if wrong.any():
            constraint = f"in [-{records}, {records})"
            raise IndexError(check.message("Release", "index", constraint, int(rows[wrong][0])))
        rows[rows < 0] += records
        return rows

    # Files ---------------------------------------------------------------------------------

    def save(self, path: file.Path) -> None:
        """Write a release file: a safetensors file without pickle, with a SHA-256 over all of it.

        The file appears whole or not at all, under the permissions of the one it replaces or the
        usual ones; a symbolic link stays, and what it points to is replaced. Labels and ids are in
        the file as they are.

        Args:
            path: where to; may be the file that this release was loaded from.

        Raises:
            InvalidParameterError: ``path`` is a directory or a device.
            ReleaseFileError: safetensors cannot write there, or the header is too large.
            OSError: the directory does not exist or is not writable.
        """
        file.save(self, path)

    @classmethod
    def load(cls, path: file.Path) -> Release:
        """Read a release file after checking all of it; the packed symbols stay in the file.

        Every byte is read once to verify the SHA-256, every header field is checked against the
        others and the tensors, and the symbols against their alphabet. The digest catches corruption,
        not forgery: anyone can write a file with another content and the digest that belongs to it.
        The claims in it, too, are those of whoever wrote it.

        The symbols are memory-mapped, not read into memory: do not write into the file while the
        release is in use (``save`` replaces files, and is safe).

        Raises:
            ReleaseFileError: the file is truncated, altered, foreign, of a later version, or no file.
            FileNotFoundError: there is none.
        """
        return file.load(path, cls)

    def __repr__(self) -> str:
        return describe(self)


def _index(value: Any) -> int:
    if isinstance(value, bool):
        raise TypeError("a mask is not a list of positions")
    return operator.index(value)
