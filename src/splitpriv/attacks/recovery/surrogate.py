"""A decoder learned from the attacker's own encoders, and how it is brought to the one under attack."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from splitpriv.attacks.attack import generator
from splitpriv.attacks.recovery.kernel_ridge import Fit, Predictor, fit_ridge

_ROWS = 600  # of all surrogates together: the regression inverts a matrix of that size
_BETTER = 0.9  # alignment must lower the error on a left-out surrogate by a tenth to be preferred to none
_FLAT = 1e-3  # of the mean variance: directions of less are not stretched further


def whitener(
    codes: Tensor,  # shape: (records, dim), float64
) -> Predictor:
    """The affine map that takes these codes to mean 0 and covariance 1, symmetric (ZCA)."""
    centre = codes.mean(0)
    values, vectors = torch.linalg.eigh((codes - centre).T @ (codes - centre) / len(codes))
    spread = values.clamp_min(_FLAT * float(values.mean()) + 1e-20).rsqrt()
    matrix = (vectors * spread) @ vectors.T
    return lambda new: (new - centre) @ matrix


def surrogate_decoder(
    surrogates: Sequence[Tensor],  # shape of each: (n, dim), float64
    public: Tensor,  # shape: (n, elements), float64; centred
    released: Tensor,  # shape: (records, dim), float64
    align: str,
    seed: int,
) -> Fit:
    """From codes of the encoder under attack to records, less the public mean.

    The regression is fitted to all surrogates, and judged by a surrogate that was left out (of a single one, by
    records left out): where encoders differ so much that this fails, it predicts nothing.
    """
    rows = _parts(len(public), len(surrogates), seed, public.device)
    pooled = whitener(torch.cat(list(surrogates)))
    ways = {
        "none": (pooled, [pooled] * len(surrogates)),
        "moments": (whitener(released), [whitener(codes) for codes in surrogates]),
    }
    groups = torch.repeat_interleave(torch.tensor([len(part) for part in rows]).to(public.device))
    if len(surrogates) == 1:
        groups = torch.arange(len(rows[0]), device=public.device)
    fits = {}
    for name in ways if align == "auto" else (align,):
        own, theirs = ways[name]
        inputs = torch.cat([to(codes[part]) for to, codes, part in zip(theirs, surrogates, rows, strict=True)])
        found = fit_ridge(inputs, public[torch.cat(rows)], groups)
        fits[name] = Fit(_after(own, found.predict), found.error, f"surrogates, alignment {name}, {found.note}")
    if len(fits) == 1:
        return next(iter(fits.values()))
    return fits["moments"] if fits["moments"].error < _BETTER * fits["none"].error else fits["none"]


def _parts(records: int, surrogates: int, seed: int, device: torch.device) -> list[Tensor]:
    """For each surrogate the public records to learn from: others for each, so that leaving one out leaves them out."""
    order = torch.randperm(records, generator=generator(seed, stream="surrogate rows"))[:_ROWS]
    return [part.to(device) for part in order.tensor_split(surrogates)]


def _after(first: Predictor, then: Predictor) -> Predictor:
    return lambda new: then(first(new))
