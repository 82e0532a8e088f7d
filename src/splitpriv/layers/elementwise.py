"""What the layers that privatise each element by one channel have in common."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from splitpriv import _validation as check
from splitpriv._errors import PrivacyError
from splitpriv.accounting.spend import Spend
from splitpriv.layers.compilation import eager
from splitpriv.layers.device_encode import serves
from splitpriv.layers.straight_through import cast, straight_through
from splitpriv.mechanisms import Channel, make_source
from splitpriv.mechanisms.rounding import share_down, show


class ElementwiseLDP(nn.Module):
    """Quantises each element, passes it through a channel, and maps the symbol to a value.

    Private to this package: a layer of your own needs :class:`~splitpriv.PrivacyLayer`
    only. Subclasses say how to build the channel (``_build_channel``), how an element becomes an
    input symbol (``quantize``), what the output symbols stand for (``_values``), where the
    straight-through gradient passes (``passes``), and the relaxed likelihood (``log_prob``).
    """

    uniform: bool

    def __init__(
        self, *, epsilon: float, per: str, generator: int | torch.Generator | None, noise: str = "cpu"
    ) -> None:
        super().__init__()
        owner = type(self).__name__
        fix = "Remove the layer to release features without noise."
        self.asked = check.positive(owner, "epsilon", epsilon, fix)
        self.per: str = check.choice(owner, "per", per, ("element", "record"))
        self._source = make_source(generator)
        self.noise: str = check.choice(owner, "noise", noise, ("cpu", "device"))
        self._feature_shape: tuple[int, ...] | None = None
        self._channels: dict[int, Channel] = {}
        self._means: tuple[Channel, Tensor] | None = None  # of the channel that was last asked for

    # To be said by the subclass --------------------------------------------------------------

    def _build_channel(self, epsilon: float) -> Channel:
        raise NotImplementedError

    def quantize(self, features: Tensor) -> Tensor:
        """Features to the input symbols of the channel; deterministic, and private."""
        raise NotImplementedError

    def _values(self, channel: Channel) -> Tensor:
        raise NotImplementedError

    def passes(self, features: Tensor) -> Tensor | None:
        """Factor of the straight-through gradient, element by element; None for 1."""
        raise NotImplementedError

    def _claim(self) -> str:
        raise NotImplementedError

    # Cost ----------------------------------------------------------------------------------

    @property
    def epsilon(self) -> float:
        """Realised epsilon of one use, on one element (natural log), at most the one asked.

        Raises:
            PrivacyError: ``per="record"``, and no feature shape has been seen yet.
        """
        return self.channel(self._known_shape(None)).epsilon

    @property
    def secure(self) -> bool:
        """False when the noise comes from a seed."""
        return self._source.secure

    @property
    def feature_shape(self) -> tuple[int, ...] | None:
        """The feature shape (without batch) last encoded; None before the first use."""
        return self._feature_shape

    def spend(self, shape: Sequence[int] | None = None) -> Spend:
        """What one release of one record costs.

        Args:
            shape: feature shape without batch; None for the one last encoded.

        Raises:
            PrivacyError: no shape is given, and none has been seen yet.
            ShapeError: ``shape`` is not a sequence of positive ints.
        """
        known = self._known_shape(shape, needed=True)
        channel = self.channel(known)
        return Spend.of(channel.epsilon, math.prod(known), channel)

    def channel(self, shape: Sequence[int]) -> Channel:
        """The channel that each element of a record of this feature shape passes through."""
        elements = math.prod(shape) if self.per == "record" else 1
        channel = self._channels.get(elements)  # once: another thread may clear them meanwhile
        if channel is None:
            channel = self._build_channel(share_down(self.asked, elements))
            if len(self._channels) >= 16:  # lengths that vary without end must not fill the memory
                self._channels.clear()
            self._channels[elements] = channel
        return channel

    def _refuse_unmet(self) -> None:
        """An epsilon that cannot be met is refused at construction where no shape is needed."""
        if self.per == "element":
            self.channel((1,))

    def _known_shape(self, shape: Sequence[int] | None, needed: bool = False) -> tuple[int, ...]:
        owner = type(self).__name__
        if shape is not None:
            return check.feature_shape(owner, shape)
        if self._feature_shape is not None:
            return self._feature_shape
        if self.per == "element" and not needed:
            return (1,)
        raise PrivacyError(
            f"{owner}: shape must be known to price a record, got shape=None before the first use. "
            "Encode a batch first, or give the feature shape (no batch dimension)."
        )

    # Release -------------------------------------------------------------------------------

    @eager
    def encode(
        self,
        features: Tensor,  # shape: (batch, *feature)
    ) -> Tensor:  # shape: (batch, *feature), integers
        """Private: one symbol per element, with fresh noise at each call, in train and eval alike.

        Raises:
            ShapeError: not a floating-point batch (batch, *feature), or of a shape that the
                layer's parameters do not fit.
            NonFiniteError: features hold NaN or infinity.
        """
        features = check.batch(type(self).__name__, features).detach()
        shape = tuple(features.shape[1:])
        symbols = self._encode(features, self.channel(shape))
        self._feature_shape = shape
        return symbols

    def _encode(self, features: Tensor, channel: Channel) -> Tensor:
        """Check, quantise and draw, one after the other and on any device."""
        check.features(type(self).__name__, features)
        return channel.sample(self.quantize(features), self._source)

    def _fused(self, features: Tensor, layer: type[ElementwiseLDP]) -> bool:
        """Whether ``layer``'s own loop over blocks does the same: not where quantize is another's."""
        return self._own_quantize(layer) and features.device.type == "cpu"

    def _drawn_there(self, features: Tensor, layer: type[ElementwiseLDP]) -> bool:
        """Whether noise is asked for, and can be drawn, on the device of the features."""
        return self.noise == "device" and serves(features.device) and self._own_quantize(layer)

    def _own_quantize(self, layer: type[ElementwiseLDP]) -> bool:
        return type(self).quantize is layer.quantize and "quantize" not in vars(self)

    @eager
    def forward(
        self,
        features: Tensor,  # shape: (batch, *feature)
    ) -> Tensor:  # shape: (batch, *feature), dtype of features
        """``decode(encode(features))``, with a straight-through gradient.

        A value that a half-precision dtype cannot hold becomes that dtype's largest.
        """
        released = cast(self.decode(self.encode(features)), features.dtype)
        return straight_through(features, released, self.passes(features))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_channels": {}, "_means": None}  # made again where they are needed

    @eager
    def expected(
        self,
        features: Tensor,  # shape: (batch, *feature)
    ) -> Tensor:  # shape: (batch, *feature), float32
        """E[decode(encode(features))]: what the noise is around, for use on the edge; private.

        Exact for the channel that runs, up to the rounding to float32. No noise is drawn and nothing
        is protected: it must not cross the cut. The gradient is that of ``forward``, straight through.

        Raises:
            ShapeError, NonFiniteError: as for ``encode``.
        """
        features = check.features(type(self).__name__, features)
        inputs = self.quantize(features.detach()).long()
        means = self._mean_table(self.channel(features.shape[1:])).to(features.device)
        return straight_through(features, means[inputs], self.passes(features))

    def _mean_table(self, channel: Channel) -> Tensor:  # shape: (inputs,), float32
        known = self._means  # once: another thread may replace it meanwhile
        if known is None or known[0] is not channel:
            inputs = torch.arange(channel.inputs).reshape(-1, 1)
            chances = channel.log_prob(torch.arange(channel.outputs), inputs).exp()
            known = self._means = (channel, (chances @ self._values(channel).double()).float())
        return known[1]

    def decode(
        self,
        symbols: Tensor,  # shape: (batch, *feature), integers of the output alphabet
    ) -> Tensor:  # shape: (batch, *feature), float32
        """Public: the value that each symbol stands for.

        Raises:
            ShapeError: a symbol is outside the alphabet, or not an integer.
        """
        values = self.decode_table(self._symbols(symbols).shape[1:])
        if symbols.device.type != "cpu":
            return values.to(symbols.device).index_select(0, symbols.flatten().int()).reshape(symbols.shape)
        # "wrap" spares a copy of the symbols as int64: they have just been checked.
        out = np.empty(tuple(symbols.shape), dtype=np.float32)
        np.take(values.numpy(), symbols.detach().numpy(), out=out, mode="wrap")
        return torch.from_numpy(out)

    def decode_table(self, shape: Sequence[int]) -> Tensor:  # shape: (outputs,), float32
        """The value of each output symbol, for records of this feature shape."""
        return self._values(self.channel(shape))

    def _symbols(self, symbols: Tensor) -> Tensor:
        return check.symbols(type(self).__name__, symbols, self.channel(symbols.shape[1:]).outputs)

    def extra_repr(self) -> str:
        """Every claim: epsilon per use and per record, what it depends on, the source of noise."""
        known = self._feature_shape is not None
        cost = str(self.spend()) if known else f"ε {show(self.asked)} per {self.per}"
        noise = "secure noise" if self.secure else f"noise from {self._source!r}"
        where = ", drawn where the features are" if self.noise == "device" else ""
        return f"{cost}; {self._claim()}; {noise}{where}"
