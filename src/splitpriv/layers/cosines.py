"""Cosines between a fixed direction and random ones: the mean of the largest of them, exactly.

A random unit vector in d dimensions has cosine t with density C (1 - t²)^((d-3)/2), that is,
(1 + t)/2 has the law Beta((d-1)/2, (d-1)/2).
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from scipy.special import betaincinv, gammaln

_NODES = 160


@lru_cache(maxsize=4096)
def largest(dim: int, size: int, closest: int) -> tuple[float, float]:
    r"""Expected sum of the m = ``closest`` largest of N = ``size`` independent cosines, and of their squares.

    Let v be the share of the law above the (m+1)-th largest cosine: v has the law Beta(m + 1, N - m), and
    given v the m largest are independent draws from above it, whose moments have closed forms; so

    .. math:: E \sum_{j \le m} t_{(j)} = m \int_0^1 E[t \mid t \text{ among the upper } v] \; p(v) \, dv,

    one smooth integral, by Gauss-Legendre quadrature.

    Args:
        dim: d >= 2.
        size: N >= 2.
        closest: m in [1, N - 1].
    """
    mean = (closest + 1) / (size + 1)
    spread = math.sqrt(mean * (1 - mean) / (size + 2))
    low, high = max(0.0, mean - 14 * spread), min(1.0, mean + (14 + 40 / closest) * spread)
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    # Cubic spacing from zero: near it the integrand is a broken power of v.
    start, stop = low ** (1 / 3), high ** (1 / 3)
    root = start + (stop - start) * (nodes + 1) / 2
    share = root**3
    weight = weights * (stop - start) / 2 * 3 * root**2
    log_beta = gammaln(closest + 1) + gammaln(size - closest) - gammaln(size + 1)
    with np.errstate(divide="ignore"):  # share 1 has density 0, or a finite one
        log_density = closest * np.log(share) - log_beta + (size - closest - 1) * np.log1p(-share)
    density = np.exp(log_density)
    first, second = _upper_moments(dim, share)
    return closest * float(weight @ (density * first)), closest * float(weight @ (density * second))


def _upper_moments(dim: int, share: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean cosine and mean squared cosine among the upper ``share`` of the law."""
    half = (dim - 1) / 2
    below = betaincinv(half, half, share)  # the law is symmetric: (1 - t)/2 at the upper quantile
    bound, sine_squared = 1 - 2 * below, 4 * below * (1 - below)
    log_constant = gammaln(dim / 2) - gammaln(half) - math.log(math.pi) / 2
    # The integral of t f(t) above the bound is C (1 - bound²)^((d-1)/2) / (d-1); that of t² f(t) by parts.
    tail = np.exp(log_constant + half * np.log(sine_squared)) / (dim - 1)
    return tail / share, ((dim - 1) * bound * tail + share) / (dim * share)
