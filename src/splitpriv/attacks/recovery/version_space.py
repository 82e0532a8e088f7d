"""Which entries of the alphabet explain what was seen of an element: for a mask with a threshold behind it."""

from __future__ import annotations

import torch
from torch import Tensor

from splitpriv.attacks.recovery.guess import VectorGuess

_TOLERANCE = 1e-5  # relative: float32 rounding is 1e-7, and two dyadic entries differ by 1/256 at least
_BLOCK = 1 << 22


def agreement(
    x: Tensor,  # shape: (elements,), float64
    s: Tensor,  # shape: (elements,), float64
    entries: Tensor,  # shape: (entries,), float64
    threshold: float,
) -> Tensor:  # shape: (elements, entries), bool
    """Whether each entry turns x into s. Within rounding of the threshold both outcomes agree."""
    found = torch.empty(len(x), len(entries), dtype=torch.bool, device=x.device)
    for part in torch.split(torch.arange(len(x), device=x.device), max(1, _BLOCK // len(entries))):
        masked = x[part, None] * entries
        slack = _TOLERANCE * masked.abs() + 1e-30
        survives, zeroed = masked > threshold - slack, masked <= threshold + slack
        seen = s[part, None]
        found[part] = torch.where(
            seen == 0, zeroed | (masked.abs() <= slack), survives & ((masked - seen).abs() <= slack)
        )
    return found


def narrowed(
    votes: Tensor,  # shape: (elements, entries)
    entries: Tensor,  # shape: (entries,), float64
) -> VectorGuess:
    """The guess from the entries that most pairs agree with; claimed where one of them is left."""
    possible = votes == votes.amax(1, keepdim=True)
    left = possible.sum(1)
    positive = (possible & (entries > 0)).any(1)
    negative = (possible & (entries < 0)).any(1)
    known = (positive != negative).double()
    share = possible.double() / left.unsqueeze(1)
    return VectorGuess(known * (share @ entries), known * (share @ (1 / entries)), left == 1, known)
