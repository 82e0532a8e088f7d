"""Adam on many records at once, each as if it were alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

Objective = Callable[[Tensor, "slice | Tensor", float], tuple[Tensor, Tensor]]
"""(inputs, which records they are, share of the way in [0, 1]) to what the data say and what the prior says, (n,)."""

LOOK = 100  # steps between two looks at whether a record has converged
MOVED = 1e-3  # in standard deviations of inputs


@dataclass(frozen=True)
class Descent:
    """How to descend.

    Attributes:
        learning_rate: of Adam.
        eps: of Adam; large against gradients it makes steps proportional to them.
        decay: lower the rate to zero along a half cosine.
        stop: leave a record alone once its objective falls by less than this share in 100 steps; None: never.
    """

    learning_rate: float
    eps: float
    decay: bool = False
    stop: float | None = None


class _Adam:
    """Adam with amsgrad, row by row, so that rows can be dropped."""

    def __init__(self, like: Tensor, descent: Descent) -> None:
        self.descent = descent
        self.state = [torch.zeros_like(like) for _ in range(3)]

    def step(self, inputs: Tensor, gradient: Tensor, number: int, rate: float) -> None:
        first, second, largest = self.state
        first.lerp_(gradient, 0.1)
        second.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
        torch.maximum(largest, second, out=largest)
        denominator = largest.sqrt().div_((1 - 0.999**number) ** 0.5).add_(self.descent.eps)
        inputs.addcdiv_(first, denominator, value=-rate / (1 - 0.9**number))

    def keep(self, rows: Tensor) -> None:
        self.state = [one[rows] for one in self.state]


def descend(
    objective: Objective,
    start: Tensor,  # shape: (batch, *input)
    descent: Descent,
    steps: Iterable[int],
    total: int,
    box: tuple[Tensor, Tensor] | None,
) -> tuple[Tensor, Tensor]:  # shapes: (batch, *input), (batch,) bool
    """Inputs of a small objective, and whether the data moved each of them.

    Objectives are summed over records, not averaged: steps then do not depend on how many records there are.
    """
    found, inputs = start.clone(), start.clone()
    alive: slice | Tensor = slice(None)
    pulled = _pulled(objective, start)
    adam, before = _Adam(start, descent), None
    for step in steps:
        share = step / max(1, total - 1)
        with torch.enable_grad():
            leaf = inputs.detach().requires_grad_(True)
            data, prior = objective(leaf, alive, share)
            value = data + prior
            (gradient,) = torch.autograd.grad(value.sum(), leaf)
        adam.step(inputs, gradient, step + 1, descent.learning_rate * _decayed(share, descent.decay))
        if box is not None:
            torch.minimum(torch.maximum(inputs, box[0]), box[1], out=inputs)
        if descent.stop is not None and step % LOOK == LOOK - 1:
            value = value.detach()
            going = torch.ones_like(value, dtype=torch.bool)
            if before is not None:
                going = before - value > descent.stop * before.abs()
            found[alive] = inputs
            alive = torch.arange(len(found), device=found.device)[alive][going]
            inputs, before = inputs[going], value[going]
            adam.keep(going)
            if not len(inputs):
                break
    found[alive] = inputs
    return found, pulled & ((found - start).abs().flatten(1).amax(1) > MOVED)


def _decayed(share: float, decay: bool) -> float:
    return float(0.5 * (1 + torch.cos(torch.tensor(torch.pi * share)))) if decay else 1.0


def _pulled(objective: Objective, start: Tensor) -> Tensor:  # shape: (batch,), bool
    """Whether the data, and not the prior alone, have a slope at the start."""
    with torch.enable_grad():
        leaf = start.detach().clone().requires_grad_(True)
        data = objective(leaf, slice(None), 0.0)[0]
        if not data.requires_grad:
            return torch.zeros(len(start), dtype=torch.bool, device=start.device)
        (gradient,) = torch.autograd.grad(data.sum(), leaf, allow_unused=True)
    if gradient is None:
        return torch.zeros(len(start), dtype=torch.bool, device=start.device)
    return gradient.flatten(1).abs().amax(1) > 0
