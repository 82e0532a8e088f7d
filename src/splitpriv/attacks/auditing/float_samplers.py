"""Samplers of floating-point Laplace noise as what they are: functions on a finite set of numbered places."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

_STEP = 2.0**-24
_EPSILON = torch.finfo(torch.float32).eps


class FloatSampler(Protocol):
    """How a library makes Laplace noise in float32 out of a random place."""

    def places(self, noise: Tensor, scale: float) -> Tensor:
        """The place, as a real number, whose exact noise is this; float64."""
        ...

    def outputs(self, value: float, places: Tensor, scale: float) -> Tensor:
        """What is released of a value at whole places, float32; NaN where there is no such place."""
        ...


class TorchLaplace:
    """``torch.distributions.Laplace`` on the CPU: u uniform in [2**-23 - 1, 1), then x - scale sign(u) ln(1 - |u|).

    Its uniform numbers come from 24 random bits, so that a value has 2**24 outputs at most.
    """

    def places(self, noise: Tensor, scale: float) -> Tensor:
        """See :class:`FloatSampler`."""
        uniform = -torch.sign(noise) * torch.expm1(-noise.abs() / scale)
        return (uniform - (_EPSILON - 1)) / (2 - _EPSILON) / _STEP

    def outputs(self, value: float, places: Tensor, scale: float) -> Tensor:
        """See :class:`FloatSampler`."""
        u = stretched(places, fused=rounds_once())
        found = torch.tensor(value, dtype=torch.float32) - scale * u.sign() * torch.log1p(-u.abs())
        return torch.where((places >= 0) & (places < 1 << 24), found, math.nan)


def stretched(places: Tensor, *, fused: bool) -> Tensor:
    """24 random bits as torch's uniform numbers in [2**-23 - 1, 1): product and sum rounded once, or one by one."""
    bits = places.double() * _STEP
    if fused:
        return (bits * (2 - _EPSILON) + (_EPSILON - 1)).float()  # exact in float64, so rounded once
    return (bits * (2 - _EPSILON)).float() + torch.tensor(_EPSILON - 1, dtype=torch.float32)


@lru_cache(maxsize=1)
def rounds_once() -> bool:
    """Whether this build of torch stretches uniform numbers by a fused multiply-add."""
    drawn = torch.empty(256).uniform_(_EPSILON - 1, 1, generator=torch.Generator().manual_seed(0))
    places = ((drawn.double() - (_EPSILON - 1)) / (2 - _EPSILON) / _STEP).round()
    return torch.equal(stretched(places, fused=True), drawn)


class TextbookLaplace:
    """The inverse of the distribution function, in NumPy: u = float32(U) - 1/2, then x - sign(u) ln(1 - 2|u|) / rate.

    U is uniform in float64; u is a multiple of 2**-25, an even one above zero.
    """

    def places(self, noise: Tensor, scale: float) -> Tensor:
        """See :class:`FloatSampler`."""
        return -torch.sign(noise) * torch.expm1(-noise.abs() / scale) / _STEP

    def outputs(self, value: float, places: Tensor, scale: float) -> Tensor:
        """See :class:`FloatSampler`."""
        u = (places.numpy() * (_STEP / 2)).astype(np.float32)
        with np.errstate(divide="ignore", invalid="ignore"):
            noise = -np.sign(u) * np.log1p(-2 * np.abs(u)) / np.float32(1 / scale)
        found = torch.from_numpy(np.float32(value) + noise.astype(np.float32))
        return torch.where((places.abs() <= 1 << 24) & ((places <= 0) | (places % 2 == 0)), found, math.nan)


SAMPLERS: dict[str, FloatSampler] = {"torch": TorchLaplace(), "textbook": TextbookLaplace()}


def ways(
    sampler: FloatSampler,
    outputs: Tensor,  # shape: (outputs,), float32
    value: float,
    scale: float,
) -> Tensor:  # shape: (outputs,), int64
    """How many of a sampler's places release each output of this value; 0: it is impossible.

    Only places near the one that the exact inverse names are looked at: as many as may round to one output.
    """
    exact = sampler.places(outputs.double() - value, scale).round().clamp(-(2**40), 2**40).long()
    around = 4 + math.ceil(2 * abs(value) / scale)
    found = torch.zeros_like(exact)
    for start in range(-around, around + 1, 64):
        window = exact[:, None] + torch.arange(start, min(start + 64, around + 1))
        found += (sampler.outputs(value, window, scale) == outputs[:, None]).sum(1)
    return found
