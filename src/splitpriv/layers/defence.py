"""What the three defences have in common: they release float32, and no epsilon bounds it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from splitpriv import _validation as check
from splitpriv._errors import NonFiniteError, ShapeError
from splitpriv.accounting.spend import Spend
from splitpriv.layers.compilation import eager


class Defence(nn.Module):
    """A deterministic map of features that makes attacks harder and guarantees nothing.

    Private to this package: a layer of your own needs :class:`~splitpriv.layers.PrivacyLayer`
    only. Subclasses say what the map is (``_defend``, float32 in), and what ``repr`` shows of it
    (``_claim``).
    """

    # To be said by the subclass --------------------------------------------------------------

    def _defend(self, features: Tensor) -> Tensor:
        raise NotImplementedError

    def _claim(self) -> str:
        raise NotImplementedError

    def output_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The feature shape (without batch) that crosses the cut; here the one that came in.

        Raises:
            ShapeError: ``shape`` is not a sequence of positive ints.
        """
        return check.feature_shape(type(self).__name__, shape)

    # Cost ----------------------------------------------------------------------------------

    @property
    def epsilon(self) -> float:
        """Infinite: no mechanism bounds what is learned."""
        return math.inf

    def spend(self, shape: Sequence[int]) -> Spend:
        """Infinite for any feature shape; ``uses`` is the number of elements released.

        Raises:
            ShapeError: ``shape`` does not fit the layer.
        """
        return Spend.infinite(math.prod(self.output_shape(shape)))

    def channel(self, shape: Sequence[int]) -> None:
        """None: there is no channel behind a defence."""

    # Release -------------------------------------------------------------------------------

    @eager
    def encode(
        self,
        features: Tensor,  # shape: (batch, *feature)
    ) -> Tensor:  # shape: (batch, *output_shape(feature)), float32
        """Private: what crosses the cut, computed in float32 whatever autocast says.

        The same in train and in eval mode; gradients reach the features.

        Raises:
            ShapeError: not a floating-point batch of a shape that the layer takes.
            NonFiniteError: features hold NaN or infinity, or leave the range of float32.
        """
        owner = type(self).__name__
        values = check.features(owner, features)
        self.output_shape(values.shape[1:])
        with torch.autocast(values.device.type, enabled=False):
            released = self._defend(values.float())
        if not bool(torch.isfinite(released).all()):
            raise NonFiniteError(f"{owner}: features must stay within float32, got a result beyond it. Scale them.")
        return released

    def decode(
        self,
        symbols: Tensor,  # shape: (batch, *output), float32
    ) -> Tensor:  # shape: (batch, *output), float32
        """Public: the identity, since what crosses the cut already are features.

        Raises:
            ShapeError: ``symbols`` is not a floating-point tensor.
        """
        if not isinstance(symbols, Tensor) or not symbols.is_floating_point():
            got = f"dtype={symbols.dtype}" if isinstance(symbols, Tensor) else type(symbols).__name__
            raise ShapeError(f"{type(self).__name__}: symbols must be a floating-point tensor, got {got}.")
        return symbols.float()

    @eager
    def forward(
        self,
        features: Tensor,  # shape: (batch, *feature)
    ) -> Tensor:  # shape: (batch, *output_shape(feature)), dtype of features
        """``decode(encode(features))``."""
        return self.decode(self.encode(features)).to(features.dtype)

    def log_prob(
        self,
        symbols: Tensor,  # shape: (batch, *output)
        features: Tensor,  # shape: (batch, *feature)
        *,
        temperature: float = 1.0,
    ) -> Tensor:  # shape: (batch, *output)
        """-(symbols - encode(features))² / (2 temperature²) per element: a score for attacks.

        A relaxation, not normalised: the map is deterministic, so the true probability is 0 or 1
        and has no slope to follow.

        Args:
            symbols: what crossed the cut.
            features: a guess at what it came from.
            temperature: > 0, in units of the symbols.

        Raises:
            InvalidParameterError: ``temperature`` is not finite and > 0.
            ShapeError: ``symbols`` do not have the shape that ``features`` encode to.
        """
        owner = type(self).__name__
        temperature = check.positive(f"{owner}.log_prob", "temperature", temperature)
        encoded = self.encode(features)
        if symbols.shape != encoded.shape:
            raise ShapeError(
                f"{owner}.log_prob: symbols must have the shape that features encode to, "
                f"{tuple(encoded.shape)}, got shape={tuple(symbols.shape)}."
            )
        distance = (self.decode(symbols) - encoded).square()
        return -distance / (2 * temperature**2)

    def __repr__(self) -> str:
        # On one line, unlike nn.Module's: a repr is a claim and a test id, and submodules are detail.
        return f"{type(self).__name__}(defence, ε ∞; {self._claim()})"
