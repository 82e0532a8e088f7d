"""A mask: every record is multiplied by one vector expanded from a nonce."""

from __future__ import annotations

import hmac
from typing import Any

import torch
from torch import Tensor

from splitpriv import _validation as check
from splitpriv._errors import PrivacyError
from splitpriv.layers.compilation import eager
from splitpriv.layers.defence import Defence
from splitpriv.layers.public_vector import derive_key, expand, given_or_fresh

MASK_ENTRIES = ("sign", "dyadic")


class _Hidden:
    """A nonce that no debugger, log or error message prints by accident."""

    def __init__(self, nonce: bytes) -> None:
        self.nonce = nonce

    def __repr__(self) -> str:
        return "<nonce, not shown>"


class RandomVectorMask(Defence):
    r"""Multiplies each record by one vector that is expanded from a nonce. A defence: ε = ∞.

    .. math:: s_i = v_i x_i, \qquad v = \mathrm{expand}(\text{nonce}, \text{feature shape})

    The vector is bit-identical on every machine, run and version of torch for the same nonce, feature
    shape and ``entries``: HKDF-SHA256 (RFC 5869), then AES-256-CTR. Its entries are exact in float32.
    Features are taken as float32; with signs nothing is rounded after that.

    All participants need the same nonce, or training fails. Take it from the server (paper A sends
    it over the secure channel), or make one here and hand on :attr:`nonce`, over a secure channel
    too. ``state_dict`` carries ``mask_key``, 32 bytes derived from the nonce, whatever its length: loading it
    restores the mask. *Who holds the nonce, the key or a pickle of this layer holds the mask.*

    Args:
        nonce: at least 16 bytes; None for 32 fresh ones from the operating system.
        entries: ``"sign"``: -1 or 1; ``"dyadic"``: ±(1 + j/128) with j uniform in 0..127.

    Shape:
        features ``(batch, *feature)``, any float dtype; symbols likewise, float32.

    Raises:
        InvalidParameterError: the nonce is not bytes or too short (its value is not in the text), or
            ``entries`` is neither.

    Does not protect: ε is infinite. One known pair (record, masked record) reveals the vector, and
    with it every record of every participant, since the vector is the same for all. Without any
    pair, signs leave the size of each element as it was, and both kinds leave zeros, ratios
    between records, and whatever statistics tell one element from another.

    Source: paper A of the project's references, Case 1.

    Example:
        >>> mask = RandomVectorMask(b"sixteen bytes at least")
        >>> features = torch.randn(4, 3, 8, 8)
        >>> torch.equal(mask.unmask(mask(features)), features)
        True
        >>> mask
        RandomVectorMask(defence, ε ∞; sign entries)
    """

    mask_key: Tensor

    def __init__(self, nonce: bytes | None = None, *, entries: str = "sign") -> None:
        super().__init__()
        self.entries: str = check.choice("RandomVectorMask", "entries", entries, MASK_ENTRIES)
        self._nonce = _Hidden(given_or_fresh("RandomVectorMask", nonce))
        key = torch.tensor(list(derive_key(self._nonce.nonce)), dtype=torch.uint8, device="cpu")
        self.register_buffer("mask_key", key)
        self._cached: tuple[bytes, torch.device, Tensor] | None = None

    @property
    def nonce(self) -> bytes:
        """The nonce, to hand on to other participants over a secure channel.

        Raises:
            PrivacyError: the mask was loaded from a ``state_dict``, which holds only the key that was
                derived from the nonce.
        """
        nonce = self._nonce.nonce
        if not hmac.compare_digest(derive_key(nonce), self._key()):
            raise PrivacyError(
                "RandomVectorMask: nonce must be known to be handed on, got a mask that was loaded from a "
                "state_dict, which holds a key derived from it. Hand on that state_dict."
            )
        return nonce

    def _key(self) -> bytes:
        return bytes(self.mask_key.cpu().numpy())

    def _vector(self, shape: torch.Size, device: torch.device) -> Tensor:
        # Compared by value at each use, since load_state_dict and .to() change the buffer unseen.
        key, cached = self._key(), self._cached
        if cached is None or cached[0] != key or cached[1] != device or cached[2].shape != shape:
            with torch.inference_mode(False):
                vector = expand(key, "mask", self.entries, tuple(shape)).to(device)
            cached = self._cached = (key, device, vector)
        return cached[2]

    def _defend(self, features: Tensor) -> Tensor:
        return features * self._vector(features.shape[1:], features.device)

    @eager
    def unmask(
        self,
        released: Tensor,  # shape: (batch, *feature)
    ) -> Tensor:  # shape: (batch, *feature), float32
        """The records that were masked: exact for signs, to float32 rounding for dyadic entries.

        For dyadic entries that is a relative error of at most 2**-23 in normal numbers.

        Raises:
            ShapeError: ``released`` is not a floating-point batch.
            NonFiniteError: ``released`` holds NaN or infinity.
        """
        values = check.features("RandomVectorMask.unmask", released)
        with torch.autocast(values.device.type, enabled=False):
            return values.float() / self._vector(values.shape[1:], values.device)

    def _claim(self) -> str:
        return f"{self.entries} entries"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cached": None}
