"""Claims: checked for consistency, exact in JSON, strict on the way back."""

from __future__ import annotations

import dataclasses
import json
import math
import pickle
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitpriv import InvalidParameterError
from splitpriv.release import Claims

LOSSES = st.floats(0.0, math.inf)
TEXTS = st.lists(st.text(), max_size=3).map(tuple)


@st.composite
def any_claims(draw: st.DrawFn) -> Claims:
    labels = draw(st.sampled_from(["none", "public", "private"]))
    per_use, per_record, epsilon = sorted(draw(st.tuples(LOSSES, LOSSES, LOSSES)))
    return Claims(
        layers=draw(TEXTS),
        per_use=per_use,
        uses=draw(st.integers(1, 2**63 - 1)),
        per_record=per_record,
        epsilon=math.inf if labels == "private" else epsilon,
        labels=labels,
        edge_data=draw(st.sampled_from(["public", "private"])),
        secure=draw(st.booleans()),
        simulated=draw(st.booleans()),
        joint=draw(st.booleans()),
        notes=draw(TEXTS),
    )


@given(claims=any_claims())
def test_json_round_trip_is_exact(claims: Claims) -> None:
    text = json.dumps(claims.to_dict(), allow_nan=False)
    back = Claims.from_dict(json.loads(text))
    assert back == claims
    assert [value.hex() for value in (back.per_use, back.per_record, back.epsilon)] == [
        value.hex() for value in (claims.per_use, claims.per_record, claims.epsilon)
    ]


@given(claims=any_claims())
def test_one_line_that_says_epsilon(claims: Claims) -> None:
    line = str(claims)
    assert line.startswith("ε ")
    assert "per record" in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"uses": 32768, "per_record": 65536.0, "epsilon": 65536.0}, "ε 2 per element × 32,768 = 65,536 per record"),
        ({"uses": 1, "per_record": 2.0, "epsilon": 2.0}, "ε 2 per record"),
        ({"epsilon": 24.0}, "ε 2 per element × 6 = 12 per record; worst record ε 24"),
        ({"per_record": 1200.0, "epsilon": 1200.0}, "ε 2 per element × 6, in all 1,200 per record"),
        ({"per_record": math.inf, "epsilon": math.inf}, "ε 2 per element × 6, in all ∞ per record"),
        ({"epsilon": math.inf, "labels": "private"}, "ε 2 per element × 6 = 12 per record; worst record ε ∞"),
    ],
)
def test_line(lab: Any, changes: dict[str, Any], line: str) -> None:
    assert str(lab.claims(**changes)) == line


def test_line_without_mechanism(lab: Any) -> None:
    line = str(lab.claims(per_use=math.inf, per_record=math.inf, epsilon=math.inf))
    assert line.startswith("ε ∞ per record")


def test_frozen_equal_and_picklable(lab: Any) -> None:
    claims = lab.claims(notes=["why"])
    assert pickle.loads(pickle.dumps(claims)) == claims == lab.claims(notes=("why",))
    assert hash(claims) == hash(lab.claims(notes=("why",)))
    with pytest.raises(dataclasses.FrozenInstanceError):
        claims.epsilon = 0.0


def test_numbers_become_floats(lab: Any) -> None:
    claims = lab.claims(per_use=1, per_record=Fraction(3, 2), epsilon=2)
    assert [type(value) for value in (claims.per_use, claims.per_record, claims.epsilon)] == [float] * 3
    assert math.copysign(1, lab.claims(per_use=-0.0).per_use) == 1


@pytest.mark.parametrize("name", ["per_use", "per_record", "epsilon"])
@pytest.mark.parametrize("value", [-1e-300, math.nan, -math.inf, True, "2", None, 10**400])
def test_losses_are_refused(lab: Any, name: str, value: Any) -> None:
    with pytest.raises(InvalidParameterError, match=rf"Claims: {name} must be a number >= 0, or inf, got {name}="):
        lab.claims(**{name: value})


@pytest.mark.parametrize("value", [0, -1, 1.0, True, None, 2**63])
def test_uses_are_refused(lab: Any, value: Any) -> None:
    with pytest.raises(InvalidParameterError, match=r"Claims: uses must be an integer in \[1, "):
        lab.claims(uses=value)


@pytest.mark.parametrize("name", ["layers", "notes"])
@pytest.mark.parametrize("value", ["text", None, (1,), [b"x"], ("\ud800",)])
def test_texts_are_refused(lab: Any, name: str, value: Any) -> None:
    with pytest.raises(InvalidParameterError, match=f"Claims: {name} must be a sequence of strings"):
        lab.claims(**{name: value})


@pytest.mark.parametrize(
    ("name", "constraint"),
    [
        ("labels", "'none' or 'public' or 'private'"),
        ("edge_data", "'public' or 'private'"),
        ("secure", "True or False"),
        ("simulated", "True or False"),
        ("joint", "True or False"),
    ],
)
@pytest.mark.parametrize("value", [None, 1, "secret"])
def test_choices_are_refused(lab: Any, name: str, constraint: str, value: Any) -> None:
    with pytest.raises(InvalidParameterError, match=f"Claims: {name} must be {constraint}, got {name}="):
        lab.claims(**{name: value})


def test_contradictions_are_refused(lab: Any) -> None:
    with pytest.raises(InvalidParameterError, match=r"Claims: per_record must be >= per_use=2.0, got per_record=1.0"):
        lab.claims(per_record=1.0)
    with pytest.raises(InvalidParameterError, match=r"Claims: epsilon must be >= per_record=12.0, got epsilon=11.9"):
        lab.claims(epsilon=11.9)
    with pytest.raises(InvalidParameterError, match="Claims: epsilon must be inf where labels='private', got"):
        lab.claims(labels="private")


FIELDS = [field.name for field in dataclasses.fields(Claims)]
# What JSON can hold in place of a field, and to_dict would not have written there.
WRONG: dict[tuple[str, ...], list[Any]] = {
    ("layers", "notes"): ["text", None, [1], {}, ["x", None]],
    ("per_use", "per_record", "epsilon"): [2, "2", "Inf", "nan", -1.0, None, True, [], math.inf, math.nan],
    ("uses",): [6.0, "6", None, True, -1, 0],
    ("labels", "edge_data"): ["", "Public", None, 0, [], {}],
    ("secure", "simulated", "joint"): [0, 1, "true", None, []],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for names, values in WRONG.items() for name in names for value in values]
)
def test_wrong_types_are_refused(lab: Any, name: str, value: Any) -> None:
    with pytest.raises(InvalidParameterError, match=f"Claims: {name} must be "):
        Claims.from_dict({**lab.claims().to_dict(), name: value})


@pytest.mark.parametrize("name", FIELDS)
def test_missing_fields_are_refused(lab: Any, name: str) -> None:
    data = lab.claims().to_dict()
    del data[name]
    with pytest.raises(InvalidParameterError, match="Claims: fields must be exactly"):
        Claims.from_dict(data)


@pytest.mark.parametrize("data", [None, [], "x", {}, {"unknown": 1}])
def test_other_objects_are_refused(lab: Any, data: Any) -> None:
    with pytest.raises(InvalidParameterError, match="Claims: fields must be exactly"):
        Claims.from_dict({**lab.claims().to_dict(), **data} if data == {"unknown": 1} else data)
