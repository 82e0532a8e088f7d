"""The sums of a ledger in its SQLite file."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakValueDictionary

from splitpriv._errors import InvalidParameterError
from splitpriv._validation import message
from splitpriv.accounting.book import Book, Charge, History, RecordId
from splitpriv.accounting.database import Database, create
from splitpriv.accounting.filter import RenyiFilter
from splitpriv.accounting.profile import Profile

_AT_ONCE = 500  # ids asked for in one statement
_REMEMBERED = 100_000  # profiles kept in memory

_open: WeakValueDictionary[str, FileBook] = WeakValueDictionary()  # two ledgers of one file share its book


def open_book(
    path: str | os.PathLike[str], limit: float | None, renyi: RenyiFilter | None
) -> tuple[FileBook, float | None, RenyiFilter | None]:
    """The book of a file, made if there is none; and the limit that the file was made with."""
    real = os.path.realpath(os.fspath(path))
    book = _open.get(real)
    if book is None or not book.database.is_current():
        if not os.path.exists(real):
            create(real, limit, 0.0 if renyi is None else renyi.delta, None if renyi is None else renyi.order)
        book = _open[real] = FileBook(real)
    if limit is not None and (limit, renyi and renyi.delta) != (book.limit, book.filter and book.filter.delta):
        fix = f"That of {real!r}; limit=None takes it over."
        stored = f"{book.limit} with delta={0.0 if book.filter is None else book.filter.delta}"
        raise InvalidParameterError(message("Ledger", "limit", stored, limit, fix))
    return book, book.limit, book.filter


class FileBook(Book):
    """See :class:`Book`; between ``begin`` and ``commit`` no other process or thread writes to the file."""

    path: str

    def __init__(self, path: str) -> None:
        self.database = Database(path)
        columns = 'uid, "limit", delta, renyi_order'
        ((uid, self.limit, delta, order),) = self.database.all(f"SELECT {columns} FROM ledger")
        self.filter = None if order is None else RenyiFilter(self.limit, delta, order)
        super().__init__(self.filter)
        self.uid, self.path = uid, path
        self._numbers: dict[int, Profile] = {}
        self._found: dict[RecordId, tuple[int, Profile]] = {}
        self._found_for: object = None

    def begin(self) -> None:
        self.database.begin(write=True)
        self._load()

    def commit(self) -> None:
        self.database.commit()

    def rollback(self) -> None:
        self.database.rollback()

    def close(self) -> None:
        self.database.close()

    @contextmanager
    def reading(self) -> Iterator[None]:
        if self.database.in_transaction:
            yield
            return
        try:
            self.database.begin(write=False)
            self._load()
            yield
        finally:
            self.database.rollback()

    def _load(self) -> None:
        columns = "common, named_pure, named_renyi, unnamed_pure, unnamed_renyi"
        ((common, *worst),) = self.database.all(f"SELECT {columns} FROM ledger")
        self._common_number, self.common = common, self._profile(common)
        self.worst = {True: (worst[0], worst[1]), False: (worst[2], worst[3])}
        self._found_for = None

    # Records -------------------------------------------------------------------------------

    def cases(self, counts: Mapping[RecordId, int], dataset: str) -> set[tuple[Profile, int]]:
        self._found, self._found_for = self._look_up(counts, self.dataset(dataset)), counts
        nothing = (0, self.profiles.empty)
        return {(self._found.get(record, nothing)[1], times) for record, times in counts.items()}

    def of(self, record: RecordId, dataset: str) -> Profile:
        found = self._look_up([record], self.dataset(dataset))
        return found[record][1] if found else self.profiles.empty

    def dataset(self, name: str) -> int:
        """The number of a data set; 0 for one that has no record yet."""
        rows = self.database.all("SELECT number FROM datasets WHERE name = ?", (_encoded_name(name),))
        return int(rows[0][0]) if rows else 0

    def new_dataset(self, name: str) -> int:
        """The number of a data set, which now exists."""
        number = self.dataset(name)
        return number or self.database.insert("INSERT INTO datasets (name) VALUES (?)", (_encoded_name(name),))

    def _look_up(self, records: Iterable[RecordId], dataset: int) -> dict[RecordId, tuple[int, Profile]]:
        stored = {encoded(record): record for record in records}
        wanted, found = list(stored), {}
        for start in range(0, len(wanted) if dataset else 0, _AT_ONCE):
            some = wanted[start : start + _AT_ONCE]
            marks = ", ".join("?" * len(some))
            statement = f"SELECT record, profile FROM records WHERE dataset = ? AND record IN ({marks})"
            for record, number in self.database.all(statement, (dataset, *some)):
                found[stored[record]] = number, self._profile(number)
        return found

    # Adding --------------------------------------------------------------------------------

    def add(self, charge: Charge, ledgers: Sequence[str] = ()) -> int:
        dataset = None
        if charge.counts is None:
            self.common = self.profiles.after(self.common, charge.epsilon, charge.uses)
            old, self._common_number = self._common_number, self._number(self.common)
            self._drop([old])
        else:
            dataset = self.new_dataset(charge.dataset)
            if self._found_for is not charge.counts:
                self._found = self._look_up(charge.counts, dataset)
            self._move(charge, dataset)
        self.database.all(
            "UPDATE ledger SET common = ?, named_pure = ?, named_renyi = ?, unnamed_pure = ?, unnamed_renyi = ?",
            (self._common_number, *self.worst[True], *self.worst[False]),
        )
        records = None if charge.counts is None else len(charge.counts)
        return self.database.insert(
            "INSERT INTO charges (time, epsilon, uses, dataset, records, ledgers) VALUES (?, ?, ?, ?, ?, ?)",
            (charge.time, charge.epsilon, charge.uses, dataset, records, json.dumps(list(ledgers))),
        )

    def _move(self, charge: Charge, dataset: int) -> None:
        """Give each record that pays its new profile, and count how many have which."""
        assert charge.counts is not None
        nothing = (0, self.profiles.empty)
        made: dict[tuple[int, int], tuple[int, Profile]] = {}
        moved: Counter[int] = Counter()
        rows = []
        for record, times in charge.counts.items():
            number, paid = self._found.get(record, nothing)
            if (number, times) not in made:
                after = self.profiles.after(paid, charge.epsilon, times * charge.uses)
                made[number, times] = self._number(after), after
            new = made[number, times][0]
            rows.append((dataset, encoded(record), new))
            moved[number] -= 1
            moved[new] += 1
        upsert = "ON CONFLICT (dataset, record) DO UPDATE SET profile = excluded.profile"
        self.database.each(f"INSERT INTO records VALUES (?, ?, ?) {upsert}", rows)
        added = len(charge.counts) - len(self._found)
        self.database.all("UPDATE datasets SET ids = ids + ? WHERE number = ?", (added, dataset))
        named = bool(charge.dataset)
        self._count(moved, "named" if named else "unnamed")
        self._raise_worst(named, (profile for _, profile in made.values()))

    def _count(self, moved: Mapping[int, int], column: str) -> None:
        changes = [(change, number) for number, change in moved.items() if number and change]
        self.database.each(f"UPDATE profiles SET {column} = {column} + ? WHERE number = ?", changes)
        self._drop([number for change, number in changes if change < 0])

    def _drop(self, numbers: Iterable[int]) -> None:
        """Delete those of these profiles that nobody has any more."""
        gone = "DELETE FROM profiles WHERE number = ? AND named = 0 AND unnamed = 0 AND number NOT IN (1, ?)"
        self.database.each(gone, [(number, self._common_number) for number in numbers])

    # Profiles ------------------------------------------------------------------------------

    def _profile(self, number: int) -> Profile:
        """The profile of a number; what a number stands for never changes."""
        if number not in self._numbers:
            if len(self._numbers) >= _REMEMBERED:
                self._numbers.clear()
            ((pure, uses),) = self.database.all("SELECT pure, uses FROM profiles WHERE number = ?", (number,))
            self._numbers[number] = self.profiles.of(pure, tuple((float(e), n) for e, n in json.loads(uses)))
        return self._numbers[number]

    def _number(self, profile: Profile) -> int:
        values = profile.pure, json.dumps([[_plain(epsilon), times] for epsilon, times in profile.uses])
        rows = self.database.all("SELECT number FROM profiles WHERE pure = ? AND uses = ?", values)
        return (
            int(rows[0][0]) if rows else self.database.insert("INSERT INTO profiles (pure, uses) VALUES (?, ?)", values)
        )

    # For readings and reports ---------------------------------------------------------------

    def groups(self) -> list[tuple[Profile, bool, int]]:
        rows = self.database.all("SELECT number, named, unnamed FROM profiles")
        counted = [(row[0], named, row[1 if named else 2]) for row in rows for named in (True, False)]
        return [(self._profile(number), named, records) for number, named, records in counted if records]

    def datasets(self) -> dict[str, int]:
        rows = self.database.all("SELECT name, ids FROM datasets")
        return {name.decode("utf-8", "surrogatepass"): ids for name, ids in rows if ids}

    def history(self) -> list[History]:
        columns = "time, epsilon, uses, coalesce(name, x''), records"
        rows = self.database.all(
            f"SELECT {columns} FROM charges LEFT JOIN datasets ON datasets.number = dataset ORDER BY charges.number"
        )
        self.charges = len(rows)
        return [(*row[:3], row[3].decode("utf-8", "surrogatepass"), row[4]) for row in rows]

    def __reduce__(self) -> Any:
        return _reopened, (self.path,)


def _reopened(path: str) -> FileBook:
    return open_book(path, None, None)[0]


def _plain(epsilon: float) -> float | str:
    return "inf" if math.isinf(epsilon) else epsilon


def _encoded_name(name: str) -> bytes:
    return name.encode("utf-8", "surrogatepass")


def encoded(record: RecordId) -> int | str | bytes:
    """An id as SQLite holds it: as it is, but for huge integers and for text that is not Unicode."""
    if isinstance(record, int):
        record = int.__int__(record)
        return record if -(1 << 63) <= record < 1 << 63 else b"i%x" % record if record > 0 else b"j%x" % -record
    try:
        record.encode()
    except UnicodeEncodeError:
        return b"s" + record.encode("utf-8", "surrogatepass")
    return str.__str__(record)  # an enum's own __str__ would name another record
