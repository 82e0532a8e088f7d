"""Whether a reconstruction tells its own original from others: leaks that pixel errors miss."""

from __future__ import annotations

import torch
from torch import Tensor

from splitpriv import _validation as check
from splitpriv._errors import ShapeError


def identification_rank(
    reconstructed: Tensor,  # shape: (batch, *input)
    candidates: Tensor,  # shape: (candidates, *input)
    truth: Tensor | None = None,  # shape: (batch,)
) -> Tensor:  # shape: (batch,), float64
    """How many candidates are closer to each reconstruction than its own original; 0 where it is the nearest.

    Closeness of images (and whatever has more than one dimension) is the correlation of centred inputs: blind to
    brightness and contrast, which noise at the cut destroys long before it destroys who is who. Of flat inputs it
    is the distance in columns that are divided by their standard deviation over the candidates. A candidate that ties
    with the original counts one half: only rank 0 identifies. A reconstruction that is the same for all records
    has rank (candidates - 1) / 2 by correlation, and about that on average by distance: it identifies nobody.

    Args:
        reconstructed: one per record.  # shape: (batch, *input)
        candidates: the N originals among which the attacker looks; by default record i's is candidate i.
            # shape: (candidates, *input)
        truth: for each reconstruction the index of its original among the candidates.  # shape: (batch,)

    Returns:
        The ranks, in [0, candidates - 1].  # shape: (batch,), float64

    Raises:
        ShapeError: shapes do not fit, or an index is outside the candidates.
        NonFiniteError: NaN or infinity.
    """
    found = check.features("identification_rank", reconstructed, "reconstructed").detach().flatten(1).double()
    known = (
        check.features("identification_rank", candidates, "candidates").detach().flatten(1).double().to(found.device)
    )
    index = torch.arange(len(found), device=found.device) if truth is None else truth.to(found.device).long()
    if found.shape[1] != known.shape[1] or index.shape != (len(found),):
        raise ShapeError(
            f"identification_rank: candidates must have the inputs' shape, and truth one index per reconstruction, got "
            f"{tuple(reconstructed.shape)}, {tuple(candidates.shape)} and {tuple(index.shape)}."
        )
    if len(index) and not bool(((index >= 0) & (index < len(known))).all()):
        raise ShapeError(
            f"identification_rank: truth must be in [0, {len(known)}), got another index. "
            "Without truth, candidate i must be the original of record i."
        )
    scores = _nearness(found, known) if reconstructed.ndim == 2 else _unit(found) @ _unit(known).T
    own = scores.gather(1, index.unsqueeze(1))
    level = 1e-9  # what rounding leaves between equal scores
    above, equal = (scores > own + level).sum(1), ((scores - own).abs() <= level).sum(1) - 1
    return above.double() + equal.double() / 2


def _nearness(found: Tensor, known: Tensor) -> Tensor:  # shape: (batch, candidates)
    """Minus the distance, in standard deviations of each column that is not constant over the candidates."""
    spread = known.std(0, correction=0)
    varies = spread > 1e-12 * known.abs().amax(0)
    scale = torch.where(varies, spread, torch.ones_like(spread)).reciprocal() * varies
    # Not by way of products: they lose what is left of two that are near each other.
    return -torch.cdist(found * scale, known * scale, compute_mode="donot_use_mm_for_euclid_dist")


def _unit(rows: Tensor) -> Tensor:
    """Each row centred and of length 1; all zeros where it has no variation."""
    centred = rows - rows.mean(1, keepdim=True)
    length = centred.norm(dim=1, keepdim=True)
    flat = length <= 1e-12 * rows.norm(dim=1, keepdim=True).clamp_min(1e-300)
    return torch.where(flat, torch.zeros_like(centred), centred / length.clamp_min(1e-300))
