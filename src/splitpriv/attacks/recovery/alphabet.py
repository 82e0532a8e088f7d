"""The entries that a mask's vector may have: public, since they are in the code of the layer."""

from __future__ import annotations

import torch
from torch import Tensor

ENTRIES = ("sign", "dyadic")


def alphabet(entries: str) -> Tensor:  # shape: (entries,), float64
    """``"sign"``: 1 and -1; ``"dyadic"``: ±(1 + j/128), j in 0..127. The positive ones come first."""
    sizes = torch.ones(1, dtype=torch.float64)
    if entries == "dyadic":
        sizes = 1 + torch.arange(128, dtype=torch.float64) / 128
    return torch.cat([sizes, -sizes])


def snap(
    values: Tensor,  # shape: (elements,), float64
    entries: str,
) -> Tensor:  # shape: (elements,), float64
    """The closest entry of the alphabet."""
    sign = torch.where(values < 0, -1.0, 1.0).to(values.dtype)
    if entries == "sign":
        return sign
    return sign * (1 + ((values.abs() - 1) * 128).round().clamp(0, 127) / 128)
