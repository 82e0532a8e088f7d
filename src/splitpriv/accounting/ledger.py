"""What has been spent, per record; and the limit that refuses to overspend."""

from __future__ import annotations

import asyncio
import math
import os
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from fractions import Fraction
from types import TracebackType

from splitpriv._errors import BudgetExceeded, InvalidParameterError
from splitpriv._validation import message, positive
from splitpriv.mechanisms.rounding import round_down, scale_up, show, sum_up

RecordId = str | int

# One lock for all: a charge must be accepted by every ledger in force, or by none.
_lock = threading.RLock()
# Process-wide, not per thread: a limit also holds for the threads started under it.
_in_force: list[Ledger] = []
# Per context, so that one thread's simulation never lets another thread release for free.
_simulating: ContextVar[_Simulation | None] = ContextVar("splitpriv_simulating", default=None)


def _new_lock() -> None:
    global _lock
    _lock = threading.RLock()  # another thread may have held it when the fork happened


if hasattr(os, "register_at_fork"):  # absent on Windows, which does not fork
    os.register_at_fork(after_in_child=_new_lock)


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

    Args:
        limit: largest total epsilon (natural log) of any record, > 0; None for no limit.

    Raises:
        InvalidParameterError: ``limit`` is not finite and > 0.

    Does not cover: other processes (a forked worker charges its own copy), or what is drawn
    from bare layers, which never charge.

    Example:
        >>> with Ledger(limit=4.0) as ledger:
        ...     charge(1.5)
        ...     charge(2.0, ids=["a", "b"])
        ...     ledger.epsilon
        3.5
    """

    def __init__(self, limit: float | None = None) -> None:
        fix = "Use limit=None for no limit."
        self.limit = None if limit is None else positive("Ledger", "limit", limit, fix)
        self._common = 0.0
        self._by_id: dict[str, dict[RecordId, float]] = {}
        self._worst = {True: 0.0, False: 0.0}  # the largest sum of an id, by whether its set has a name

    @property
    def epsilon(self) -> float:
        """What the worst record has paid."""
        return sum_up([self._common, *self._worst.values()])

    def spent(self, record: RecordId, dataset: str = "") -> float:
        """The most that one record may have paid.

        Its own charges, all those without ids, and the largest sum that may be its own under
        another id: of the ids without a data set's name, or, for such an id, of all others.

        Raises:
            InvalidParameterError: ``record`` is not a str or an int.
        """
        _count([record])
        return sum_up([self._elsewhere(dataset), self._by_id.get(dataset, {}).get(record, 0.0)])

    def remaining(self, record: RecordId, dataset: str = "") -> float:
        """What one record may still pay, rounded inward; ``inf`` without a limit. See :meth:`spent`."""
        spent = self.spent(record, dataset)
        if self.limit is None:
            return math.inf
        return max(0.0, round_down(Fraction(self.limit) - Fraction(spent))) if math.isfinite(spent) else 0.0

    def _elsewhere(self, dataset: str) -> float:
        return sum_up([self._common, self._worst[not dataset]])

    def charge(self, epsilon: float, *, ids: Sequence[RecordId] | None = None, dataset: str = "") -> None:
        """Charge this ledger and every ledger in force; all of them or none.

        Args:
            epsilon: what each record pays, >= 0; may be inf.
            ids: the records that pay; None for every record.
            dataset: name of the set that the ids belong to.

        Raises:
            BudgetExceeded: a ledger's limit would be passed. Nothing is charged then.
            InvalidParameterError: epsilon is negative or NaN, or an id is not a str or an int.
        """
        with _lock:
            others = [ledger for ledger in _in_force if ledger is not self]
            _charge([*others, self], epsilon, ids, dataset)

    def _refuse_beyond_limit(self, epsilon: float, counts: Counter[RecordId] | None, dataset: str) -> None:
        if self.limit is None:
            return
        if counts is None:
            spent, asked = self.epsilon, epsilon
            total = sum_up([spent, asked])
        else:
            paid = self._by_id.get(dataset, {})
            # Few different sums among many records: exact arithmetic for each of those only.
            cases = {(paid.get(i, 0.0), n) for i, n in counts.items()}
            elsewhere = self._elsewhere(dataset)
            total, spent, asked = max(
                (sum_up([elsewhere, own, scale_up(epsilon, n)]), sum_up([elsewhere, own]), scale_up(epsilon, n))
                for own, n in cases
            )
        if total > self.limit:
            raise BudgetExceeded(
                f"Ledger: limit must not be passed, got limit={self.limit:g} with {show(spent)} spent and "
                f"{show(asked)} asked by the worst record. Nothing was drawn or charged.",
                limit=self.limit,
                spent=spent,
                asked=asked,
            )

    def _add(self, epsilon: float, counts: Counter[RecordId] | None, dataset: str) -> None:
        if counts is None:
            self._common = sum_up([self._common, epsilon])
            return
        paid = self._by_id.setdefault(dataset, {})
        sums: dict[tuple[float, int], float] = {}
        for record, times in counts.items():
            case = paid.get(record, 0.0), times
            if case not in sums:
                sums[case] = sum_up([case[0], scale_up(epsilon, times)])
            paid[record] = sums[case]
        named = bool(dataset)
        self._worst[named] = max(self._worst[named], *sums.values())

    def __enter__(self) -> Ledger:
        with _lock:
            if self in _in_force:
                raise InvalidParameterError("Ledger: a ledger must be entered once, got a second entry.")
            _in_force.append(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with _lock:
            _in_force.remove(self)

    def __repr__(self) -> str:
        limit = "none" if self.limit is None else f"{self.limit:g}"
        spent = f"{show(self.epsilon)} by the worst record"
        return f"Ledger(spent={spent}, limit={limit}, ids={sum(map(len, self._by_id.values())):,})"


_in_force.append(Ledger())


def current() -> Ledger:
    """The innermost ledger in force; the process-wide one outside every ``with``."""
    with _lock:
        return _in_force[-1]


def charge(epsilon: float, *, ids: Sequence[RecordId] | None = None, dataset: str = "") -> None:
    """Charge every ledger in force, unless under :func:`simulation`. See :meth:`Ledger.charge`."""
    with _lock:
        _charge(_in_force, epsilon, ids, dataset)


def _charge(ledgers: Sequence[Ledger], epsilon: float, ids: Sequence[RecordId] | None, dataset: str) -> None:
    if isinstance(epsilon, bool) or not epsilon >= 0:  # also refuses NaN
        raise InvalidParameterError(message("Ledger.charge", "epsilon", ">= 0", epsilon))
    counts = None if ids is None else _count(ids)
    if simulating() or (counts is not None and not counts):
        return
    for ledger in ledgers:
        ledger._refuse_beyond_limit(epsilon, counts, dataset)
    for ledger in ledgers:
        ledger._add(epsilon, counts, dataset)


def _count(ids: Sequence[RecordId]) -> Counter[RecordId]:
    if isinstance(ids, (str, bytes)):
        raise InvalidParameterError("Ledger: ids must be a list, got one string. Put it in a list.")
    for record in ids:
        if isinstance(record, bool) or not isinstance(record, (str, int)):
            kind = type(record).__name__
            raise InvalidParameterError(f"Ledger: ids must be str or int, got {kind}. Convert tensors with .tolist().")
    return Counter(ids)


@contextmanager
def simulation() -> Iterator[None]:
    """Suspend charging, for attacks and evaluations on records that never leave.

    What is released inside is marked as simulated. Only the calling thread (and task) is
    affected. Do not ``yield`` inside: whoever consumes the generator would then simulate too.

    Example:
        >>> with simulation():
        ...     charge(1e6)
    """
    token = _simulating.set(block := _Simulation())
    try:
        yield
    finally:
        block.over = True  # for a task that was started inside and copied the context
        _simulating.reset(token)


def simulating() -> bool:
    """Whether charging is suspended here."""
    block = _simulating.get()
    return block is not None and not block.over and block.owner == _owner()


class _Simulation:
    """One ``with simulation()``: whose it is, and whether it has ended."""

    def __init__(self) -> None:
        self.owner, self.over = _owner(), False


def _owner() -> tuple[int, int]:
    try:
        task = asyncio.current_task()
    except RuntimeError:  # no event loop runs here
        task = None
    return threading.get_ident(), id(task)
