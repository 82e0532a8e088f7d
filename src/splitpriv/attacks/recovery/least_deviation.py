"""The factor between two columns that most of the weight agrees on."""

from __future__ import annotations

import torch
from torch import Tensor


def least_deviation_ratio(
    x: Tensor,  # shape: (records, elements), float64
    s: Tensor,  # shape: (records, elements), float64
) -> Tensor:  # shape: (elements,), float64
    r"""For each element the minimiser of :math:`\sum_r |s_r - v x_r|`; 0 where every x is 0.

    It is the median of the ratios s/x, each weighted by the size of x: rounding in small x counts little, and pairs
    that do not belong together are outvoted as long as they carry less than half of the weight.

    Source: Laplace 1818 (least absolute deviations through the origin).
    """
    weight = x.abs()
    ratio = torch.where(weight > 0, s / torch.where(weight > 0, x, torch.ones_like(x)), torch.zeros_like(x))
    ratio, order = ratio.sort(dim=0)
    below = weight.gather(0, order).cumsum(0)
    middle = (below < below[-1] / 2).sum(0).clamp(max=len(x) - 1)
    median = ratio.gather(0, middle.unsqueeze(0)).squeeze(0)
    return torch.where(below[-1] > 0, median, torch.zeros_like(median))
