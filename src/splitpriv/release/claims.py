"""What a release says of itself: who made it, and what each record in it paid."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from fractions import Fraction
from numbers import Real
from typing import Any

from splitpriv import _validation as check
from splitpriv._errors import InvalidParameterError
from splitpriv.accounting.spend import Spend
from splitpriv.mechanisms.rounding import show

# Fields that files do not have where they stand at their default: so files made before there were
# such fields still say what they said.
_LATER = ("label_epsilon", "anonymous", "classes")


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
        per_record: what one record pays for its own row, its label included, >= ``per_use`` +
            ``label_epsilon``; may be ``math.inf``.
        epsilon: what the worst record in the release pays, >= ``per_record``; may be ``math.inf``.
        labels: ``"none"``: no labels travel; ``"public"``: they do, and epsilon does not cover
            them; ``"private"``: they do, unprotected, so ``epsilon`` is ∞; ``"ldp"``: released labels
            do, drawn by a label mechanism, and ``label_epsilon`` is its part of ``per_record``;
            ``"embedded"``: they are inside the features, and covered like them.
        edge_data: what the edge was trained on, ``"public"`` or ``"private"``.
        secure: False when any noise came from a seed.
        simulated: True when made under ``accounting.simulation()``: charged to no ledger.
        joint: True when the edge was trained together with the server.
        notes: reasons, for people; e.g. why epsilon is infinite.
        label_epsilon: epsilon of one label, finite and > 0 where ``labels`` is ``"ldp"``, else 0.
        anonymous: True when the records were put in a secret random order, and nothing that travels
            beside them says which is whose; see :meth:`SplitModel.release`.
        classes: number of classes, >= 2, where ``labels`` is ``"embedded"``, else 0.

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
    label_epsilon: float = 0.0
    anonymous: bool = False
    classes: int = 0

    def __post_init__(self) -> None:
        for name in ("layers", "notes"):
            object.__setattr__(self, name, _texts(name, getattr(self, name)))
        for name in ("per_use", "per_record", "epsilon", "label_epsilon"):
            object.__setattr__(self, name, _loss(name, getattr(self, name)))
        object.__setattr__(self, "uses", check.integer("Claims", "uses", self.uses, 1, (1 << 63) - 1))
        check.choice("Claims", "labels", self.labels, ("none", "public", "private", "ldp", "embedded"))
        check.choice("Claims", "edge_data", self.edge_data, ("public", "private"))
        for name in ("secure", "simulated", "joint", "anonymous"):
            check.choice("Claims", name, getattr(self, name), (True, False))
        for lower, upper in (("per_use", "per_record"), ("per_record", "epsilon")):
            if getattr(self, upper) < getattr(self, lower):
                constraint = f">= {lower}={getattr(self, lower)!r}"
                raise InvalidParameterError(check.message("Claims", upper, constraint, getattr(self, upper)))
        if self.labels == "private" and math.isfinite(self.epsilon):
            fix = "Labels that travel unprotected cost ∞."
            constraint = "inf where labels='private'"
            raise InvalidParameterError(check.message("Claims", "epsilon", constraint, self.epsilon, fix))
        self._check_label_epsilon()
        self._check_anonymous()
        self._check_classes()

    def _check_label_epsilon(self) -> None:
        fits = 0 < self.label_epsilon < math.inf if self.labels == "ldp" else self.label_epsilon == 0
        if not fits:
            constraint = "finite and > 0 where labels='ldp'" if self.labels == "ldp" else "0 unless labels='ldp'"
            raise InvalidParameterError(check.message("Claims", "label_epsilon", constraint, self.label_epsilon))
        if self.per_record < math.inf and Fraction(self.per_record) < Fraction(self.per_use) + Fraction(
            self.label_epsilon
        ):  # exactly: a sum that was rounded outward is never below its parts
            constraint = f">= per_use + label_epsilon={self.label_epsilon!r}"
            raise InvalidParameterError(check.message("Claims", "per_record", constraint, self.per_record))

    def _check_classes(self) -> None:
        least, most = (2, 1 << 10) if self.labels == "embedded" else (0, 0)
        fix = "It is the number of classes of embedded labels, and 0 with any other."
        object.__setattr__(self, "classes", check.integer("Claims", "classes", self.classes, least, most, fix))

    def _check_anonymous(self) -> None:
        if not self.anonymous:
            return
        fix = "Rows that are tied together, or stand beside their labels, can be told apart."
        tied = self.joint or self.epsilon != self.per_record or math.isinf(self.epsilon)
        if tied or self.labels in ("public", "private"):
            constraint = "False with a joint edge, tied rows, no mechanism, and public or private labels"
            raise InvalidParameterError(check.message("Claims", "anonymous", constraint, self.anonymous, fix))

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values; floats keep every bit, infinity becomes ``"inf"``.

        ``label_epsilon``, ``anonymous`` and ``classes`` are left out where they are 0 and False.
        """
        return {name: _to_json(value) for name, value in asdict(self).items() if value or name not in _LATER}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Claims:
        """The inverse of :meth:`to_dict`, strict: nothing is missing, unknown, converted, or there in vain.

        Raises:
            InvalidParameterError: a field is missing, unknown, of another JSON type than
                :meth:`to_dict` writes, or outside its range.
        """
        names = {field.name: field.type for field in fields(cls)}
        if isinstance(data, Mapping):
            names = {name: kind for name, kind in names.items() if name in data or name not in _LATER}
        if not isinstance(data, Mapping) or set(data) != set(names):
            got = sorted(map(str, data)) if isinstance(data, Mapping) else data
            raise InvalidParameterError(check.message("Claims", "fields", f"exactly {sorted(names)}", got))
        found = cls(**{name: _from_json(name, str(kind), data[name]) for name, kind in names.items()})
        for name in set(names) & set(_LATER):
            if not getattr(found, name):
                raise InvalidParameterError(check.message("Claims", name, "left out at its default", data[name]))
        return found

    def __str__(self) -> str:
        # Ties between records and private labels cost more than the uses add up to.
        adds_up = bool(self.label_epsilon) or math.isinf(self.per_use)
        adds_up = adds_up or math.isclose(self.per_use * self.uses, self.per_record, rel_tol=1e-9)
        if adds_up:
            line = str(Spend(self.per_use, self.uses, self.per_record, labels=self.label_epsilon))
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
