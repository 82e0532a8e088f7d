"""Every check can fail: layers with one planted fault each, noticed by the checks named and by no other."""

from __future__ import annotations

import pytest
import torch
from broken import BROKEN, OnAnotherDevice
from torch import nn

from splitpriv.testing import CHECKS, check_device

EXAMPLE = torch.randn(6, 3, 4, 4, generator=torch.Generator().manual_seed(0))


def failing(layer: nn.Module) -> set[str]:
    found = {}
    for check in CHECKS:
        try:
            check(layer, EXAMPLE)
        except AssertionError as error:
            found[check.__name__] = str(error)
    assert all(text.startswith((f"{name}: ", "assert_ldp: ")) for name, text in found.items())
    return set(found)


@pytest.mark.parametrize("name", BROKEN)
def test_exactly_the_intended_checks_notice(name: str) -> None:
    make, checks = BROKEN[name]
    assert failing(make()) == set(checks)


def test_every_check_has_a_layer_that_it_catches() -> None:
    caught = {checks[0] for _, checks in BROKEN.values()} | {"check_device"}
    assert caught == {check.__name__ for check in CHECKS}
    assert len(BROKEN) >= 10


def test_symbols_on_another_device_are_noticed() -> None:
    with pytest.raises(AssertionError, match="check_device: encode must return a tensor on cpu, got device=meta"):
        check_device(OnAnotherDevice(), EXAMPLE)
