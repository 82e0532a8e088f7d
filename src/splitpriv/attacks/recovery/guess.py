"""What an attacker believes of a mask's vector."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class VectorGuess:
    """One belief per element; all of shape (elements,).

    Attributes:
        vector: the best guess, float64; 0 where there is none.
        inverse: what to multiply a released element by: 1/v, or its mean over the entries that are still
            possible where these have one sign; 0 where the sign is unknown.
        claimed: where the attacker says that ``vector`` is exact.
    """

    vector: Tensor
    inverse: Tensor
    claimed: Tensor

    @property
    def side(self) -> Tensor:  # shape: (elements,), -1, 0 or 1
        """The sign of v, 0 where it is unknown."""
        return torch.sign(self.inverse)


def exactly(vector: Tensor, claimed: Tensor) -> VectorGuess:
    """A guess that is either claimed or nothing, element by element."""
    safe = torch.where(claimed, vector, torch.ones_like(vector))
    zero = torch.zeros_like(vector)
    return VectorGuess(torch.where(claimed, vector, zero), torch.where(claimed, 1 / safe, zero), claimed)
