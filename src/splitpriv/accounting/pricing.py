"""What a chain of layers costs: cascades, defences, and weights fitted on private records."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

from splitpriv._errors import PrivacyError
from splitpriv.accounting.spend import Spend
from splitpriv.mechanisms import Channel
from splitpriv.mechanisms.channel import MAX_ENTRIES
from splitpriv.mechanisms.rounding import scale_up, show


@dataclass(frozen=True)
class Price:
    """The cost of one release of one record through a chain, and why it is what it is.

    Attributes:
        spend: what the record pays for its own row.
        rows: 0 where only its own row depends on a record; else the number of private records
            that the edge or an encoder was fitted on (each influences every row); None: unknown.
        tied: what one row costs a record that the weights were fitted on.
        notes: reasons, for people.
    """

    spend: Spend
    rows: int | None
    tied: float
    notes: tuple[str, ...]

    def per_record(self, released: int = 1) -> float:
        """What the worst record pays when ``released`` rows cross the cut together."""
        if self.rows is None:
            return math.inf
        shared = scale_up(self.tied, max(self.rows, released)) if self.rows else 0.0
        return max(self.spend.per_record, shared)

    def __str__(self) -> str:
        if math.isinf(self.per_record()):
            return "ε ∞ per record"
        tied = f" × {self.rows:,} rows = {show(self.per_record())}" if self.rows else ""
        return f"{self.spend}{tied}"


def price(layers: Sequence[Any], shape: Sequence[int], *, edge_records: int | None = 0) -> Price:
    """Price a chain of layers that ends at the cut.

    A layer that reads only another's output is post-processing, so the chain costs the smallest
    record total in it; where one element's symbol feeds one element's symbol, the exact product
    of the two channels. Weights fitted on N private records tie rows together: each of those
    records influences every row, and pays N rows of what comes *after* those weights.

    Args:
        layers: privacy layers, in order from the edge outward.
        shape: feature shape that enters the first, without batch.
        edge_records: private records that the edge was fitted on: 0 for public, None unknown.
    """
    shapes = chain_shapes(layers, shape)
    fitted = [edge_records, *map(_fitted_records, layers)]
    private = [position for position, count in enumerate(fitted) if count != 0]
    own = _cheapest(layers, shapes)
    notes = [] if math.isfinite(own.per_record) else ["no mechanism at the cut"]
    if not private:
        return Price(own, 0, own.per_record, tuple(notes))
    last = private[-1]  # what lies before it cannot hide what its weights have learned
    after = _cheapest(layers[last:], shapes[last:])
    known = [count for count in fitted if count is not None]
    rows = max(known) if len(known) == len(fitted) else None
    where = "the edge" if last == 0 else type(layers[last - 1]).__name__
    count = "an unknown number of" if rows is None else f"{rows:,}"
    notes.append(f"{where} was fitted on {count} private records: each influences every row")
    if math.isinf(after.per_record):
        notes.append("no mechanism follows those weights")
    return Price(own, rows, after.per_record, tuple(notes))


def is_defence(layer: Any) -> bool:
    """Whether a layer draws nothing: its epsilon is infinite.

    A mechanism with a budget for the record has no epsilon per element before it knows the shape of one.
    """
    try:
        return bool(layer.epsilon == math.inf)
    except (AttributeError, PrivacyError):
        return False


def _fitted_records(layer: Any) -> int | None:
    # Asked for by name first: a property that fails must fail here, and not read as 0.
    declared = hasattr(type(layer), "fitted_records") or hasattr(layer, "fitted_records")
    count: int | None = layer.fitted_records if declared else 0
    return count


def chain_shapes(layers: Sequence[Any], shape: Sequence[int]) -> list[tuple[int, ...]]:
    """The feature shape that enters each layer, and the one that leaves the last."""
    shapes = [tuple(shape)]
    for layer in layers:
        declared = getattr(layer, "output_shape", None)
        shapes.append(shapes[-1] if declared is None else tuple(declared(shapes[-1])))
    return shapes


def _cheapest(layers: Sequence[Any], shapes: Sequence[tuple[int, ...]]) -> Spend:
    """The smallest record total among the layers and the exact products of neighbours."""
    best = Spend.infinite(math.prod(shapes[0]))
    cascade: Channel | None = None
    for position, layer in enumerate(layers):
        spend = layer.spend(shapes[position])
        if spend.per_record < best.per_record:
            best = spend
        channel = layer.channel(shapes[position]) if _is_uniform(layer) else None
        meets = position > 0 and is_bridged(layers[position - 1], layer)
        if channel is None or cascade is None or not meets or cascade.outputs * channel.inputs > MAX_ENTRIES:
            cascade = channel
        else:
            cascade = _joined(cascade, _bridge(layers[position - 1], layer, cascade), channel)
            product = Spend.of(cascade.epsilon, math.prod(shapes[position]), cascade)
            if product.per_record < best.per_record:
                best = product
    return best


def is_bridged(first: Any, second: Any) -> bool:
    """Whether one element's symbol feeds one element's symbol, by the same map for all elements."""
    return _is_uniform(first) and _is_uniform(second)


def _is_uniform(layer: Any) -> bool:
    return bool(getattr(layer, "uniform", False)) and hasattr(layer, "channel") and hasattr(layer, "quantize")


def _bridge(first: Any, second: Any, before: Channel) -> tuple[int, ...]:
    """Which input symbol of the next layer each output symbol of this one becomes."""
    symbols = torch.arange(before.outputs).reshape(-1, 1)
    return tuple(second.quantize(first.decode(symbols).float()).flatten().tolist())


@lru_cache(maxsize=32)  # a model prices every call
def _joined(before: Channel, bridge: tuple[int, ...], after: Channel) -> Channel:
    step = Channel([[int(symbol == target) for symbol in range(after.inputs)] for target in bridge])
    return before.cascade(step).cascade(after)
