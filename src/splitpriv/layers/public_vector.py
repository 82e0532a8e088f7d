"""Expansion of a nonce into a vector that is bit-identical on every machine.

The whole of it is HKDF-SHA256 (RFC 5869) under a fixed salt, followed by AES-256 in counter mode
over zeros, read as little-endian integers and mapped to values that float32 holds exactly. No
random number generator of torch or numpy takes part, so no version of either changes a vector.

It is "public" as opposed to noise: participants share it, and it never touches a noise key.
"""

from __future__ import annotations

import hmac
import math
import os
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from torch import Tensor

from splitpriv._errors import InvalidParameterError

KEY_BYTES = 32
MIN_NONCE_BYTES = 16
_SALT = b"splitpriv public vector 1"

Floats = npt.NDArray[np.float32]


def given_or_fresh(owner: str, nonce: bytes | None) -> bytes:
    """Return ``nonce`` if it is long enough, or 32 fresh bytes from the operating system for None.

    Raises:
        InvalidParameterError: not bytes, or fewer than 16 of them. The text never holds the value.
    """
    if nonce is None:
        return os.urandom(KEY_BYTES)
    if not isinstance(nonce, bytes) or len(nonce) < MIN_NONCE_BYTES:
        got = f"{len(nonce)} bytes" if isinstance(nonce, bytes) else f"a {type(nonce).__name__}"
        raise InvalidParameterError(
            f"{owner}: nonce must be bytes, at least {MIN_NONCE_BYTES} of them, got {got} (value not shown). "
            "Use os.urandom(32), or None for a fresh one."
        )
    return nonce


def derive_key(nonce: bytes) -> bytes:
    """32 bytes that stand for a nonce of any length: the extract step of HKDF-SHA256.

    One-way: the key gives every vector of the nonce, but not the nonce.
    """
    return hmac.digest(_SALT, nonce, "sha256")


def expand(key: bytes, purpose: str, entries: str, shape: tuple[int, ...]) -> Tensor:
    """The vector of a key for one purpose, kind of entries and shape; float32 on the CPU.

    Vectors of different purposes, entries or shapes are unrelated: all three are in HKDF's info
    ``"<purpose>|<entries>|<d1>x<d2>..."``.

    Args:
        key: 32 bytes from :func:`derive_key`.
        purpose: what the vector is for; has no ``|``.
        entries: ``"sign"``: -1 or 1. ``"dyadic"``: ±(1 + j/128), j uniform in 0..127.
            ``"uniform"``: odd multiples of 2**-24 in (-1, 1), uniform.
        shape: of the vector, at least one dimension.
    """
    info = f"{purpose}|{entries}|{'x'.join(map(str, shape))}".encode()
    stream_key = HKDFExpand(SHA256(), KEY_BYTES, info).derive(key)
    size, to_floats = _ENTRIES[entries]
    count = math.prod(shape)
    stream = Cipher(algorithms.AES(stream_key), modes.CTR(bytes(16))).encryptor().update(bytes(size(count)))
    # A tensor made in inference mode could not be used in autograd later, and vectors are cached.
    with torch.inference_mode(False):
        return torch.from_numpy(to_floats(stream, count)).reshape(shape)


def _signs(stream: bytes, count: int) -> Floats:
    bits = np.unpackbits(np.frombuffer(stream, dtype=np.uint8), count=count, bitorder="little")
    signs: Floats = np.float32(1) - np.float32(2) * bits.astype(np.float32)
    return signs


def _dyadics(stream: bytes, count: int) -> Floats:
    octets = np.frombuffer(stream, dtype=np.uint8)
    size = np.float32(1) + (octets & 127).astype(np.float32) / np.float32(128)
    dyadics: Floats = np.where(octets < 128, size, -size)
    return dyadics


def _uniforms(stream: bytes, count: int) -> Floats:
    words = np.frombuffer(stream, dtype="<u4").astype(np.int64) >> 8
    uniforms: Floats = (2 * words + 1 - 2**24).astype(np.float32) / np.float32(2**24)
    return uniforms


_ENTRIES: dict[str, tuple[Callable[[int], int], Callable[[bytes, int], Floats]]] = {
    "sign": (lambda count: -(-count // 8), _signs),
    "dyadic": (lambda count: count, _dyadics),
    "uniform": (lambda count: 4 * count, _uniforms),
}
