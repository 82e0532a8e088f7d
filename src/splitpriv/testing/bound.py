"""A lower bound on epsilon from draws alone, for layers that declare no table."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from splitpriv.testing.inputs import copies, records
from splitpriv.testing.statistics import Array, lower_bound, upper_bound

_KEPT = 8  # events that are tested on the second half
_RECORDS = 6
_POSITIONS = 8


@dataclass(frozen=True)
class Bound:
    """A proven lower bound on the epsilon of what was looked at, and how many draws it took."""

    epsilon: float
    draws: int
    event: str


@dataclass(frozen=True)
class _Event:
    name: str
    pair: tuple[int, int]
    statistic: int
    low: float
    high: float

    def hits(self, values: list[Array]) -> tuple[int, int]:
        """How often it happens, for the one record and for the other."""
        one, other = (values[side][:, self.statistic] for side in self.pair)
        return tuple(int(((v >= self.low) & (v <= self.high)).sum()) for v in (one, other))  # type: ignore[return-value]


def bound(
    layer: Any,
    example: Tensor,  # shape: (batch, *feature)
    *,
    whole: bool,
    draws: int,
    alpha: float,
) -> Bound:
    """Clopper-Pearson bounds at events that were chosen on other draws.

    Epsilon is at least ln(low / high), where ``low`` lies below the probability of an event for one record and
    ``high`` above that for another. Events are intervals of the decoded values, of the grid that they lie
    on, of the symbols, and, for ``whole`` records, of the layer's own log-likelihood ratio. The first half of
    the draws chooses the best few, the second half tests them, Bonferroni over those few.

    Args:
        layer: to test.
        example: records to start from.
        whole: whether events may look at all symbols of a record, or at one at a time.
        draws: symbols to draw in all.
        alpha: probability that the bound is above the true epsilon.
    """
    tried = records(layer, example)[:_RECORDS]
    elements = max(1, layer.encode(tried[0][None])[0].numel())
    # A few symbols of a long record are looked at, and its others are drawn in vain: eight times as many at most.
    each = max(256, min(draws // min(elements, _POSITIONS), 8 * draws // elements) // (2 * len(tried)))
    log_ratios = _log_ratios(layer, tried) if whole else []
    names: list[str] = []
    halves: list[list[Array]] = []
    for _ in range(2):
        half = []
        for record in tried:
            symbols = layer.encode(copies(record, each))
            names, columns = _statistics(layer, symbols, log_ratios)
            half.append(columns)
        halves.append(half)
    chosen = _choose(names, halves[0])
    best = Bound(0.0, 2 * each * len(tried), "none")
    level = alpha / (2 * max(1, len(chosen)))
    for event in chosen:
        likely, other = event.hits(halves[1])
        low, high = lower_bound(likely, each, level), upper_bound(other, each, level)
        if low > 0 and math.log(low / high) > best.epsilon:
            best = Bound(math.log(low / high), best.draws, f"{event.name} in [{event.low:g}, {event.high:g}]")
    return best


def _statistics(
    layer: Any, symbols: Tensor, log_ratios: list[tuple[str, Callable[[Tensor], Tensor]]]
) -> tuple[list[str], Array]:  # shape: (draws, statistics)
    """Numbers that are read off each release."""
    flat = symbols.reshape(len(symbols), -1)[:, :_POSITIONS].double().cpu().numpy()
    decoded = layer.decode(symbols).detach()
    values = decoded.reshape(len(symbols), -1)[:, :_POSITIONS].double().cpu().numpy()
    parts = {"symbol": flat, "value": values, "grid of value": _grid(values)}
    names = [f"{name} {i}" for name, part in parts.items() for i in range(part.shape[1])]
    scores = [ratio(symbols)[:, None].double().cpu().numpy() for _, ratio in log_ratios]
    return names + [name for name, _ in log_ratios], np.concatenate([*parts.values(), *scores], axis=1)


def _grid(values: Array) -> Array:
    """log2 of the finest power of two that a number is a multiple of; floats betray what they were added to."""
    mantissas, exponents = np.frexp(values)
    whole = np.abs(np.ldexp(mantissas, 53)).astype(np.int64)
    lowest = np.log2(np.maximum(whole & -whole, 1).astype(np.float64))
    grid: Array = np.where(whole == 0, 0.0, exponents - 53 + lowest)
    return grid


def _log_ratios(layer: Any, tried: list[Tensor]) -> list[tuple[str, Callable[[Tensor], Tensor]]]:
    """The layer's own log-likelihood ratios of whole records, for each pair: a score, right or wrong."""

    def ratio(one: Tensor, other: Tensor) -> Callable[[Tensor], Tensor]:
        def score(symbols: Tensor) -> Tensor:
            with torch.no_grad():
                parts = [layer.log_prob(symbols, copies(record, len(symbols))) for record in (one, other)]
            difference: Tensor = (parts[0] - parts[1]).reshape(len(symbols), -1).sum(1)
            return difference.nan_to_num()

        return score

    pairs = itertools.combinations(range(len(tried)), 2)
    return [(f"log-likelihood ratio of records {i} and {j}", ratio(tried[i], tried[j])) for i, j in pairs]


def _choose(names: list[str], half: list[Array]) -> list[_Event]:
    """The events with the largest cautious ratio in the first half."""
    scored = []
    for pair in itertools.permutations(range(len(half)), 2):
        for statistic, name in enumerate(names):
            one, other = (half[side][:, statistic] for side in pair)
            for low, high in _intervals(one, other):
                event = _Event(name, pair, statistic, low, high)
                likely, unlikely = event.hits(half)
                # Smoothed, so that an event that never happened for the other record does not always win.
                scored.append((math.log((max(likely - 3 * math.sqrt(likely), 0.5)) / (unlikely + 8)), event))
    scored.sort(key=lambda pair: -pair[0])
    return [event for _, event in scored[:_KEPT]]


def _intervals(one: Array, other: Array) -> list[tuple[float, float]]:
    """Rays and points of one statistic that are more likely for the one record than for the other."""
    together = np.concatenate([one[:4096], other[:4096]])
    cuts = np.unique(np.quantile(together, np.linspace(0.01, 0.99, 15), method="nearest"))
    points = np.unique(together)
    if len(points) <= 16:
        cuts = points
    else:  # and the likeliest, where the alphabet has no order
        seen, counts = np.unique(one, return_counts=True)
        points = seen[np.argsort(-counts)[:16]]
    rays = [(-math.inf, float(c)) for c in cuts] + [(float(c), math.inf) for c in cuts]
    return rays + [(float(p), float(p)) for p in points]
