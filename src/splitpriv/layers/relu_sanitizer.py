"""A mask, then what stays above a threshold."""

from __future__ import annotations

import torch
from torch import Tensor

from splitpriv import _validation as check
from splitpriv.layers.defence import Defence
from splitpriv.layers.public_vector import given_or_fresh
from splitpriv.layers.random_vector_mask import MASK_ENTRIES, RandomVectorMask


class ReluSanitizer(Defence):
    r"""Masks each record, then keeps what is above a threshold and zeroes the rest. ε = ∞.

    .. math:: s_i = v_i x_i \text{ if } v_i x_i > \text{threshold, else } 0

    with the vector v of :class:`RandomVectorMask`, which this layer owns as ``mask``. A defence: the
    zeroed elements cannot be recovered from the release, the others can by whoever knows v.

    *Centre the features first.* On non-negative data (after a ReLU, or pixels in [0, 1]) a sign mask
    makes this drop the same fixed elements of every record and release all others as they are; see
    the example. On centred data it drops about half of each record, and another half of the next.

    Args:
        nonce: as for :class:`RandomVectorMask`; hand it on with ``layer.mask.nonce``.
        threshold: a finite number, in units of the features. Take it from public data.
        entries: ``"sign"`` or ``"dyadic"``, as for :class:`RandomVectorMask`.

    Shape:
        features ``(batch, *feature)``, any float dtype; symbols likewise, float32.

    Raises:
        InvalidParameterError: a parameter is outside its range.

    Does not protect: ε is infinite. What stays above the threshold is released in full, up to the
    mask, and one known pair (record, released record) reveals the mask wherever it is not
    zeroed; a few pairs reveal all of it. A zero still tells on which side of the threshold the
    masked element lay.

    Source: paper A of the project's references, Case 2.

    Example:
        >>> layer = ReluSanitizer(b"nonce from the server")
        >>> pixels = torch.tensor([[0.9, 0.2, 0.7, 0.1], [0.3, 0.8, 0.4, 0.6]])
        >>> layer(pixels) > 0           # the same elements of both records: centre first
        tensor([[ True,  True,  True, False],
                [ True,  True,  True, False]])
        >>> layer(pixels - 0.5) > 0
        tensor([[ True, False,  True,  True],
                [False,  True, False, False]])
        >>> layer
        ReluSanitizer(defence, ε ∞; sign entries, x where x > 0 else 0)
    """

    def __init__(self, nonce: bytes | None = None, *, threshold: float = 0.0, entries: str = "sign") -> None:
        super().__init__()
        self.threshold = check.finite("ReluSanitizer", "threshold", threshold)
        check.choice("ReluSanitizer", "entries", entries, MASK_ENTRIES)
        self.mask = RandomVectorMask(given_or_fresh("ReluSanitizer", nonce), entries=entries)

    def _defend(self, features: Tensor) -> Tensor:
        masked = self.mask._defend(features)  # the checks of encode were made, under this layer's name
        return torch.where(masked > self.threshold, masked, torch.zeros_like(masked))

    def _claim(self) -> str:
        return f"{self.mask.entries} entries, x where x > {self.threshold:g} else 0"
