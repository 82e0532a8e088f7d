"""Randomized response on each binarised element."""

from __future__ import annotations

import math
from numbers import Real

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from splitpriv import _validation as check
from splitpriv._errors import InvalidParameterError, ShapeError
from splitpriv.layers.compilation import eager
from splitpriv.layers.device_encode import draw_bits, pack_bits
from splitpriv.layers.elementwise import ElementwiseLDP
from splitpriv.layers.fused import randomize_bits
from splitpriv.mechanisms import Channel, RandomizedResponse


class RandomResponseLDP(ElementwiseLDP):
    r"""Each element becomes one bit, kept with probability e^ε/(e^ε+1), else flipped.

    .. math:: b = [x > \text{threshold}], \qquad
              \Pr[s = b] = \frac{2^{64} - T}{2^{64}}, \quad
              T = \lceil 2^{64} / (e^\epsilon + 1) \rceil

    Local differential privacy for any two values of an element; a record of r elements pays r
    times as much. One bit per element crosses the cut.

    Args:
        epsilon: privacy loss (natural log), finite and > 0: of one element, or of the whole record
            with ``per="record"`` (split evenly over its elements).
        threshold: finite number, or a public tensor with one number per channel (dimension 1 of
            the batch). Take it from public data: the claim does not cover it.
        per: ``"element"`` or ``"record"``.
        debias: decode to unbiased estimates of the bit, (s - q)/(1 - 2q) with flip probability q,
            instead of to {0, 1}.
        generator: None for secure noise; an int or a CPU ``torch.Generator`` for experiments.
        noise: where it is drawn for features on a CUDA device: ``"cpu"`` (AES-256; the features' symbols
            move there and back), or ``"device"``: by ChaCha20 on that device, under a key from the same source
            for each call. Features elsewhere are not concerned. See the threat model before ``"device"``,
            which no test has seen run on a GPU yet: hence not the default.

    Shape:
        features ``(batch, *feature)``, any float dtype; symbols likewise, uint8 in {0, 1}.

    Raises:
        InvalidParameterError: a parameter is outside its range.

    Does not protect: the number of elements and of records, the threshold, the labels. At
    element-wise budgets the record's total is large, and then bounds little: read it off the
    ``repr``. Gradients that flow back to the edge (identity, straight-through) stay on the edge.

    Source: Warner 1965; on features at the cut of a network, paper B of the project's references
    (whose section 2.2 prints another denominator than the correct one of its section 3.3).

    Example:
        >>> layer = RandomResponseLDP(epsilon=2.0)
        >>> released = layer(torch.randn(4, 3, 8, 8))
        >>> layer
        RandomResponseLDP(ε 2 per element × 192 = 384 per record; bit = x > 0; secure noise)
    """

    threshold: Tensor

    def __init__(
        self,
        *,
        epsilon: float,
        threshold: float | Tensor = 0.0,
        per: str = "element",
        debias: bool = False,
        generator: int | torch.Generator | None = None,
        noise: str = "cpu",
    ) -> None:
        super().__init__(epsilon=epsilon, per=per, generator=generator, noise=noise)
        self.debias: bool = check.choice("RandomResponseLDP", "debias", debias, (True, False))
        self.register_buffer("threshold", _threshold(threshold))
        self.uniform = self.threshold.ndim == 0 and per == "element"
        self._refuse_unmet()

    def _build_channel(self, epsilon: float) -> Channel:
        return RandomizedResponse(epsilon=epsilon)

    def _aligned(self, features: Tensor) -> Tensor:
        """The threshold, ready to be compared with features."""
        threshold = self.threshold.to(features.device)
        if threshold.ndim == 0:
            return threshold
        if features.shape[1] != threshold.numel():
            raise ShapeError(
                f"RandomResponseLDP: features must have {threshold.numel()} channels in dimension 1, "
                f"one per threshold, got shape={tuple(features.shape)}."
            )
        return threshold.reshape(-1, *[1] * (features.ndim - 2))

    @eager
    def encode_packed(
        self,
        features: Tensor,  # shape: (batch, *feature)
    ) -> Tensor:  # shape: (batch, ceil(elements / 8)), uint8
        """Private: the bits of :meth:`encode` as they are stored and sent, eight to a byte.

        Each record on its own: element i is bit i % 8, from the least significant, of byte i // 8;
        what is left of the last byte is zero. Spares the memory of a byte per element.

        Raises:
            ShapeError, NonFiniteError: see :meth:`encode`.
        """
        features = check.batch("RandomResponseLDP", features).detach()
        shape = tuple(features.shape[1:])
        channel = self.channel(shape)
        if self._drawn_there(features, RandomResponseLDP):
            packed = pack_bits(self._draw_there(features, channel).flatten(1)).cpu()
        else:
            packed = torch.from_numpy(self._encode_packed(features, channel))
        self._feature_shape = shape
        return packed

    def _draw_there(self, features: Tensor, channel: Channel) -> Tensor:
        assert isinstance(channel, RandomizedResponse)
        return draw_bits("RandomResponseLDP", features, self._aligned(features), channel, self._source)

    def _encode_packed(self, features: Tensor, channel: Channel) -> npt.NDArray[np.uint8]:
        if not self._fused(features, RandomResponseLDP):
            symbols = super()._encode(features, channel).flatten(1).cpu().numpy()
            return np.packbits(symbols, axis=1, bitorder="little")
        self._aligned(features)
        assert isinstance(channel, RandomizedResponse)
        return randomize_bits("RandomResponseLDP", features, self.threshold.cpu(), channel, self._source)

    def _encode(self, features: Tensor, channel: Channel) -> Tensor:
        if self._drawn_there(features, RandomResponseLDP):
            return self._draw_there(features, channel)
        if not self._fused(features, RandomResponseLDP):
            return super()._encode(features, channel)
        packed, elements = self._encode_packed(features, channel), math.prod(features.shape[1:])
        symbols = np.unpackbits(packed, axis=1, count=elements, bitorder="little")
        return torch.from_numpy(symbols).reshape(features.shape)

    def quantize(
        self,
        features: Tensor,  # shape: (batch, *feature)
    ) -> Tensor:  # shape: (batch, *feature), bool as uint8
        """The bits before they are randomised; private."""
        wide = features if features.dtype == torch.float64 else features.float()
        return (wide > self._aligned(features).to(wide.dtype)).to(torch.uint8)

    def _values(self, channel: Channel) -> Tensor:
        bits = torch.tensor([0.0, 1.0], dtype=torch.float64)
        flip = _flip(channel)
        return ((bits - flip) / (1 - 2 * flip) if self.debias else bits).float()

    def log_prob(
        self,
        symbols: Tensor,  # shape: (batch, *feature), integers in {0, 1}
        features: Tensor,  # shape: (batch, *feature)
        *,
        temperature: float = 0.1,
    ) -> Tensor:  # shape: (batch, *feature)
        """ln Pr[symbol | feature] per element, the step at the threshold relaxed to a sigmoid.

        ``Pr[1 | x] = q + (1 - 2q) sigmoid((x - threshold) / temperature)``; exact as the
        temperature (> 0, in units of the features) goes to 0.
        """
        temperature = check.positive("RandomResponseLDP.log_prob", "temperature", temperature)
        flip = _flip(self.channel(self._symbols(symbols).shape[1:]))
        margin = (features - self._aligned(features)) / temperature
        signed = torch.where(symbols > 0, margin, -margin)
        # log(q + (1 - 2q) sigmoid(m)) = logaddexp(log q + logsigmoid(-m), log(1 - q) + logsigmoid(m))
        keep = torch.log1p(torch.tensor(-flip, dtype=features.dtype, device=features.device))
        turn = torch.tensor(flip, dtype=torch.float64).log().to(features)
        return torch.logaddexp(turn + F.logsigmoid(-signed), keep + F.logsigmoid(signed))

    def passes(self, features: Tensor) -> Tensor | None:
        return None

    def _claim(self) -> str:
        scalar = self.threshold.ndim == 0
        channels = 0 if scalar else len(self.threshold)
        threshold = f"{self.threshold.item():g}" if scalar else f"its channel's threshold ({channels})"
        return f"bit = x > {threshold}" + (", debiased" if self.debias else "")


def _flip(channel: Channel) -> float:
    assert isinstance(channel, RandomizedResponse)
    return float(channel.flip_probability)


def _threshold(value: float | Tensor) -> Tensor:
    fix = "Use a number, or one number per channel."
    if isinstance(value, Real) and not isinstance(value, bool):
        return torch.tensor(check.finite("RandomResponseLDP", "threshold", value, fix))
    fits = isinstance(value, Tensor) and value.ndim <= 1 and value.numel() > 0 and not value.is_complex()
    if isinstance(value, Tensor) and fits and bool(torch.isfinite(value).all()):
        return value.detach().clone().to(torch.float32)
    constraint = "a finite number or a finite tensor of shape (channels,)"
    raise InvalidParameterError(check.message("RandomResponseLDP", "threshold", constraint, value, fix))
