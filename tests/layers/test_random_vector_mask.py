"""The mask: what it multiplies by, that it is undone, follows its key, and hides its nonce."""

from __future__ import annotations

import logging
import math
import pickle
import traceback

import pytest
import torch
from hypothesis import given, strategies
from torch import Tensor, nn

from splitpriv._errors import InvalidParameterError, NonFiniteError, PrivacyError, ShapeError
from splitpriv.layers.public_vector import derive_key, expand
from splitpriv.layers.random_vector_mask import RandomVectorMask

NONCE = b"Kx7-nonce-in-the-clear"


def test_multiplies_every_record_by_the_one_vector(generator: torch.Generator) -> None:
    features = torch.randn(5, 3, 4, generator=generator)
    for entries in ("sign", "dyadic"):
        vector = expand(derive_key(NONCE), "mask", entries, (3, 4))
        assert torch.equal(RandomVectorMask(NONCE, entries=entries).encode(features), features * vector)


def test_pinned_values() -> None:
    ones = torch.ones(1, 2, 4)
    released = RandomVectorMask(bytes(range(16)))(ones)
    assert released.flatten().tolist() == [1, -1, 1, -1, 1, -1, -1, 1]
    released = RandomVectorMask(bytes(range(16)), entries="dyadic")(ones)
    assert (released.flatten() * 128).tolist() == [-214, -179, -157, 223, -193, 218, -231, -192]


# Half of float32's range: a dyadic entry is below 2.
FLOATS = strategies.floats(-(2.0**126), 2.0**126, width=32)


@given(strategies.lists(FLOATS, min_size=1, max_size=20))
def test_unmask_is_exact_for_signs(values: list[float]) -> None:
    mask, features = RandomVectorMask(NONCE), torch.tensor([values], dtype=torch.float32)
    assert torch.equal(mask.unmask(mask.encode(features)), features)


@given(strategies.lists(FLOATS, min_size=1, max_size=20))
def test_unmask_rounds_once_or_twice_for_dyadic_entries(values: list[float]) -> None:
    mask, features = RandomVectorMask(NONCE, entries="dyadic"), torch.tensor([values], dtype=torch.float32)
    error = (mask.unmask(mask.encode(features)).double() - features).abs()
    tiny = torch.finfo(torch.float32).tiny
    assert bool((error <= 2**-23 * features.double().abs().clamp(min=tiny)).all())


def test_unmask_works_in_any_dtype_and_under_autocast() -> None:
    mask, features = RandomVectorMask(NONCE, entries="dyadic"), torch.tensor([[1.0, 2.0, 3.0]])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert mask.unmask(mask(features.double())).dtype == torch.float32
    with pytest.raises(ShapeError, match=r"^RandomVectorMask\.unmask: features must have a floating-point dtype"):
        mask.unmask(torch.ones(1, 3, dtype=torch.int8))
    with pytest.raises(NonFiniteError, match=r"^RandomVectorMask\.unmask: features must be finite"):
        mask.unmask(features * math.inf)


@pytest.mark.parametrize("entries", ["signs", "", None, 1, ["sign"]])
def test_unknown_entries_are_refused(entries: object) -> None:
    with pytest.raises(InvalidParameterError, match=r"^RandomVectorMask: entries must be 'sign' or 'dyadic', got"):
        RandomVectorMask(NONCE, entries=entries)  # type: ignore[arg-type]


# The key in the state_dict ---------------------------------------------------------------------


def assert_follows_its_key(cls: type[RandomVectorMask]) -> None:
    """However the key gets into a mask that was used before, the next record is masked by it."""
    ones = torch.ones(1, 64)
    expected = RandomVectorMask(NONCE).encode(ones)
    state = RandomVectorMask(NONCE).state_dict()

    def in_place(mask: RandomVectorMask) -> None:
        mask.mask_key.copy_(state["mask_key"])

    def through_a_parent(mask: RandomVectorMask) -> None:
        nn.Sequential(mask).load_state_dict({f"0.{key}": value for key, value in state.items()})

    for load in (
        in_place,
        through_a_parent,
        lambda mask: mask.load_state_dict(state),
        lambda mask: mask.load_state_dict(state, assign=True),
    ):
        mask = cls(bytes(40))
        assert not torch.equal(mask.encode(ones), expected)
        load(mask)
        assert torch.equal(mask.encode(ones), expected)


class StaleMask(RandomVectorMask):
    """Planted fault: a cache that knows the shape only."""

    def _vector(self, shape: torch.Size, device: torch.device) -> Tensor:
        if self._cached is None:
            return super()._vector(shape, device)
        return self._cached[2]


def test_follows_its_key() -> None:
    assert_follows_its_key(RandomVectorMask)


def test_a_stale_cache_is_caught() -> None:
    with pytest.raises(AssertionError):
        assert_follows_its_key(StaleMask)


def test_the_cache_follows_shape_and_device_and_stays_out_of_pickles() -> None:
    mask = RandomVectorMask(NONCE)
    mask(torch.ones(1, 3))
    assert torch.equal(mask(torch.ones(1, 5)), RandomVectorMask(NONCE)(torch.ones(1, 5)))
    small = len(pickle.dumps(mask))
    mask(torch.ones(1, 100_000))
    assert len(pickle.dumps(mask)) == small
    elsewhere = torch.device("meta")  # stands in for a GPU
    assert mask._vector(torch.Size([100_000]), elsewhere).device == elsewhere


def test_the_state_is_one_key_of_fixed_size() -> None:
    for length in (16, 32, 1000):
        state = RandomVectorMask(bytes(length)).state_dict()
        assert list(state) == ["mask_key"]
        assert state["mask_key"].shape == (32,)
        assert state["mask_key"].dtype == torch.uint8
        assert bytes(state["mask_key"].tolist()) != bytes(32)


# The nonce -------------------------------------------------------------------------------------


def test_the_nonce_can_be_handed_on() -> None:
    here = RandomVectorMask()
    there = RandomVectorMask(here.nonce)
    assert len(here.nonce) == 32
    assert torch.equal(there(torch.ones(1, 256)), here(torch.ones(1, 256)))
    assert RandomVectorMask(NONCE).nonce == NONCE
    assert pickle.loads(pickle.dumps(here)).nonce == here.nonce


def test_a_loaded_mask_does_not_hand_on_the_nonce_it_replaced() -> None:
    mask = RandomVectorMask(bytes(16))
    mask.load_state_dict(RandomVectorMask(NONCE).state_dict())
    with pytest.raises(PrivacyError, match=r"^RandomVectorMask: nonce must be known to be handed on, got a mask"):
        _ = mask.nonce
    mask.load_state_dict(RandomVectorMask(bytes(16)).state_dict())
    assert mask.nonce == bytes(16)


def shows(text: str) -> bool:
    """Whether a text holds the nonce, as it is, as hex, or as a list of numbers."""
    numbers = ", ".join(map(str, NONCE))
    return any(form in text for form in (NONCE.decode(), NONCE.hex(), numbers, "Kx7"))


class ChattyMask(RandomVectorMask):
    """Planted fault: says its nonce."""

    def _claim(self) -> str:
        return f"nonce {self.nonce!r}"


def everything_printed(cls: type[RandomVectorMask], caplog: pytest.LogCaptureFixture) -> str:
    mask = cls(NONCE)
    model = nn.Sequential(nn.Linear(3, 3), mask)
    texts = [repr(mask), str(mask), f"{mask}", repr(model), repr(vars(mask)), str(mask.state_dict())]
    with caplog.at_level(logging.DEBUG):
        logging.getLogger().debug("%s %r %s", mask, model, mask.__dict__)
        for bad in (torch.ones(2, 3, dtype=torch.int8), torch.tensor([[math.nan] * 3])):
            try:
                mask(bad)
            except ValueError as error:
                texts += traceback.format_exception(error)
        mask(torch.ones(2, 3))
    try:
        mask.load_state_dict({"mask_key": torch.zeros(3, dtype=torch.uint8)})
    except RuntimeError as error:
        texts.append(str(error))
    return "\n".join([*texts, caplog.text])


def test_the_nonce_is_shown_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    printed = everything_printed(RandomVectorMask, caplog)
    assert "RandomVectorMask(defence, ε ∞; sign entries)" in caplog.text
    assert not shows(printed)


def test_a_mask_that_says_its_nonce_is_caught(caplog: pytest.LogCaptureFixture) -> None:
    assert shows(everything_printed(ChattyMask, caplog))


def test_a_short_nonce_is_refused_without_its_value() -> None:
    with pytest.raises(InvalidParameterError, match=r"^RandomVectorMask: nonce must be bytes.* got 3 bytes") as caught:
        RandomVectorMask(NONCE[:3])
    assert not shows(str(caught.value))
