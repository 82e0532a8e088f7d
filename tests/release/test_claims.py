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
from splitpriv.mechanisms.rounding import sum_up
from splitpriv.release import Claims

LOSSES = st.floats(0.0, math.inf)
TEXTS = st.lists(st.text(), max_size=3).map(tuple)


@st.composite
def any_claims(draw: st.DrawFn) -> Claims:
    labels = draw(st.sampled_from(["none", "public", "private", "ldp"]))
    per_use, per_record, epsilon = sorted(draw(st.tuples(LOSSES, LOSSES, LOSSES)))
    joint, label_epsilon, anonymous = draw(st.booleans()), 0.0, False
    if labels == "ldp":
        label_epsilon = draw(st.floats(0.0, 50.0, exclude_min=True))
        per_record, epsilon = (sum_up([loss, label_epsilon]) for loss in (per_record, epsilon))
    if labels in ("none", "ldp") and not joint and per_record < math.inf and draw(st.booleans()):
        epsilon, anonymous = per_record, True
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
        joint=joint,
        notes=draw(TEXTS),
        label_epsilon=label_epsilon,
        anonymous=anonymous,
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
        (
            {"per_record": 13.0, "epsilon": 13.0, "labels": "ldp", "label_epsilon": 1.0},
            "ε 13 per record = 12 features (2 per element × 6) + 1 labels",
        ),
        (
            {"uses": 1, "per_record": 3.0, "epsilon": 3.0, "labels": "ldp", "label_epsilon": 1.0},
            "ε 3 per record = 2 features + 1 labels",
        ),
        (
            {"per_record": 13.0, "epsilon": 26.0, "labels": "ldp", "label_epsilon": 1.0},
            "ε 13 per record = 12 features (2 per element × 6) + 1 labels; worst record ε 26",
        ),
        (
            {"per_record": 99.0, "epsilon": 99.0, "labels": "ldp", "label_epsilon": 1.0},
            "ε 2 per element × 6 and 1 for labels, in all 99 per record",
        ),
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


@pytest.mark.parametrize("name", ["per_use", "per_record", "epsilon", "label_epsilon"])
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
        ("labels", "'none' or 'public' or 'private' or 'ldp' or 'embedded'"),
        ("edge_data", "'public' or 'private'"),
        ("secure", "True or False"),
        ("simulated", "True or False"),
        ("joint", "True or False"),
        ("anonymous", "True or False"),
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


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"labels": "ldp"}, "label_epsilon must be finite and > 0 where labels='ldp', got label_epsilon=0.0"),
        ({"labels": "ldp", "label_epsilon": math.inf}, "label_epsilon must be finite and > 0 where labels='ldp', got"),
        ({"label_epsilon": 1.0}, "label_epsilon must be 0 unless labels='ldp', got label_epsilon=1.0"),
        ({"label_epsilon": math.inf, "labels": "public"}, "label_epsilon must be 0 unless labels='ldp', got"),
        (
            {"labels": "ldp", "label_epsilon": math.nextafter(10.0, 11.0)},
            r"per_record must be >= per_use \+ label_epsilon=10.000000000000002, got per_record=12.0",
        ),
    ],
)
def test_label_epsilons_are_refused(lab: Any, changes: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidParameterError, match=f"Claims: {text}"):
        lab.claims(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"labels": "public"},
        {"labels": "private", "epsilon": math.inf},
        {"joint": True},
        {"epsilon": 24.0},
        {"per_use": math.inf, "per_record": math.inf, "epsilon": math.inf},
    ],
)
def test_what_can_be_told_apart_is_not_anonymous(lab: Any, changes: dict[str, Any]) -> None:
    assert lab.claims(anonymous=True).anonymous
    with pytest.raises(InvalidParameterError, match="Claims: anonymous must be False with a joint edge, tied rows, no"):
        lab.claims(anonymous=True, **changes)


def test_files_made_before_there_were_labels_still_say_what_they_said(lab: Any) -> None:
    old = lab.claims()
    data = old.to_dict()
    assert not {"label_epsilon", "anonymous"} & set(data)
    assert Claims.from_dict(data) == old
    new = lab.claims(labels="ldp", label_epsilon=1.0, per_record=13.0, epsilon=13.0, anonymous=True)
    assert new.to_dict() == {
        **old.to_dict(),
        **{"labels": "ldp", "label_epsilon": 1.0, "per_record": 13.0, "epsilon": 13.0, "anonymous": True},
    }
    # One way to write each claim: what is left out at its default is not there at its default.
    for name, value in (("label_epsilon", 0.0), ("anonymous", False)):
        with pytest.raises(InvalidParameterError, match=f"Claims: {name} must be left out at its default, got {name}="):
            Claims.from_dict({**data, name: value})


FIELDS = [field.name for field in dataclasses.fields(Claims)]
LATER = {"label_epsilon", "anonymous", "classes"}
# What JSON can hold in place of a field, and to_dict would not have written there.
WRONG: dict[tuple[str, ...], list[Any]] = {
    ("layers", "notes"): ["text", None, [1], {}, ["x", None]],
    ("per_use", "per_record", "epsilon", "label_epsilon"): [
        2,
        "2",
        "Inf",
        "nan",
        -1.0,
        None,
        True,
        [],
        math.inf,
        math.nan,
    ],
    ("uses",): [6.0, "6", None, True, -1, 0],
    ("labels", "edge_data"): ["", "Public", None, 0, [], {}],
    ("secure", "simulated", "joint", "anonymous"): [0, 1, "true", None, []],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for names, values in WRONG.items() for name in names for value in values]
)
def test_wrong_types_are_refused(lab: Any, name: str, value: Any) -> None:
    with pytest.raises(InvalidParameterError, match=f"Claims: {name} must be "):
        Claims.from_dict({**lab.claims().to_dict(), name: value})


@pytest.mark.parametrize("name", [name for name in FIELDS if name not in LATER])
def test_missing_fields_are_refused(lab: Any, name: str) -> None:
    data = lab.claims().to_dict()
    del data[name]
    with pytest.raises(InvalidParameterError, match="Claims: fields must be exactly"):
        Claims.from_dict(data)


@pytest.mark.parametrize("data", [None, [], "x", {}, {"unknown": 1}])
def test_other_objects_are_refused(lab: Any, data: Any) -> None:
    with pytest.raises(InvalidParameterError, match="Claims: fields must be exactly"):
        Claims.from_dict({**lab.claims().to_dict(), **data} if data == {"unknown": 1} else data)
