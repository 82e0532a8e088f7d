"""What a release says of itself: who made it, and what each record in it paid."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from numbers import Real
from typing import Any

from splitpriv import _validation as check
from splitpriv._errors import InvalidParameterError
from splitpriv.accounting.spend import Spend
from splitpriv.mechanisms.rounding import show


@dataclass(frozen=True, kw_only=True)
class Claims:
    """What crossed the cut, what it cost, and what that number does not cover.

    A statement by whoever made the release. It is checked for consistency (``per_use <=
    per_record <= epsilon``; private labels cost ∞), not for truth: nothing in a release proves
    that the mechanism it names was run.

    Args:
        layers: ``repr`` of each layer at the cut, from the edge outward; empty for none.
        per_use: epsilon of one use of the mechanism (natural log), >= 0; ``math.inf`` without one.
        uses: how often the mechanism is used on one record, >= 1.
        per_record: what one record pays for its own row, >= ``per_use``; may be ``math.inf``.
        epsilon: what the worst record in the release pays, >= ``per_record``; may be ``math.inf``.
        labels: ``"none"``: no labels travel; ``"public"``: they do, and epsilon does not cover
            them; ``"private"``: they do, unprotected, so ``epsilon`` is ∞.
        edge_data: what the edge was trained on, ``"public"`` or ``"private"``.
        secure: False when any noise came from a seed.
        simulated: True when made under ``accounting.simulation()``: charged to no ledger.
        joint: True when the edge was trained together with the server.
        notes: reasons, for people; e.g. why epsilon is infinite.

    Raises:
        InvalidParameterError: a field is outside its range, or two contradict each other.

    Example:
        >>> print(Claims(layers=("RandomResponseLDP(...)",), per_use=2.0, uses=32768, per_record=65536.0,
        ...              epsilon=65536.0, labels="public", edge_data="public", secure=True))
        ε 2 per element × 32,768 = 65,536 per record
    """

    layers: tuple[str, ...]
    per_use: float
    uses: int
    per_record: float
    epsilon: float
    labels: str
    edge_data: str
    secure: bool
    simulated: bool = False
    joint: bool = False
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("layers", "notes"):
            object.__setattr__(self, name, _texts(name, getattr(self, name)))
        for name in ("per_use", "per_record", "epsilon"):
            object.__setattr__(self, name, _loss(name, getattr(self, name)))
        object.__setattr__(self, "uses", check.integer("Claims", "uses", self.uses, 1, (1 << 63) - 1))
        check.choice("Claims", "labels", self.labels, ("none", "public", "private"))
        check.choice("Claims", "edge_data", self.edge_data, ("public", "private"))
        for name in ("secure", "simulated", "joint"):
            check.choice("Claims", name, getattr(self, name), (True, False))
        for lower, upper in (("per_use", "per_record"), ("per_record", "epsilon")):
            if getattr(self, upper) < getattr(self, lower):
                constraint = f">= {lower}={getattr(self, lower)!r}"
                raise InvalidParameterError(check.message("Claims", upper, constraint, getattr(self, upper)))
        if self.labels == "private" and math.isfinite(self.epsilon):
            fix = "Labels that travel unprotected cost ∞."
            constraint = "inf where labels='private'"
            raise InvalidParameterError(check.message("Claims", "epsilon", constraint, self.epsilon, fix))

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values; floats keep every bit, infinity becomes ``"inf"``."""
        return {name: _to_json(value) for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Claims:
        """The inverse of :meth:`to_dict`, strict: nothing is missing, unknown, or converted.

        Raises:
            InvalidParameterError: a field is missing, unknown, of another JSON type than
                :meth:`to_dict` writes, or outside its range.
        """
        names = {field.name: field.type for field in fields(cls)}
        if not isinstance(data, Mapping) or set(data) != set(names):
            got = sorted(map(str, data)) if isinstance(data, Mapping) else data
            raise InvalidParameterError(check.message("Claims", "fields", f"exactly {sorted(names)}", got))
        return cls(**{name: _from_json(name, str(kind), data[name]) for name, kind in names.items()})

    def __str__(self) -> str:
        # Ties between records and private labels cost more than the uses add up to.
        adds_up = math.isinf(self.per_use) or math.isclose(self.per_use * self.uses, self.per_record, rel_tol=1e-9)
        if adds_up:
            line = str(Spend(self.per_use, self.uses, self.per_record))
        else:
            line = f"ε {show(self.per_use)} per element × {self.uses:,}, in all {show(self.per_record)} per record"
        return line if self.epsilon == self.per_record else f"{line}; worst record ε {show(self.epsilon)}"


def _texts(name: str, value: Any) -> tuple[str, ...]:
    """Return ``value`` as a tuple of strings that a file can hold."""
    texts = tuple(value) if isinstance(value, (tuple, list)) else (value, None)
    if not all(isinstance(text, str) and is_text(text) for text in texts):
        raise InvalidParameterError(check.message("Claims", name, "a sequence of strings (Unicode text)", value))
    return texts


def is_text(value: str) -> bool:
    """False for strings that UTF-8 cannot encode: lone surrogates."""
    return not any("\ud800" <= character <= "\udfff" for character in value)


def _loss(name: str, value: Any) -> float:
    """Return ``value`` as a float if it is a privacy loss: >= 0, infinity allowed."""
    try:
        loss = float(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan
    except OverflowError:
        loss = math.nan
    if not loss >= 0:
        raise InvalidParameterError(check.message("Claims", name, "a number >= 0, or inf", value))
    return loss + 0.0  # -0.0 becomes 0.0


def _to_json(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return "inf" if value == math.inf else value


def _from_json(name: str, kind: str, value: Any) -> Any:
    """The field of ``kind`` that this JSON value stands for."""
    expected = {"float": float, "int": int, "bool": bool, "str": str}.get(kind, list)
    if kind == "float" and value == "inf":
        return math.inf
    # JSON writes infinity as "inf"; a bare one comes from a number too large for a float, such as 1e999.
    if type(value) is not expected or value == math.inf:
        described = f'{expected.__name__}, "inf" for infinity' if kind == "float" else expected.__name__
        raise InvalidParameterError(check.message("Claims", name, f"a JSON {described}", value))
    return value
