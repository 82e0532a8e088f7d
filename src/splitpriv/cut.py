"""The layers at the cut as one: what is priced is what runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from splitpriv._errors import InvalidParameterError, PrivacyError, ShapeError, SplitPrivError
from splitpriv._validation import message
from splitpriv.accounting.pricing import Price, chain_shapes, is_bridged, is_defence, price
from splitpriv.layers.compilation import eager
from splitpriv.layers.straight_through import cast, straight_through
from splitpriv.mechanisms.endless_codebook import EndlessCodebook

_PROTOCOL = ("encode", "decode", "log_prob", "spend")


class Cut(nn.Sequential):
    """Privacy layers in a row, from the edge outward; empty where features cross as they are.

    Only the protocol of :class:`~splitpriv.PrivacyLayer` is used: what reaches the server is
    ``decode(encode(...))`` of each layer, never a layer's ``forward``. Between two layers features
    are float32, whatever the edge computes in, so that a cascade is the channel that was priced.
    """

    def __init__(self, layers: Any) -> None:
        super().__init__(*_checked(layers))

    def price(self, shape: Sequence[int], *, edge_records: int | None) -> Price:
        """What a record of this feature shape pays; see :func:`splitpriv.accounting.price`."""
        return price(list(self), shape, edge_records=edge_records)

    @property
    def secure(self) -> bool:
        """Whether all noise is secure; a mechanism that does not say so counts as insecure."""
        return all(bool(getattr(layer, "secure", is_defence(layer))) for layer in self)

    @eager
    def forward(
        self,
        features: Tensor,  # shape: (batch, *feature)
    ) -> Tensor:  # shape: (batch, *released), dtype and device of features
        """What the server sees, with gradients that flow back where they are wanted."""
        shapes = chain_shapes(list(self), features.shape[1:])
        released = features
        for position in range(len(self)):
            released = self._pass(position, released, shapes)
        return cast(released.to(features.device), features.dtype)

    def encode(
        self,
        features: Tensor,  # shape: (batch, *feature)
    ) -> Tensor:  # shape: (batch, *symbol): integers, or float32 where the last layer is a defence
        """What crosses the cut."""
        if not len(self):
            return features.detach().to(torch.float32)
        return self._encode_last(features, "encode")[0]

    def encode_packed(
        self,
        features: Tensor,  # shape: (batch, *feature)
    ) -> tuple[Tensor, tuple[int, ...]] | None:  # shape: (batch, bytes_per_record), uint8
        """What crosses the cut as bytes, and the shape of the symbols in them.

        None, and nothing drawn, where the last layer does not pack: then :meth:`encode` is to be used.
        """
        return self._encode_last(features, "encode_packed") if len(self) and packs(self[-1]) else None

    def _encode_last(self, features: Tensor, method: str) -> tuple[Tensor, tuple[int, ...]]:
        shapes = chain_shapes(list(self), features.shape[1:])
        for position in range(len(self) - 1):
            features = self._pass(position, features, shapes)
        return self._encode(len(self) - 1, features, shapes, method).detach(), shapes[-2]

    def expected(
        self,
        features: Tensor,  # shape: (batch, *feature)
    ) -> Tensor:  # shape: (batch, *released), dtype and device of features
        """What crosses without its noise: each mechanism by its mean, each defence as it is.

        Raises:
            InvalidParameterError: a mechanism does not offer its mean.
        """
        shapes = chain_shapes(list(self), features.shape[1:])
        clean = features
        for position, where in enumerate(shapes[:-1]):
            layer: Any = self[position]
            if hasattr(layer, "expected"):
                self._check_shape(position, "the features before it", clean, len(features), where)
                clean = layer.expected(clean).float()
                self._check_shape(position, "expected", clean, len(features), shapes[position + 1])
            elif math.isinf(layer.spend(where).per_record):
                clean = self._pass(position, clean, shapes)
            else:
                fix = "Add expected(features) -> Tensor: the mean of decode(encode(features))."
                kind = type(layer).__name__
                raise InvalidParameterError(f"SplitModel.local: cut[{position}] must offer expected, got {kind}. {fix}")
        return cast(clean.to(features.device), features.dtype)

    def decode(
        self,
        symbols: Tensor,  # shape: (batch, *symbol), what encode returned
    ) -> Tensor:  # shape: (batch, *released), float32
        """Public: what the server makes of the symbols that crossed."""
        last: Any = self[-1] if len(self) else None
        return symbols if last is None else last.decode(symbols).float()

    def decode_table(self, shape: Sequence[int]) -> Tensor | EndlessCodebook | None:  # shape: (outputs, *element)
        """What the symbols that cross stand for, for features of this shape; None for float32.

        Raises:
            InvalidParameterError: the last layer is a mechanism and does not offer its table.
        """
        if not len(self):
            return None
        layer: Any = self[-1]
        last = chain_shapes(list(self)[:-1], shape)[-1]
        if hasattr(layer, "decode_table"):
            table: Tensor | EndlessCodebook = layer.decode_table(last)
            return table
        if math.isinf(layer.spend(last).per_record):
            return None
        fix = "Add decode_table(shape) -> Tensor (outputs,): the value of each symbol."
        kind = type(layer).__name__
        raise InvalidParameterError(f"release: the last layer must offer decode_table, got {kind}. {fix}")

    def _pass(self, position: int, features: Tensor, shapes: list[tuple[int, ...]]) -> Tensor:
        layer: Any = self[position]
        symbols = self._encode(position, features, shapes)
        released: Tensor = layer.decode(symbols).float()
        self._check_shape(position, "decode", released, len(features), shapes[position + 1])
        if symbols.is_floating_point() or not (torch.is_grad_enabled() and features.requires_grad):
            return released  # autograd sees through a defence by itself
        if released.shape != features.shape:
            kind = type(layer).__name__
            raise PrivacyError(f"SplitModel: cut[{position}] must keep the shape to train jointly, got {kind}.")
        passes = layer.passes(features) if hasattr(layer, "passes") else None
        return straight_through(features, released.to(features.device), passes)

    def _encode(self, position: int, features: Tensor, shapes: list[tuple[int, ...]], method: str = "encode") -> Tensor:
        layer: Any = self[position]
        self._check_shape(position, "the features before it", features, len(features), shapes[position])
        if position and is_bridged(self[position - 1], layer):
            features = features.cpu()  # where the product was computed: other devices round differently
        try:
            symbols: Tensor = getattr(layer, method)(features)
        except SplitPrivError as error:
            where = f"SplitModel: cut[{position}] failed on features of shape {tuple(features.shape)}"
            raise type(error)(f"{where}: {error}") from error
        if len(symbols) != len(features):
            self._check_shape(position, "encode", symbols, len(features), tuple(symbols.shape[1:]))
        return symbols

    def _check_shape(self, position: int, what: str, found: Tensor, rows: int, shape: tuple[int, ...]) -> None:
        if found.shape != (rows, *shape):
            raise ShapeError(
                f"SplitModel: cut[{position}] must have the shape that was priced, got {what} of shape "
                f"{tuple(found.shape)} for {(rows, *shape)}. A layer that changes the shape needs output_shape(shape)."
            )


def packs(layer: nn.Module) -> bool:
    """Whether a layer packs what its own ``encode`` draws: not where that was replaced further down."""
    places = [vars(layer), *(vars(kind) for kind in type(layer).__mro__)]
    first = next((names for names in places if "encode" in names or "encode_packed" in names), {})
    return "encode_packed" in first


def _checked(cut: Any) -> list[nn.Module]:
    chain = isinstance(cut, (list, tuple, nn.ModuleList))
    chain = chain or (isinstance(cut, nn.Sequential) and not hasattr(cut, "spend"))
    layers = [] if cut is None else list(cut) if chain else [cut]
    for position, layer in enumerate(layers):
        missing = [name for name in _PROTOCOL if not hasattr(layer, name)]
        if missing or not isinstance(layer, nn.Module):
            fix = f"It lacks {', '.join(missing)}." if missing else "Pass an instance; a LabelLDP goes to labels=."
            constraint = "a privacy layer (nn.Module with encode, decode, log_prob, spend)"
            name = f"cut[{position}]" if chain else "cut"
            raise InvalidParameterError(message("SplitModel", name, constraint, layer, fix))
    return layers
