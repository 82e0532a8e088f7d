"""How rough an image is: the prior that inversion attacks share."""

from __future__ import annotations

import torch
from torch import Tensor


def is_image(shape: tuple[int, ...] | torch.Size) -> bool:
    """Whether inputs of this shape (no batch dimension) have neighbouring pixels."""
    return len(shape) == 3 and min(shape[1:]) > 1


def roughness(
    inputs: Tensor,  # shape: (batch, *input)
) -> Tensor:  # shape: (batch,)
    """Mean squared difference of vertical neighbours plus that of horizontal ones; 0 where there are no images."""
    if not is_image(inputs.shape[1:]):
        return inputs.new_zeros(len(inputs))
    vertical = (inputs[..., 1:, :] - inputs[..., :-1, :]).square().flatten(1).mean(1)
    horizontal = (inputs[..., :, 1:] - inputs[..., :, :-1]).square().flatten(1).mean(1)
    return vertical + horizontal


def energy(
    inputs: Tensor,  # shape: (batch, *input)
) -> Tensor:  # shape: (batch,)
    """Mean square of each record's elements."""
    return inputs.square().flatten(1).mean(1)
