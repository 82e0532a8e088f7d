"""Which codewords are closest, with bounded memory, and how likely a symbol then is."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from splitpriv.mechanisms import KClosest

BLOCK = 1 << 20
"""Numbers per step of a search: what stays in the cache."""


def closest(
    scores: Tensor,  # shape: (records, size), larger is closer
    count: int,
) -> Tensor:  # shape: (records, count), int64
    """Indices of the largest scores; of equal ones at the end, those with the smallest index."""
    values, indices = scores.topk(count + 1, dim=1)
    indices = indices[:, :count]
    tied = values[:, count - 1] == values[:, count]
    if bool(tied.any()):
        indices[tied] = scores[tied].sort(dim=1, descending=True, stable=True).indices[:, :count]
    return indices


def log_likelihood(
    scores: Tensor,  # shape: (records, size)
    symbols: Tensor,  # shape: (records,), int64
    mechanism: KClosest,
    temperature: float,
) -> Tensor:  # shape: (records,)
    """ln Pr[symbol | scores], the step from far to near relaxed to a sigmoid.

    The step lies halfway between the last score among the closest and the first beyond; exact as
    the temperature goes to 0.
    """
    values = scores.topk(mechanism.closest + 1, dim=1).values
    margin = scores.gather(1, symbols.unsqueeze(1)).squeeze(1) - values[:, -2:].mean(dim=1)
    near = torch.tensor(mechanism.near / mechanism.total, dtype=torch.float64).log().to(scores)
    far = torch.tensor(mechanism.far / mechanism.total, dtype=torch.float64).log().to(scores)
    inside = margin / temperature
    return torch.logaddexp(near + F.logsigmoid(inside), far + F.logsigmoid(-inside))
