"""The best pair and event are chosen on some draws, and proven on others."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from splitpriv.attacks.auditing.events import Event, declared, propose, ranked, surely_better
from splitpriv.attacks.auditing.one_run import one_run_epsilon
from splitpriv.attacks.auditing.trials import Readings, Trials

Array = npt.NDArray[Any]

_ROUNDS = 3  # in which events are weeded out
_CAUTION = 3.0  # standard errors that are taken off where the best of many is picked


@dataclass(frozen=True)
class Found:
    """A proven lower bound, and the trials that prove it.

    Attributes:
        epsilon: below the true one, except with the failure probability that was asked.
        event: what was guessed from what.
        counts: of the trials that test it, per cell.  # shape: (2, cells)
        draws: trials in all, those that chose included.
    """

    epsilon: float
    event: Event
    counts: Array
    draws: int

    @property
    def guessed(self) -> int:
        """Tested trials in which a guess was made."""
        return self.event.score(self.counts)[0]

    @property
    def right(self) -> int:
        """Those of them that were right."""
        return self.event.score(self.counts)[1]


def search(trials: Trials, draws: int, failure_probability: float, seed: int) -> Found:
    r"""A lower bound on epsilon by guessing coins from releases.

    Whatever is read, a mechanism of :math:`\epsilon` leaves each coin's odds within :math:`e^{\pm\epsilon}`, given all
    else. Of r guesses the right ones are thus at most as many as of r tosses that each succeed with probability
    :math:`e^\epsilon / (1 + e^\epsilon)`, and a Clopper-Pearson bound on that probability bounds epsilon. Both
    sides of an event count, and one test is made: an eighth of the draws proposes events, a quarter picks one of
    them, and the rest, on its two candidates alone, test it.

    Args:
        trials: at least two candidates.
        draws: trials in all.
        failure_probability: of a bound above the true epsilon.
        seed: of the coins.
    """
    coins = np.random.default_rng(seed)
    names, among = trials.names(), list(range(len(trials.candidates)))
    first, each = max(16, draws // 8), max(16, draws // (4 * _ROUNDS))
    last = max(16, draws - draws // 8 - _ROUNDS * (draws // (4 * _ROUNDS)))
    quantile = -float(ndtri(failure_probability))
    readings = _joined(list(trials.draw(among, first, coins)))
    events = propose(names, readings, among, 2 + quantile * math.sqrt(2 * first / (len(among) * last)))
    said = declared(readings, among, last, quantile)
    event = _best(events, said, trials, each, quantile * math.sqrt(each / last), coins)
    tested = _counts([event], trials, list(event.pair), last, coins)[0]
    guessed, right = event.score(tested)
    epsilon = one_run_epsilon(guessed, guessed, right, 0.0, failure_probability) if guessed else 0.0
    return Found(epsilon, event, tested, first + _ROUNDS * each + last)


def _best(
    events: list[Event], said: Event | None, trials: Trials, draws: int, caution: float, coins: np.random.Generator
) -> Event:
    """The event with the best score on draws that it was not fitted to; fewer are left, and drawn for, each round.

    The one that the layer's likelihood says is best stays to the end, and is taken unless another is surely better: of
    many events that are alike, the one with the best score is one that was lucky.
    """
    always = [] if said is None else [said]
    events = [*always, *events]
    counts: list[Array] = [np.zeros((2, len(event.guesses)), dtype=np.int64) for event in events]
    for turn in range(_ROUNDS):
        among = sorted({candidate for event in events for candidate in event.pair})
        drawn = _counts(events, trials, among, draws, coins)
        counts = [before + now for before, now in zip(counts, drawn, strict=True)]
        left = 1 if turn == _ROUNDS - 1 else max(1, (len(events) - len(always)) // 4)
        others = slice(len(always), None)
        kept = [place + len(always) for place in ranked(events[others], counts[others], _CAUTION + caution)[:left]]
        kept = [*range(len(always)), *kept]
        events, counts = [events[place] for place in kept], [counts[place] for place in kept]
    if said is not None and not surely_better(events[1], counts[1], said, counts[0], _CAUTION + caution):
        return said
    return events[-1]


def _counts(
    events: list[Event], trials: Trials, among: list[int], draws: int, coins: np.random.Generator
) -> list[Array]:
    counts: list[Array] = [np.zeros((2, len(event.guesses)), dtype=np.int64) for event in events]
    likelihoods = any(event.column < 0 for event in events)
    for readings in trials.draw(among, draws, coins, likelihoods=likelihoods):
        for event, hits in zip(events, counts, strict=True):
            hits += event.counts(readings)
    return counts


def _joined(parts: list[Readings]) -> Readings:
    logs = [part.logs for part in parts if part.logs is not None]
    return Readings(
        np.concatenate([part.labels for part in parts]),
        np.concatenate([part.columns for part in parts]),
        np.concatenate(logs) if logs else None,
    )
