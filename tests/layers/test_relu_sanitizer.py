"""The sanitizer: a mask, then what is above the threshold."""

from __future__ import annotations

import math

import pytest
import torch

from splitpriv._errors import InvalidParameterError
from splitpriv.layers.random_vector_mask import RandomVectorMask
from splitpriv.layers.relu_sanitizer import ReluSanitizer

NONCE = b"Kx7-nonce-in-the-clear"


@pytest.mark.parametrize("entries", ["sign", "dyadic"])
@pytest.mark.parametrize("threshold", [0.0, 0.5, -0.5])
def test_keeps_what_is_above_the_threshold(threshold: float, entries: str, generator: torch.Generator) -> None:
    features = torch.randn(8, 3, 7, generator=generator)
    masked = RandomVectorMask(NONCE, entries=entries)(features)
    released = ReluSanitizer(NONCE, threshold=threshold, entries=entries)(features)
    above = masked > threshold
    assert torch.equal(released[above], masked[above])
    assert bool((released[~above] == 0).all())


def test_the_threshold_itself_is_zeroed() -> None:
    layer = ReluSanitizer(NONCE, threshold=1.0)
    vector = layer.mask(torch.ones(1, 32))
    assert layer(vector).count_nonzero() == 0
    assert layer(vector * 1.5).count_nonzero() == 32


def test_pinned_values() -> None:
    released = ReluSanitizer(bytes(range(16)))(torch.arange(1.0, 9.0).reshape(1, 2, 4))
    assert released.flatten().tolist() == [1, 0, 3, 0, 5, 0, 0, 8]


def test_non_negative_data_lose_fixed_elements_and_centred_data_do_not(generator: torch.Generator) -> None:
    pixels = torch.rand(20, 64, generator=generator).add_(0.01)
    layer = ReluSanitizer(NONCE)
    kept = layer(pixels) > 0
    assert bool((kept == kept[0]).all())
    kept = layer(pixels - 0.5) > 0
    assert not bool((kept == kept[0]).all())


def test_gradients_stop_where_an_element_is_zeroed(generator: torch.Generator) -> None:
    features = torch.randn(3, 16, generator=generator).requires_grad_()
    layer = ReluSanitizer(NONCE)
    released = layer(features)
    released.sum().backward()
    vector = RandomVectorMask(NONCE)(torch.ones(1, 16))
    assert torch.equal(features.grad, vector * (released > 0))


@pytest.mark.parametrize("threshold", [math.nan, math.inf, "0", None, True])
def test_a_bad_threshold_is_refused(threshold: object) -> None:
    with pytest.raises(InvalidParameterError, match=r"^ReluSanitizer: threshold must be a finite number, got"):
        ReluSanitizer(NONCE, threshold=threshold)  # type: ignore[arg-type]


def test_bad_parameters_of_its_mask_are_refused_in_its_own_name() -> None:
    with pytest.raises(InvalidParameterError, match=r"^ReluSanitizer: entries must be 'sign' or 'dyadic', got"):
        ReluSanitizer(NONCE, entries="uniform")
    with pytest.raises(InvalidParameterError, match=r"^ReluSanitizer: nonce must be bytes.* got 3 bytes") as caught:
        ReluSanitizer(NONCE[:3])
    assert "Kx7" not in str(caught.value)


def test_repr_states_the_rule_and_not_the_nonce() -> None:
    layer = ReluSanitizer(NONCE, threshold=0.5, entries="dyadic")
    assert repr(layer) == "ReluSanitizer(defence, ε ∞; dyadic entries, x where x > 0.5 else 0)"
    assert "Kx7" not in repr(torch.nn.Sequential(layer)) + repr(vars(layer)) + str(layer.state_dict())
    assert list(layer.state_dict()) == ["mask.mask_key"]
    assert layer.mask.nonce == NONCE
