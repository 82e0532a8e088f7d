"""One of N public codewords for a whole record."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from splitpriv import _validation as check
from splitpriv._errors import InvalidParameterError, NonFiniteError
from splitpriv.layers import closeness
from splitpriv.layers.codebook_choice import CodebookChoice, choose, least_squared_error
from splitpriv.layers.random_codebook_ldp import RandomCodebookLDP
from splitpriv.layers.recordwise import RecordwiseLDP
from splitpriv.layers.straight_through import cast, straight_through
from splitpriv.mechanisms import KClosest
from splitpriv.mechanisms.k_closest import least_variance


class CodebookLDP(RecordwiseLDP):
    r"""Sends one of N public codewords, the m closest to the record each e^ε times as likely as the others.

    With integer weights A > B and T = mA + (N - m)B (see :class:`~splitpriv.mechanisms.KClosest`),

    .. math:: \Pr[s = j \mid x] = \begin{cases} A/T & c_j \text{ is one of the } m \text{ closest to } x \\
              B/T & \text{else,} \end{cases} \qquad \epsilon = \ln (A/B).

    Local differential privacy for any two records: ε is the price of the whole record, however many
    elements it has, and log2(N) bits cross the cut. Closeness is Euclidean; of equally close codewords the
    one with the smaller index counts as closer.

    Args:
        codebook: the codewords, (N, \*feature), N in [2, 2**16], finite. Public: the claim does not
            cover it. :meth:`fit` makes one from public features.
        epsilon: privacy loss of a record (natural log), finite and > 0.
        closest: m in [1, N - 1]; ``"auto"`` for the least expected error: with ``decode="codeword"`` of the
            squared distance from what is released to the record, the codewords themselves standing for
            records; with ``"membership"`` of the noise for its signal (then about N / (e^ε + 1)).
        decode: ``"codeword"``: the codeword that was drawn; ``"membership"``: for each codeword an unbiased
            estimate of whether it is one of the m closest, :math:`(T [s = j] - B) / (A - B)`.
        generator: None for secure noise; an int or a CPU ``torch.Generator`` for experiments.

    Shape:
        features ``(batch, *feature)``, any float dtype; symbols ``(batch,)``, integers in [0, N); decoded
        ``(batch, *feature)``, or ``(batch, N)`` with ``decode="membership"``.

    Raises:
        InvalidParameterError: a parameter is outside its range.
        NonFiniteError: the codebook holds NaN or infinity.

    Does not protect: the number of records, the codebook, the labels. A codeword that is drawn is a
    biased estimate of the record, see :meth:`expected`.

    Attributes:
        choice: how :meth:`fit` chose size and m; None where both were given.

    Source: Isik, Chen, Ozgur, Weissman, No 2023 (k-closest encoding).

    Example:
        >>> layer = CodebookLDP(torch.eye(8), epsilon=2.0, closest=1)
        >>> layer(torch.eye(8)).shape
        torch.Size([8, 8])
        >>> layer
        CodebookLDP(ε 2 per record; the 1 closest of 8 codewords of shape (8,), decoded to the codeword; secure noise)
    """

    codebook: Tensor

    def __init__(
        self,
        codebook: Tensor,  # shape: (N, *feature)
        *,
        epsilon: float,
        closest: int | str = "auto",
        decode: str = "codeword",
        generator: int | torch.Generator | None = None,
    ) -> None:
        super().__init__(epsilon=epsilon, generator=generator)
        self.decodes_to: str = check.choice("CodebookLDP", "decode", decode, ("codeword", "membership"))
        self.register_buffer("codebook", _checked(codebook))
        if isinstance(closest, str):
            check.choice("CodebookLDP", "closest", closest, ("auto",), "Or an integer in [1, N - 1].")
            closest = self._best(self.codebook.flatten(1))
        self.mechanism = KClosest(len(self.codebook), closest, epsilon=self.asked)
        self.choice: CodebookChoice | None = None

    def _best(self, words: Tensor) -> int:
        if self.decodes_to == "membership":
            return least_variance(len(words), self.asked)
        return least_squared_error(words, words, self.asked)

    @classmethod
    def fit(
        cls,
        public_features: Tensor,  # shape: (records, *feature)
        *,
        size: int | Sequence[int],
        epsilon: float,
        labels: Tensor | None = None,  # shape: (records,)
        closest: int | str = "auto",
        decode: str = "codeword",
        seed: int = 0,
        generator: int | torch.Generator | None = None,
    ) -> CodebookLDP:
        """A layer whose codebook is learned from public features by k-means.

        With public labels each class has clusters of its own, about size / classes of them (so with as
        many codewords as classes, these are the class means). Where several sizes are given, or
        ``closest="auto"``, one fifth of the public records is held out, and the best by one exact,
        noise included criterion on those is taken: with labels the accuracy of the nearest class mean
        on what is released, else the expected squared error of the codeword that is released.
        :attr:`choice` keeps what was compared.

        Args:
            public_features: public records, (records, *feature); at least size of them.
            size: N, or several to choose from, each in [2, 2**16].
            epsilon: privacy loss of a record (natural log), finite and > 0.
            labels: public classes, integers, (records,), or None.
            closest: m, or ``"auto"``.
            decode: see :class:`CodebookLDP`.
            seed: public, of k-means and of what is held out; in [0, 2**63).
            generator: of the noise, see :class:`CodebookLDP`.

        Raises:
            InvalidParameterError: a parameter is outside its range, or there are too few public records.
            ShapeError: features or labels do not have the shape or dtype that is asked for.
            NonFiniteError: public features hold NaN or infinity.
        """
        best, choice = choose(
            public_features, size=size, epsilon=epsilon, labels=labels, closest=closest, decode=decode, seed=seed
        )
        layer = cls(best, epsilon=epsilon, closest=choice.closest, decode=decode, generator=generator)
        layer.choice = choice
        return layer

    @staticmethod
    def random(
        dim: int,
        *,
        size: int,
        epsilon: float,
        closest: int | str = "auto",
        nonce: bytes | None = None,
        generator: int | torch.Generator | None = None,
    ) -> RandomCodebookLDP:
        """A fresh random codebook for each record. See :class:`~splitpriv.RandomCodebookLDP`."""
        return RandomCodebookLDP(dim, size=size, epsilon=epsilon, closest=closest, nonce=nonce, generator=generator)

    # What it claims --------------------------------------------------------------------------

    @property
    def size(self) -> int:
        """N, the number of codewords."""
        return self.mechanism.size

    @property
    def closest(self) -> int:
        """m, the number of codewords that are more likely than the rest."""
        return self.mechanism.closest

    @property
    def epsilon(self) -> float:
        """Realised epsilon of one release of one record (natural log), at most the one asked."""
        return self.mechanism.epsilon

    def channel(self, shape: Sequence[int]) -> KClosest:
        """The channel that a record passes through: from the m closest codewords to one of all."""
        return self.mechanism

    def output_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The feature shape, or (N,) with ``decode="membership"``.

        Raises:
            ShapeError: the codewords have another shape.
        """
        expected = tuple(self.codebook.shape[1:])
        if tuple(shape) != expected:
            self._refuse_shape(f"shape {expected}", shape)
        return (self.size,) if self.decodes_to == "membership" else expected

    # Release ---------------------------------------------------------------------------------

    def _scores(
        self,
        features: Tensor,  # shape: (records, *feature)
    ) -> Tensor:  # shape: (records, N)
        """x·c - |c|²/2 about the middle of the codebook: the larger, the closer."""
        words = self.codebook.to(features.device, torch.float32).flatten(1)
        middle = words.mean(dim=0)
        words = words - middle
        return (features.flatten(1).float() - middle) @ words.T - words.square().sum(dim=1) / 2

    def quantize(
        self,
        features: Tensor,  # shape: (batch, *feature)
    ) -> Tensor:  # shape: (batch,) with closest=1, else (batch, m): int64 in [0, N)
        """The indices of the closest codewords; private."""
        parts = torch.split(features.detach(), max(1, closeness.BLOCK // self.size))
        near = torch.cat([closeness.closest(self._scores(part), self.closest) for part in parts])
        return near.squeeze(1) if self.closest == 1 else near

    def _encode(self, features: Tensor) -> Tensor:
        return self.mechanism.sample(self.quantize(features), self._source)

    def decode(
        self,
        symbols: Tensor,  # shape: (batch,), integers in [0, N)
    ) -> Tensor:  # shape: (batch, *feature) or (batch, N), float32
        """Public: the codeword of each symbol, or the debiased membership vector.

        Raises:
            ShapeError: a symbol is outside the alphabet, or not an integer.
        """
        index = self._symbols(symbols, self.size).long()
        if self.decodes_to == "codeword":
            return self.codebook.to(symbols.device, torch.float32)[index]
        near, far = self._membership_values()
        released = torch.full((len(index), self.size), far, device=symbols.device)
        return released.scatter_(1, index.unsqueeze(1), near)

    def _membership_values(self) -> tuple[float, float]:
        """What the debiased membership vector holds at the drawn codeword, and elsewhere."""
        near, far, total = self.mechanism.near, self.mechanism.far, self.mechanism.total
        return (total - far) / (near - far), -far / (near - far)

    def decode_table(self, shape: Sequence[int]) -> Tensor:  # shape: (N, *output_shape(shape)), float32
        """What each symbol stands for."""
        return self.decode(torch.arange(self.size))

    def expected(
        self,
        features: Tensor,  # shape: (batch, *feature)
    ) -> Tensor:  # shape: (batch, *output_shape(feature)), dtype of features
        """E[decode(encode(features))], straight-through where the shape is kept; for use on the edge, not private.

        The sum of the close codewords times (A - B)/T plus that of all codewords times B/T; with
        ``decode="membership"`` exactly which codewords are close.

        Raises:
            ShapeError: features do not have the shape of the codewords.
            NonFiniteError: features hold NaN or infinity.
        """
        shape = self.output_shape(check.features("CodebookLDP", features).shape[1:])
        near = self.quantize(features).reshape(len(features), self.closest)
        named = torch.zeros(len(near), self.size, device=features.device).scatter_(1, near, 1.0)
        if self.decodes_to == "membership":
            return named.to(features.dtype)
        words, mechanism = self.codebook.to(features.device, torch.float32).flatten(1), self.mechanism
        signal, rest = (mechanism.near - mechanism.far) / mechanism.total, mechanism.far / mechanism.total
        mean = (signal * (named @ words) + rest * words.sum(dim=0)).reshape(-1, *shape)
        return straight_through(features, cast(mean, features.dtype), None)

    def log_prob(
        self,
        symbols: Tensor,  # shape: (batch,), integers in [0, N)
        features: Tensor,  # shape: (batch, *feature)
        *,
        temperature: float = 0.1,
    ) -> Tensor:  # shape: (batch,)
        """ln Pr[symbol | features] of each record, the step from far to near relaxed to a sigmoid.

        Exact as the temperature (> 0, half a squared distance) goes to 0. Differentiable in ``features``.

        Raises:
            InvalidParameterError: ``temperature`` is not finite and > 0.
            ShapeError: a symbol is outside the alphabet, or features have another shape than the codewords.
        """
        temperature = check.positive("CodebookLDP.log_prob", "temperature", temperature)
        self.output_shape(features.shape[1:])
        index = self._symbols(symbols, self.size).long()
        return closeness.log_likelihood(self._scores(features), index, self.mechanism, temperature)

    def _claim(self) -> str:
        what = "the codeword" if self.decodes_to == "codeword" else "debiased membership"
        shape = tuple(self.codebook.shape[1:])
        chosen = "" if self.choice is None else f", {self.choice}"
        return f"the {self.closest} closest of {self.size:,} codewords of shape {shape}, decoded to {what}{chosen}"


def _checked(codebook: Tensor) -> Tensor:
    fits = isinstance(codebook, Tensor) and codebook.is_floating_point() and codebook.ndim >= 2
    if not fits or not 2 <= len(codebook) <= 1 << 16 or not math.prod(codebook.shape[1:]):
        constraint = "a floating-point tensor of shape (N, *feature), N in [2, 2**16]"
        raise InvalidParameterError(check.message("CodebookLDP", "codebook", constraint, codebook))
    words = codebook.detach().clone().to(torch.float32, memory_format=torch.contiguous_format)
    if not bool(torch.isfinite(words).all()):
        raise NonFiniteError("CodebookLDP: codebook must be finite as float32, got NaN or infinity.")
    return words
