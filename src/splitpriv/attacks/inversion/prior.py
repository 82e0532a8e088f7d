"""What an attacker believes of inputs before anything is released, and coordinates in which to search."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

from splitpriv.attacks.inversion.problem import Problem
from splitpriv.attacks.inversion.smoothness import energy, is_image, roughness

PULL = 0.1  # of the mean input, beside that of the neighbours
COMPONENTS = 512
FITTED = 10_000  # public inputs that a covariance is learned from, at most


class Prior(Protocol):
    """Coordinates z of inputs, about standard normal, and minus the log of what is believed of them."""

    shape: tuple[int, ...]

    def inputs(self, z: Tensor) -> Tensor:  # shape: (batch, *input)
        """The inputs at these coordinates."""
        ...

    def surprise(self, z: Tensor) -> Tensor:  # shape: (batch,)
        """Minus ln of the prior density, up to a constant."""
        ...


class Smooth:
    """Inputs are near the public mean of their channel (or column), and neighbours are near each other."""

    def __init__(self, problem: Problem) -> None:
        self.shape, self.centre, self.scale = problem.shape, problem.centre, problem.scale

    def inputs(self, z: Tensor) -> Tensor:  # shape: (batch, *input)
        return self.centre + self.scale * z

    def surprise(self, z: Tensor) -> Tensor:  # shape: (batch,)
        rough = roughness(z) + PULL * energy(z) if is_image(self.shape) else energy(z)
        return 0.5 * math.prod(self.shape) * rough


class Gaussian:
    """Inputs are normal with the mean of the public ones, and their covariance.

    Its first principal components are kept; what is left is the same in all directions, as large as on public inputs
    that the components were not learned from: a tenth of them, and those that choices rest on. Coordinates: one per
    component, and one per element for the rest.
    """

    def __init__(self, problem: Problem, seed: int, limits: tuple[float, float] | None, choosing: int) -> None:
        public, device = problem.known_public, problem.centre.device
        order = problem.shuffled(seed)[:FITTED]
        held = min(max(choosing, len(order) // 10), max(1, len(order) // 2))
        known = public[order.to(public.device)].to(device).flatten(1)
        fitted, others = known[held:], known[:held]
        self.limits, self.input, self.mean = limits, problem.shape, fitted.mean(0)
        self.basis, count = _components(fitted - self.mean, min(COMPONENTS, len(fitted) // 4, known.shape[1]))
        left = others - self.mean
        directions = self.basis / self.basis.norm(dim=1, keepdim=True).clamp_min(1e-12)
        left = left - (left @ directions.T) @ directions
        overall = float(fitted.var(0, correction=0).mean())
        self.rest = math.sqrt(max(float(left.square().mean()), 1e-4 * overall, 1e-12))
        self.count = count
        self.shape: tuple[int, ...] = (count + known.shape[1],)

    def inputs(self, z: Tensor) -> Tensor:  # shape: (batch, *input)
        flat = self.mean + z[:, : self.count] @ self.basis + self.rest * z[:, self.count :]
        flat = flat if self.limits is None else flat.clamp(*self.limits)
        return flat.reshape(-1, *self.input)

    def surprise(self, z: Tensor) -> Tensor:  # shape: (batch,)
        return 0.5 * z.square().sum(1)


def _components(centred: Tensor, count: int) -> tuple[Tensor, int]:  # shape: (count, elements)
    """Principal directions, each as long as inputs spread along it."""
    records, elements = centred.shape
    if records < elements:
        values, vectors = torch.linalg.eigh((centred @ centred.T).double())
        found = vectors.T.flip(0)[:count].float() @ centred / math.sqrt(records)
    else:
        values, vectors = torch.linalg.eigh((centred.T @ centred).double() / records)
        found = (vectors * values.clamp_min(0).sqrt()).T.flip(0)[:count].float()
    return found, len(found)
