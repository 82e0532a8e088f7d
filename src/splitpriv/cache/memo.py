"""The rows of one edge and its layers in a cache: reserved when they are charged, filled when they are drawn."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from splitpriv._errors import LedgerFileError, PrivacyError, ShapeError
from splitpriv.accounting import Ledger, charging, simulating
from splitpriv.accounting.book import Charge, RecordId
from splitpriv.accounting.file_book import FileBook, encoded

_AT_ONCE = 500  # ids asked for in one statement
_BITS, _RAW = b"\1", b"\0"  # how a record's symbols are stored: one bit each, or as the bytes of the tensor


@dataclass(frozen=True)
class _Form:
    """What one record's symbols are under a key, and the features that they were made of."""

    features: tuple[int, ...]
    symbols: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class _Row:
    stored: bool
    paid: frozenset[str]  # ledgers that were charged


class Memo:
    """What is stored under one key of a :class:`ReleaseCache`; see :meth:`ReleaseCache.memo`.

    For each record :meth:`charge`, draw, :meth:`store`, and hand on what :meth:`load` returns. Where
    :meth:`missing` does not name it, :meth:`load` at once.

    Args:
        ledger: the ledger of the cache's file.
        fingerprint: what tells this key from others, 32 bytes.
        dataset: name of the set that the ids belong to.

    Raises:
        PrivacyError: under :func:`~splitpriv.accounting.simulation`, where nothing is charged.
    """

    def __init__(self, ledger: Ledger, fingerprint: bytes, dataset: str) -> None:
        if simulating():
            raise PrivacyError(
                "ReleaseCache: a simulation must not read or fill a cache, since it charges nothing. Leave cache=None."
            )
        self._ledger, self._fingerprint, self._dataset = ledger, fingerprint, dataset

    def missing(self, ids: Sequence[RecordId]) -> list[int]:
        """Positions of the ids that have nothing stored; of an id that is there twice, the first."""
        with self._reading() as book:
            rows = self._rows(book, ids)
        first = {record: position for position, record in reversed(list(enumerate(ids)))}
        return sorted(p for record, p in first.items() if record not in rows or not rows[record].stored)

    def feature_shape(self) -> tuple[int, ...] | None:
        """The feature shape, without batch, that everything stored was made of; None before the first charge."""
        with self._reading() as book:
            number = self._key(book)
            return None if number is None else tuple(self._features(book, number))

    def refuse_other_price(self, epsilon: float, uses: int) -> None:
        """Refuse a price that is not the one paid under this key: what is drawn, or was, would not be covered.

        Raises:
            PrivacyError: records have paid another one, so that the layers have changed unseen.
        """
        with self._reading() as book:
            number = self._key(book)
            paid = [epsilon, uses] if number is None else self._shape(book, number)["paid"]
        if paid != [epsilon, uses]:
            got = f"epsilon {epsilon!r} x {uses} after {paid[0]!r} x {paid[1]}"
            fix = "A layer has changed in a way that its key does not see; use another cache file."
            raise PrivacyError(f"ReleaseCache: price must be the one that was paid under a key, got {got}. {fix}")

    def charge(self, ids: Sequence[RecordId], epsilon: float, *, uses: int, shape: Sequence[int]) -> None:
        """Charge every record that has not paid under this key, and reserve its row, in one transaction.

        The file's own ledger, and those in force. Each pays for a record that is reserved
        but not stored unless it has paid for it before; nobody pays for one that is stored.

        Args:
            ids: the records.
            epsilon: what one use costs a record.
            uses: how many independent uses each record pays.
            shape: feature shape, without batch.

        Raises:
            BudgetExceeded: a limit would be passed. Nothing is charged or reserved then.
            ShapeError: the key holds records of another feature shape.
            PrivacyError: the key's records have paid another price.
        """
        epsilon, uses = charging.checked(epsilon, uses)
        with charging.Transaction([self._ledger], last=self._ledger) as transaction:
            book = file_of(self._ledger)
            self._refuse_other_shape(book, list(shape))
            self.refuse_other_price(epsilon, uses)
            rows = self._rows(book, ids)
            new = [record for record in dict.fromkeys(ids) if record not in rows]
            open_ = {record: row.paid for record, row in rows.items() if not row.stored}
            owed: set[RecordId] = set()
            for each in transaction.ledgers:
                late = [record for record, paid in open_.items() if each.uid not in paid]
                owed.update(late)
                if new or late:
                    counts = dict.fromkeys([*new, *late], 1)
                    transaction.charge(each, Charge(epsilon, uses, counts, self._dataset))
            reached = [each.uid for each in transaction.ledgers]
            form = {"features": list(shape), "paid": [epsilon, uses]}
            transaction.finish = lambda number: self._reserve(book, number, new, sorted(owed, key=str), reached, form)

    def _refuse_other_shape(self, book: FileBook, shape: list[int]) -> None:
        key = self._key(book)
        if key is not None and shape != self._features(book, key):
            fix = "Use one cache file for each shape."
            got = f"{tuple(shape)} after {tuple(self._features(book, key))}"
            raise ShapeError(f"ReleaseCache: features of one edge and layer must have one shape, got {got}. {fix}")

    def _reserve(
        self,
        book: FileBook,
        number: int | None,
        new: Sequence[RecordId],
        owed: Sequence[RecordId],
        reached: Sequence[str],
        form: dict[str, Any],
    ) -> None:
        key, dataset = self._key(book), book.new_dataset(self._dataset)
        if key is None:
            insert = "INSERT INTO keys (fingerprint, shape) VALUES (?, ?)"
            key = book.database.insert(insert, (self._fingerprint, json.dumps(form)))
        reserved = [(key, dataset, encoded(record), number) for record in new]
        book.database.each("INSERT INTO releases (key, dataset, record, charge) VALUES (?, ?, ?, ?)", reserved)
        if owed:  # other ledgers have paid now: this file's own had, so it notes a charge of nothing
            nothing = Charge(0.0, 1, dict.fromkeys(owed, 1), self._dataset)
            noted = book.add(nothing, reached)
            statement = "UPDATE releases SET charge = ? WHERE key = ? AND dataset = ? AND record = ?"
            book.database.each(statement, [(noted, key, dataset, encoded(record)) for record in owed])

    def store(
        self,
        ids: Sequence[RecordId],
        symbols: Tensor,  # shape: (len(ids), *symbol)
    ) -> None:
        """Store what was drawn for records that are reserved, durably; a row that is stored stays as it is.

        Raises:
            ShapeError: the key holds symbols of another shape or dtype.
        """
        symbols = symbols.detach().cpu().contiguous()
        with self._writing() as book:
            key, dataset = self._key(book), book.dataset(self._dataset)
            known = None if key is None else self._form(book, key)
            form = _Form(tuple(self._features(book, key or 0)), tuple(symbols.shape[1:]), str(symbols.dtype)[6:])
            if known is None:
                values = json.dumps({**self._shape(book, key or 0), "symbols": form.symbols, "dtype": form.dtype})
                book.database.all("UPDATE keys SET shape = ? WHERE number = ?", (values, key))
            elif known != form:
                got = f"{form.dtype} {form.symbols} after {known.dtype} {known.symbols}"
                raise ShapeError(f"ReleaseCache: stored symbols must be alike under one key, got {got}.")
            where = "key = ? AND dataset = ? AND record = ? AND symbols IS NULL"
            rows = [(_packed(row), key, dataset, encoded(record)) for record, row in zip(ids, symbols, strict=True)]
            book.database.each(f"UPDATE releases SET symbols = ? WHERE {where}", rows)

    def load(self, ids: Sequence[RecordId]) -> Tensor:  # shape: (len(ids), *symbol)
        """The stored symbols of records, in the order of the ids.

        Raises:
            LedgerFileError: a record has none.
        """
        with self._reading() as book:
            key = self._key(book)
            form = None if key is None else self._form(book, key)
            found = {} if form is None else dict(self._select(book, ids, "symbols"))
        if form is None or any(found.get(encoded(record)) is None for record in ids):
            raise LedgerFileError("Ledger: a memoised release must be stored before it is sent, got one that is not.")
        return torch.stack([_unpacked(found[encoded(record)], form) for record in ids])

    # Rows ----------------------------------------------------------------------------------

    def _key(self, book: FileBook) -> int | None:
        rows = book.database.all("SELECT number FROM keys WHERE fingerprint = ?", (self._fingerprint,))
        return int(rows[0][0]) if rows else None

    def _features(self, book: FileBook, key: int) -> list[int]:
        found: list[int] = self._shape(book, key)["features"]
        return found

    def _form(self, book: FileBook, key: int) -> _Form | None:
        shape = self._shape(book, key)
        if "symbols" not in shape:
            return None
        return _Form(tuple(shape["features"]), tuple(shape["symbols"]), shape["dtype"])

    def _shape(self, book: FileBook, key: int) -> dict[str, Any]:
        rows = book.database.all("SELECT shape FROM keys WHERE number = ?", (key,))
        if not rows:
            raise LedgerFileError("Ledger: symbols must be charged before they are stored, got a key without a charge.")
        shape: dict[str, Any] = json.loads(rows[0][0])
        return shape

    def _rows(self, book: FileBook, ids: Sequence[RecordId]) -> dict[RecordId, _Row]:
        originals = {encoded(record): record for record in ids}
        ledgers: dict[int, frozenset[str]] = {}
        found = {}
        for record, stored, charge in self._select(book, ids, "symbols IS NOT NULL, charge"):
            if not stored and charge not in ledgers:
                ((uids,),) = book.database.all("SELECT ledgers FROM charges WHERE number = ?", (charge,))
                ledgers[charge] = frozenset(json.loads(uids))
            found[originals[record]] = _Row(bool(stored), ledgers.get(charge, frozenset()))
        return found

    def _select(self, book: FileBook, ids: Sequence[RecordId], columns: str) -> Iterator[Any]:
        key, dataset = self._key(book), book.dataset(self._dataset)
        wanted = [] if key is None else list(dict.fromkeys(map(encoded, ids)))
        for start in range(0, len(wanted), _AT_ONCE):
            some = wanted[start : start + _AT_ONCE]
            marks = ", ".join("?" * len(some))
            where = f"key = ? AND dataset = ? AND record IN ({marks})"
            yield from book.database.all(f"SELECT record, {columns} FROM releases WHERE {where}", (key, dataset, *some))

    @contextmanager
    def _reading(self) -> Iterator[FileBook]:
        with charging.lock(), file_of(self._ledger).reading():
            yield file_of(self._ledger)

    @contextmanager
    def _writing(self) -> Iterator[FileBook]:
        with charging.lock():
            book = file_of(self._ledger)
            try:
                book.begin()
                yield book
                book.commit()
            finally:
                book.rollback()


def _packed(row: Tensor) -> bytes:
    array = row.numpy()
    if array.dtype == np.uint8 and array.size and array.max() <= 1:
        return _BITS + np.packbits(array).tobytes()
    return _RAW + array.tobytes()


def _unpacked(stored: bytes, form: _Form) -> Tensor:
    dtype, elements = getattr(torch, form.dtype), int(np.prod(form.symbols, dtype=np.int64))
    kind, body = stored[:1], bytearray(stored[1:])
    if kind == _BITS:
        bits = np.unpackbits(np.frombuffer(body, dtype=np.uint8), count=elements)
        return torch.from_numpy(bits).reshape(form.symbols)
    return torch.frombuffer(body, dtype=dtype).reshape(form.symbols)


def file_of(ledger: Ledger) -> FileBook:
    """The book of a ledger that is kept in a file."""
    book = ledger._book
    assert isinstance(book, FileBook)
    return book
