"""The audit of a trained server: which of two records did each of its rows hold?"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from splitpriv import _validation as check
from splitpriv._errors import InvalidParameterError, ShapeError
from splitpriv.accounting.simulation import simulation
from splitpriv.attacks.auditing.bayes import loss
from splitpriv.attacks.auditing.canaries import OneRunAudit
from splitpriv.attacks.auditing.result import AuditResult

_OWNER = "audit_training"
_FEWEST = 16


def audit_training(
    train: Callable[[Tensor], Any],
    score: Callable[[Any, Tensor], Tensor],
    canaries: Tensor,  # shape: (canaries, *record)
    substitutes: Tensor,  # shape: (canaries, *record)
    *,
    claimed: float = math.inf,
    guesses: int | tuple[int, ...] | None = None,
    delta: float = 0.0,
    failure_probability: float = 0.05,
    seed: int = 0,
) -> AuditResult:
    """Put a canary or its substitute into each row, by coins; train once, and bound epsilon by :class:`OneRunAudit`.

    For a server: ``train`` sends the records that it is given (with others of its own, if any) through edge and layer
    and trains a server on what was released; the attacker asks that server about both records of each row. A coin
    *replaces* a record by another one, and nothing else: the number of rows is the same, and so is each row's label,
    which ``train`` must take by the row and not by the record. That is the relation of local epsilon, so ``claimed``
    must be a claim for replacing one record: what a record pays, :meth:`SplitModel.price(shape).per_record()
    <splitpriv.SplitModel.price>`. Where it covers the label too (``LabelLDP``, ``EmbeddedLabels``), canary and
    substitute may differ in it: then give row numbers, and let ``train`` look up records and labels.
    Claims for adding or removing a record need coins that do that: flip them, and call :class:`OneRunAudit`.

    Nothing is charged: ``train`` and ``score`` run inside :func:`~splitpriv.accounting.simulation`. Canaries and
    substitutes that lie far apart, with labels that the training would otherwise not give them, are easy to tell.

    Args:
        train: from the records that coins chose (canaries, \\*record), in the order of the rows, to what was trained.
        score: from what was trained and records (canaries, \\*record), one for each row, to a number for each
            (canaries,): higher the more it seems to have been trained on, such as minus the loss at the row's label.
            Asked for the canaries and for the substitutes; the difference is what decides.
        canaries: at least 16; epsilon up to about ln(canaries) can be shown.
        substitutes: what takes their places.
        claimed: epsilon for replacing one record, for the verdict; ``math.inf`` for no claim.
        guesses: as for :class:`OneRunAudit`.
        delta: as for :class:`OneRunAudit`.
        failure_probability: as for :class:`OneRunAudit`.
        seed: of the coins, in [0, 2**63).

    Returns:
        The bound, the claim, and a verdict.

    Raises:
        InvalidParameterError: an argument is outside its range, or not of its kind.
        ShapeError: canaries and substitutes, or scores, do not fit together.
        NonFiniteError: a difference of scores is NaN.

    Does not prove: anything but a lower bound for these records and this attacker.

    Source: Steinke, Nasr, Jagielski 2023.

    Example:
        >>> canaries, substitutes = torch.eye(1000), -torch.eye(1000)
        >>> found = audit_training(
        ...     lambda records: records,  # a server that remembers what it was sent
        ...     lambda server, records: -(server - records).abs().sum(1),
        ...     canaries,
        ...     substitutes,
        ...     claimed=1.0,
        ... )
        >>> found.refuted, found.right == found.guesses
        (True, True)
    """
    for name, given in (("train", train), ("score", score)):
        if not callable(given):
            raise InvalidParameterError(check.message(_OWNER, name, "a callable", given))
    claimed = loss(_OWNER, claimed, "claimed")
    attack = OneRunAudit(guesses=guesses, delta=delta, failure_probability=failure_probability, seed=seed)
    count = _pairs(canaries, substitutes)
    included = torch.from_numpy(np.random.default_rng([seed, 1]).integers(0, 2, count).astype(bool))
    where = included.reshape(-1, *[1] * (canaries.ndim - 1)).to(canaries.device)
    with simulation():
        trained = train(torch.where(where, canaries, substitutes))
        ours, others = (_scored(score(trained, records.clone()), count) for records in (canaries, substitutes))
    return attack(ours - others, included, claimed=claimed)


def _pairs(canaries: Any, substitutes: Any) -> int:
    """How many pairs there are."""
    if not isinstance(canaries, Tensor) or canaries.ndim < 1 or len(canaries) < _FEWEST:
        constraint = f"a tensor of at least {_FEWEST} records"
        raise InvalidParameterError(check.message(_OWNER, "canaries", constraint, canaries))
    same = isinstance(substitutes, Tensor) and substitutes.shape == canaries.shape
    if not same or substitutes.dtype != canaries.dtype or substitutes.device != canaries.device:
        constraint = f"{canaries.dtype} of shape {tuple(canaries.shape)}, as canaries are"
        tensor = isinstance(substitutes, Tensor)
        got = f"{substitutes.dtype} of shape {tuple(substitutes.shape)}" if tensor else type(substitutes).__name__
        raise ShapeError(f"{_OWNER}: substitutes must be {constraint}, got {got}.")
    return len(canaries)


def _scored(scores: Any, count: int) -> Tensor:
    if not isinstance(scores, Tensor) or scores.shape != (count,):
        got = f"shape {tuple(scores.shape)}" if isinstance(scores, Tensor) else type(scores).__name__
        raise ShapeError(f"{_OWNER}: score must return a tensor of shape ({count},), got {got}.")
    return scores.detach().double().cpu()
