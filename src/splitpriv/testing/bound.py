"""A lower bound on epsilon from draws alone, for layers that declare no table."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from splitpriv.attacks.auditing.candidates import records
from splitpriv.attacks.auditing.search import Found, search
from splitpriv.attacks.auditing.trials import POSITIONS, Trials
from splitpriv.attacks.cut_view import CutView

_WHOLE = 1 << 18  # releases whose log-likelihoods are computed


def bound(
    layer: Any,
    example: Tensor,  # shape: (batch, *feature)
    *,
    whole: bool,
    draws: int,
    alpha: float,
) -> Found:
    """What :class:`~splitpriv.attacks.LowerBoundAudit` proves of the layer, with a budget in symbols.

    Args:
        layer: to test.
        example: records to start from.
        whole: whether events may look at all symbols of a record, or at one at a time.
        draws: symbols to draw in all.
        alpha: probability that the bound is above the true epsilon.
    """
    elements = max(1, layer.encode(example[:1])[0].numel())
    # A few symbols of a long record are looked at, and its others are drawn in vain: eight times as many at most.
    releases = max(3072, min(draws // min(elements, POSITIONS), 8 * draws // elements))
    releases = min(releases, _WHOLE) if whole else releases  # log-likelihoods take their time
    view = CutView(encode=layer.encode, decode=layer.decode, log_prob=layer.log_prob)
    trials = Trials(view, torch.stack(records(layer, example)), by_element=False, whole=whole, batch_size=releases)
    return search(trials, releases, alpha, seed=0)
