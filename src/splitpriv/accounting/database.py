"""The SQLite file of a ledger: made whole or not at all, believed after checks, durable at each commit."""

from __future__ import annotations

import os
import secrets
import sqlite3
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any
from uuid import uuid4

from splitpriv._errors import LedgerFileError
from splitpriv._validation import message

APPLICATION, VERSION = 0x73706C67, 1  # "splg"
PATIENCE = 30.0  # seconds that a process waits for another one's charge

SCHEMA = (
    # One row: what the ledger is, and the totals. The common profile is what every record has paid.
    """CREATE TABLE ledger (uid TEXT NOT NULL, "limit" REAL, delta REAL NOT NULL, renyi_order REAL,
       common INTEGER NOT NULL, named_pure REAL NOT NULL, named_renyi REAL NOT NULL,
       unnamed_pure REAL NOT NULL, unnamed_renyi REAL NOT NULL)""",
    # Spends that records share; named and unnamed count the records that have one. Numbers are never used again.
    """CREATE TABLE profiles (number INTEGER PRIMARY KEY AUTOINCREMENT, pure REAL NOT NULL, uses TEXT NOT NULL,
       named INTEGER NOT NULL DEFAULT 0, unnamed INTEGER NOT NULL DEFAULT 0, UNIQUE (pure, uses))""",
    "CREATE TABLE datasets (number INTEGER PRIMARY KEY, name BLOB NOT NULL UNIQUE, ids INTEGER NOT NULL DEFAULT 0)",
    # A record's id has no declared type, so that 1 and "1" stay two ids.
    """CREATE TABLE records (dataset INTEGER NOT NULL, record NOT NULL, profile INTEGER NOT NULL,
       PRIMARY KEY (dataset, record)) WITHOUT ROWID""",
    """CREATE TABLE charges (number INTEGER PRIMARY KEY AUTOINCREMENT, time REAL NOT NULL, epsilon REAL NOT NULL,
       uses INTEGER NOT NULL, dataset INTEGER, records INTEGER, ledgers TEXT NOT NULL)""",
    # Memoised releases: what was sent under which key, or NULL where it is charged and not yet drawn.
    "CREATE TABLE keys (number INTEGER PRIMARY KEY, fingerprint BLOB NOT NULL UNIQUE, shape TEXT)",
    """CREATE TABLE releases (key INTEGER NOT NULL, dataset INTEGER NOT NULL, record NOT NULL,
       charge INTEGER NOT NULL, symbols BLOB, PRIMARY KEY (key, dataset, record)) WITHOUT ROWID""",
)

# Profiles that not as many records have as are counted; totals that are below a record's.
_CONTRADICTIONS = """
    SELECT count(*) FROM profiles
    LEFT JOIN (SELECT profile, count(*) AS have FROM records GROUP BY profile) ON profile = number
    CROSS JOIN ledger WHERE named + unnamed != coalesce(have, 0)
    OR (named > 0 AND pure > named_pure) OR (unnamed > 0 AND pure > unnamed_pure)
    UNION ALL SELECT (SELECT count(*) FROM records) != (SELECT total(named + unnamed) FROM profiles)
    UNION ALL SELECT count(*) != 1 FROM ledger JOIN profiles ON number = common
    ORDER BY 1 DESC"""

# A fork leaves the child with connections that it must neither use nor close.
_inherited: list[sqlite3.Connection] = []


class Database:
    """One connection per process to a ledger's file; used under the lock of charging only.

    Args:
        path: the file, as :func:`os.path.realpath` gives it; it exists.

    Raises:
        LedgerFileError: foreign, damaged, of a later version, busy, or not accessible.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._connection: sqlite3.Connection | None = None
        self._process = 0
        self._checked = False
        with self.explained():
            status = os.stat(path)
            self._file = status.st_dev, status.st_ino
            self._connect()

    # Transactions --------------------------------------------------------------------------

    @property
    def in_transaction(self) -> bool:
        """Whether this process has begun, and not yet committed or rolled back."""
        # SQLite's word for it: a note of one's own would be wrong after an interrupt between the two.
        connection = self._connection
        return connection is not None and self._process == os.getpid() and connection.in_transaction

    def begin(self, write: bool) -> None:
        """Start a transaction; one that writes is alone, in this process and in all others."""
        with self.explained():
            connection = self._connect()
            self._refuse_replaced()
            connection.execute("BEGIN IMMEDIATE" if write else "BEGIN")

    def commit(self) -> None:
        """Put the transaction on the disk: after this it survives kill -9 and a power cut."""
        with self.explained():
            self._connect().execute("COMMIT")

    def rollback(self) -> None:
        """Forget the transaction; nothing where there is none."""
        if self.in_transaction and self._connection is not None:
            with suppress(sqlite3.Error):  # a full disk may have rolled back by itself
                self._connection.execute("ROLLBACK")

    def all(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run one statement, and return its rows."""
        with self.explained():
            return self._connect().execute(statement, values).fetchall()

    def each(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run one statement for each row of values."""
        with self.explained():
            self._connect().executemany(statement, rows)

    def insert(self, statement: str, values: Sequence[Any]) -> int:
        """Run an insertion, and return the number of the new row."""
        with self.explained():
            return int(self._connect().execute(statement, values).lastrowid or 0)

    # Connections ---------------------------------------------------------------------------

    def _connect(self) -> sqlite3.Connection:
        if self._connection is not None and self._process != os.getpid():
            _inherited.append(self._connection)
            self._connection = None
        if self._connection is None:
            self._connection = _open(self.path)
            self._process = os.getpid()
            self._closer = weakref.finalize(self, _close, self._connection, self._process)
            if not self._checked:
                try:
                    _check(self._connection)
                except BaseException:
                    self.close()
                    raise
                self._checked = True
        return self._connection

    def close(self) -> None:
        """Close this process's connection; the next use opens another one."""
        if self._connection is not None and self._process == os.getpid():
            self.rollback()
            self._closer()
            self._connection = None

    def is_current(self) -> bool:
        """Whether the path still is the file that was opened."""
        try:
            status = os.stat(self.path)
        except OSError:
            return False
        return (status.st_dev, status.st_ino) == self._file

    def _refuse_replaced(self) -> None:
        if not self.is_current():
            raise LedgerFileError("It was removed or replaced while it was in use, and what it held is not there.")

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Say of which file it is that something is wrong."""
        with explained(self.path):
            yield


@contextmanager
def explained(path: str) -> Iterator[None]:
    """Say of which file it is that something is wrong, and that nothing was drawn."""
    constraint = "a ledger file that can be read and written"
    try:
        yield
    except LedgerFileError as error:
        if str(error).startswith("Ledger: "):
            raise
        raise LedgerFileError(message("Ledger", "path", constraint, path, f"{error} Nothing was drawn.")) from error
    except (sqlite3.Error, OSError) as error:
        reason = f"{error}. Nothing was drawn."
        if "locked" in str(error):
            reason = f"Another process has held it for {PATIENCE:g} s. Nothing was drawn."
        raise LedgerFileError(message("Ledger", "path", constraint, path, reason)) from error


def _open(path: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=PATIENCE, isolation_level=None, check_same_thread=False)
    try:
        # EXTRA: what was committed stays so after a power cut, also where there is no write-ahead log.
        connection.execute("PRAGMA synchronous = EXTRA")
        connection.execute("PRAGMA wal_autocheckpoint = 8192")
        connection.execute("PRAGMA cache_size = -65536")  # KiB
        connection.execute("PRAGMA trusted_schema = OFF")
    except BaseException:
        connection.close()
        raise
    return connection


def _close(connection: sqlite3.Connection, process: int) -> None:
    if process == os.getpid():
        connection.close()
    else:
        _inherited.append(connection)


def _check(connection: sqlite3.Connection) -> None:
    """Refuse a file that is not a ledger, or not an intact one."""
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    if application != APPLICATION:
        raise LedgerFileError("It is another program's file, or empty.")
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version != VERSION:
        raise LedgerFileError(f"Its format is version {version}, and this splitpriv reads version {VERSION}.")
    found = {sql for (sql,) in connection.execute("SELECT sql FROM sqlite_master WHERE type = 'table'")}
    rows = connection.execute("SELECT count(*) FROM ledger").fetchone()[0] if set(SCHEMA) <= found else 0
    if rows != 1:
        raise LedgerFileError("It is damaged: its tables are not those of a ledger.")
    damage = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if damage != "ok":
        raise LedgerFileError(f"It is damaged: {damage}.")
    if connection.execute(_CONTRADICTIONS).fetchone()[0]:
        raise LedgerFileError("It is damaged: its sums contradict each other.")


def create(path: str, limit: float | None, delta: float, order: float | None) -> None:
    """Make an empty ledger, under its name only when it is complete and on the disk.

    So an empty or unfinished file is never mistaken for a ledger in which nothing was spent. Where another
    process was faster, its file stays.
    """
    with explained(path):
        for suffix in ("-wal", "-journal"):
            if os.path.exists(path + suffix):
                raise LedgerFileError(
                    f"It is missing, but {os.path.basename(path + suffix)!r} beside it is a part of it."
                )
        folder = os.path.dirname(path)
        temporary = os.path.join(folder, f".splitpriv-{secrets.token_hex(8)}.tmp")
        try:
            _fill(temporary, limit, delta, order)
            _publish(temporary, path)
        finally:
            for suffix in ("", "-wal", "-shm", "-journal"):
                with suppress(FileNotFoundError):
                    os.unlink(temporary + suffix)
        _sync(folder)


def _fill(path: str, limit: float | None, delta: float, order: float | None) -> None:
    connection = _open(path)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("BEGIN IMMEDIATE")
        for statement in SCHEMA:
            connection.execute(statement)
        connection.execute("INSERT INTO profiles (number, pure, uses) VALUES (1, 0.0, '[]')")
        values = (uuid4().hex, limit, delta, order, 1, 0.0, 0.0, 0.0, 0.0)
        connection.execute("INSERT INTO ledger VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", values)
        connection.execute(f"PRAGMA application_id = {APPLICATION}")
        connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
    finally:
        connection.close()
    _sync(path)


def _publish(temporary: str, path: str) -> None:
    """Give the file its name, unless there is one of that name."""
    with suppress(FileExistsError):
        if os.name == "nt":
            os.rename(temporary, path)  # refuses to replace, there
        else:
            os.link(temporary, path)


def _sync(path: str) -> None:
    """Put a file, or the names in a directory, on the disk."""
    with suppress(PermissionError):  # directories, on Windows
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
