"""What the layers that privatise a whole record by one mechanism have in common."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from splitpriv import _validation as check
from splitpriv._errors import ShapeError
from splitpriv.accounting.spend import Spend
from splitpriv.layers.compilation import eager
from splitpriv.layers.straight_through import cast, straight_through
from splitpriv.mechanisms import make_source


class RecordwiseLDP(nn.Module):
    """Encodes a record by one use of one mechanism, whose epsilon therefore is the record's.

    Private to this package: a layer of your own needs :class:`~splitpriv.PrivacyLayer`
    only. Subclasses say what a use costs (``epsilon``), how checked features become symbols
    (``_encode``), which shapes fit (``output_shape``), and what the symbols stand for (``decode``).
    """

    def __init__(self, *, epsilon: float, generator: int | torch.Generator | None) -> None:
        super().__init__()
        fix = "Remove the layer to release features without noise."
        self.asked = check.positive(type(self).__name__, "epsilon", epsilon, fix)
        self._source = make_source(generator)
        self._feature_shape: tuple[int, ...] | None = None

    # To be said by the subclass --------------------------------------------------------------

    @property
    def epsilon(self) -> float:
        """Realised epsilon of one release of one record (natural log), at most the one asked."""
        raise NotImplementedError

    def output_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The feature shape that ``decode`` returns for features of this shape (without batch).

        Raises:
            ShapeError: the layer does not take this shape.
        """
        raise NotImplementedError

    def _encode(self, features: Tensor) -> Tensor:
        raise NotImplementedError

    def decode(self, symbols: Tensor) -> Tensor:
        """Public: what the symbols stand for."""
        raise NotImplementedError

    def _claim(self) -> str:
        raise NotImplementedError

    def passes(self, features: Tensor) -> Tensor | None:
        """Factor of the straight-through gradient, element by element; None for 1."""
        return None

    # Cost ------------------------------------------------------------------------------------

    @property
    def secure(self) -> bool:
        """False when the noise comes from a seed."""
        return self._source.secure

    @property
    def feature_shape(self) -> tuple[int, ...] | None:
        """The feature shape (without batch) last encoded; None before the first use."""
        return self._feature_shape

    def spend(self, shape: Sequence[int] | None = None) -> Spend:
        """What one release of one record costs: one use, whatever the shape.

        Args:
            shape: feature shape without batch, or None.

        Raises:
            ShapeError: the layer does not take records of this shape.
        """
        if shape is not None:
            self.output_shape(check.feature_shape(type(self).__name__, shape))
        return Spend.of(self.epsilon, 1, getattr(self, "mechanism", None))

    # Release ---------------------------------------------------------------------------------

    @eager
    def encode(
        self,
        features: Tensor,  # shape: (batch, *feature)
    ) -> Tensor:  # shape: (batch, *symbol), integers
        """Private: the symbols of each record, with fresh noise at each call, in train and eval alike.

        Raises:
            ShapeError: not a floating-point batch (batch, *feature), or of a shape that the
                layer does not take.
            NonFiniteError: features hold NaN or infinity.
        """
        features = check.features(type(self).__name__, features).detach()
        shape = tuple(features.shape[1:])
        self.output_shape(shape)
        with torch.no_grad():
            symbols = self._encode(features)
        self._feature_shape = shape
        return symbols

    @eager
    def forward(
        self,
        features: Tensor,  # shape: (batch, *feature)
    ) -> Tensor:  # shape: (batch, *output_shape(feature)), dtype of features
        """``decode(encode(features))``, with a straight-through gradient where the shape is kept.

        A value that a half-precision dtype cannot hold becomes that dtype's largest.
        """
        released = cast(self.decode(self.encode(features)), features.dtype)
        if released.shape != features.shape:
            return released
        return straight_through(features, released, self.passes(features))

    def _refuse_shape(self, wanted: str, shape: Sequence[int]) -> None:
        owner = type(self).__name__
        raise ShapeError(f"{owner}: features must have {wanted} after the batch, got shape={tuple(shape)}.")

    def _symbols(self, symbols: Tensor, outputs: int) -> Tensor:
        """The symbols, if they are integers in [0, outputs)."""
        return check.symbols(type(self).__name__, symbols, outputs)

    def extra_repr(self) -> str:
        """Every claim: epsilon per record, what it depends on, the source of noise."""
        noise = "secure noise" if self.secure else f"noise from {self._source!r}"
        return f"{self.spend()}; {self._claim()}; {noise}"
