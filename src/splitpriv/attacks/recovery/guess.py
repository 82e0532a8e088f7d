"""What an attacker believes of a mask's vector."""

from __future__ import annotations

from dataclasses import dataclass, replace

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
        certainty: how much likelier the sign is than the other one, in [0, 1]; 0 where it is unknown.
    """

    vector: Tensor
    inverse: Tensor
    claimed: Tensor
    certainty: Tensor

    @property
    def side(self) -> Tensor:  # shape: (elements,), -1, 0 or 1
        """The sign of v, 0 where it is unknown."""
        return torch.sign(self.inverse)

    @property
    def likeliest(self) -> VectorGuess:
        """The same with signs, and entries claimed, taken for certain: for being exact, not for least squares."""
        entry = torch.where(self.claimed, self.vector, torch.ones_like(self.vector))
        inverse = torch.where(self.claimed, 1 / entry, self.inverse)
        return replace(self, inverse=inverse, certainty=self.side.abs())


def exactly(vector: Tensor, claimed: Tensor) -> VectorGuess:
    """A guess that is either claimed or nothing, element by element."""
    safe = torch.where(claimed, vector, torch.ones_like(vector))
    zero = torch.zeros_like(vector)
    return VectorGuess(
        torch.where(claimed, vector, zero), torch.where(claimed, 1 / safe, zero), claimed, claimed.to(vector.dtype)
    )
