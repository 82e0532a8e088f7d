"""How likely what crossed of one element is under each entry of the alphabet, by the element's public distribution."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

_BINS = 64
_SMOOTH = 1.5  # bins
_RADIUS = 6
_FLOOR = 0.02  # share of the mass that is spread evenly: private records need not look like public ones
_BLOCK = 1 << 22


class Marginals:
    """A smoothed histogram for each element."""

    def __init__(
        self,
        public: Tensor,  # shape: (n, elements), float64
        released: Tensor,  # shape: (records, elements), float64; only its range is used
        threshold: float | None,
    ) -> None:
        reach = torch.maximum(public.abs().amax(0), released.abs().amax(0))
        self._reach = (1.05 * reach).clamp_min(1e-12)
        self._public, self._threshold = public, threshold
        counts = torch.zeros(public.shape[1], _BINS, dtype=public.dtype, device=public.device)
        counts.scatter_add_(1, self._bins(public.T), torch.ones_like(public.T))
        places = torch.arange(-_RADIUS, _RADIUS + 1, dtype=public.dtype, device=public.device)
        kernel = torch.exp(-0.5 * (places / _SMOOTH) ** 2)
        smooth = F.conv1d(counts.unsqueeze(1), kernel.reshape(1, 1, -1), padding=_RADIUS).squeeze(1)
        smooth = smooth / smooth.sum(1, keepdim=True)
        self._log = ((1 - _FLOOR) * smooth + _FLOOR / _BINS).log()

    def log_likelihood(
        self,
        released: Tensor,  # shape: (records, elements), float64
        entries: Tensor,  # shape: (entries,), float64
    ) -> Tensor:  # shape: (elements, entries)
        """ln of the probability (per bin) of all that crossed of each element, records taken as independent."""
        found = torch.zeros(released.shape[1], len(entries), dtype=released.dtype, device=released.device)
        for part in torch.split(released, max(1, _BLOCK // released.shape[1])):
            for column, entry in enumerate(entries.tolist()):
                found[:, column] += self._of(part.T, entry).sum(1)
        return found

    def _of(self, seen: Tensor, entry: float) -> Tensor:  # shapes: (elements, records)
        plain = seen / entry
        outside = plain.abs() > self._reach.unsqueeze(1)
        log = torch.where(outside, math.log(_FLOOR / _BINS), self._log.gather(1, self._bins(plain)))
        log = log - math.log(abs(entry))
        if self._threshold is None:
            return log
        below = (entry * self._public <= self._threshold).double().mean(0)
        zero = ((1 - _FLOOR) * below + _FLOOR / 2).log().unsqueeze(1)
        return torch.where(seen == 0, zero, log)

    def _bins(self, values: Tensor) -> Tensor:  # shape: (elements, records)
        places = (values / self._reach.unsqueeze(1) + 1) / 2 * _BINS
        return places.long().clamp(0, _BINS - 1)
