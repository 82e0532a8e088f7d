"""What an attacker may know of a cut, as callables; and how to read it off a model."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from splitpriv._errors import InvalidParameterError
from splitpriv.accounting.pricing import is_defence

_PARTS = ("edge", "encode", "decode", "log_prob", "server", "clean")


def _same(features: Tensor) -> Tensor:
    """Nothing stands at the cut: the features themselves."""
    return features


@dataclass(frozen=True)
class CutView:
    """Everything that an attacker can be given; None for what it is not. Attacks say which parts they use.

    Raises:
        InvalidParameterError: a part is neither None nor callable.

    Args:
        edge: white box: inputs (batch, \\*input) to features (batch, \\*feature), differentiable, in eval mode.
        encode: queries: features to symbols, with fresh noise at each call.
        decode: public: symbols to what the server reads, (batch, \\*released), float32.
        log_prob: (symbols, features) to ln Pr[symbols | features], differentiable in features, in any shape whose
            first dimension is the batch; None where nothing is drawn (a defence, or no layer), or unknown. Where it
            takes a keyword ``temperature``, steps are relaxed by that much.
        server: what is decoded to the server's outputs.
        clean: features to what ``decode`` gives without noise, differentiable; the features themselves, unless given.
        layer: what stands at the cut, in words, for reports.
    """

    edge: Callable[[Tensor], Tensor] | None = None
    encode: Callable[[Tensor], Tensor] | None = None
    decode: Callable[[Tensor], Tensor] | None = None
    log_prob: Callable[[Tensor, Tensor], Tensor] | None = None
    server: Callable[[Tensor], Tensor] | None = None
    clean: Callable[[Tensor], Tensor] | None = _same
    layer: str = "unknown layer"

    def __post_init__(self) -> None:
        for name in _PARTS:
            part = getattr(self, name)
            if part is not None and not callable(part):
                raise InvalidParameterError(f"CutView: {name} must be None or a callable, got {name}={part!r}.")

    def released(self, inputs: Tensor) -> Tensor:
        """Symbols of inputs, as a query would return them: edge, then layer, fresh noise, no gradients."""
        edge, encode = self.need("edge"), self.need("encode")
        with torch.no_grad():
            symbols: Tensor = encode(edge(inputs))
        return symbols

    def need(self, name: str) -> Callable[..., Tensor]:
        """The part of that name.

        Args:
            name: ``"edge"``, ``"encode"``, ``"decode"``, ``"log_prob"``, ``"server"`` or ``"clean"``.

        Raises:
            InvalidParameterError: the attacker does not know it, or there is no part of that name.
        """
        if name not in _PARTS:
            raise InvalidParameterError(f"CutView: name must be one of {', '.join(_PARTS)}, got name={name!r}.")
        part: Callable[..., Tensor] | None = getattr(self, name)
        if part is None:
            raise InvalidParameterError(f"CutView: {name} must be known to this attack, got {name}=None.")
        return part


def view_of(model: Any) -> CutView:
    """What an attacker who knows a ``SplitModel`` knows: edge, layer, server, and the likelihood where there is one.

    Only attributes are used (``edge``, ``cut``, ``server``), each in eval mode for as long as the view is used: call
    ``model.eval()`` before. Layers before a mechanism must be defences for the likelihood to be known; a
    mechanism before a mechanism makes it unknown.

    Args:
        model: a :class:`~splitpriv.SplitModel`, or what has its ``edge``, ``cut`` and ``server``.

    Raises:
        InvalidParameterError: ``model`` lacks one of these.
    """
    missing = [name for name in ("edge", "cut", "server") if not hasattr(model, name)]
    if missing:
        kind = type(model).__name__
        raise InvalidParameterError(
            f"attacks: model must be a SplitModel (with edge, cut and server), got {kind}. "
            "Give the callables to an attack of your choice instead, as a CutView."
        )
    layers = list(model.cut)
    return CutView(
        edge=model.edge,
        encode=model.cut.encode,
        decode=model.cut.decode,
        log_prob=_likelihood(layers),
        server=model.server,
        clean=_noiseless(model.cut),
        layer="no layer" if not layers else ", ".join(repr(layer) for layer in layers),
    )


def _likelihood(layers: Sequence[nn.Module]) -> Callable[[Tensor, Tensor], Tensor] | None:
    if not layers or is_defence(layers[-1]) or not all(is_defence(layer) for layer in layers[:-1]):
        return None
    *before, last = layers
    through: Any = nn.Sequential(*before)

    def log_prob(symbols: Tensor, features: Tensor, **relaxation: float) -> Tensor:
        found: Tensor = last.log_prob(symbols, through(features), **relaxation)  # type: ignore[operator]
        return found

    parameters = inspect.signature(cast("Any", last.log_prob)).parameters
    if "temperature" not in parameters or not getattr(last, "has_steps", True):
        return log_prob
    own: Any = parameters["temperature"].default

    def relaxed(symbols: Tensor, features: Tensor, *, temperature: float | None = own) -> Tensor:
        return log_prob(symbols, features, **({} if temperature is None else {"temperature": temperature}))

    return relaxed


def _noiseless(cut: Any) -> Callable[[Tensor], Tensor] | None:
    """What crosses by its mean; None where a mechanism does not offer its mean."""
    if not len(cut):
        return _same
    expected: Callable[[Tensor], Tensor] = cut.expected
    return expected if all(is_defence(layer) or hasattr(layer, "expected") for layer in cut) else None
