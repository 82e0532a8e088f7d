"""Mechanisms with one planted fault each; the checks in this folder must catch them."""

from __future__ import annotations

import math

import numpy as np

from splitpriv.mechanisms import Channel


def rounded_threshold(epsilon: float, bits: int) -> Channel:
    """Randomized response whose threshold is rounded to nearest, not toward privacy."""
    flips = round(2**bits / (math.exp(epsilon) + 1))
    keep = 2**bits - flips
    return Channel([[keep, flips], [flips, keep]])


def tail_cut_before_clamping(epsilon: float, half: int, bits: int = 16) -> Channel:
    """Discrete Laplace noise whose tail is cut off at the output range before it is added."""
    reach, total = 4 * half, 2**bits
    alpha = math.exp(-epsilon / (2 * half))
    weights = {n: max(1, round(total * alpha ** abs(n) * (1 - alpha) / (1 + alpha))) for n in range(-reach, reach + 1)}
    weights[0] += total - sum(weights.values())
    rows = []
    for x in range(-half, half + 1):
        row = [0] * (2 * reach + 1)
        for noise, weight in weights.items():
            row[int(np.clip(x + noise, -reach, reach)) + reach] += weight
        rows.append(row)
    return Channel(rows)


def float_laplace_outputs(value: float, epsilon: float, uniforms: np.ndarray) -> np.ndarray:
    """Laplace noise in float32, as textbooks add it."""
    u = uniforms.astype(np.float32) - np.float32(0.5)
    noise = -np.sign(u) * np.log1p(-2 * np.abs(u)) / np.float32(epsilon)
    return np.float32(value) + noise.astype(np.float32)
