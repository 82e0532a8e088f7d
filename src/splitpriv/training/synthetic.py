"""Clean-looking features to train any server on, drawn from what a noisy release says of the classes."""

from __future__ import annotations

import torch
from torch import Tensor

from splitpriv.training.discriminant import Discriminant


class SyntheticFeatures:
    """Draws (features, labels): class mean + its uncertainty + a public residual, recoloured.

    A server trained on the noisy vectors themselves learns to read noisy vectors, and reads clean
    ones badly. These are as clean as those on the edge, and the uncertainty of the means is in
    them, so that no direction is trusted which the noise alone may have made. No record of the
    release is in them, only its moments.

    Args:
        found: the discriminant with its means and covariance.
        share: (classes,), share of each class.
        residuals: (n, dim), public features minus their class means.
        generator: order and noise of the draws; nothing private depends on it.
    """

    def __init__(self, found: Discriminant, share: Tensor, residuals: Tensor, generator: torch.Generator) -> None:
        self._means, self._share = found.means, share
        self._residuals = residuals @ found.recolour
        self._spread = found.variance**0.5
        self._generator = generator

    def draw(self, count: int) -> tuple[Tensor, Tensor]:  # shapes: (count, dim), (count,)
        """``count`` fresh pairs, float64 and int64, on the CPU."""
        labels = torch.multinomial(self._share, count, replacement=True, generator=self._generator)
        rows = torch.randint(len(self._residuals), (count,), generator=self._generator)
        noise = torch.randn(count, self._means.shape[1], dtype=torch.float64, generator=self._generator)
        return self._means[labels] + self._residuals[rows] + self._spread * noise, labels
