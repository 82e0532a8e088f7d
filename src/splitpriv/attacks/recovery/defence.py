"""What kind of defence stands at a cut, by its attributes: this room does not know the layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from splitpriv import _validation as check
from splitpriv._errors import InvalidParameterError
from splitpriv.accounting.pricing import is_defence
from splitpriv.attacks.recovery.alphabet import ENTRIES


@dataclass(frozen=True)
class Defence:
    """What an attacker knows of a defence, which is all but its secret; the layer itself is for the evaluation.

    Attributes:
        kind: ``"mask"``, ``"relu"`` or ``"encoder"``.
        entries: the alphabet of the vector; "" for an encoder.
        threshold: behind the mask; None where there is none.
        masking: the layer that multiplies by the vector; None for an encoder.
    """

    kind: str
    entries: str = ""
    threshold: float | None = None
    masking: Any = None

    def vector(self, shape: torch.Size) -> Tensor | None:  # shape: (*feature)
        """The secret, for records of this shape, to evaluate against."""
        if self.masking is None:
            return None
        found: Tensor = self.masking.encode(torch.ones(1, *shape, device=self.masking.mask_key.device))[0]
        return found


def defence_of(model: Any) -> Defence:
    """The one defence at the cut.

    Raises:
        InvalidParameterError: nothing stands there, a mechanism does, or a defence that no attack here knows.
    """
    layers = list(model.cut)
    if not layers:
        text = "a mask, a ReLU sanitizer or a local encoder"
        fix = "Features cross as they are: there is nothing to recover. Use attacks.invert."
        raise InvalidParameterError(check.message("recover_mask", "cut", text, None, fix))
    if not all(is_defence(layer) for layer in layers):
        fix = "Its noise is fresh for each record: no secret is shared. Use attacks.invert or attacks.audit."
        raise InvalidParameterError(check.message("recover_mask", "cut", "without a mechanism", layers, fix))
    found = _kind(layers[0]) if len(layers) == 1 else None
    if found is None:
        fix = "Give pairs to an attack of splitpriv.attacks of your choice instead."
        constraint = "one defence of a known kind (a mask, a mask with a threshold, or a local encoder)"
        raise InvalidParameterError(check.message("recover_mask", "cut", constraint, layers, fix))
    return found


def _kind(layer: Any) -> Defence | None:
    if hasattr(layer, "mask") and hasattr(layer, "threshold") and getattr(layer.mask, "entries", None) in ENTRIES:
        return Defence("relu", layer.mask.entries, float(layer.threshold), layer.mask)
    if hasattr(layer, "mask_key") and getattr(layer, "entries", None) in ENTRIES:
        return Defence("mask", layer.entries, None, layer)
    if hasattr(layer, "fitted_records") and hasattr(layer, "out_features"):
        return Defence("encoder")
    return None
