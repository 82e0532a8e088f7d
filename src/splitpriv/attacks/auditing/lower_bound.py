"""A lower bound on the epsilon of any layer, from draws alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from splitpriv import _validation as check
from splitpriv._errors import InvalidParameterError
from splitpriv.accounting.pricing import is_defence
from splitpriv.attacks.attack import Attack
from splitpriv.attacks.auditing.candidates import records
from splitpriv.attacks.auditing.result import AuditResult
from splitpriv.attacks.auditing.search import search
from splitpriv.attacks.auditing.trials import Trials
from splitpriv.attacks.cut_view import CutView

UNITS = ("auto", "element", "use", "record")


@dataclass(frozen=True, kw_only=True)
class LowerBoundAudit(Attack):
    r"""Bounds a layer's epsilon from below by telling records apart from what it releases of them.

    A fair coin picks one of two records, the layer releases it, and the attacker guesses the coin from one number
    read off the release, or abstains. A mechanism of epsilon lets each guess be right with probability
    :math:`e^\epsilon / (1 + e^\epsilon)` at most, so that r guesses with v right ones refute every epsilon below the
    log-odds of a Clopper-Pearson bound on v of r. Which records, which number and which of its values speak for whom
    is searched on three eighths of the draws; the others make one test. No table is needed: the layer is only asked
    to ``encode`` and ``decode``, and for ``log_prob`` where it has one.

    Numbers read are symbols, decoded values, the grid that those lie on (floating-point noise betrays itself
    there), and the layer's own log-likelihood ratio. Records are the example's and extremes around them.

    See :class:`Attack` for batch_size, seed, device and progress. The seed decides the coins; noise comes from the
    layer's own source, so that only a layer with a seed gives the same bound twice.

    Args:
        draws: coins in all, >= 64. With 2**20 a bound of one symbol is above 80 % of an epsilon in [0.1, 6], where one
            symbol of few (up to about 8) or a threshold tells the two inputs apart.
        failure_probability: of a bound above the true epsilon, in (0, 1).
        unit: what a coin decides. ``"record"``: a record, and all of its symbols are read. ``"use"``: a record, and one
            symbol is read at a time. ``"element"``: each element of a record by itself, and its own symbol is read;
            for layers that treat elements separately, else the bound speaks of other losses than the claim.
            ``"auto"``: by what the layer's ``spend`` charges for, and element where its ``quantize`` is seen to
            treat elements separately.
        extremes: also try records far from the example; False compares the example's own records only, at most 16.

    Raises:
        InvalidParameterError: an argument is outside its range.

    Does not prove: that epsilon is as small as the bound, of records that were not tried, or of several symbols
    together where one is read at a time.

    Source: Clopper, Pearson 1934; Jagielski, Ullman, Oprea 2020 for bounds on epsilon with a stated probability;
    Steinke, Nasr, Jagielski 2023 for guesses with abstentions, and for many coins in one release.

    Example:
        >>> from splitpriv import RandomResponseLDP
        >>> layer = RandomResponseLDP(epsilon=1.0, generator=0)
        >>> found = LowerBoundAudit(draws=100_000)(layer, torch.tensor([[0.5], [-0.5]]))
        >>> 0.9 < found.epsilon <= 1.0
        True
    """

    batch_size: int = 1 << 16
    draws: int = 1 << 20
    failure_probability: float = 0.05
    unit: str = "auto"
    extremes: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check.integer("LowerBoundAudit", "draws", self.draws, 64)
        check_probability("LowerBoundAudit", self.failure_probability)
        check.choice("LowerBoundAudit", "unit", self.unit, UNITS)
        check.choice("LowerBoundAudit", "extremes", self.extremes, (True, False))

    def __call__(
        self,
        layer: Any,
        example: Tensor,  # shape: (batch, *feature)
    ) -> AuditResult:
        """Audit a layer.

        Args:
            layer: anything with ``encode`` and ``decode``; ``spend(shape)`` says what it claims (nothing, if missing).
            example: features like those that it is for, at least one; two without ``extremes``.

        Raises:
            InvalidParameterError: fewer than two different records that the layer takes.
            ShapeError: ``example`` is not a floating-point batch.
            NonFiniteError: ``example`` holds NaN or infinity.
        """
        example = check.features("LowerBoundAudit", example).detach()
        example = example.to(self._on(example))
        view = layer if isinstance(layer, CutView) else viewed(layer)
        tried = records(layer, example) if len(example) and self.extremes else list(example[:16])
        if len(tried) < 2:
            raise InvalidParameterError(
                f"LowerBoundAudit: example must lead to two different records or more, got {len(tried)} that the "
                "layer takes. Give two."
            )
        claim = claim_of(layer, example, self.unit)
        by_element, whole = claim.unit == "element", claim.unit == "record"
        trials = Trials(view, torch.stack(tried), by_element, whole, self.batch_size, self.progress)
        found = search(trials, self.draws, self.failure_probability, self.seed)
        return AuditResult(
            epsilon=found.epsilon,
            claimed=claim.epsilon,
            unit=f"one {claim.unit}",
            event=str(found.event),
            guesses=found.guessed,
            right=found.right,
            draws=found.draws,
            failure_probability=self.failure_probability,
            layer=view.layer,
            edges=found.event.edges,
            counts=found.counts,
            speaks=found.event.guesses,
        )


@dataclass(frozen=True)
class Claim:
    """What a layer says one unit costs."""

    unit: str
    epsilon: float


def claim_of(layer: Any, example: Tensor, unit: str) -> Claim:
    """The claim for a unit, or for the one that the layer's ``spend`` charges for."""
    shape = tuple(example.shape[1:])
    spend = layer.spend(shape) if callable(getattr(layer, "spend", None)) else None
    if unit == "auto":
        several = spend is not None and spend.uses > 1
        single = spend is not None and spend.uses == example[0].numel() and elementwise(layer, example)
        unit = "element" if single else "use" if several else "record"
    if spend is None:
        return Claim(unit, math.inf)
    return Claim(unit, float(spend.per_record if unit == "record" else spend.per_use))


def elementwise(layer: Any, example: Tensor) -> bool:
    """Whether ``quantize`` gives one input symbol per element, and that of an element follows it alone, where tried."""
    if not callable(getattr(layer, "quantize", None)) or not callable(getattr(layer, "channel", None)):
        return False
    record = example[:1]
    before = layer.quantize(record)
    if before.shape != record.shape or layer.encode(record).shape != record.shape:
        return False
    elements = record[0].numel()
    for place in {0, elements // 2, elements - 1}:
        others = torch.arange(elements, device=record.device) != place
        for value in (-1.0, 1.0):
            changed = record.clone()
            changed.reshape(1, -1)[0, place] = value * float(example.abs().max())
            if not torch.equal(layer.quantize(changed).reshape(-1)[others], before.reshape(-1)[others]):
                return False
    return True


def viewed(layer: Any) -> CutView:
    """A layer as what an attacker knows of it; a defence's ``log_prob`` is no likelihood."""
    missing = [name for name in ("encode", "decode") if not callable(getattr(layer, name, None))]
    if missing:
        kind = type(layer).__name__
        raise InvalidParameterError(
            f"LowerBoundAudit: layer must have encode and decode, got {kind} without {missing}."
        )
    known = None if is_defence(layer) else getattr(layer, "log_prob", None)
    return CutView(encode=layer.encode, decode=layer.decode, log_prob=known, layer=repr(layer))


def check_probability(owner: str, value: float) -> float:
    """A probability strictly between 0 and 1."""
    found = check.positive(owner, "failure_probability", value)
    if found >= 1:
        raise InvalidParameterError(check.message(owner, "failure_probability", "below 1", value))
    return found
