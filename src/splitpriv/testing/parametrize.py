"""One pytest mark that runs every check on every layer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from splitpriv import _validation as check
from splitpriv._errors import InvalidParameterError
from splitpriv.testing import checks_interface, checks_noise, checks_values
from splitpriv.testing.inputs import claims_epsilon
from splitpriv.testing.ldp import assert_ldp

Check = Callable[[Any, Tensor], None]
Case = nn.Module | tuple[nn.Module, Tensor]


def check_ldp(layer: Any, example: Tensor) -> None:
    """One use costs no more than is claimed. See :func:`assert_ldp`; a layer that claims nothing passes."""
    if claims_epsilon(layer, example):
        assert_ldp(layer, example)


CHECKS: tuple[Check, ...] = (
    checks_interface.check_shape,
    checks_interface.check_dtype,
    checks_interface.check_device,
    checks_interface.check_finite,
    checks_interface.check_symbols,
    checks_interface.check_repr,
    checks_values.check_gradient,
    checks_values.check_state_dict,
    checks_values.check_decode,
    checks_values.check_packing,
    checks_values.check_spend,
    checks_values.check_log_prob,
    checks_noise.check_fresh_noise,
    checks_noise.check_noise_in_eval,
    checks_noise.check_independent_noise,
    checks_noise.check_batch_independence,
    checks_noise.check_seed,
    checks_noise.check_pickle,
    check_ldp,
)


def parametrize_with_checks(
    layers: Iterable[Case],
    *,
    example: Tensor | None = None,  # shape: (batch, *feature)
    expected_failures: Mapping[str, str] | Callable[[nn.Module], Mapping[str, str]] | None = None,
) -> pytest.MarkDecorator:
    """Run every check on every layer: a decorator for a test with the arguments ``layer``, ``example``, ``check``.

    Each case is named after its layer's ``repr`` and the check, and reports for itself. The layers are used as
    they are, not copied.

    Args:
        layers: layers, or pairs (layer, example batch).
        example: features for layers given without any, (batch, *feature); None for six records of the shape that the
            layer states in ``feature_shape``, or of 12 elements where it states none.
        expected_failures: name of a check to the reason why it fails, for all layers, or a function that gives
            these for a layer. They must fail (strict xfail): one that passes is an error, so that no excuse
            outlives its reason.

    Raises:
        InvalidParameterError: there is no layer, or an expected failure names no check.

    Example:
        >>> parametrize_with_checks([RandomResponseLDP(epsilon=2.0)]).args[0]
        ('layer', 'example', 'check')
    """
    cases = [case if isinstance(case, tuple) else (case, _example(case, example)) for case in layers]
    if not cases:
        raise InvalidParameterError("parametrize_with_checks: layers must hold at least one layer, got none.")
    known = {function.__name__ for function in CHECKS}
    parameters, taken = [], set[str]()
    for layer, features in cases:
        failing = expected_failures(layer) if callable(expected_failures) else expected_failures or {}
        if unknown := sorted(set(failing) - known):
            fix = f"Choose from {', '.join(sorted(known))}."
            constraint = "names of checks"
            raise InvalidParameterError(
                check.message("parametrize_with_checks", "expected_failures", constraint, unknown, fix)
            )
        name = _name(layer, taken)
        for function in CHECKS:
            reason = failing.get(function.__name__)
            marks = [] if reason is None else [pytest.mark.xfail(reason=reason, strict=True)]
            parameters.append(pytest.param(layer, features, function, marks=marks, id=f"{name}-{function.__name__}"))
    return pytest.mark.parametrize(("layer", "example", "check"), parameters)


def _example(layer: nn.Module, given: Tensor | None) -> Tensor:
    if given is not None:
        return given
    shape = getattr(layer, "feature_shape", None) or (12,)
    return torch.randn(6, *shape, generator=torch.Generator().manual_seed(0))


def _name(layer: nn.Module, taken: set[str]) -> str:
    """A short repr, with a number behind it where another layer has the same."""
    text = " ".join(repr(layer).split())
    short = text if len(text) <= 60 else f"{text[:57]}..."
    name, number = short, 2
    while name in taken:
        name, number = f"{short} {number}", number + 1
    taken.add(name)
    return name
