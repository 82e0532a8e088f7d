"""What each record has paid, kept in memory; and what any keeper of it must offer."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from uuid import uuid4

from splitpriv._errors import InvalidParameterError
from splitpriv.accounting.filter import RenyiFilter
from splitpriv.accounting.profile import Profile, Profiles

RecordId = str | int
History = tuple[float, float, int, str, int | None]  # time, epsilon, uses, data set, number of records
Worst = tuple[float, float]  # largest pure sum and largest Rényi sum of any record

HISTORY = 10_000  # charges that a ledger in memory remembers one by one


@dataclass(frozen=True)
class Charge:
    """``uses`` uses at ``epsilon`` each, by the records counted (how often each), or by all (None)."""

    epsilon: float
    uses: int
    counts: Mapping[RecordId, int] | None
    dataset: str
    time: float = field(default_factory=time.time)  # seconds since 1970, UTC


class Book:
    """The sums of a ledger in memory.

    A ledger charges in steps: ``begin``, ``cases`` to see who would pay, ``add``, ``commit``; or
    ``rollback`` after ``begin``. In memory only ``add`` does anything. All under the lock of charging.

    Attributes:
        path: the file that it is kept in; None in memory.
        uid: a name that no other book has.
    """

    path: str | None = None

    def __init__(self, renyi: RenyiFilter | None) -> None:
        self.uid = uuid4().hex
        self.profiles = Profiles(renyi)
        self.common = self.profiles.empty
        self.worst: dict[bool, Worst] = {True: (0.0, 0.0), False: (0.0, 0.0)}  # by whether the set has a name
        self._by_id: dict[str, dict[RecordId, Profile]] = {}
        self._history: deque[History] = deque(maxlen=HISTORY)
        self.charges = 0

    def begin(self) -> None:
        """Nothing else changes the sums until ``commit`` or ``rollback``."""

    def commit(self) -> None:
        """Make what was added last."""

    def rollback(self) -> None:
        """Forget what was added since ``begin``; nothing after a ``commit``."""

    def close(self) -> None:
        """Give back what the system lends."""

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Everything that is read inside is as at one instant."""
        yield

    def cases(self, counts: Mapping[RecordId, int], dataset: str) -> set[tuple[Profile, int]]:
        """What the records have paid, with how often each is in the charge: few different cases."""
        paid, empty = self._by_id.get(dataset, {}), self.profiles.empty
        return {(paid.get(record, empty), times) for record, times in counts.items()}

    def of(self, record: RecordId, dataset: str) -> Profile:
        """What one record has paid under its own id."""
        return self._by_id.get(dataset, {}).get(record, self.profiles.empty)

    def add(self, charge: Charge, ledgers: Sequence[str] = ()) -> int:
        """Count a charge; ``ledgers`` are the uids of all that it reaches. Returns its number."""
        epsilon, uses = charge.epsilon, charge.uses
        records = None if charge.counts is None else len(charge.counts)
        if charge.counts is None:
            self.common = self.profiles.after(self.common, epsilon, uses)
        else:
            paid = self._by_id.setdefault(charge.dataset, {})
            empty, after, made = self.profiles.empty, self.profiles.after, {}
            for record, times in charge.counts.items():
                case = paid.get(record, empty), times
                if case not in made:
                    made[case] = after(case[0], epsilon, times * uses)
                paid[record] = made[case]
            self._raise_worst(bool(charge.dataset), made.values())
        self.charges += 1
        self._history.append((charge.time, epsilon, uses, charge.dataset, records))
        return self.charges

    def _raise_worst(self, named: bool, profiles: Iterable[Profile]) -> None:
        pure, renyi = self.worst[named]
        for profile in profiles:
            pure, renyi = max(pure, profile.pure), max(renyi, profile.renyi)
        self.worst[named] = pure, renyi

    # For readings and reports ---------------------------------------------------------------

    def groups(self) -> list[tuple[Profile, bool, int]]:
        """(profile, whether of named sets, number of records) for each profile that a record has."""
        counted: Counter[tuple[Profile, bool]] = Counter()
        for name, paid in self._by_id.items():
            for profile, records in Counter(paid.values()).items():
                counted[profile, bool(name)] += records
        return [(profile, named, records) for (profile, named), records in counted.items()]

    def datasets(self) -> dict[str, int]:
        """Number of ids in each set."""
        return {name: len(paid) for name, paid in self._by_id.items()}

    def history(self) -> list[History]:
        """The charges, oldest first; in memory the last ``HISTORY`` of them."""
        return list(self._history)


def count(ids: Sequence[RecordId]) -> Counter[RecordId]:
    """How often each id is in a list, which must be one of ids."""
    if isinstance(ids, (str, bytes)):
        raise InvalidParameterError("Ledger: ids must be a list, got one string. Put it in a list.")
    listed = list(ids)  # an iterator can be read only once
    for record in listed:
        if isinstance(record, bool) or not isinstance(record, (str, int)):
            kind = type(record).__name__
            raise InvalidParameterError(f"Ledger: ids must be str or int, got {kind}. Convert tensors with .tolist().")
    return Counter(listed)
