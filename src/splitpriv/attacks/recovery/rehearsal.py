"""How far the signs that a search finds can be trusted: it is rehearsed on public records, of which all is known."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from splitpriv.attacks.attack import generator
from splitpriv.attacks.recovery.isotonic import Isotonic

_MOST, _FEWEST, _SIGNS = 64, 2, 4096  # rehearsals: as many as make so many signs; a wide record has many
# (released, public) to signs, 0 where nothing is known, and margins: what being wrong would cost, >= 0.
Search = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def trust(
    search: Search,
    release: Callable[[Tensor, Tensor], Tensor],
    public: Tensor,  # shape: (n, elements), float64
    letters: Tensor,  # shape: (entries,), float64
    *,
    count: int,
    seed: int,
) -> Callable[[Tensor], Tensor]:
    """From the margin of a sign to how much more often signs like it are right than wrong, in [0, 1].

    In each rehearsal one half of the public records plays the private ones, under a vector of its own, and the other
    half is the public ones. Signs of all elements and rehearsals are pooled, each with the variance of its element,
    so that the answer is the factor of least squared error.

    Args:
        search: what is rehearsed.
        release: (records, vector) to what crosses.
        public: two records or more.
        letters: the entries that a vector may have.
        count: released records that the search will have; rehearsals have as many where public ones allow.
        seed: of halves and vectors.
    """
    draw, half = generator(seed, stream="rehearsals"), len(public) // 2
    rehearsals = min(_MOST, max(_FEWEST, _SIGNS // public.shape[1]))
    weight = (public - public.mean(0)).square().mean(0).clamp_min(1e-30)
    margins, right = [], []
    for _ in range(rehearsals):
        order = torch.randperm(len(public), generator=draw).to(public.device)
        vector = letters[torch.randint(len(letters), (public.shape[1],), generator=draw).to(letters.device)]
        played = public[order[half : half + count]]
        signs, margin = search(release(played, vector), public[order[:half]])
        margins.append(margin)
        right.append(signs * vector.sign())
    found = Isotonic(*(torch.cat(rows).cpu().numpy() for rows in (margins, right, [weight] * rehearsals)))
    return lambda margin: torch.from_numpy(found(margin.cpu().numpy())).to(margin).clamp(0, 1)
