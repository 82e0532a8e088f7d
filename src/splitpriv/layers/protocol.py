"""What a layer must offer to stand at the cut."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor

from splitpriv.accounting.spend import Spend


@runtime_checkable
class PrivacyLayer(Protocol):
    """An ``nn.Module`` over batches ``(batch, *feature)`` that encodes features into symbols.

    Only ``encode`` sees private data; what it returns is what crosses the cut. ``decode`` is
    public post-processing and must not look at anything else. ``layer(x)`` is
    ``decode(encode(x))`` in the dtype of ``x``.

    Optional, looked up by name: ``channel(shape)`` gives the per-element
    :class:`~splitpriv.mechanisms.Channel`, ``output_shape(shape)`` the feature shape that
    ``decode`` returns where it differs from the one that came in, ``decode_table(shape)`` the value
    of each output symbol (a release of integers needs it; or the
    :class:`~splitpriv.mechanisms.EndlessCodebook` that the symbols number), ``expected(features)`` the mean of
    what is decoded, for use on the edge, ``fitted_records`` the number
    of private records that the layer's own weights were fitted on (None: unknown), ``secure``
    is False when the noise comes from a seed (a mechanism that does not say counts as that),
    ``passes(features)`` is a factor of its straight-through gradient, and ``quantize`` maps features
    to the channel's input symbols where ``uniform`` says that it does so alike for every element.
    ``channel_pairs(symbols, features)`` gives what the channel read and wrote for each symbol, private and for
    tests, where that is not ``quantize(features)`` and the symbols themselves.
    ``expected(features)`` is E[decode(encode(features))] in float32, differentiable where possible: what
    the noise is around, for inference on the edge (``SplitModel.local``), and never to cross the cut.
    ``positions_public`` is True where a symbol shows its place in the release, which then cannot be
    anonymous.
    ``encode_packed(features)`` draws like ``encode``, symbols of the shape of its features, and returns
    them as :func:`~splitpriv.release.pack` would: uint8 (batch, bytes_per_record); a release uses it.
    An ``epsilon`` of ``inf`` says that a layer is a defence. ``forward`` is never used at the cut.
    """

    def encode(
        self,
        features: Tensor,  # shape: (batch, *feature)
    ) -> Tensor:  # shape: (batch, *symbol), an integer dtype, or float32 for a defence
        """Private: features to the symbols that cross the cut, with fresh noise at each call."""
        ...

    def decode(
        self,
        symbols: Tensor,  # shape: (batch, *symbol)
    ) -> Tensor:  # shape: (batch, *feature), float32
        """Public: symbols to features."""
        ...

    def log_prob(
        self,
        symbols: Tensor,  # shape: (batch, *symbol)
        features: Tensor,  # shape: (batch, *feature)
    ) -> Tensor:
        """ln Pr[symbols | features], differentiable in features; for attacks."""
        ...

    def spend(self, shape: Sequence[int]) -> Spend:
        """What one release of one record of this feature shape costs."""
        ...
