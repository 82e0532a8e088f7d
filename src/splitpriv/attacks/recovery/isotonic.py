"""The best fit that never falls."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


class Isotonic:
    """Least squares of y on x among step functions that never fall; between the steps of the data it is linear.

    Args:
        x: (points,), one or more.
        y: (points,).
        weight: (points,), > 0.

    Source: pool adjacent violators, Ayer, Brunk, Ewing, Reid, Silverman 1955.
    """

    def __init__(self, x: Any, y: Any, weight: Any) -> None:
        self._x, place = np.unique(np.asarray(x, np.float64), return_inverse=True)  # equal x: one value
        mass = np.asarray(weight, np.float64)
        total = np.bincount(place, mass).astype(np.float64)
        self._y = _pooled(np.bincount(place, np.asarray(y, np.float64) * mass) / total, total)

    def __call__(self, x: Any) -> Floats:
        """The fit at x; beyond the data, that at their end."""
        found: Floats = np.interp(x, self._x, self._y)
        return found


def _pooled(y: Floats, weight: Floats) -> Floats:
    """Neighbours whose order is wrong share their mean, until none are left."""
    blocks: list[tuple[float, float, int]] = []  # mean, weight, points
    for mean, mass in zip(y, weight, strict=True):
        block = (mean, mass, 1)
        while blocks and blocks[-1][0] >= block[0]:
            left = blocks.pop()
            both = left[1] + block[1]
            block = ((left[0] * left[1] + block[0] * block[1]) / both, both, left[2] + block[2])
        blocks.append(block)
    means, _, points = zip(*blocks, strict=True)
    return np.repeat(np.array(means, np.float64), points)
