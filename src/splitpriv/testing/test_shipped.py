"""Run by users: ``pytest --pyargs splitpriv.testing``. Every shipped layer, on the machine at hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from splitpriv.layers import L1LaplaceLDP, LabelLDP
from splitpriv.testing import assert_ldp, parametrize_with_checks, strategies
from splitpriv.testing.labels import assert_label_ldp
from splitpriv.testing.parametrize import Check
from splitpriv.testing.shipped import SHIPPED, SHIPPED_LABELS

DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
QUICK = settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("device", DEVICES)
@parametrize_with_checks([(shipped.make(), shipped.example) for shipped in SHIPPED])
def test_shipped_layer(device: str, layer: nn.Module, example: Tensor, check: Check) -> None:
    check(layer.to(device), example.to(device))


@pytest.mark.parametrize("device", DEVICES)
@QUICK
@given(layer=strategies.layers(mechanisms_only=True, shape=(6,)), batch=strategies.features(shape=(6,)))
def test_any_parameters_keep_the_claim_on_any_features(device: str, layer: Any, batch: Tensor) -> None:
    result = assert_ldp(layer.to(device), batch.to(device), draws=50_000)
    assert result.method == ("statistical" if isinstance(layer, L1LaplaceLDP) else "exact")
    assert result.found <= result.claimed == layer.spend((6,)).per_use


@pytest.mark.parametrize("layer", [shipped() for shipped in SHIPPED_LABELS], ids=repr)
def test_labels(layer: LabelLDP) -> None:
    result = assert_label_ldp(layer)
    assert result.found <= result.claimed == layer.epsilon
    assert f"every 16-bit word at {layer.classes} of {layer.classes} labels" in result.driven


@QUICK
@given(classes=st.integers(2, 20), epsilon=st.floats(0.01, 12.0))
def test_any_labels_keep_the_claim(classes: int, epsilon: float) -> None:
    assert assert_label_ldp(LabelLDP(classes, epsilon=epsilon), draws=20_000).method == "exact"
