"""A lower bound on epsilon from draws alone, for layers that declare no table."""

from __future__ import annotations

import itertools
import math
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
    each = min(each, 1 << 15) if whole else each  # log-likelihoods take their time
    names: list[str] = []
    halves: list[list[Array]] = []
    for _ in range(2):
        half = []
        for record in tried:
            symbols = layer.encode(copies(record, each))
            names, columns = _statistics(layer, symbols, tried if whole else [])
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


def _statistics(layer: Any, symbols: Tensor, likely: list[Tensor]) -> tuple[list[str], Array]:
    """Numbers that are read off each release; of the layer's log-likelihoods for the records ``likely`` the ratios.

    Returns:
        Their names, and the numbers. # shape: (draws, statistics)
    """
    flat = symbols.reshape(len(symbols), -1)[:, :_POSITIONS].double().cpu().numpy()
    decoded = layer.decode(symbols).detach()
    values = decoded.reshape(len(symbols), -1)[:, :_POSITIONS].double().cpu().numpy()
    parts = {"symbol": flat, "value": values, "grid of value": _grid(values)}
    names = [f"{name} {i}" for name, part in parts.items() for i in range(part.shape[1])]
    columns = list(parts.values())
    with torch.no_grad():
        logs = [layer.log_prob(symbols, copies(record, len(symbols))) for record in likely]
    whole = [log.reshape(len(symbols), -1).double().sum(1).cpu().numpy() for log in logs]
    for i, j in itertools.combinations(range(len(likely)), 2):
        names.append(f"log-likelihood ratio of records {i} and {j}")
        columns.append(np.nan_to_num(whole[i] - whole[j])[:, None])
    return names, np.concatenate(columns, axis=1)


def _grid(values: Array) -> Array:
    """log2 of the finest power of two that a number is a multiple of; floats betray what they were added to."""
    mantissas, exponents = np.frexp(values)
    whole = np.abs(np.ldexp(mantissas, 53)).astype(np.int64)
    lowest = np.log2(np.maximum(whole & -whole, 1).astype(np.float64))
    grid: Array = np.where(whole == 0, 0.0, exponents - 53 + lowest)
    return grid


def _choose(names: list[str], half: list[Array]) -> list[_Event]:
    """The events with the largest cautious ratio in the first half."""
    scored = []
    sorted_half = [np.sort(columns, axis=0) for columns in half]  # so that counting takes two look-ups
    for statistic, name in enumerate(names):
        cuts = _cuts([columns[:, statistic] for columns in half])
        lows, highs = cuts[:, 0], cuts[:, 1]
        hits = [
            np.searchsorted(column, highs, side="right") - np.searchsorted(column, lows, side="left")
            for column in (columns[:, statistic] for columns in sorted_half)
        ]
        for pair in itertools.permutations(range(len(half)), 2):
            likely, unlikely = hits[pair[0]], hits[pair[1]]
            # Smoothed, so that an event that never happened for the other record does not always win.
            scores = np.log(np.maximum(likely - 3 * np.sqrt(likely), 0.5) / (unlikely + 8))
            for place in np.argsort(-scores)[:_KEPT]:
                low, high = float(lows[place]), float(highs[place])
                scored.append((float(scores[place]), _Event(name, pair, statistic, low, high)))
    scored.sort(key=lambda case: -case[0])
    return [event for _, event in scored[:_KEPT]]


def _cuts(columns: list[Array]) -> Array:  # shape: (intervals, 2)
    """Rays and points of one statistic: at quantiles, and at what is likeliest for each record."""
    some = [column[:4096] for column in columns]
    together = np.concatenate(some)
    points = np.unique(together)
    rays = points if len(points) <= 16 else np.quantile(together, np.linspace(0.01, 0.99, 31), method="nearest")
    if len(points) > 16:  # an alphabet may have no order
        counted = [np.unique(column, return_counts=True) for column in some]
        points = np.unique(np.concatenate([seen[np.argsort(-counts)[:8]] for seen, counts in counted]))
    below = [(-math.inf, cut) for cut in rays]
    above = [(cut, math.inf) for cut in rays]
    return np.array(below + above + [(point, point) for point in points])
