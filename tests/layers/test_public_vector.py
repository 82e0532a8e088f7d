"""A nonce gives the same vector everywhere: pinned values, and a second derivation of them."""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Callable

import pytest
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from torch import Tensor

from splitpriv._errors import InvalidParameterError
from splitpriv.layers.public_vector import derive_key, expand, given_or_fresh

NONCE = bytes(range(16))
Expand = Callable[[bytes, str, str, tuple[int, ...]], Tensor]

PINNED: dict[tuple[str, str, tuple[int, ...]], list[float]] = {
    ("mask", "sign", (2, 4)): [1, -1, 1, -1, 1, -1, -1, 1],
    ("mask", "dyadic", (2, 4)): [n / 128 for n in (-214, -179, -157, 223, -193, 218, -231, -192)],
    ("encoder first weight", "uniform", (2, 4)): [
        n / 2**24 for n in (-11649779, 11088967, -16403869, 13005915, -7888559, -16101749, -7819651, -5275283)
    ],
}


def stream(nonce: bytes, info: bytes, count: int) -> bytes:
    """The keystream by another road: HKDF in one call, and AES block by block on a counter."""
    key = HKDF(SHA256(), 32, salt=b"splitpriv public vector 1", info=info).derive(nonce)
    block = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
    blocks = (block.update(i.to_bytes(16, "big")) for i in range(-(-count // 16)))
    return b"".join(blocks)[:count]


def by_hand(nonce: bytes, purpose: str, entries: str, shape: tuple[int, ...]) -> list[float]:
    count = math.prod(shape)
    info = f"{purpose}|{entries}|{'x'.join(str(d) for d in shape)}".encode()
    octets = stream(nonce, info, 4 * count)
    if entries == "sign":
        return [-1.0 if octets[i // 8] >> (i % 8) & 1 else 1.0 for i in range(count)]
    if entries == "dyadic":
        return [(-1.0 if octet & 128 else 1.0) * (1 + (octet & 127) / 128) for octet in octets[:count]]
    words = struct.unpack(f"<{count}I", octets)
    return [(2 * (word >> 8) + 1 - 2**24) / 2**24 for word in words]


def assert_pinned(expand: Expand) -> None:
    for (purpose, entries, shape), values in PINNED.items():
        assert expand(derive_key(NONCE), purpose, entries, shape).flatten().tolist() == values


def test_pinned_values() -> None:
    assert_pinned(expand)


def from_torch(key: bytes, purpose: str, entries: str, shape: tuple[int, ...]) -> Tensor:
    """Planted fault: torch's generator, whose stream is not promised across versions."""
    seed = int.from_bytes(hashlib.sha256(key + purpose.encode()).digest()[:7], "big")
    return torch.randint(0, 2, shape, generator=torch.Generator().manual_seed(seed)) * 2.0 - 1


def without_shape(key: bytes, purpose: str, entries: str, shape: tuple[int, ...]) -> Tensor:
    """Planted fault: the shape left out of the info, so that shapes share a stream."""
    return expand(key, purpose, entries, (math.prod(shape),)).reshape(shape)


@pytest.mark.parametrize("faulty", [from_torch, without_shape])
def test_the_pinned_values_catch(faulty: Expand) -> None:
    with pytest.raises(AssertionError):
        assert_pinned(faulty)


@pytest.mark.parametrize("entries", ["sign", "dyadic", "uniform"])
@pytest.mark.parametrize("shape", [(1,), (7,), (3, 5, 11), (129,)])
@pytest.mark.parametrize("nonce", [NONCE, bytes(100), b"\xff" * 33])
def test_agrees_with_a_derivation_by_hand(nonce: bytes, shape: tuple[int, ...], entries: str) -> None:
    vector = expand(derive_key(nonce), "mask", entries, shape)
    assert vector.dtype == torch.float32
    assert vector.shape == shape
    assert vector.flatten().tolist() == by_hand(nonce, "mask", entries, shape)


def test_entries_are_all_those_stated_and_no_others() -> None:
    key = derive_key(NONCE)
    assert set(expand(key, "mask", "sign", (10_000,)).tolist()) == {-1.0, 1.0}
    dyadic = {sign * (1 + j / 128) for sign in (-1, 1) for j in range(128)}
    assert set(expand(key, "mask", "dyadic", (10_000,)).tolist()) == dyadic
    uniform = expand(key, "mask", "uniform", (10_000,))
    assert bool((uniform.abs() < 1).all())
    assert bool((uniform.double() * 2**24 % 2 == 1).all())


@pytest.mark.parametrize("entries", ["sign", "dyadic", "uniform"])
def test_entries_are_balanced(entries: str) -> None:
    # The nonce is fixed, so this cannot flicker; for a random nonce it fails with probability < 1e-6.
    vector = expand(derive_key(NONCE), "mask", entries, (100_000,)).double()
    deviations = vector.mean() * math.sqrt(len(vector)) / vector.std()
    assert abs(float(deviations)) < 5


def test_purpose_entries_and_shape_give_unrelated_vectors() -> None:
    key = derive_key(NONCE)
    one = expand(key, "mask", "sign", (256,))
    for other in (
        expand(key, "encoder", "sign", (256,)),
        expand(key, "mask", "sign", (16, 16)).flatten(),
        expand(key, "mask", "sign", (257,))[:256],
        expand(key, "mask", "dyadic", (256,)).sign(),
        expand(derive_key(NONCE + b"\0"), "mask", "sign", (256,)),
    ):
        assert 64 < int((one == other).sum()) < 192  # 8 standard deviations


def test_a_vector_made_in_inference_mode_works_in_autograd() -> None:
    with torch.inference_mode():
        vector = expand(derive_key(NONCE), "mask", "sign", (4,))
    features = torch.ones(4, requires_grad=True)
    (features * vector).sum().backward()
    assert torch.equal(features.grad, vector)


def test_a_key_does_not_contain_the_nonce_and_has_one_length() -> None:
    assert NONCE not in derive_key(NONCE)
    assert {len(derive_key(bytes(n))) for n in (16, 32, 1000)} == {32}


def test_a_fresh_nonce_is_new_each_time() -> None:
    assert len(given_or_fresh("Owner", None)) == 32
    assert given_or_fresh("Owner", None) != given_or_fresh("Owner", None)
    assert given_or_fresh("Owner", NONCE) is NONCE


@pytest.mark.parametrize(
    ("nonce", "got"),
    [(b"", "0 bytes"), (b"fifteen bytes!!", "15 bytes"), ("a str of enough letters", "a str"), (12345678, "a int")],
)
def test_a_bad_nonce_is_refused_without_its_value(nonce: object, got: str) -> None:
    text = rf"^Owner: nonce must be bytes, at least 16 of them, got {got} \(value not shown\)\. Use os\.urandom"
    with pytest.raises(InvalidParameterError, match=text) as caught:
        given_or_fresh("Owner", nonce)  # type: ignore[arg-type]
    if nonce:
        assert str(nonce) not in str(caught.value)
        assert "fifteen" not in str(caught.value)
