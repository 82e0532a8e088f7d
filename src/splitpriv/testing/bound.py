"""A lower bound on epsilon from draws alone, for layers that declare no table."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from splitpriv.attacks.auditing.candidates import records
from splitpriv.attacks.auditing.claim import symbolwise
from splitpriv.attacks.auditing.freshness import BY_CALL, NEVER, draws_anew
from splitpriv.attacks.auditing.search import Found, search
from splitpriv.attacks.auditing.trials import POSITIONS, Trials
from splitpriv.attacks.cut_view import CutView

_SHOWN = 8  # releases of each record that show whether a decoder mixes symbols
_WHOLE = 1 << 18  # releases whose log-likelihoods are computed


def bound(
    layer: Any,
    example: Tensor,  # shape: (batch, *feature)
    *,
    whole: bool,
    claim: float,
    draws: int,
    alpha: float,
) -> Found:
    """What :class:`~splitpriv.attacks.LowerBoundAudit` proves of the layer, with a budget in symbols.

    Args:
        layer: to test.
        example: records to start from.
        whole: whether events may look at all symbols of a record, or at one at a time (and then at decoded values
            only where each is seen to follow its own symbol alone).
        claim: epsilon of what one event may look at.
        draws: symbols to draw in all.
        alpha: probability that the bound is above the true epsilon.

    Raises:
        AssertionError: the layer gives all records the same symbols again, of which no draws can be counted.
    """
    elements = max(1, layer.encode(example[:1])[0].numel())
    # A few symbols of a long record are looked at, and its others are drawn in vain: eight times as many at most.
    releases = max(3072, min(draws // min(elements, POSITIONS), 8 * draws // elements))
    releases = min(releases, _WHOLE) if whole else releases  # log-likelihoods take their time
    candidates = torch.stack(records(layer, example))
    drawn = draws_anew(layer.encode, candidates, epsilon=claim, uses=1 if whole else elements)
    if drawn == NEVER:
        raise AssertionError("assert_ldp: layer must draw anew at each call, got the same symbols again.")
    shown = layer.encode(candidates.repeat(_SHOWN, *[1] * (candidates.ndim - 1)))
    trials = Trials(
        CutView(encode=layer.encode, decode=layer.decode, log_prob=layer.log_prob),
        candidates,
        by_element=False,
        whole=whole,
        batch_size=releases,
        singly=drawn == BY_CALL,
        values=whole or symbolwise(layer.decode, shown, POSITIONS),
    )
    return search(trials, releases, alpha, seed=0)
