"""The few tests that draws are judged by; each one exact for its stated error probability."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

Array = npt.NDArray[Any]


def binomial_p(hits: Array, draws: int, probability: Array) -> Array:
    """Two-sided p-values of hit counts, twice the smaller tail."""
    below, above = stats.binom.cdf(hits, draws, probability), stats.binom.sf(hits - 1, draws, probability)
    p_values: Array = np.minimum(1.0, 2 * np.minimum(below, above))
    return p_values


def law_p(counts: Array, law: Array) -> float:
    """The p-value of symbol counts under a law, Bonferroni over symbols and over prefixes of the alphabet.

    Single symbols notice a wrong entry, prefixes a shift or a tail that is cut off. A symbol that the law calls
    impossible gives 0.
    """
    draws = int(counts.sum())
    cells = binomial_p(counts, draws, law)
    prefixes = binomial_p(np.cumsum(counts)[:-1], draws, np.minimum(np.cumsum(law)[:-1], 1.0))
    both = np.concatenate([cells, prefixes])
    return float(min(1.0, both.min() * both.size))


def association_p(first: Array, second: Array) -> Array:
    """Fisher's exact test, two-sided, of pairs of yes/no events, one p-value per column.

    Args:
        first: bool. # shape: (pairs, events)
        second: bool, likewise.
    """
    both, ones, twos = (first & second).sum(0), first.sum(0), second.sum(0)
    law = stats.hypergeom(len(first), ones, twos)
    p_values: Array = np.minimum(1.0, 2 * np.minimum(law.cdf(both), law.sf(both - 1)))
    return p_values


def difference_p(first: Array, second: Array) -> Array:
    """Fisher's exact test, two-sided, that events are as frequent in one sample as in another.

    Args:
        first: bool. # shape: (draws, events)
        second: bool. # shape: (other draws, events)
    """
    ones, all_hits = first.sum(0), first.sum(0) + second.sum(0)
    law = stats.hypergeom(len(first) + len(second), all_hits, len(first))
    p_values: Array = np.minimum(1.0, 2 * np.minimum(law.cdf(ones), law.sf(ones - 1)))
    return p_values
