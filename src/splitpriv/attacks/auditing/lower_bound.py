"""A lower bound on the epsilon of any layer, from draws alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from splitpriv import _validation as check
from splitpriv._errors import InvalidParameterError
from splitpriv.accounting.pricing import is_defence
from splitpriv.attacks.attack import Attack
from splitpriv.attacks.auditing.candidates import MOST, example_of, records, refusal
from splitpriv.attacks.auditing.claim import UNITS, claim_of, symbolwise
from splitpriv.attacks.auditing.freshness import BY_CALL, NEVER, draws_anew
from splitpriv.attacks.auditing.result import AuditResult
from splitpriv.attacks.auditing.search import search
from splitpriv.attacks.auditing.trials import POSITIONS, Trials
from splitpriv.attacks.cut_view import CutView

_SHOWN = 64  # releases that are looked at to see whether a decoder mixes symbols


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
    there), and the layer's own log-likelihood ratio. Records are the example's and extremes around them; of labels
    (integers, for a :class:`~splitpriv.LabelLDP`) the example's and the other classes.

    The bound is valid under two conditions. *What is read is the unit's own*: where one symbol is held against
    the claim of one use, no other use may reach that symbol. So symbols are read one by one only where the layer has as
    many of them as uses, and decoded values only where they are seen to follow their own symbol alone. What cannot be
    seen remains assumed: that ``encode`` puts each use into one symbol. *Draws are independent*: each call must
    draw anew. A layer that claims an epsilon and gives all records the same symbols again (an answer that is
    memoised) is refused, as far as an epsilon of a use up to 9.7 lets noise be seen; one that draws once for
    the copies of a record in a call is called for each record.

    See :class:`Attack` for batch_size, seed, device and progress. The seed decides the coins; noise comes from the
    layer's own source, so that only a layer with a seed gives the same bound twice.

    Args:
        draws: coins in all, >= 64. With 2**20 a bound of one symbol is above 80 % of an epsilon in [0.1, 6] on average,
            where a threshold or one symbol of 32 at most tells the two inputs apart; nearly always of 8 at most.
        failure_probability: of a bound above the true epsilon, in (0, 1).
        unit: what a coin decides. ``"record"``: a record, and all of its symbols are read. ``"use"``: a record, and one
            symbol is read at a time; only for layers with as many symbols as uses. ``"element"``: each element of a
            record by itself, and its own symbol is read; only where, besides, ``quantize`` is seen to treat
            elements separately. ``"auto"``: the last of these three that the layer allows.
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
            example: features like those that it is for, or labels, at least one; two without ``extremes``.

        Raises:
            InvalidParameterError: fewer than two different records that the layer takes, symbols that do not speak of
                the unit, a layer that repeats its noise, or a device that is not there.
            ShapeError: ``example`` is neither a floating-point batch nor one of integer labels.
            NonFiniteError: ``example`` holds NaN or infinity.
        """
        example = example_of("LowerBoundAudit", example)
        example = example.to(self._on(example))
        view = layer if isinstance(layer, CutView) else viewed(layer)
        candidates = self._candidates(layer, example)
        claim = claim_of(layer, candidates, self.unit)
        trials = self._trials(layer, view, candidates, claim.unit)
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

    def _candidates(self, layer: Any, example: Tensor) -> Tensor:
        tried = records(layer, example) if len(example) and self.extremes else list(example[:MOST])
        if len(tried) > 1:
            return torch.stack(tried)
        reason = refusal(layer, example[:1]) if len(example) else None
        raise InvalidParameterError(
            f"LowerBoundAudit: example must lead to two different records or more, got {len(tried)} that the "
            f"layer takes. {'Give two.' if reason is None else f'It says: {reason}'}"
        ) from reason

    def _trials(self, layer: Any, view: CutView, candidates: Tensor, unit: str) -> Trials:
        """The trials that are valid for this layer and unit.

        Raises:
            InvalidParameterError: the layer gives all records the same symbols again.
        """
        encode, spend = view.need("encode"), getattr(layer, "spend", None)
        cost = spend(tuple(candidates.shape[1:])) if callable(spend) else None
        with torch.no_grad():
            drawn = "" if cost is None else draws_anew(encode, candidates, epsilon=cost.per_use, uses=cost.uses)
            if drawn == NEVER:
                raise InvalidParameterError(
                    "LowerBoundAudit: layer must draw anew at each call, got the same symbols again from "
                    f"layer={view.layer}. A bound would count kept noise as many draws: audit what draws it."
                )
            shown = encode(candidates.repeat(-(-_SHOWN // len(candidates)), *[1] * (candidates.ndim - 1)))
            values = unit == "record" or symbolwise(view.need("decode"), shown, POSITIONS)
        return Trials(
            view,
            candidates,
            by_element=unit == "element",
            whole=unit == "record",
            batch_size=self.batch_size,
            progress=self.progress,
            values=values,
            singly=drawn == BY_CALL,
        )


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
