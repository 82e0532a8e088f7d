"""Discrete Laplace noise on a record whose L1 norm is limited."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress

import torch
from torch import Tensor

from splitpriv import _validation as check
from splitpriv._errors import InvalidParameterError
from splitpriv.layers.recordwise import RecordwiseLDP
from splitpriv.layers.straight_through import cast, straight_through
from splitpriv.mechanisms import DiscreteLaplace
from splitpriv.mechanisms.rounding import log_up, show

_MAX_STEPS = 128


class L1LaplaceLDP(RecordwiseLDP):
    r"""Limits the L1 norm of a record, on an integer grid, and adds discrete Laplace noise to each element.

    .. math:: z = \mathrm{trunc}\Bigl(\frac{K}{R} \, x \, \min\bigl(1, R / \|x\|_1\bigr)\Bigr), \quad \|z\|_1 \le K,
              \qquad s_i = z_i + n_i, \quad \Pr[n] \propto e^{-\epsilon |n| / 2K}

    with radius R and K steps. Two records are at most 2K steps apart, so that local differential
    privacy of a whole record costs ε = 2K times the worst log-ratio of two adjacent rows of the
    noise's integer table, however many elements it has. z is rounded toward zero and then checked: an
    integer vector whose norm floating-point sums let pass is shortened, so its norm is at most K exactly.

    The baseline of the record-level mechanisms: noise of this size on each element drowns all but
    large records; see :class:`~splitpriv.CodebookLDP`.

    Args:
        epsilon: privacy loss of a record (natural log), finite and > 0.
        radius: R > 0, the largest L1 norm that is kept, in units of the features. Take it from public
            data: the claim does not cover it.
        steps: K, grid steps within the radius, in [1, 128]; None for the most of 64, 32, ..., 1 whose
            noise has room in 4,096 outputs and meets ε to 1 %.
        generator: None for secure noise; an int or a CPU ``torch.Generator`` for experiments.

    Shape:
        features ``(batch, *feature)``, any float dtype; symbols likewise, int16 in [0, 2r], r the reach of the noise.

    Raises:
        InvalidParameterError: a parameter is outside its range, or epsilon cannot be met.

    Does not protect: the number of elements and of records, the radius, the labels.

    Source: Dwork, McSherry, Nissim, Smith 2006 (Laplace noise of the L1 diameter); Ghosh, Roughgarden,
    Sundararajan 2012 for the grid; Mironov 2012 for why floats fail.

    Example:
        >>> layer = L1LaplaceLDP(epsilon=8.0, radius=10.0)
        >>> released = layer(torch.randn(4, 16))
        >>> print(layer.spend())
        ε 8 per record
    """

    def __init__(
        self,
        *,
        epsilon: float,
        radius: float,
        steps: int | None = None,
        generator: int | torch.Generator | None = None,
    ) -> None:
        super().__init__(epsilon=epsilon, generator=generator)
        fix = "It is the largest L1 norm that a record keeps."
        self.radius = check.positive("L1LaplaceLDP", "radius", radius, fix)
        if not 1e-30 <= self.radius <= 1e30:
            constraint = "in [1e-30, 1e30], where float32 can work with it"
            raise InvalidParameterError(check.message("L1LaplaceLDP", "radius", constraint, radius, fix))
        if steps is None:
            self._noise, self._epsilon = _finest(self.asked)
        else:
            check.integer("L1LaplaceLDP", "steps", steps, 1, _MAX_STEPS)
            self._noise, self._epsilon = _calibrated(self.asked, steps)
        self.steps = self._noise.half

    @property
    def epsilon(self) -> float:
        """Realised epsilon of one release of one record (natural log), at most the one asked."""
        return self._epsilon

    @property
    def noise(self) -> DiscreteLaplace:
        """The channel of an element, from its grid point in -K..K. Its own epsilon is that of an element alone."""
        return self._noise

    def output_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The shape itself."""
        return tuple(shape)

    def quantize(
        self,
        features: Tensor,  # shape: (batch, *feature)
    ) -> Tensor:  # shape: (batch, *feature), int64 in [0, 2K]
        """The grid points before noise is added, counted from -K; private. Their L1 norm about K is at most K."""
        points = self._position(features.detach()).trunc().long().clamp(-self.steps, self.steps).flatten(1)
        sums = points.abs().cumsum(dim=1)
        # Sums in floats may let a record pass by a step; what passes is taken from its last elements.
        room = (self.steps - (sums - points.abs())).clamp_min(0)
        points = points.sign() * torch.minimum(points.abs(), room)
        return points.reshape(features.shape) + self.steps

    def _position(self, features: Tensor) -> Tensor:
        """Where on the grid the elements lie, before rounding; in float64."""
        wide = features.double()
        norm = wide.abs().flatten(1).sum(dim=1).reshape(-1, *[1] * (wide.ndim - 1))
        return wide / torch.maximum(norm, torch.full_like(norm, self.radius)) * self.steps

    def _encode(self, features: Tensor) -> Tensor:
        return self._noise.sample(self.quantize(features), self._source)

    def decode(
        self,
        symbols: Tensor,  # shape: (batch, *feature), integers in [0, 2r]
    ) -> Tensor:  # shape: (batch, *feature), float32
        """Public: the grid point that each symbol stands for, in units of the features.

        Raises:
            ShapeError: a symbol is outside the alphabet, or not an integer.
        """
        index = self._symbols(symbols, self._noise.outputs).int()
        return self.decode_table(symbols.shape[1:]).to(symbols.device)[index]

    def decode_table(self, shape: Sequence[int]) -> Tensor:  # shape: (outputs,), float32
        """The value of each output symbol."""
        reach = self._noise.reach
        return (torch.arange(-reach, reach + 1, dtype=torch.float64) * (self.radius / self.steps)).float()

    def expected(
        self,
        features: Tensor,  # shape: (batch, *feature)
    ) -> Tensor:  # shape: (batch, *feature), dtype of features
        """What the noise is around: the record on its grid; for use on the edge, not private.

        But for the clamping of sums to the range of the output, E[decode(encode(features))].
        Straight-through gradient.

        Raises:
            ShapeError: not a floating-point batch (batch, *feature).
            NonFiniteError: features hold NaN or infinity.
        """
        features = check.features("L1LaplaceLDP", features)
        values = (self.quantize(features) - self.steps).double() * (self.radius / self.steps)
        return straight_through(features, cast(values.float(), features.dtype), None)

    def log_prob(
        self,
        symbols: Tensor,  # shape: (batch, *feature), integers in [0, 2r]
        features: Tensor,  # shape: (batch, *feature)
    ) -> Tensor:  # shape: (batch, *feature)
        """ln Pr[symbol | features] per element, interpolated between grid points; their sum is the record's.

        Exact on the grid; between two grid points linear in the position, so differentiable.

        Raises:
            ShapeError: a symbol is outside the alphabet, or not an integer.
        """
        self._symbols(symbols, self._noise.outputs)
        position = (self._position(features) + self.steps).clamp(0, 2 * self.steps)
        low = position.detach().floor().clamp(max=2 * self.steps - 1)
        below = self._noise.log_prob(symbols, low.long())
        above = self._noise.log_prob(symbols, low.long() + 1)
        return torch.lerp(below, above, position - low).to(features.dtype)

    def _claim(self) -> str:
        noise = self._noise
        change = f"clamping changes the variance by {100 * noise.variance_change:.2g} %"
        return f"L1 norm at most {self.radius:g} in {self.steps} steps, {noise.outputs} outputs per element, {change}"


def _finest(asked: float) -> tuple[DiscreteLaplace, float]:
    """The most steps whose range the noise fits in, and whose integers meet epsilon to 1 %; 1 where none do."""
    for steps in (64, 32, 16, 8, 4, 2):
        with suppress(InvalidParameterError):
            noise, realised = _calibrated(asked, steps)
            if realised >= 0.99 * asked and noise.variance_change < 0.01:
                return noise, realised
    return _calibrated(asked, 1)


def _calibrated(asked: float, steps: int) -> tuple[DiscreteLaplace, float]:
    """The noise whose price over 2K steps, read from its integers and rounded outward, is at most ``asked``."""
    aim = asked
    for attempt in range(40):
        noise = DiscreteLaplace(epsilon=aim, levels=2 * steps + 1)
        ratio = noise.adjacent_ratio
        # The path from one record to another has at most 2K steps, each at most the worst one.
        realised = math.inf if ratio is None else log_up(ratio ** (2 * steps))
        if realised <= asked:
            return noise, realised
        excess = realised - asked if math.isfinite(realised) else aim / 2
        aim = math.nextafter(aim - excess * (1 + attempt), 0.0)
        if aim <= 0:
            break
    constraint = f"one that {steps} steps can meet (realised {show(realised)}). Use fewer steps, or a smaller epsilon"
    raise InvalidParameterError(check.message("L1LaplaceLDP", "epsilon", constraint, asked))
