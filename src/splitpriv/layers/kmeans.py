"""k-means on public features: k-means++ to start, then Lloyd's steps; repeatable from a seed."""

from __future__ import annotations

import torch
from torch import Tensor

from splitpriv.layers.closeness import BLOCK

_STEPS = 30
_STARTS = 3


def kmeans(
    points: Tensor,  # shape: (records, dim), float32
    size: int,
    generator: torch.Generator,
) -> Tensor:  # shape: (size, dim)
    """Cluster means, at most ``size <= records`` different ones: the best of a few starts."""
    found = [_lloyd(points, size, generator) for _ in range(_STARTS)]
    return min(found, key=lambda centres: float(assign(points, centres)[0].sum()))


def _lloyd(points: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """A cluster that loses all its points takes the point that is farthest from its own mean."""
    centres = _spread(points, size, generator)
    for _ in range(_STEPS):
        distances, nearest = assign(points, centres)
        counts = torch.bincount(nearest, minlength=size)
        sums = torch.zeros_like(centres).index_add_(0, nearest, points)
        moved = sums / counts.clamp_min(1).unsqueeze(1)
        empty = (counts == 0).nonzero().squeeze(1)
        moved[empty] = points[distances.topk(len(empty)).indices]
        if torch.equal(moved, centres):
            break
        centres = moved
    return centres


def assign(
    points: Tensor,  # shape: (records, dim)
    centres: Tensor,  # shape: (size, dim)
) -> tuple[Tensor, Tensor]:  # shapes: (records,), (records,) int64
    """Squared distance to the nearest centre, and which one it is."""
    found = [squared_distances(part, centres).min(dim=1) for part in torch.split(points, max(1, BLOCK // len(centres)))]
    return torch.cat([part.values for part in found]), torch.cat([part.indices for part in found])


def squared_distances(
    points: Tensor,  # shape: (records, dim)
    centres: Tensor,  # shape: (size, dim)
) -> Tensor:  # shape: (records, size)
    """|x - c|² by a matrix product, about the middle of the centres; never below 0."""
    middle = centres.mean(dim=0)
    x, c = points - middle, centres - middle
    return (x.square().sum(1, keepdim=True) - 2 * x @ c.T + c.square().sum(1)).clamp_min_(0)


def _spread(points: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Greedy k-means++: of a few points drawn in proportion to their squared distance, the one that helps most."""
    chosen = [int(torch.randint(len(points), (), generator=generator))]
    distances = squared_distances(points, points[chosen]).squeeze(1)
    tries = 2 + size.bit_length() // 2
    for _ in range(size - 1):
        reached = distances.double().cumsum(0)
        marks = torch.rand(tries, generator=generator, dtype=torch.float64) * reached[-1]
        drawn = torch.searchsorted(reached, marks, right=True).clamp_max(len(points) - 1)
        left = torch.minimum(squared_distances(points, points[drawn]), distances.unsqueeze(1))
        best = int(left.sum(dim=0).argmin())
        chosen.append(int(drawn[best]))
        distances = left[:, best]
    return points[chosen].clone()
