"""Run by users: ``pytest --pyargs splitpriv.testing``. Every shipped layer, on the machine at hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from torch import Tensor, nn

from splitpriv.testing import assert_ldp, parametrize_with_checks, strategies
from splitpriv.testing.parametrize import Check
from splitpriv.testing.shipped import SHIPPED

DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
QUICK = settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("device", DEVICES)
@parametrize_with_checks([(shipped.make(), shipped.example) for shipped in SHIPPED])
def test_shipped_layer(device: str, layer: nn.Module, example: Tensor, check: Check) -> None:
    check(layer.to(device), example.to(device))


@pytest.mark.parametrize("device", DEVICES)
@QUICK
@given(layer=strategies.layers(mechanisms_only=True), batch=strategies.features(shape=(6,)))
def test_any_parameters_keep_the_claim_on_any_features(device: str, layer: Any, batch: Tensor) -> None:
    result = assert_ldp(layer.to(device), batch.to(device), draws=50_000)
    assert result.method == "exact"
    assert result.found <= result.claimed == layer.spend((6,)).per_use
