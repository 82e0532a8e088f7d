"""Spend profiles: what a record has paid, shared by all records that have paid the same."""

from __future__ import annotations

from bisect import bisect_left
from weakref import WeakValueDictionary

from splitpriv.accounting.filter import RenyiFilter, renyi_sum
from splitpriv.mechanisms.rounding import scale_up, sum_up

Uses = tuple[tuple[float, int], ...]  # (epsilon of one use, number of uses), by rising epsilon

MAX_KINDS = 32  # different epsilons that a profile tells apart


class Profile:
    """What one record has paid. Interned by :class:`Profiles`, so compared by identity.

    Attributes:
        pure: sum of all losses, each addition rounded outward.
        uses: how often a mechanism of which epsilon was used. Beyond ``MAX_KINDS`` different ones
            the two nearest are counted as the larger.
        renyi: sum of the Rényi losses at the order of the ledger's filter; 0 without a filter.
    """

    __slots__ = ("__weakref__", "pure", "renyi", "uses")

    def __init__(self, pure: float, uses: Uses, renyi: float) -> None:
        self.pure, self.uses, self.renyi = pure, uses, renyi


class Profiles:
    """The profiles of one ledger: equal ones are one object, and exact arithmetic is done once for each."""

    def __init__(self, renyi: RenyiFilter | None) -> None:
        self.filter = renyi
        self._known: WeakValueDictionary[tuple[float, Uses], Profile] = WeakValueDictionary()
        self.empty = self.of(0.0, ())

    def of(self, pure: float, uses: Uses) -> Profile:
        """The profile with these contents."""
        profile = self._known.get((pure, uses))
        if profile is None:
            renyi = 0.0 if self.filter is None else renyi_sum(uses, self.filter.order)
            profile = self._known[pure, uses] = Profile(pure, uses, renyi)
        return profile

    def after(self, profile: Profile, epsilon: float, times: int) -> Profile:
        """The profile of a record that has paid ``epsilon`` this many times more."""
        if epsilon == 0 or times == 0:
            return profile
        pure = sum_up([profile.pure, scale_up(epsilon, times)])
        return self.of(pure, _with(profile.uses, epsilon, times))


def _with(uses: Uses, epsilon: float, times: int) -> Uses:
    at = bisect_left(uses, (epsilon, 0))
    if at < len(uses) and uses[at][0] == epsilon:
        return (*uses[:at], (epsilon, uses[at][1] + times), *uses[at + 1 :])
    uses = (*uses[:at], (epsilon, times), *uses[at:])
    if len(uses) <= MAX_KINDS:
        return uses
    low = min(range(len(uses) - 1), key=lambda k: uses[k + 1][0] - uses[k][0])
    (_, few), (larger, more) = uses[low], uses[low + 1]
    return (*uses[:low], (larger, few + more), *uses[low + 2 :])
