"""What all attacks have in common, driven by one table."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
import torch
from cases_audit import CASES as AUDIT
from cases_inversion import CASES as INVERSION
from cases_membership import CASES as MEMBERSHIP
from cases_recovery import CASES as RECOVERY
from table import Case

import splitpriv as sp
from splitpriv import InvalidParameterError, attacks
from splitpriv.attacks import Attack

TABLE = [*INVERSION, *RECOVERY, *MEMBERSHIP, *AUDIT]
every = pytest.mark.parametrize("case", TABLE, ids=str)
_results: dict[int, Any] = {}


def result_of(case: Case) -> Any:
    """The result of the case as it stands in the table; made once."""
    if id(case) not in _results:
        _results[id(case)] = case.run(case.attack)
    return _results[id(case)]


def test_every_exported_attack_is_in_the_table() -> None:
    classes = [value for name in attacks.__all__ if isinstance(value := getattr(attacks, name), type)]
    kinds = [value for value in classes if issubclass(value, Attack)]
    bases = {base for kind in kinds for base in kind.__mro__[1:]}
    assert {kind.__name__ for kind in kinds if kind not in bases} == {type(case.attack).__name__ for case in TABLE}


@every
def test_it_succeeds_on_an_undefended_target(case: Case) -> None:
    assert case.figure(result_of(case)) >= case.floor


@every
def test_its_configuration_is_frozen_and_shown(case: Case) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        case.attack.seed = 3
    names = {name: getattr(attacks, name) for name in attacks.__all__}
    shown = eval(repr(case.attack), {**names, "inf": float("inf")}) if "<" not in repr(case.attack) else case.attack
    assert shown == case.attack
    json.dumps(case.attack.to_dict(), allow_nan=False)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Configured(Attack):
    """Settings of every kind."""

    inner: Any = None
    limits: Any = (0.0, float("inf"))
    prior: Any = None
    others: Any = None


def test_a_configuration_goes_to_json_as_what_it_is() -> None:
    inner = Configured(prior=torch.zeros_like, device=torch.device("cpu"))
    found = Configured(inner=inner, prior=torch.nn.Linear(2, 3), others={"a": [(1, True), torch.zeros(2, 5)]}).to_dict()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["limits"] == [0.0, "inf"]
    assert (found["inner"]["attack"], found["inner"]["limits"]) == ("Configured", [0.0, "inf"])
    assert (found["inner"]["device"], found["device"]) == ("cpu", None)
    assert found["prior"] == "torch.nn.modules.linear.Linear"
    assert found["others"] == {"a": [[1, True], "a tensor of shape (2, 5)"]}
    local = Configured(prior=lambda x: x).to_dict()["prior"]
    assert local.endswith("test_a_configuration_goes_to_json_as_what_it_is.<locals>.<lambda>")


@every
def test_the_same_seed_finds_the_same_and_torch_keeps_its_own(case: Case) -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    again = case.run(case.attack)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert case.figure(again) == case.figure(result_of(case))


@every
def test_batches_change_nothing(case: Case) -> None:
    if case.sequential:
        pytest.skip("its batches are steps of training")
    other = case.run(dataclasses.replace(case.attack, batch_size=3))
    assert case.figure(other) == pytest.approx(case.figure(result_of(case)), rel=1e-3, abs=1e-3)


@every
def test_its_result_is_frozen_and_exported(case: Case) -> None:
    found = result_of(case)
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(found, dataclasses.fields(found)[0].name, None)
    text = json.dumps(found.to_dict())
    assert len(text) > 10
    assert 0 < len(str(found)) < 5000
    assert max(map(len, str(found).splitlines())) <= 160


@every
def test_its_result_can_be_drawn(case: Case) -> None:
    figure = pytest.importorskip("matplotlib.figure")
    assert isinstance(result_of(case).plot(), figure.Figure)


@every
def test_charging_is_none_of_its_business(case: Case) -> None:
    case.run(case.attack)
    assert sp.accounting.epsilon_total() == 0


@every
@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"batch_size": 0}, "batch_size must be an integer >= 1"),
        ({"seed": -1}, "seed must be an integer in"),
        ({"progress": "yes"}, "progress must be True or False"),
        ({"device": "nowhere"}, "device must be a device that torch knows, or None"),
    ],
)
def test_what_all_share_is_checked(case: Case, change: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidParameterError, match=f"{type(case.attack).__name__}: {text}"):
        dataclasses.replace(case.attack, **change)
