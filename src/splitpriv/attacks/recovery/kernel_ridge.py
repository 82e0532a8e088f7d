"""Regression by kernels, with everything chosen by what it predicts of records left out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

_RIDGES = tuple(10.0**power for power in range(-4, 5))
_WIDTHS = (None, 1.0, 2.0, 4.0)  # of the Gaussian kernel, in root mean squares of the inputs; None: linear
Predictor = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Fit:
    """What was learned, and how it was chosen."""

    predict: Predictor
    error: float  # mean squared error on what was left out
    note: str


def kernel(first: Tensor, second: Tensor, width: float | None) -> Tensor:  # shape: (rows of first, rows of second)
    """Inner products per element, or a Gaussian of the distance."""
    if width is None:
        return first @ second.T / first.shape[1]
    return torch.exp(-torch.cdist(first, second).square() / (2 * width**2 * first.shape[1]))


def fit_ridge(
    inputs: Tensor,  # shape: (records, dim), float64
    targets: Tensor,  # shape: (records, elements), float64
    groups: Tensor,  # shape: (records,), int64
) -> Fit:
    """Kernel ridge regression, or zero for all where that is not better by one standard error.

    Kernel and ridge are those with the least squared error on groups that were left out, in closed form: with
    G = K + λI, the residuals of group g when it is left out are :math:`((G^{-1})_{gg})^{-1} (G^{-1} y)_g`.

    Source: for single records Allen 1974 (PRESS), for groups the same by block inversion; the rule of one standard
    error is that of Breiman, Friedman, Olshen, Stone 1984.
    """
    zero = targets.square().mean(1)
    nothing = Fit(lambda new: targets.new_zeros(len(new), targets.shape[1]), float(zero.mean()), "nothing learned")
    best, missed = nothing, zero
    names = torch.unique(groups)
    if len(names) < 2:
        return nothing
    parts = [(groups == name).nonzero().squeeze(1) for name in names]
    for width in _WIDTHS:
        values, vectors = torch.linalg.eigh(kernel(inputs, inputs, width))
        turned = vectors.T @ targets
        for ridge in _RIDGES:
            spread = 1 / (values.clamp_min(0) + ridge)
            weights = vectors @ (spread.unsqueeze(1) * turned)
            errors = _left_out(vectors, spread, weights, parts)
            if float(errors.mean()) < best.error:
                best, missed = Fit(_sum(inputs, weights, width), float(errors.mean()), _named(width, ridge)), errors
    gain = torch.stack([(zero - missed)[part].mean() for part in parts])
    return best if float(gain.mean()) > float(gain.std()) / len(parts) ** 0.5 else nothing


def _left_out(vectors: Tensor, spread: Tensor, weights: Tensor, parts: list[Tensor]) -> Tensor:  # shape: (records,)
    """Mean squared residual of each record when its part is left out."""
    if len(parts) == len(weights):
        return (weights / (vectors.square() @ spread).unsqueeze(1)).square().mean(1)
    found = torch.empty_like(weights[:, 0])
    for part in parts:
        block = (vectors[part] * spread) @ vectors[part].T
        found[part] = torch.linalg.solve(block, weights[part]).square().mean(1)
    return found


def _sum(inputs: Tensor, weights: Tensor, width: float | None) -> Predictor:
    def predict(new: Tensor) -> Tensor:
        return kernel(new, inputs, width) @ weights

    return predict


def _named(width: float | None, ridge: float) -> str:
    return f"{'linear' if width is None else f'Gaussian {width:g}'} kernel, ridge {ridge:g}"
