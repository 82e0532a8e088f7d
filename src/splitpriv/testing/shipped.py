"""Every layer that this package ships, ready to be tested: the one list to which a new layer is added."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from splitpriv.layers import (
    CodebookLDP,
    L1LaplaceLDP,
    LabelLDP,
    LaplaceLDP,
    LocalPretrainedEncoder,
    RandomResponseLDP,
    RandomVectorMask,
    ReluSanitizer,
)

_NONCE = b"a public nonce for the tests of shipped layers"
_IMAGE = (3, 4, 4)


@dataclass(frozen=True)
class Shipped:
    """How one layer is made, and the shape of the features that it is tested on."""

    make: Callable[[], nn.Module]
    shape: tuple[int, ...] = _IMAGE

    @property
    def example(self) -> Tensor:
        """Six records, the same each time. # shape: (6, *shape)"""
        return torch.randn(6, *self.shape, generator=torch.Generator().manual_seed(0))


SHIPPED: tuple[Shipped, ...] = (
    Shipped(lambda: RandomResponseLDP(epsilon=2.0)),
    Shipped(lambda: RandomResponseLDP(epsilon=1.0, threshold=torch.tensor([0.1, 0.0, -0.1]), debias=True)),
    Shipped(lambda: RandomResponseLDP(epsilon=4.0, per="record")),
    Shipped(lambda: LaplaceLDP(epsilon=2.0, sensitivity=4.0)),
    Shipped(lambda: LaplaceLDP(epsilon=0.5, sensitivity=2.0, outside="clamp", levels=33)),
    Shipped(lambda: LaplaceLDP(epsilon=3.0, sensitivity=2.0, per="record"), (20,)),
    Shipped(lambda: L1LaplaceLDP(epsilon=2.0, radius=2.0), (3,)),
    Shipped(lambda: CodebookLDP(_words(16, _IMAGE), epsilon=2.0, closest=1)),
    Shipped(lambda: CodebookLDP(_words(64, _IMAGE), epsilon=3.0, closest=5)),
    Shipped(lambda: CodebookLDP(_words(8, _IMAGE), epsilon=1.0, decode="membership")),
    Shipped(lambda: CodebookLDP.random(8, size=8, epsilon=2.0, closest=2, nonce=_NONCE), (8,)),
    Shipped(lambda: CodebookLDP.random(8, size=4, epsilon=1.0, closest=1, nonce=_NONCE), (2, 4)),
    Shipped(lambda: RandomVectorMask(_NONCE)),
    Shipped(lambda: RandomVectorMask(_NONCE, entries="dyadic")),
    Shipped(lambda: ReluSanitizer(_NONCE)),
    Shipped(lambda: LocalPretrainedEncoder(_IMAGE, 5, nonce=_NONCE)),
)

SHIPPED_LABELS: tuple[Callable[[], LabelLDP], ...] = (
    lambda: LabelLDP(2, epsilon=3.0),
    lambda: LabelLDP(10, epsilon=1.0),
    lambda: LabelLDP(100, epsilon=4.0),
    lambda: LabelLDP(4, epsilon=1.0, prior=[0.45, 0.45, 0.05, 0.05]),
)


def _words(size: int, shape: tuple[int, ...]) -> Tensor:  # shape: (size, *shape)
    """A public codebook, the same each time."""
    return torch.randn(size, *shape, generator=torch.Generator().manual_seed(1))
