"""Whether a layer draws anew: a bound from many draws counts noise that is kept as if it were many."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

_MOST = 1 << 20  # draws that are made to see noise, at most
_ROWS = 1 << 12  # in one call
_ELEMENTS = 1 << 22  # likewise

ANEW, BY_CALL, NEVER = "for each record", "for each call", "never"


def draws_to_see_noise(epsilon: float) -> int | None:
    """How many draws show that there is noise; None where that many cannot be made, and nothing can be told.

    Epsilon itself says how many: whatever is likely for one record has at least e**-epsilon of that
    probability for every other one. So of 64 * e**epsilon draws some differ when all are made again, except with a
    probability below e**-32, unless the release is a constant.

    Args:
        epsilon: of one draw.
    """
    needed = 64 * math.exp(min(epsilon, 50.0))
    return None if needed > _MOST else math.ceil(needed)


def draws_anew(
    encode: Callable[[Tensor], Tensor],
    candidates: Tensor,  # shape: (candidates, *feature)
    *,
    epsilon: float,
    uses: int,
) -> str:
    """When a layer draws: ``ANEW`` for each record, ``BY_CALL`` once for copies of a record in a call, or ``NEVER``.

    Also ``ANEW`` where it cannot be told: of a constant, and where epsilon is so large that noise is hardly seen.

    Args:
        encode: of the layer.
        candidates: records, two or more.
        epsilon: of one use, as claimed.
        uses: draws for one record.
    """
    needed = draws_to_see_noise(epsilon)
    if needed is None:
        return ANEW
    size, most = len(candidates), min(_ROWS, _ELEMENTS // max(1, candidates[0].numel()))
    rounds = max(2, math.ceil(needed / (max(1, uses) * size)))
    each = max(2, min(rounds, most // size))
    batch = candidates.repeat(each, *[1] * (candidates.ndim - 1))
    constant, again, shared, first = True, True, True, None
    for _ in range(math.ceil(rounds / each)):
        one, other = encode(batch), encode(batch)
        first = one[:1] if first is None else first
        constant &= torch.equal(one, first.expand_as(one)) and torch.equal(other, first.expand_as(other))
        again &= torch.equal(one, other)
        shared &= torch.equal(one, one[:size].repeat(each, *[1] * (one.ndim - 1)))
        if not again and not shared:
            return ANEW
    if constant:
        return ANEW
    return NEVER if again else BY_CALL
