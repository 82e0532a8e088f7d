"""The ledgers in force, and a charge that reaches all of them or none."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from fractions import Fraction
from types import TracebackType
from typing import TYPE_CHECKING

from splitpriv import _validation as check
from splitpriv._errors import InvalidParameterError
from splitpriv._validation import message
from splitpriv.accounting.book import Book, Charge, RecordId, count
from splitpriv.accounting.simulation import simulating
from splitpriv.mechanisms.rounding import round_up

if TYPE_CHECKING:
    from splitpriv.accounting.ledger import Ledger

# One lock for all: a charge must be accepted by every ledger in force, or by none.
_lock = threading.RLock()
# Process-wide, not per thread: a limit also holds for the threads started under it.
in_force: list[Ledger] = []

MAX_USES = (1 << 63) - 1


def _new_lock() -> None:
    global _lock
    _lock = threading.RLock()  # another thread may have held it when the fork happened


if hasattr(os, "register_at_fork"):  # absent on Windows, which does not fork
    os.register_at_fork(after_in_child=_new_lock)


def lock() -> AbstractContextManager[bool]:
    """The lock that every read and write of a ledger holds."""
    return _lock


def current() -> Ledger:
    """The innermost ledger in force; the process-wide one outside every ``with``."""
    with _lock:
        return in_force[-1]


def charge(epsilon: float, *, ids: Sequence[RecordId] | None = None, dataset: str = "", uses: int = 1) -> None:
    """Charge every ledger in force, unless under :func:`simulation`. See :meth:`Ledger.charge`."""
    charge_ledgers((), epsilon, ids, dataset, uses)


def charge_ledgers(
    more: Sequence[Ledger], epsilon: float, ids: Sequence[RecordId] | None, dataset: str, uses: int
) -> None:
    """Charge the ledgers in force and ``more``, each once."""
    epsilon, uses = checked(epsilon, uses)
    if not isinstance(dataset, str):  # a NaN is never the same set twice
        raise InvalidParameterError(message("Ledger.charge", "dataset", "a str", dataset))
    counts = None if ids is None else count(ids)
    if simulating() or (counts is not None and not counts):
        return
    made = Charge(epsilon, uses, counts, dataset)
    with Transaction(more) as transaction:
        for ledger in transaction.ledgers:
            transaction.charge(ledger, made)


def checked(epsilon: float, uses: int) -> tuple[float, int]:
    """Refuse a loss or a number of uses that is none; the loss as a float, rounded outward, the uses as an int."""
    if isinstance(epsilon, bool) or not epsilon >= 0:  # also refuses NaN
        raise InvalidParameterError(message("Ledger.charge", "epsilon", ">= 0", epsilon))
    uses = check.integer("Ledger.charge", "uses", uses, 1, MAX_USES)  # NumPy's integers would overflow in sums
    if type(epsilon) is float:
        return abs(epsilon), uses  # no -0.0
    return (math.inf if math.isinf(epsilon) else round_up(Fraction(epsilon)) + 0.0), uses


class Transaction:
    """Charges that are accepted together, or not at all.

    Every file is locked (in one order for all processes, so that none waits for another in a circle),
    every limit is asked, and only then is anything written. Several files cannot be committed as one: a
    crash in between leaves some charged for what was never drawn, never the other way round.
    ``last`` is committed after all others, with whatever ``finish`` writes beside the charge.

    Args:
        more: ledgers to charge beside those in force.
        last: the ledger whose file is committed last; in ``more``.
    """

    def __init__(self, more: Sequence[Ledger] = (), last: Ledger | None = None) -> None:
        self._more, self._last = more, last
        self.ledgers: list[Ledger] = []
        self.finish: Callable[[int | None], None] = lambda number: None
        self._charges: list[tuple[Book, Charge]] = []
        self._begun: list[Book] = []

    def __enter__(self) -> Transaction:
        self._lock = _lock
        self._lock.acquire()
        try:
            books = {}
            for ledger in [*in_force, *self._more]:
                if ledger._book not in books:  # two ledgers of one file pay once
                    books[ledger._book] = ledger
            self.ledgers = list(books.values())
            for book in sorted((b for b in books if b.path is not None), key=lambda b: b.path or ""):
                self._begun.append(book)  # before it begins: an interrupt in between must not leave the file locked
                book.begin()
        except BaseException:
            self._release()
            raise
        return self

    def charge(self, ledger: Ledger, made: Charge) -> None:
        """Ask a ledger; it is charged when the block ends without an error."""
        ledger._refuse_beyond_limit(made)
        self._charges.append((ledger._book, made))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._write()
        finally:
            self._release()

    def _write(self) -> None:
        reached = [ledger.uid for ledger in self.ledgers]
        last = None if self._last is None else self._last._book
        number = None
        for book, made in self._charges:
            if book.path is not None:
                added = book.add(made, reached)
                number = added if book is last else number
        self.finish(number)
        for book in self._begun:
            if book is not last:
                book.commit()
        for book, made in self._charges:
            if book.path is None:
                book.add(made, reached)
        if last is not None:
            last.commit()

    def _release(self) -> None:
        try:
            for book in self._begun:
                book.rollback()
        finally:
            self._lock.release()
