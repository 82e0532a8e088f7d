"""What has been spent, per record; and the limit that refuses to overspend."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from types import TracebackType
from typing import TextIO

from splitpriv._errors import BudgetExceeded, InvalidParameterError
from splitpriv._validation import message, positive
from splitpriv.accounting import charging
from splitpriv.accounting.book import Book, Charge, RecordId, count
from splitpriv.accounting.export import describe, write_json
from splitpriv.accounting.file_book import open_book
from splitpriv.accounting.filter import RenyiFilter, reading, renyi_sum
from splitpriv.accounting.profile import Profile
from splitpriv.mechanisms.rounding import round_down, scale_up, show, sum_up


class Ledger:
    """Counts what every record has paid, and refuses what would pass its limit.

    A charge without ids is paid by every record, since any record may be in it; a charge with
    ids is paid by the records named. The total is that of the worst record,

        epsilon = (all charges without ids) + (largest sum of charges of one id),

    rounded outward. An id given twice in one charge pays twice. The same id in two *named* data
    sets names two records. Charges whose ids come without a ``dataset`` name may be for records of
    any set, so that their largest sum is added to the largest one of the named sets.

    As a context manager a ledger is *in force*: charges reach it and every ledger around it,
    the process-wide one included, and are refused if any of them would pass its limit.

    With a ``path`` the ledger is kept in an SQLite file. A charge is on the disk before anything is drawn for
    it, so a spend outlives the process, ``kill -9`` and a power cut; any number of threads and processes may
    charge one file, and together they never pass its limit. A charge that reaches several files is committed to one
    after the other: a crash in between may leave some of them charged for what was never drawn, never the reverse.

    With ``delta`` the limit is an (epsilon, delta) one: what the worst record pays is within ``limit``
    but for a slack ``delta``, although each charge may depend on what earlier ones released. A charge is
    accepted if the pure sum stays within ``limit``, or if the Rényi losses stay within a budget at one order that is
    fixed when the ledger is made.

    Args:
        limit: largest total epsilon (natural log) of any record, > 0; None for no limit. A file
            keeps the limit that it was made with: None then stands for that one.
        delta: slack probability of the limit, in [0, 1); 0 for a pure limit.
        path: file to keep the ledger in, made if there is none; None for memory.

    Raises:
        InvalidParameterError: ``limit`` or ``delta`` is outside its range, or not that of the file.
        LedgerFileError: the file is foreign, damaged, of a later version, busy, or not writable.

    Does not cover: what is drawn from bare layers, which never charge; without a ``path``, other processes (a
    forked worker charges its own copy). A file that is restored from a backup, or deleted, has
    forgotten what came after; network file systems may not honour its locks.

    Source: pure sums: Dwork and Roth 2014, theorem 3.14 (for adaptive charges: Rogers, Roth, Ullman, Vadhan 2016).
    (epsilon, delta): Feldman and Zrnic 2021, theorem 3.1; the Rényi loss is that of randomized response (Kairouz, Oh,
    Viswanath 2015); converted by Canonne, Kamath, Steinke 2020, proposition 12.

    Example:
        >>> from splitpriv.accounting import charge
        >>> with Ledger(limit=4.0) as ledger:
        ...     charge(1.5)
        ...     charge(2.0, ids=["a", "b"])
        ...     ledger.epsilon
        3.5
    """

    def __init__(
        self, limit: float | None = None, *, delta: float = 0.0, path: str | os.PathLike[str] | None = None
    ) -> None:
        fix = "Use limit=None for no limit."
        limit = None if limit is None else positive("Ledger", "limit", limit, fix)
        if isinstance(delta, bool) or not 0 <= delta < 1:
            raise InvalidParameterError(message("Ledger", "delta", "in [0, 1)", delta, "0 is a pure limit."))
        if delta and limit is None:
            fix = "It is the slack of a limit; Ledger.epsilon_at(delta) reads a ledger that has none."
            raise InvalidParameterError(message("Ledger", "delta", "0 without a limit", delta, fix))
        self._filter = RenyiFilter.of(limit, float(delta)) if limit is not None and delta else None
        self.limit, self.delta = limit, float(delta)
        self._book: Book
        if path is None:
            self._book = Book(self._filter)
        else:
            with charging.lock():
                self._book, self.limit, self._filter = open_book(path, limit, self._filter)
            self.delta = 0.0 if self._filter is None else self._filter.delta

    @property
    def path(self) -> str | None:
        """The file that keeps it; None in memory."""
        return self._book.path

    @property
    def uid(self) -> str:
        """A random name that no other ledger has; a file keeps its own."""
        return self._book.uid

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        with charging.lock():
            self._book.close()

    # Reading -------------------------------------------------------------------------------

    @property
    def epsilon(self) -> float:
        """What the worst record has paid: the sum of pure losses, which holds with delta = 0."""
        with self._reading():
            return self._totals(0)

    def spent(self, record: RecordId, dataset: str = "") -> float:
        """The most that one record may have paid.

        Its own charges, all those without ids, and the largest sum that may be its own under
        another id: of the ids without a data set's name, or, for such an id, of all others.

        Raises:
            InvalidParameterError: ``record`` is not a str or an int.
        """
        count([record])
        with self._reading():
            return sum_up([self._elsewhere(dataset)[0], self._book.of(record, dataset).pure])

    def remaining(self, record: RecordId, dataset: str = "") -> float:
        """What one more use may cost a record, rounded inward; ``inf`` without a limit. See :meth:`spent`."""
        count([record])
        if self.limit is None:
            return math.inf
        with self._reading():
            own, elsewhere = self._book.of(record, dataset), self._elsewhere(dataset)
        spent = sum_up([elsewhere[0], own.pure])
        pure = max(0.0, round_down(Fraction(self.limit) - Fraction(spent))) if math.isfinite(spent) else 0.0
        return pure if self._filter is None else max(pure, self._filter.largest(sum_up([elsewhere[1], own.renyi])))

    def epsilon_at(self, delta: float) -> float:
        """An epsilon that bounds the worst record's loss but for probability ``delta``.

        Valid however the charges were chosen, later ones by what earlier ones released included, and at
        all times together: it may be read after every charge and acted upon. The smaller of the pure sum and, over
        a fixed list of m Rényi orders a, the least of (sum of Rényi losses) + ln(m / delta) / (a - 1). For charges that
        were all fixed in advance, composition by ``epsilon_total`` is tighter.

        Args:
            delta: slack probability, in [0, 1).

        Returns:
            Epsilon (natural log), rounded outward, never above :attr:`epsilon`.

        Raises:
            InvalidParameterError: ``delta`` is out of range.

        Source: Rényi odometer by Ville's inequality, Whitehouse, Ramdas, Rogers, Wu 2023; Lécuyer 2021.

        Example:
            >>> ledger = Ledger()
            >>> ledger.charge(0.1, uses=200)
            >>> ledger.epsilon, round(ledger.epsilon_at(1e-6), 1)
            (20.000000000000004, 9.0)
        """
        if isinstance(delta, bool) or not 0 <= delta < 1:
            raise InvalidParameterError(message("Ledger.epsilon_at", "delta", "in [0, 1)", delta, "0 is the pure sum."))
        with self._reading():
            groups, common, pure = self._book.groups(), self._book.common, self._totals(0)

        def renyi(order: float) -> float:
            worst = {True: 0.0, False: 0.0}
            for profile, named, _ in groups:
                worst[named] = max(worst[named], renyi_sum(profile.uses, order))
            return sum_up([renyi_sum(common.uses, order), *worst.values()])

        return reading(pure, renyi, float(delta))

    def export(self, target: str | os.PathLike[str] | TextIO) -> None:
        """Write a report for a reviewer, as strict JSON: ``inf`` is the string ``"inf"``.

        Limit and totals, one entry for each different spend (epsilon of one use, number of uses) with the
        number of records that have it, the data sets, and the charges with their times (UTC); no ids.

        Args:
            target: a path, written whole or not at all, or an open text file.

        Raises:
            OSError: the path cannot be written.
        """
        with self._reading():  # all of it at one instant
            report = describe(self, self._book)
        write_json(report, target)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        with charging.lock(), self._book.reading():
            yield

    def _totals(self, which: int) -> float:
        """Of the worst record: the pure sum (0), or the Rényi sum (1)."""
        return sum_up([_sums(self._book.common)[which], *(worst[which] for worst in self._book.worst.values())])

    def _elsewhere(self, dataset: str) -> tuple[float, float]:
        """What a record of this set may have paid beside what is under its own id: pure, and Rényi."""
        common, other = _sums(self._book.common), self._book.worst[not dataset]
        return sum_up([common[0], other[0]]), sum_up([common[1], other[1]])

    # Charging ------------------------------------------------------------------------------

    def charge(
        self, epsilon: float, *, ids: Sequence[RecordId] | None = None, dataset: str = "", uses: int = 1
    ) -> None:
        """Charge this ledger and every ledger in force; all of them or none.

        Args:
            epsilon: what one use costs a record, >= 0; may be inf.
            ids: the records that pay; None for every record.
            dataset: name of the set that the ids belong to.
            uses: how many independent uses each record pays, >= 1. A pure limit sees
                ``epsilon * uses``; an (epsilon, delta) one composes the uses.

        Raises:
            BudgetExceeded: a ledger's limit would be passed. Nothing is charged then.
            InvalidParameterError: epsilon is negative or NaN, ``uses`` is no count, or an id is not a str or an int.
            LedgerFileError: a ledger's file cannot be written, or another process holds it.
        """
        charging.charge_ledgers([self], epsilon, ids, dataset, uses)

    def _refuse_beyond_limit(self, charge: Charge) -> None:
        """Raise if a charge would pass the limit; the book has begun."""
        if self.limit is None:
            return
        epsilon, uses = charge.epsilon, charge.uses
        if charge.counts is None:
            cases = {(self._book.profiles.empty, 1)}
            elsewhere = self._totals(0), self._totals(1)
        else:
            cases, elsewhere = self._book.cases(charge.counts, charge.dataset), self._elsewhere(charge.dataset)
        refused = [
            (sum_up([elsewhere[0], own.pure, scale_up(epsilon, times * uses)]), own, times)
            for own, times in cases
            if not self._has_room(elsewhere, own, epsilon, times * uses)
        ]
        if refused:
            _, own, times = max(refused, key=lambda case: case[0])
            self._refuse(elsewhere, own, epsilon, times * uses)

    def _has_room(self, elsewhere: tuple[float, float], own: Profile, epsilon: float, uses: int) -> bool:
        assert self.limit is not None
        if sum_up([elsewhere[0], own.pure, scale_up(epsilon, uses)]) <= self.limit:
            return True
        renyi = self._filter
        return renyi is not None and sum_up([elsewhere[1], own.renyi, renyi.loss(epsilon, uses)]) <= renyi.budget

    def _refuse(self, elsewhere: tuple[float, float], own: Profile, epsilon: float, uses: int) -> None:
        spent, asked = sum_up([elsewhere[0], own.pure]), scale_up(epsilon, uses)
        slack = ""
        if self._filter is not None:
            spent = min(spent, self._filter.epsilon(sum_up([elsewhere[1], own.renyi])))
            slack = f" at delta={self.delta:g}"
        assert self.limit is not None
        raise BudgetExceeded(
            f"Ledger: limit must not be passed, got limit={self.limit:g}{slack} with {show(spent)} spent and "
            f"{show(asked)} asked by the worst record. Nothing was drawn or charged.",
            limit=self.limit,
            spent=spent,
            asked=asked,
        )

    # In force ------------------------------------------------------------------------------

    def __enter__(self) -> Ledger:
        with charging.lock():
            if self in charging.in_force:
                raise InvalidParameterError("Ledger: a ledger must be entered once, got a second entry.")
            charging.in_force.append(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with charging.lock():
            charging.in_force.remove(self)

    def __repr__(self) -> str:
        limit = "none" if self.limit is None else f"{self.limit:g}"
        limit += f" at delta={self.delta:g}" if self.delta else ""
        spent = f"{show(self.epsilon)} by the worst record"
        where = "" if self.path is None else f", path={self.path!r}"
        with self._reading():
            ids = sum(self._book.datasets().values())
        return f"Ledger(spent={spent}, limit={limit}, ids={ids:,}{where})"


def _sums(profile: Profile) -> tuple[float, float]:
    return profile.pure, profile.renyi


charging.in_force.append(Ledger())
