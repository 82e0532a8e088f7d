"""Discrete Laplace noise on each element."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from splitpriv import _validation as check
from splitpriv._errors import InvalidParameterError
from splitpriv.layers.device_encode import draw_grid
from splitpriv.layers.elementwise import ElementwiseLDP
from splitpriv.layers.fused import randomize_grid
from splitpriv.mechanisms import Channel, DiscreteLaplace
from splitpriv.mechanisms.discrete_laplace import MAX_LEVELS


class LaplaceLDP(ElementwiseLDP):
    r"""Limits each element to an interval, rounds it to a grid, and adds discrete Laplace noise.

    .. math:: s = \mathrm{clamp}_{[-R, R]}\bigl(\mathrm{round}(2m\,x/\Delta) + n\bigr), \qquad
              \Pr[n] \propto e^{-\epsilon |n| / 2m}

    with sensitivity Δ, the width of the interval [-Δ/2, Δ/2], and 2m + 1 grid points on it. Local
    differential privacy for any two values of an element; a record of r elements pays r times
    as much. The noise lives on integers because floating-point Laplace noise is not private at
    any epsilon; its range is fixed and public.

    Args:
        epsilon: privacy loss (natural log), finite and > 0: of one element, or of the whole record
            with ``per="record"`` (split evenly over its elements).
        sensitivity: Δ > 0, in units of the features. Take it from public data: the claim does
            not cover it.
        per: ``"element"`` or ``"record"``.
        outside: what becomes of an element outside (-Δ/2, Δ/2): ``"zero"`` (paper B) or
            ``"clamp"`` to the nearer end.
        levels: odd number of grid points in [3, 257]; None for the finest that keeps the
            output range wide enough (see :class:`~splitpriv.mechanisms.DiscreteLaplace`).
        generator: None for secure noise; an int or a CPU ``torch.Generator`` for experiments.
        noise: where it is drawn for features on a CUDA device: ``"cpu"`` (AES-256; the features' symbols
            move there and back), or ``"device"``: by ChaCha20 on that device, under a key from the same source
            for each call. Features elsewhere are not concerned. See the threat model before ``"device"``,
            which no test has seen run on a GPU yet: hence not the default.

    Shape:
        features ``(batch, *feature)``, any float dtype; symbols likewise, int16 in [0, 2R].

    Raises:
        InvalidParameterError: a parameter is outside its range.

    Does not protect: the number of elements and of records, the sensitivity, the labels. At
    element-wise budgets the record's total is large, and then bounds little: read it off the
    ``repr``. Gradients that flow back to the edge (1 inside the interval, 0 outside) stay there.

    Source: Dwork, McSherry, Nissim, Smith 2006 for Laplace noise; Ghosh, Roughgarden,
    Sundararajan 2012 for the grid; Mironov 2012 for why floats fail; the truncation to zero is
    paper B's of the project's references.

    Example:
        >>> layer = LaplaceLDP(epsilon=2.0, sensitivity=4.0)
        >>> released = layer(torch.randn(4, 3, 8, 8))
        >>> print(layer.spend())
        ε 2 per element × 192 = 384 per record
    """

    def __init__(
        self,
        *,
        epsilon: float,
        sensitivity: float,
        per: str = "element",
        outside: str = "zero",
        levels: int | None = None,
        generator: int | torch.Generator | None = None,
        noise: str = "cpu",
    ) -> None:
        super().__init__(epsilon=epsilon, per=per, generator=generator, noise=noise)
        fix = "It is the width of the interval that elements are limited to."
        self.sensitivity = check.positive("LaplaceLDP", "sensitivity", sensitivity, fix)
        if not 1e-30 <= self.sensitivity <= 1e30:
            constraint = "in [1e-30, 1e30], where float32 can work with it"
            raise InvalidParameterError(check.message("LaplaceLDP", "sensitivity", constraint, sensitivity, fix))
        self.outside: str = check.choice("LaplaceLDP", "outside", outside, ("zero", "clamp"))
        if levels is not None:
            check.integer("LaplaceLDP", "levels", levels, 3, MAX_LEVELS)
            if levels % 2 == 0:
                fix = "The grid needs a middle."
                raise InvalidParameterError(check.message("LaplaceLDP", "levels", "odd", levels, fix))
        self.levels = levels
        self.uniform = per == "element"
        self._refuse_unmet()

    def _build_channel(self, epsilon: float) -> Channel:
        return DiscreteLaplace(epsilon=epsilon, levels=self.levels)

    def _laplace(self, shape: Sequence[int]) -> DiscreteLaplace:
        channel = self.channel(shape)
        assert isinstance(channel, DiscreteLaplace)
        return channel

    def _encode(self, features: Tensor, channel: Channel) -> Tensor:
        if self._drawn_there(features, LaplaceLDP):
            assert isinstance(channel, DiscreteLaplace)
            return draw_grid("LaplaceLDP", features, self.sensitivity, self.outside, channel, self._source)
        if not self._fused(features, LaplaceLDP):
            return super()._encode(features, channel)
        assert isinstance(channel, DiscreteLaplace)
        drawn = randomize_grid("LaplaceLDP", features, self.sensitivity, self.outside, channel, self._source)
        return torch.from_numpy(drawn).reshape(features.shape)

    @property
    def has_steps(self) -> bool:
        """Whether ln Pr jumps where an element leaves the interval: then a temperature softens it."""
        return self.outside == "zero"

    def _position(self, features: Tensor, temperature: float | None = None) -> Tensor:
        """Where on the grid an element lies, in [0, 2m]; differentiable inside the interval."""
        grid = self._laplace(features.shape[1:]).inputs - 1
        wide = features if features.dtype == torch.float64 else features.float()
        half = self.sensitivity / 2
        if self.outside == "zero" and temperature is not None:
            wide = wide * torch.sigmoid((half - wide.abs()) / temperature)
        elif self.outside == "zero":
            wide = torch.where(wide.abs() < half, wide, torch.zeros_like(wide))
        return ((wide.clamp(-half, half) / self.sensitivity + 0.5) * grid).clamp(0, grid)

    def quantize(
        self,
        features: Tensor,  # shape: (batch, *feature)
    ) -> Tensor:  # shape: (batch, *feature), int32 in [0, 2m]
        """The grid points before noise is added; private."""
        return self._position(features).round().to(torch.int32)

    def _values(self, channel: Channel) -> Tensor:
        assert isinstance(channel, DiscreteLaplace)
        step = self.sensitivity / (channel.inputs - 1)
        points = torch.arange(-channel.reach, channel.reach + 1, dtype=torch.float64)
        return (points * step).float()

    def log_prob(
        self,
        symbols: Tensor,  # shape: (batch, *feature), integers in [0, 2R]
        features: Tensor,  # shape: (batch, *feature)
        *,
        temperature: float | None = None,
    ) -> Tensor:  # shape: (batch, *feature)
        """ln Pr[symbol | feature] per element, interpolated between grid points.

        Exact on the grid; between two grid points linear in the feature, so differentiable. With ``outside="zero"`` it
        jumps where a feature leaves the interval, at D / 2. A ``temperature`` T (> 0, in units of the features) softens
        that for searches by gradients: x becomes ``x sigmoid((D / 2 - |x|) / T)``; exact as T goes to 0, and with None.
        """
        if temperature is not None:
            temperature = check.positive("LaplaceLDP.log_prob", "temperature", temperature)
        channel = self._laplace(self._symbols(symbols).shape[1:])
        position = self._position(features, temperature)
        low = position.detach().floor().clamp(max=channel.inputs - 2)
        weight = position - low
        below = channel.log_prob(symbols, low.long()).to(position.dtype)
        above = channel.log_prob(symbols, low.long() + 1).to(position.dtype)
        return (1 - weight) * below + weight * above

    def passes(self, features: Tensor) -> Tensor | None:
        return (features.abs() < self.sensitivity / 2).to(features.dtype)

    def _claim(self) -> str:
        outside = "0" if self.outside == "zero" else "the nearer end"
        claim = f"sensitivity {self.sensitivity:g}, outside becomes {outside}"
        if self._feature_shape is None and self.per == "record":
            return claim
        channel = self._laplace(self._known_shape(None))
        change = f"clamping changes the variance by {100 * channel.variance_change:.2g} %"
        return f"{claim}, {channel.inputs} levels to {channel.outputs}, {change}"
