"""parametrize_with_checks, the strategies, and the door of the package."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from hypothesis import given
from torch import nn

from splitpriv import InvalidParameterError, PrivacyLayer, RandomResponseLDP
from splitpriv.testing import parametrize_with_checks, strategies
from splitpriv.testing.parametrize import CHECKS, Check
from splitpriv.testing.shipped import SHIPPED

LAYERS = [RandomResponseLDP(epsilon=2.0), RandomResponseLDP(epsilon=2.0)]


def cases(mark: pytest.MarkDecorator) -> list[tuple[str, bool]]:
    return [(case.id, bool(case.marks)) for case in mark.args[1]]


def test_cases_are_named_after_their_layer_and_check() -> None:
    names = [name for name, _ in cases(parametrize_with_checks(LAYERS))]
    assert len(names) == len(set(names)) == 2 * len(CHECKS)
    assert names[0] == "RandomResponseLDP(ε 2 per element; bit = x > 0; secure no...-check_shape"
    assert names[-1] == "RandomResponseLDP(ε 2 per element; bit = x > 0; secure no... 2-check_ldp"


def test_examples_come_from_the_layer_the_call_or_the_case() -> None:
    seen = RandomResponseLDP(epsilon=2.0)
    seen(torch.zeros(1, 2, 3))
    own, given_to_all = torch.zeros(2, 5), torch.zeros(3, 7)
    assert parametrize_with_checks([seen]).args[1][0].values[1].shape == (6, 2, 3)
    assert parametrize_with_checks([nn.Identity()]).args[1][0].values[1].shape == (6, 12)
    mark = parametrize_with_checks([seen, (seen, own)], example=given_to_all)
    assert [case.values[1] for case in mark.args[1][:: len(CHECKS)]] == [given_to_all, own]


def test_expected_failures_must_fail() -> None:
    for failures in ({"check_repr": "says nothing"}, lambda layer: {"check_repr": "says nothing"}):
        marked = [case for case in parametrize_with_checks(LAYERS, expected_failures=failures).args[1] if case.marks]
        assert [case.values[2].__name__ for case in marked] == ["check_repr"] * 2
        assert marked[0].marks[0].kwargs == {"reason": "says nothing", "strict": True}


def test_bad_arguments() -> None:
    with pytest.raises(InvalidParameterError, match="layers must hold at least one layer, got none"):
        parametrize_with_checks([])
    with pytest.raises(InvalidParameterError, match=r"names of checks, got expected_failures=.*check_all.*Choose"):
        parametrize_with_checks(LAYERS, expected_failures={"check_all": "no such check"})


@given(strategies.features(thresholds=(0.5,)))
def test_features_are_finite_batches(batch: torch.Tensor) -> None:
    assert batch.is_floating_point()
    assert 2 <= batch.ndim <= 4
    assert 1 <= len(batch) <= 5
    assert torch.isfinite(batch).all()


def test_features_hit_what_is_awkward() -> None:
    from splitpriv.testing.strategies import _awkward

    for dtype in strategies.DTYPES:
        values = torch.tensor(_awkward(dtype, (0.5,)), dtype=torch.float64).to(dtype)
        assert torch.isfinite(values).all()
        assert (values == 0.5).any()
        assert ((values != 0) & (values.abs() < torch.finfo(dtype).tiny)).any()
        assert (values == torch.finfo(dtype).max).any()


@given(strategies.layers())
def test_layers_are_layers(layer: nn.Module) -> None:
    assert isinstance(layer, PrivacyLayer)


def test_every_shipped_layer_is_on_the_list() -> None:
    import splitpriv as sp

    named = {getattr(sp, name) for name in sp.__all__}
    kinds = {kind for kind in named if isinstance(kind, type) and issubclass(kind, nn.Module)}
    layers = {kind for kind in kinds if isinstance(kind, PrivacyLayer) and kind is not sp.SplitModel}
    assert layers == {type(shipped.make()) for shipped in SHIPPED}


@parametrize_with_checks(LAYERS[:1], expected_failures=lambda layer: {})
def test_it_is_used_like_this(layer: nn.Module, example: torch.Tensor, check: Check) -> None:
    check(layer, example)


def test_without_pytest_the_error_names_the_extra() -> None:
    code = (
        "import importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'hypothesis' else find(name, *a)\n"
        "import splitpriv.testing"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last == (
        "ImportError: splitpriv.testing: pytest and hypothesis must be installed, got no hypothesis. "
        "Install them with: pip install 'splitpriv[testing]'"
    )


def test_users_run_the_tests_of_the_package_by_its_name() -> None:
    command = [sys.executable, "-m", "pytest", "--pyargs", "splitpriv.testing", "--collect-only", "-k", "check_ldp"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("check_ldp") == len(SHIPPED)
