"""A layer of one's own: which element of the features is largest, with an epsilon for the record."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from splitpriv import InvalidParameterError, NonFiniteError, ShapeError
from splitpriv.accounting import Spend
from splitpriv.mechanisms import Channel, make_source

TOTAL = 1 << 48


class LargestElement(nn.Module):
    """Releases the position of the largest element by k-ary randomized response.

    One symbol per record, so that epsilon is what the whole record pays. The true position is kept
    with probability about e^ε / (e^ε + k - 1); any other one has probability 1 / (e^ε + k - 1).

    Args:
        epsilon: privacy loss of one record (natural log), > 0.
        elements: k, the elements of one record's features, >= 2.
        generator: None for secure noise; an int or a CPU ``torch.Generator`` for experiments.
    """

    def __init__(self, *, epsilon: float, elements: int, generator: int | torch.Generator | None = None) -> None:
        super().__init__()
        if not 0 < epsilon < math.inf:
            got = f"epsilon={epsilon!r}"
            raise InvalidParameterError(f"LargestElement: epsilon must be finite and > 0, got {got}.")
        # The weight of each wrong answer is rounded up, so that the ratio is at most e^epsilon.
        wrong = int(TOTAL / (math.exp(epsilon) + elements - 1)) + 1
        right = TOTAL - (elements - 1) * wrong
        rows = [[right if x == y else wrong for y in range(elements)] for x in range(elements)]
        self._channel = Channel(rows)  # from here on epsilon, sampling and likelihood are exact
        self._source = make_source(generator)

    # What the protocol asks for ----------------------------------------------------------------

    @torch.compiler.disable  # noise is not drawn by torch: a graph break, and no other effect
    def encode(
        self,
        features: Tensor,  # shape: (batch, elements)
    ) -> Tensor:  # shape: (batch,), uint8 in [0, elements)
        """Private. Checks first: no guarantee can be stated for NaN, or for another shape."""
        if features.ndim != 2 or features.shape[1] != self._channel.inputs:
            expected, got = f"(batch, {self._channel.inputs})", f"shape={tuple(features.shape)}"
            raise ShapeError(f"LargestElement: features must be {expected}, got {got}.")
        if not bool(torch.isfinite(features).all()):
            raise NonFiniteError("LargestElement: features must be finite, got NaN or infinity.")
        return self._channel.sample(features.detach().argmax(1), self._source)

    def decode(
        self,
        symbols: Tensor,  # shape: (batch,)
    ) -> Tensor:  # shape: (batch, elements), float32
        """Public: looks at nothing but the symbols."""
        return self.decode_table((self._channel.inputs,)).to(symbols.device)[symbols.long()]

    def log_prob(
        self,
        symbols: Tensor,  # shape: (batch,)
        features: Tensor,  # shape: (batch, elements)
        *,
        temperature: float = 0.1,
    ) -> Tensor:  # shape: (batch,)
        """ln Pr[symbol | features] with the argmax relaxed to a softmax, for attacks."""
        positions = torch.arange(self._channel.inputs, device=features.device)
        drawn = self._channel.log_prob(symbols[:, None], positions).to(features.dtype)
        return torch.logsumexp(torch.log_softmax(features / temperature, 1) + drawn, 1)

    def spend(self, shape: Sequence[int] | None = None) -> Spend:
        """One use of the channel on the whole record, whatever its shape."""
        return Spend.of(self._channel.epsilon, 1)

    def forward(
        self,
        features: Tensor,  # shape: (batch, elements)
    ) -> Tensor:  # shape: (batch, elements), dtype of features
        """``decode(encode(features))``, for use outside a SplitModel."""
        return self.decode(self.encode(features)).to(features.dtype)

    # Optional: looked up by name ---------------------------------------------------------------

    def channel(self, shape: Sequence[int]) -> Channel:
        """The table behind the layer: what tests and accountants read."""
        return self._channel

    def decode_table(self, shape: Sequence[int]) -> Tensor:  # shape: (alphabet, elements), float32
        """What each symbol stands for: a release stores it, and so never needs this layer."""
        return torch.eye(self._channel.outputs)

    @property
    def secure(self) -> bool:
        """False when the noise comes from a seed."""
        return self._source.secure

    def extra_repr(self) -> str:
        """Every claim on one line."""
        noise = "secure noise" if self.secure else f"noise from {self._source!r}"
        return f"{self.spend()}; largest of {self._channel.inputs} elements; {noise}"
