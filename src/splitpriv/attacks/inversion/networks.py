"""Inverse networks: from what was released back to inputs."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor, nn

from splitpriv.attacks.inversion.smoothness import is_image

Network = Callable[[tuple[int, ...], tuple[int, ...]], nn.Module]
"""(shape of what is released, shape of an input), both without batch, to a module from one to the other."""


def inverse_network(released: tuple[int, ...], shape: tuple[int, ...], width: int) -> nn.Module:
    """A small network from released values, standardised, to inputs, standardised; it starts at the mean input.

    Feature maps become images through convolutions that double the size as often as needed; flat releases become
    images through a linear layer first; all else is left to two hidden layers.
    """
    if not is_image(shape):
        return _flat(released, shape, max(256, 4 * width))
    if is_image(released):
        height, stem = released[1], [_conv(released[0], width), _Residual(width), _Residual(width)]
    else:
        height, across = -(-shape[1] // 4), -(-shape[2] // 4)
        first = nn.Linear(math.prod(released), width * height * across)
        stem = [nn.Sequential(nn.Flatten(), first, nn.ReLU(), nn.Unflatten(1, (width, height, across)))]
    layers: list[nn.Module] = list(stem)
    while 2 * height <= shape[1]:
        layers += [nn.Upsample(scale_factor=2), _conv(width, width)]
        height *= 2
    layers += [nn.Upsample(size=shape[1:], mode="bilinear"), _Residual(width)]
    return nn.Sequential(*layers, _silent(nn.Conv2d(width, shape[0], 3, padding=1)))


class _Residual(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(_conv(width, width), nn.Conv2d(width, width, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:  # shape: (batch, width, height, width), kept
        found: Tensor = x + self.body(x)
        return found


def _conv(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())


def _flat(released: tuple[int, ...], shape: tuple[int, ...], width: int) -> nn.Sequential:
    hidden: list[nn.Module] = []
    size = math.prod(released)
    for _ in range(2):
        hidden += [nn.Linear(size, width), nn.BatchNorm1d(width), nn.ReLU()]
        size = width
    last = _silent(nn.Linear(size, math.prod(shape)))
    return nn.Sequential(nn.Flatten(), *hidden, last, nn.Unflatten(1, shape))


def _silent(layer: nn.Linear | nn.Conv2d) -> nn.Module:
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
