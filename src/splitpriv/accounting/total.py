"""``epsilon_total``: the one number, for anything that can cost privacy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from splitpriv._errors import InvalidParameterError
from splitpriv._validation import message
from splitpriv.accounting.charging import current
from splitpriv.accounting.ledger import Ledger
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
    a list or tuple        the sum: several of these on one record
    =====================  ===========================================================

    Nothing released is 0; released without a mechanism is ``inf``.

    Args:
        what: see the table.
        shape: feature shape without batch; needed where the number of elements is not known yet.
        delta: slack probability in [0, 1). The sum of pure losses holds for every delta; tighter
            composition for delta > 0 is not computed.

    Raises:
        InvalidParameterError: ``what`` is none of these, ``delta`` is out of range, or ``shape``
            is given for something that already has one.
        PrivacyError: the shape is not known and not given.

    Does not cover: labels that were declared public, and what bare layers (outside a
    ``SplitModel``) have released.

    Source: sequential composition of pure losses, Dwork and Roth 2014, theorem 3.14.

    Example:
        >>> epsilon_total(Ledger())
        0.0
    """
    if isinstance(delta, bool) or not 0 <= delta < 1:
        pure = "It is a probability; 0 asks for pure epsilon."
        raise InvalidParameterError(message("epsilon_total", "delta", "in [0, 1)", delta, pure))
    if isinstance(what, type):
        raise InvalidParameterError(message("epsilon_total", "what", "an instance, not a class", what))
    if isinstance(what, (list, tuple)):
        shapes = [shape if hasattr(part, "spend") else None for part in what]
        return sum_up(epsilon_total(part, shape=s, delta=delta) for part, s in zip(what, shapes, strict=True))
    if hasattr(what, "spend"):  # a layer, or a SplitModel
        return float(what.spend(shape).per_record)
    if shape is not None:
        fix = "Only layers and models are priced by shape."
        raise InvalidParameterError(f"epsilon_total: shape must be None here, got shape={shape!r}. {fix}")
    if what is None:
        return current().epsilon
    if isinstance(what, Ledger) or hasattr(what, "claims"):  # a Release
        return float(what.epsilon)
    fix = "Pass a layer, a SplitModel, a Release, a Ledger, a list of them, or nothing."
    kind = type(what).__name__
    raise InvalidParameterError(f"epsilon_total: what must be something with a cost, got {kind}. {fix}")
