"""What a layer claims for a unit, and whether what is read of a release is that unit's own."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from splitpriv import _validation as check
from splitpriv._errors import InvalidParameterError, SplitPrivError
from splitpriv.attacks.auditing.candidates import accepts

UNITS = ("auto", "element", "use", "record")

_PLACES = 32  # of a long record, beside the first ones, at which a decoder is looked at


@dataclass(frozen=True)
class Claim:
    """What a layer says one unit costs.

    Attributes:
        unit: ``"element"``, ``"use"`` or ``"record"``.
        epsilon: of the unit; ``math.inf`` where nothing is claimed.
    """

    unit: str
    epsilon: float


def claim_of(
    layer: Any,
    example: Tensor,  # shape: (batch, *feature)
    unit: str,
) -> Claim:
    """The claim for a unit, or for the smallest one of which the layer's symbols are known to speak one by one.

    The claim of one use bounds what a symbol shows only if no other use reaches that symbol. So symbols are read one
    by one only where there are as many as uses, and elements have coins of their own only where ``quantize`` is
    seen to keep them apart; else the record is the unit.

    Args:
        layer: what was given to the audit.
        example: records that the layer takes.
        unit: one of ``UNITS``.

    Raises:
        InvalidParameterError: the layer's symbols are not known to speak of that unit.
    """
    shape = tuple(example.shape[1:])
    spend = layer.spend(shape) if callable(getattr(layer, "spend", None)) else None
    record = Claim("record", math.inf if spend is None else float(spend.per_record))
    if unit == "record" or (unit == "auto" and spend is None):
        return record
    symbols = layer.encode(example[:1])[0].numel()
    uses = symbols if spend is None else spend.uses
    apart = uses == symbols
    separate = apart and elementwise(layer, example)
    if unit == "auto":
        unit = "element" if separate else "use" if apart and uses > 1 else "record"
    elif not (separate if unit == "element" else apart):
        fix = "Elements must be seen apart in quantize."
        fix = fix if apart else f"It has {uses} uses and {symbols} symbols."
        constraint = "'auto' or 'record' where symbols are not known to show one unit each"
        raise InvalidParameterError(check.message("LowerBoundAudit", "unit", constraint, unit, fix))
    return record if unit == "record" else Claim(unit, math.inf if spend is None else float(spend.per_use))


def elementwise(
    layer: Any,
    example: Tensor,  # shape: (batch, *feature)
) -> bool:
    """Whether ``quantize`` gives one input symbol per element, and that of an element follows it alone, where tried."""
    named = all(callable(getattr(layer, name, None)) for name in ("quantize", "channel"))
    if not named or example.ndim < 2:
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
            if not accepts(layer, changed):
                return False
            if not torch.equal(layer.quantize(changed).reshape(-1)[others], before.reshape(-1)[others]):
                return False
    return True


def symbolwise(
    decode: Callable[[Tensor], Tensor],
    symbols: Tensor,  # shape: (releases, *symbol)
    first: int,
) -> bool:
    """Whether a decoded value is seen to follow its own symbol alone: it stays where all others are exchanged.

    Args:
        decode: of the layer.
        symbols: releases of records that differ.
        first: so many values are looked at from the first on, and others beyond them.
    """
    elements = symbols[0].numel()
    own, others = symbols.reshape(len(symbols), -1), symbols.roll(1, 0).reshape(len(symbols), -1)
    beyond = torch.linspace(0, elements - 1, _PLACES).round().long().tolist()
    try:
        decoded = decode(symbols)
        if decoded.shape != symbols.shape:
            return False
        for place in {*range(min(first, elements)), *beyond}:
            mixed = others.clone()
            mixed[:, place] = own[:, place]
            found = decode(mixed.reshape(symbols.shape)).reshape(own.shape)
            if not torch.equal(found[:, place], decoded.reshape(own.shape)[:, place]):
                return False
    except (SplitPrivError, ValueError):
        return False  # symbols that never go together: they are not each other's strangers
    return True
