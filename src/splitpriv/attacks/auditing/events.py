"""Events that tell two candidates apart: cells of a statistic, and which candidate each cell speaks for."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import combinations, permutations
from typing import Any

import numpy as np
import numpy.typing as npt

from splitpriv.attacks.auditing.trials import Readings

Array = npt.NDArray[Any]

_CELLS = 64  # of one statistic; alphabets up to this size are looked at symbol by symbol
_LIKELY = 8  # symbols of a larger one, per candidate
_SAMPLE = 4096  # trials per candidate that decide the cells
_KEPT = 16  # of the best events, besides the best of each kind


@dataclass(frozen=True)
class Event:
    """A guess at the coin: cells of one statistic, each for the first candidate, the second, or no guess.

    Attributes:
        statistic: its name.
        column: its place among the readings; -1 for the log-likelihood ratio of the pair.
        pair: the two candidates.
        edges: where cells begin; below the first edge lies one more.  # shape: (cells - 1,)
        guesses: 0 for the first candidate, 1 for the second, -1 for none.  # shape: (cells,)
    """

    statistic: str
    column: int
    pair: tuple[int, int]
    edges: Array = field(repr=False)
    guesses: Array = field(repr=False)

    def counts(self, readings: Readings) -> Array:  # shape: (2, cells)
        """How often each cell was hit by the first candidate, and by the second."""
        values = readings.ratio(*self.pair) if self.column < 0 else readings.columns[:, self.column]
        return _count(self.edges, values, readings.labels, list(self.pair))

    def score(self, counts: Array) -> tuple[int, int]:
        """How many trials were guessed, and how many of them rightly."""
        right = counts[0, self.guesses == 0].sum() + counts[1, self.guesses == 1].sum()
        return int(counts[:, self.guesses >= 0].sum()), int(right)

    def __str__(self) -> str:
        sides = [f"record {name} where {self._cells(side)}" for side, name in enumerate(self.pair) if self._has(side)]
        return f"{self.statistic}: {', '.join(sides) or 'nothing guessed'}"

    def _has(self, side: int) -> bool:
        return bool((self.guesses == side).any())

    def _cells(self, side: int) -> str:
        """Runs of cells as intervals [from, to)."""
        bounds = [-math.inf, *self.edges.tolist(), math.inf]
        here = np.flatnonzero(self.guesses == side)
        runs = np.split(here, np.flatnonzero(np.diff(here) > 1) + 1)
        shown = [f"in [{bounds[run[0]]:g}, {bounds[run[-1] + 1]:g})" for run in runs[:3]]
        return " or ".join(shown) + (f" or {len(runs) - 3} more" if len(runs) > 3 else "")


def propose(names: list[str], readings: Readings, among: list[int], caution: float) -> list[Event]:
    """Promising events: of each kind and statistic the best over all pairs, and the best of all.

    Args:
        names: of the columns.
        readings: trials that these events are fitted to, and which therefore flatter them.
        among: the candidates.
        caution: standard errors that are taken off.
    """
    found: list[tuple[float, Event]] = []
    best: list[tuple[float, Event]] = []
    for column, name in enumerate(names):
        values = readings.columns[:, column]
        edges = _edges(values, readings.labels, among)
        counts = _count(edges, values, readings.labels, among)
        place = {candidate: row for row, candidate in enumerate(among)}
        for kind in ("rays", "sets"):
            pairs = list(permutations(among, 2) if kind == "rays" else combinations(among, 2))
            ones, others = (counts[[place[pair[side]] for pair in pairs]] for side in (0, 1))
            scores, guesses = _regions(ones, others, caution, ordered=kind == "rays")
            for row in np.argsort(-scores)[:_KEPT]:
                found.append((float(scores[row]), Event(name, column, pairs[row], edges, guesses[row])))
            best.append(found[-min(_KEPT, len(pairs))])
    if readings.logs is not None:
        ratios = [_by_likelihood(readings, pair, caution) for pair in combinations(among, 2)]
        best += sorted(ratios, key=_score, reverse=True)[:_KEPT]
        found += ratios
    found = sorted(found, key=_score, reverse=True)[:_KEPT] + best
    return list({id(event): event for _, event in found}.values())


def declared(readings: Readings, among: list[int], draws: int, caution: float) -> Event | None:
    """The event that the layer's own likelihood says is best; None where that is not known, or tells nobody apart.

    By its word a guess where the log-likelihood ratio is r is right with probability 1 / (1 + exp(-|r|)): how good an
    event is follows from that, not from counts that may be lucky. Whether its word is true is for trials to show.

    Args:
        readings: trials that say how often each ratio comes up.
        among: the candidates.
        draws: trials that will test the event.
        caution: standard errors that are taken off.
    """
    if readings.logs is None:
        return None
    best, found = 0.0, None
    for pair in combinations(among, 2):
        sizes = -np.sort(-np.abs(readings.ratio(*pair)[np.isin(readings.labels, pair)]))
        sizes = sizes[sizes > 0]
        if not len(sizes):
            continue
        guessed = np.arange(1, len(sizes) + 1)
        right = np.cumsum(1 / (1 + np.exp(-np.minimum(sizes, 700.0))))
        more = draws / max(1, int(np.isin(readings.labels, pair).sum()))
        scores = np.where(np.append(np.diff(sizes) < 0, True), cautious(right * more, guessed * more, caution), -np.inf)
        place = int(np.argmax(scores))
        if scores[place] > best:
            level = sizes[place] * (1 - 1e-9)  # the same ratio may be rounded otherwise next time
            edges = np.array([np.nextafter(-level, np.inf), level])
            name = f"log-likelihood ratio of records {pair[0]} and {pair[1]}"
            best, found = float(scores[place]), Event(name, -1, pair, edges, np.array([1, -1, 0]))
    return found


def surely_better(event: Event, hits: Array, other: Event, others: Array, caution: float) -> bool:
    """Whether an event's cautious score is above what was simply counted for another."""
    scores = np.array([event.score(hits), other.score(others)], dtype=np.float64)
    first, second = cautious(scores[:, 1], scores[:, 0], caution), cautious(scores[:, 1], scores[:, 0], 0.0)
    return bool(first[0] > second[1])


def _score(case: tuple[float, Event]) -> float:
    return case[0]


def ranked(events: list[Event], counts: list[Array], caution: float) -> list[int]:
    """The places of the events by their cautious score on trials that they were not fitted to, the best first."""
    scores = np.array([event.score(hits) for event, hits in zip(events, counts, strict=True)], dtype=np.float64)
    order: list[int] = np.argsort(-cautious(scores[:, 1], scores[:, 0], caution), kind="stable").tolist()
    return order


def cautious(right: Array, guessed: Array, caution: float) -> Array:
    """The log-odds of being right, ``caution`` standard errors below what was counted; -inf without a guess.

    Source: the lower end of the score interval, Wilson 1927. It orders events; it is not the bound that is reported.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        n, square = np.asarray(guessed, dtype=np.float64), caution**2
        share = right / n
        spread = caution * np.sqrt(share * (1 - share) / n + square / (4 * n**2))
        low = (share + square / (2 * n) - spread) / (1 + square / n)
        odds: Array = np.where(n > 0, np.log(low / (1 - low)), -np.inf)
    return np.where(np.isnan(odds), -np.inf, odds)


def _by_likelihood(readings: Readings, pair: tuple[int, int], caution: float) -> tuple[float, Event]:
    values = readings.ratio(*pair)
    edges = _edges(values, readings.labels, list(pair))
    counts = _count(edges, values, readings.labels, list(pair))
    scores, guesses = _regions(counts[1:], counts[:1], caution, ordered=True)  # a low ratio speaks for the second
    swapped = np.where(guesses[0] >= 0, 1 - guesses[0], -1)
    name = f"log-likelihood ratio of records {pair[0]} and {pair[1]}"
    return float(scores[0]), Event(name, -1, pair, edges, swapped)


def _edges(values: Array, labels: Array, among: list[int]) -> Array:
    """Where cells begin: at each value of a small alphabet; else at quantiles, and around what is likely."""
    some = [values[labels == candidate][:_SAMPLE] for candidate in among]
    together = np.concatenate(some)
    points = np.unique(together)
    if len(points) <= _CELLS:
        return points[1:]
    quantiles = np.quantile(together, np.linspace(0, 1, _CELLS // 2 + 1)[1:-1], method="nearest")
    counted = [np.unique(part, return_counts=True) for part in some if len(part)]
    likely = np.concatenate([seen[np.argsort(-counts, kind="stable")[:_LIKELY]] for seen, counts in counted])
    return np.unique(np.concatenate([quantiles, likely, np.nextafter(likely, np.inf)]))


def _count(edges: Array, values: Array, labels: Array, among: list[int]) -> Array:  # shape: (candidates, cells)
    cells = np.searchsorted(edges, values, side="right")
    size = len(edges) + 1
    return np.stack([np.bincount(cells[labels == candidate], minlength=size) for candidate in among])


def _regions(ones: Array, others: Array, caution: float, *, ordered: bool) -> tuple[Array, Array]:
    """For each pair, which cells speak for whom: the first ones in some order for the first, the last for the second.

    Args:
        ones: hits by the first candidate.  # shape: (pairs, cells)
        others: hits by the second.
        caution: standard errors.
        ordered: in the order of the statistic; else in that of the ratio of hits.

    Returns:
        Their cautious scores, and guesses.  # shapes: (pairs,), (pairs, cells)
    """
    size = ones.shape[1]
    order = np.broadcast_to(np.arange(size), ones.shape)
    if not ordered:
        order = np.argsort(-(ones + 1) / (others + 1), axis=1, kind="stable")
    here, there = (np.take_along_axis(counts, order, axis=1) for counts in (ones, others))
    first, first_all = np.cumsum(here, 1), np.cumsum(here + there, 1)
    last, last_all = (np.cumsum(part[:, ::-1], 1)[:, ::-1] for part in (there, here + there))
    rows = np.arange(len(ones))
    left = np.argmax(cautious(first, first_all, caution), axis=1)  # cells 0 to left
    right = np.argmax(cautious(last, last_all, caution), axis=1)  # cells from right
    apart = right > left
    parts = [(first[rows, left], first_all[rows, left]), (last[rows, right], last_all[rows, right])]
    both = [np.where(apart, one + other, 0) for one, other in zip(*parts, strict=True)]
    scores = np.stack([cautious(hits, guessed, caution) for hits, guessed in (*parts, both)])
    use = np.argmax(scores, axis=0)
    place = np.arange(size)
    for_first = (place <= left[:, None]) & (use != 1)[:, None]
    for_second = (place >= right[:, None]) & (use != 0)[:, None]
    sorted_guesses = np.where(for_first, 0, np.where(for_second, 1, -1))
    guesses = np.empty_like(sorted_guesses)
    np.put_along_axis(guesses, order, sorted_guesses, axis=1)
    return scores.max(axis=0), guesses
