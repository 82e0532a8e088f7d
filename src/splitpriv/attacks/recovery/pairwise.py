"""Which of two candidates each element has, from how elements move together."""

from __future__ import annotations

import torch
from torch import Tensor

WIDEST = 4096  # elements: the tables have 4 numbers for each pair of elements
_MISMATCH = 0.1  # squared: how far private correlations are from public ones, beyond sampling
_ITERATIONS = 100
_STEPS = 4  # changes allowed per element


class Pairwise:
    r"""Costs of pairs of candidates by second moments.

    With :math:`f_a` the map by candidate a, and centred moments,

    .. math:: D_{ij}(a, b) = \frac{(\mathrm{E}[s_i s_j] - \mathrm{E}_\text{public}[f_a(x_i) f_b(x_j)])^2}
              {\mathrm{E}[s_i^2] \, \mathrm{E}[s_j^2] \, (1/n + \tau)} .
    """

    def __init__(
        self,
        public: Tensor,  # shape: (m, elements), float64
        released: Tensor,  # shape: (n, elements), float64
        candidates: Tensor,  # shape: (elements, 2), float64
        threshold: float | None,
    ) -> None:
        maps = [_centred(cut_off(public * candidates[:, k], threshold)).float() for k in range(2)]
        seen = _centred(released).float()
        observed = seen.T @ seen / len(seen)
        spread = observed.diagonal().sqrt()
        inverse = torch.where(spread > 0, 1 / spread.clamp_min(1e-20), torch.zeros_like(spread))
        scale = inverse.unsqueeze(1) * inverse / (1 / len(released) + _MISMATCH) ** 0.5
        tables = [[((observed - a.T @ b / len(public)) * scale).square() for b in maps] for a in maps]
        self._cost = torch.stack([torch.stack(row) for row in tables])  # shape: (2, 2, elements, elements)
        self._cost.diagonal(dim1=2, dim2=3).zero_()

    def ascend(
        self,
        unary: Tensor,  # shape: (elements,): how much better candidate 1 is than 0, in the units of the costs
    ) -> tuple[Tensor, Tensor]:  # shapes: (elements,), 0 or 1; (elements,), >= 0
        """The better of two searches that change one element at a time: from the unary choice, and the spectral one.

        Beside the choice its margins: the least that it costs to have an element otherwise, alone or with all others.
        """
        favour = torch.stack([torch.zeros_like(unary), unary])
        starts = [(unary > 0).long(), self._spectral(unary)]
        choice, energy, margin = min((self._search(start, favour) for start in starts), key=lambda end: end[1])
        # Where elements are symmetric, all signs together are as good the other way round, whatever each one costs.
        return choice, margin.clamp_max(max(0.0, self._energy(1 - choice, favour) - energy))

    def _spectral(self, unary: Tensor) -> Tensor:
        """Signs of the leading eigenvector of what favours equal choices; which sign is which by the unary terms.

        Source: group synchronisation, Singer 2011.
        """
        same = self._cost[0, 1] + self._cost[1, 0] - self._cost[0, 0] - self._cost[1, 1]
        leading = _leading((same + same.T) / 2)
        # An equal choice is candidate 1 or candidate 0 for all: the terms of single elements decide.
        return (leading > 0).long() if float(leading.double() @ unary) >= 0 else (leading < 0).long()

    def _search(self, start: Tensor, favour: Tensor) -> tuple[Tensor, float, Tensor]:
        """Where no single change helps, what that costs, and what each change would add."""
        choice, rows = start.clone(), torch.arange(len(start), device=start.device)
        # cost[a, i]: of candidate a at element i while the others stay as they are; a change costs one row's update.
        cost = self._costs(choice)
        for _ in range(_STEPS * len(start)):
            current = cost - favour
            gain = current[choice, rows] - current[1 - choice, rows]
            best = int(gain.argmax())
            if float(gain[best]) <= 1e-9:
                break
            old = int(choice[best])
            cost = cost + self._cost[:, 1 - old, :, best] - self._cost[:, old, :, best]
            choice[best] = 1 - old
        return choice, self._energy(choice, favour), (-gain).clamp_min(0)

    def _costs(self, choice: Tensor) -> Tensor:  # shape: (2, elements), float64
        """Of each candidate of each element, with this choice of the others."""
        return torch.where(choice == 0, self._cost[:, 0], self._cost[:, 1]).sum(2, dtype=torch.float64)

    def _energy(self, choice: Tensor, favour: Tensor) -> float:
        rows = torch.arange(len(choice), device=choice.device)
        return float((self._costs(choice) / 2 - favour)[choice, rows].sum())


def _leading(matrix: Tensor) -> Tensor:  # shapes: (elements, elements), (elements,)
    """Eigenvector of the largest eigenvalue, by power iteration on a shifted matrix (no eigenvalue below zero)."""
    shift = matrix.norm() / 2
    vector = torch.cos(torch.arange(len(matrix), device=matrix.device, dtype=matrix.dtype))  # any start in no subspace
    for _ in range(_ITERATIONS):
        vector = matrix @ vector + shift * vector
        vector = vector / vector.norm().clamp_min(1e-30)
    return vector


def cut_off(values: Tensor, threshold: float | None) -> Tensor:
    """What a threshold lets through; all without one."""
    return values if threshold is None else torch.where(values > threshold, values, torch.zeros_like(values))


def _centred(values: Tensor) -> Tensor:
    return values - values.mean(0)
