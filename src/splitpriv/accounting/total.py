"""``epsilon_total``: the one number, for anything that can cost privacy; ``delta_total``: its inverse."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any

from splitpriv._errors import InvalidParameterError
from splitpriv._validation import message
from splitpriv.accounting.charging import current
from splitpriv.accounting.composition import checked_delta, tight_delta, tight_epsilon
from splitpriv.accounting.ledger import Ledger
from splitpriv.accounting.paid import paid
from splitpriv.mechanisms.rounding import sum_up


def epsilon_total(what: Any = None, *, shape: Sequence[int] | None = None, delta: float = 0.0) -> float:
    """The total privacy loss of one record (natural log), never below the true one.

    =====================  ===========================================================
    ``what``               what is counted
    =====================  ===========================================================
    nothing                what the worst record has paid in the ledger in force
    a :class:`Ledger`      what the worst record has paid in it
    a layer                one release of one record of feature shape ``shape``
    a ``SplitModel``       one released row (shape from its first use or ``shape``)
    a ``Release``          the worst record in it
    a list or tuple        several of these on one record, composed
    =====================  ===========================================================

    Nothing released is 0; released without a mechanism is ``inf``.

    With ``delta`` = 0 losses are added. With ``delta`` > 0 they are composed as tightly as what is
    known allows (:func:`compose`): a layer's channels by their privacy-loss distributions, a release by
    the epsilon of its uses; what is only known by its total (a ledger, rows tied together by
    weights that were fitted on private records) as one mechanism of that epsilon.

    Args:
        what: see the table.
        shape: feature shape without batch; needed where the number of elements is not known yet.
        delta: slack probability in [0, 1), of the whole: that of a list is not one for each item.

    Raises:
        InvalidParameterError: ``what`` is none of these, ``delta`` is out of range, or ``shape``
            is given for something that already has one.
        PrivacyError: the shape is not known and not given.

    Does not cover: labels that were declared public, and what bare layers (outside a
    ``SplitModel``) have released. With ``delta`` > 0, what happens with that probability.

    Source: sequential composition of pure losses, Dwork and Roth 2014, theorem 3.14; see
    :func:`compose` for ``delta`` > 0.

    Example:
        >>> epsilon_total(Ledger())
        0.0
    """
    checked_delta("epsilon_total", delta)
    spends = paid("epsilon_total", what, shape)
    pure = sum_up(spend.per_record for spend in spends)
    if delta == 0:
        return pure
    at = _epsilon_at(what)
    if at is not None:
        return min(pure, float(at(delta)))
    return tight_epsilon(spends, delta).upper


def delta_total(what: Any = None, *, epsilon: float, shape: Sequence[int] | None = None) -> float:
    """The slack probability at which ``what`` costs ``epsilon``; never below the true one.

    The inverse of :func:`epsilon_total`, with the same table of what is counted. 0 where
    ``epsilon`` is at least the pure total.

    Args:
        what: see :func:`epsilon_total`.
        epsilon: a privacy loss (natural log), >= 0.
        shape: feature shape without batch; needed where the number of elements is not known yet.

    Raises:
        InvalidParameterError: ``epsilon`` is negative or NaN, or as for :func:`epsilon_total`.
        PrivacyError: the shape is not known and not given.

    Does not cover: see :func:`epsilon_total`.

    Source: see :func:`compose`.

    Example:
        >>> from splitpriv.layers import RandomResponseLDP
        >>> layer = RandomResponseLDP(epsilon=0.1)
        >>> epsilon_total(layer, shape=(10_000,), delta=1e-6) < 96.6
        True
        >>> delta_total(layer, shape=(10_000,), epsilon=96.6) < 1e-6
        True
    """
    if isinstance(epsilon, bool) or not isinstance(epsilon, Real) or not epsilon >= 0:
        raise InvalidParameterError(message("delta_total", "epsilon", "a number >= 0", epsilon))
    spends = paid("delta_total", what, shape)
    found = tight_delta(spends, float(epsilon)) if math.isfinite(epsilon) else 0.0
    at = _epsilon_at(what)
    return found if at is None or found == 0 else min(found, _inverse(at, float(epsilon), found))


def _epsilon_at(what: Any) -> Callable[[float], float] | None:
    """A ledger's own composition, where it offers one."""
    ledger = current() if what is None else what
    return getattr(ledger, "epsilon_at", None) if isinstance(ledger, Ledger) else None


def _inverse(at: Callable[[float], float], epsilon: float, known: float) -> float:
    """A delta, nearly the smallest, at which ``at`` gives no more than ``epsilon``; ``known`` is valid."""
    low, high = math.log(1e-300), math.log(known)
    if low >= high or not at(math.exp(high)) <= epsilon:
        return known
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (low, middle) if at(math.exp(middle)) <= epsilon else (middle, high)
    return math.exp(high)
