"""What an attacker believes of inputs before their likelihood is looked at, and coordinates in which to search."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from splitpriv.attacks.inversion.problem import Problem, Rows
from splitpriv.attacks.inversion.smoothness import energy, is_image, roughness

PULL = 0.1  # of the mean input, beside that of the neighbours
COMPONENTS = 512
FITTED = 10_000  # public inputs that a covariance is learned from, at most; and of large inputs fewer:
NUMBERS = 1 << 26  # in all of them: 256 MiB
SQUARE = 3000  # where a matrix of as many rows is solved, in some 4 s

Centre = Callable[[Problem, Rows], Tensor]
"""(problem, which of its records) to the middle of what is believed of each; (1, elements), or (rows, *input)."""


class Prior(Protocol):
    """Coordinates z of inputs, about standard normal, and minus the log of what is believed of them."""

    shape: tuple[int, ...]

    def of(self, problem: Problem, rows: Rows) -> Prior:
        """What is believed of these records of a problem."""
        ...

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

    def of(self, problem: Problem, rows: Rows) -> Smooth:
        return self

    def inputs(self, z: Tensor) -> Tensor:  # shape: (batch, *input)
        return self.centre + self.scale * z

    def surprise(self, z: Tensor) -> Tensor:  # shape: (batch,)
        rough = roughness(z) + PULL * energy(z) if is_image(self.shape) else energy(z)
        return 0.5 * math.prod(self.shape) * rough


class Gaussian:
    """Inputs are normal about a centre, with the covariance that public inputs have about theirs.

    Its first principal components are kept; what is left is the same in all directions, as large as on public inputs
    that the components were not learned from. Coordinates: one per component, and one per element for the rest.
    """

    def __init__(
        self,
        centre: Centre,
        fitted: Tensor,  # shape: (records, elements)
        others: Tensor,  # shape: (others, elements)
        shape: tuple[int, ...],
        limits: tuple[float, float] | None,
    ) -> None:
        self.centre, self.input, self.limits = centre, shape, limits
        self.basis, self.count = _components(fitted, min(COMPONENTS, len(fitted) // 4, fitted.shape[1]))
        directions = self.basis / self.basis.norm(dim=1, keepdim=True).clamp_min(1e-12)
        left = others - (others @ directions.T) @ directions
        overall = float(fitted.square().mean())
        self.rest = math.sqrt(max(float(left.square().mean()), 1e-4 * overall, 1e-12))
        self.shape: tuple[int, ...] = (self.count + fitted.shape[1],)
        self.mean = fitted.new_zeros(1, fitted.shape[1])

    def of(self, problem: Problem, rows: Rows) -> Gaussian:
        found = copy.copy(self)
        found.mean = self.centre(problem, rows).flatten(1)
        return found

    def inputs(self, z: Tensor) -> Tensor:  # shape: (batch, *input)
        flat = self.mean + z[:, : self.count] @ self.basis + self.rest * z[:, self.count :]
        flat = flat if self.limits is None else flat.clamp(*self.limits)
        return flat.reshape(-1, *self.input)

    def surprise(self, z: Tensor) -> Tensor:  # shape: (batch,)
        return 0.5 * z.square().sum(1)


def about_mean(problem: Problem, limits: tuple[float, float] | None, *, seed: int, choosing: int) -> Gaussian:
    """Normal about the mean of public inputs; not fitted to the first ``choosing`` ones, on which choices rest."""
    order, held = _split(problem, seed, choosing)
    known = problem.public_at(order).flatten(1)
    mean = known[held:].mean(0, keepdim=True)
    return Gaussian(lambda *_: mean, known[held:] - mean, known[:held] - mean, problem.shape, limits)


def about_answers(
    problem: Problem, limits: tuple[float, float] | None, *, seed: int, choosing: int, answer: Centre, batch: int
) -> Gaussian:
    """Normal about what an inverse network answers to a release, with the errors that it makes on public inputs."""
    order, held = _split(problem, seed, choosing)
    parts = torch.split(order, batch)
    errors = [problem.public_at(rows) - answer(problem.simulated(rows, batch), slice(None)) for rows in parts]
    found = torch.cat(errors).flatten(1)
    return Gaussian(answer, found[held:], found[:held], problem.shape, limits)


def _split(problem: Problem, seed: int, choosing: int) -> tuple[Tensor, int]:
    """Public inputs in their order, and how many of the first ones nothing is fitted to."""
    elements = math.prod(problem.shape)
    most = min(FITTED, max(64, NUMBERS // elements))
    order = problem.shuffled(seed)[: most if most > elements else min(most, SQUARE)]
    return order, min(max(choosing, len(order) // 10), max(1, len(order) // 2))


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
