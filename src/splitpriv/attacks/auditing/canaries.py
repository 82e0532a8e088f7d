"""The audit of one run with many canaries: which way did each coin fall?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from splitpriv import _validation as check
from splitpriv._errors import InvalidParameterError, NonFiniteError, ShapeError
from splitpriv.attacks.attack import Attack
from splitpriv.attacks.auditing.bayes import loss
from splitpriv.attacks.auditing.lower_bound import check_probability
from splitpriv.attacks.auditing.one_run import one_run_epsilon
from splitpriv.attacks.auditing.result import AuditResult

Array = npt.NDArray[Any]

_BINS = 40  # of scores, in a figure


@dataclass(frozen=True, kw_only=True)
class OneRunAudit(Attack):
    r"""Bounds epsilon of a whole training from below by one run with many canaries.

    A fair coin decides for each canary between two training sets. Afterwards the attacker scores all canaries by the
    trained model, says "included" of the r / 2 highest, "left out" of the r / 2 lowest, and abstains from the
    rest. Right guesses bound epsilon as in :func:`one_run_epsilon`. r is fixed before the scores are seen; with several
    values the failure probability is shared between them (Bonferroni), and the best counts.

    **What a coin flips is what the bound is about**, and ``claimed`` must be a claim for the same. If it decides
    *which of two records* a row holds, all else equal, the labels included, the bound is of replacing a record:
    what a layer's local epsilon claims, and what :func:`audit_training` arranges. If it decides *whether* a record
    is there at all, the bound is of presence: local epsilon claims nothing of that where the number of rows or public
    labels are seen, and may be refuted though it is true.

    See :class:`Attack` for batch_size, seed, device and progress. The seed decides ties of scores.

    Args:
        guesses: r, the number of guesses, even, or several such numbers to share the failure probability; None for
            1/16, 1/4 and all of the canaries.
        delta: of the claim that is tested, in [0, 1).
        failure_probability: of a bound above the true epsilon, in (0, 1).

    Raises:
        InvalidParameterError: an argument is outside its range.

    Does not prove: that epsilon is as small as the bound; a low score may be one of weak canaries or of a weak
    attacker. Canaries must have been included by independent fair coins that nothing else depends on.

    Source: Steinke, Nasr, Jagielski 2023.

    Example:
        >>> included = torch.rand(1000, generator=torch.Generator().manual_seed(0)) < 0.5
        >>> scores = included + 0.5 * torch.randn(1000, generator=torch.Generator().manual_seed(1))
        >>> OneRunAudit(guesses=200, delta=1e-5)(scores, included).epsilon > 2
        True
    """

    guesses: int | tuple[int, ...] | None = None
    delta: float = 0.0
    failure_probability: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        owner = "OneRunAudit"
        for guesses in self._fixed():
            if check.integer(owner, "guesses", guesses, 2, fix="Or several, or None.") % 2:
                constraint = "even: as many are said to be included as left out"
                raise InvalidParameterError(check.message(owner, "guesses", constraint, guesses))
        if isinstance(self.guesses, tuple) and not self.guesses:
            raise InvalidParameterError(check.message(owner, "guesses", "one number or more, or None", self.guesses))
        if not 0 <= check.finite(owner, "delta", self.delta) < 1:
            raise InvalidParameterError(check.message(owner, "delta", "in [0, 1)", self.delta))
        check_probability(owner, self.failure_probability)

    def _fixed(self) -> tuple[int, ...]:
        return () if self.guesses is None else self.guesses if isinstance(self.guesses, tuple) else (self.guesses,)

    def __call__(
        self,
        scores: Tensor,  # shape: (canaries,)
        included: Tensor,  # shape: (canaries,), bool
        *,
        claimed: float = math.inf,
    ) -> AuditResult:
        """Audit a run.

        Args:
            scores: higher where the attacker believes more that the canary was included; may use everything
                but the coins.
            included: the coins.
            claimed: epsilon that is claimed for what one coin flips; ``math.inf`` for no claim.

        Raises:
            ShapeError: not one score and one coin (bool) for each canary.
            NonFiniteError: a score is NaN.
            InvalidParameterError: more guesses are asked than there are canaries, or ``claimed`` is no epsilon.
        """
        claimed = loss("OneRunAudit", claimed, "claimed")
        values = _scores(scores, included)
        coins, count = included.cpu().numpy(), len(values)
        tried = self._fixed() or tuple(sorted({2 * max(1, count // part) for part in (32, 8, 2)}))
        if max(tried) > count:
            constraint = f"at most the number of canaries, {count}"
            raise InvalidParameterError(check.message("OneRunAudit", "guesses", constraint, max(tried)))
        ties = np.random.default_rng(self.seed).permutation(count)
        order = np.lexsort((ties, values))
        each = self.failure_probability / len(tried)
        found = [
            (one_run_epsilon(count, r, v, self.delta, each), r, v) for r in tried for v in [_right(order, coins, r)]
        ]
        epsilon, guesses, right = max(found, key=lambda case: case[0])
        edges, counts, speaks = _histogram(values, coins, order, guesses)
        return AuditResult(
            epsilon=epsilon,
            claimed=claimed,
            unit="one canary",
            event=f"the {guesses // 2} highest and the {guesses // 2} lowest scores of {count} canaries",
            guesses=guesses,
            right=right,
            draws=count,
            failure_probability=self.failure_probability,
            layer="the training",
            delta=self.delta,
            edges=edges,
            counts=counts,
            speaks=speaks,
        )


def _scores(scores: Tensor, included: Tensor) -> Array:
    """The scores, checked, as float64."""
    for name, given in (("scores", scores), ("included", included)):
        if not isinstance(given, Tensor):
            raise ShapeError(f"OneRunAudit: {name} must be a torch.Tensor, got {name} of type {type(given).__name__}.")
    if scores.ndim != 1 or scores.shape != included.shape or included.dtype != torch.bool or not len(scores):
        raise ShapeError(
            f"OneRunAudit: scores and included must have one shape (canaries,), included bool, got "
            f"{tuple(scores.shape)} and {included.dtype} of shape {tuple(included.shape)}."
        )
    values = scores.detach().double().cpu().numpy()
    if np.isnan(values).any():
        raise NonFiniteError("OneRunAudit: scores must not be NaN, got NaN. Score unknown canaries as equal.")
    return values


def _right(order: Array, coins: Array, guesses: int) -> int:
    half = guesses // 2
    return int(coins[order[len(order) - half :]].sum()) + int((~coins[order[:half]]).sum())


def _histogram(values: Array, coins: Array, order: Array, guesses: int) -> tuple[Array, Array, Array]:
    """Scores of those included and of those left out, for a figure."""
    finite = np.clip(values, -1e300, 1e300)
    edges = np.unique(np.quantile(finite, np.linspace(0, 1, _BINS + 1)[1:-1]))
    cells = np.searchsorted(edges, finite, side="right")
    counts = np.stack([np.bincount(cells[side], minlength=len(edges) + 1) for side in (coins, ~coins)])
    speaks = np.full(len(edges) + 1, -1)
    speaks[cells[order[: guesses // 2]]] = 1
    speaks[cells[order[len(order) - guesses // 2 :]]] = 0
    return edges, counts, speaks
