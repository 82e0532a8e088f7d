"""One of N random codewords for each record, from a book of its own."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from splitpriv import _validation as check
from splitpriv._errors import PrivacyError
from splitpriv.layers import closeness
from splitpriv.layers.cosines import largest
from splitpriv.layers.public_vector import given_or_fresh
from splitpriv.layers.recordwise import RecordwiseLDP
from splitpriv.mechanisms import KClosest
from splitpriv.mechanisms.endless_codebook import EndlessCodebook


class RandomCodebookLDP(RecordwiseLDP):
    r"""Sends one of N random unit vectors, the m closest each e^ε times as likely as the others.

    Record after record gets a fresh public book of N codewords, expanded from a public nonce and the
    record's position (a count of the records encoded so far), never from the noise key. With v the
    codeword that is drawn, A, B and T as in :class:`~splitpriv.mechanisms.KClosest`,

    .. math:: y = v / c, \qquad c = E\langle v, x \rangle = \frac{A - B}{T} \, E \sum_{j \le m} t_{(j)}, \qquad
              E[y \mid x] = x

    for a unit vector x, :math:`t_{(j)}` the ordered cosines of N random directions with x; c comes from the
    exact law of these. (The codewords' numbers come from a table of 2**16 entries, so that unbiased means to
    about a thousandth of a percent.) Local differential privacy for any two records, ε for all of a record.

    Only the direction of a record counts: it is encoded as x/\|x\|, and that is what decoding
    estimates. A record of zeros has no direction, and is encoded as an arbitrary one. Put a
    :class:`~splitpriv.Projection` before the layer: the error grows with the dimension.

    Args:
        dim: elements of a record, in [2, 2**16].
        size: N, codewords in a book, in [2, 2**16]; log2(N) bits cross the cut per record.
        epsilon: privacy loss of a record (natural log), finite and > 0.
        closest: m in [1, N - 1]; ``"auto"`` for the least error.
        nonce: at least 16 public bytes that name the codebook; None for fresh ones.
        generator: None for secure noise; an int or a CPU ``torch.Generator`` for experiments.

    Shape:
        features ``(batch, *feature)`` of dim elements each, any float dtype; symbols ``(batch,)``,
        int64: number ``position * size + index`` in the endless codebook; decoded ``(batch, dim)``.

    Raises:
        InvalidParameterError: a parameter is outside its range.

    Does not protect: the number of records, their order (positions are public), the labels. A copy of
    a layer goes on counting from the same position: that costs no privacy, but two records
    that share a book have errors that are not independent.

    Source: Isik, Chen, Ozgur, Weissman, No 2023 (random codebooks, the k closest codewords).

    Example:
        >>> layer = RandomCodebookLDP(16, size=1024, epsilon=4.0)
        >>> released = layer(torch.randn(100, 16))
        >>> layer.closest, round(layer.error, 2)
        (73, 6.3)
        >>> print(layer.spend())
        ε 4 per record
    """

    key: Tensor
    positions_public = True  # a symbol holds the record's position

    def __init__(
        self,
        dim: int,
        *,
        size: int,
        epsilon: float,
        closest: int | str = "auto",
        nonce: bytes | None = None,
        generator: int | torch.Generator | None = None,
    ) -> None:
        super().__init__(epsilon=epsilon, generator=generator)
        owner = "RandomCodebookLDP"
        self.dim = check.integer(owner, "dim", dim, 2, 1 << 16)
        self.size = check.integer(owner, "size", size, 2, 1 << 16)
        if isinstance(closest, str):
            check.choice(owner, "closest", closest, ("auto",), "Or an integer in [1, size - 1].")
            closest = _least_error(self.dim, self.size, self.asked)
        self.mechanism = KClosest(self.size, closest, epsilon=self.asked)
        key = EndlessCodebook.key_of(given_or_fresh(owner, nonce))
        self.register_buffer("key", torch.tensor(list(key), dtype=torch.uint8))
        self._position, self._lock = 0, threading.Lock()

    # What it claims --------------------------------------------------------------------------

    @property
    def closest(self) -> int:
        """m, the number of codewords that are more likely than the rest."""
        return self.mechanism.closest

    @property
    def epsilon(self) -> float:
        """Realised epsilon of one release of one record (natural log), at most the one asked."""
        return self.mechanism.epsilon

    @property
    def cosine(self) -> float:
        """c, the expected cosine between a record and the codeword that is released for it."""
        return _cosine(self.mechanism, self.dim)

    @property
    def error(self) -> float:
        """Expected squared error of a decoded record, for records of length 1: 1/c² - 1."""
        return 1 / self.cosine**2 - 1

    @property
    def second_moment(self) -> tuple[float, float]:
        r"""(a, b) of :math:`E[y y^\top \mid x] = a I + b \, x x^\top`, y the decoded record and x of length 1.

        From the mean squared cosine s of what is released: c² a = (1 - s)/(d - 1), c² b = (d s - 1)/(d - 1).
        """
        near, far, total = self.mechanism.near, self.mechanism.far, self.mechanism.total
        squares = largest(self.dim, self.size, self.closest)[1]
        s = (near - far) / total * squares + far * self.size / total / self.dim
        scale = self.cosine**2 * (self.dim - 1)
        return (1 - s) / scale, (self.dim * s - 1) / scale

    @property
    def position(self) -> int:
        """Records encoded so far: the position of the next one's book."""
        return self._position

    def channel(self, shape: Sequence[int]) -> KClosest:
        """The channel of a record: from the m closest codewords to the index in the record's own book."""
        return self.mechanism

    def output_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """(dim,): decoded records are flat.

        Raises:
            ShapeError: a record of this shape does not have dim elements.
        """
        if math.prod(shape) != self.dim:
            self._refuse_shape(f"{self.dim} elements", shape)
        return (self.dim,)

    def decode_table(self, shape: Sequence[int]) -> EndlessCodebook:
        """What each symbol stands for: no table, but a codebook without an end, computed where it is needed."""
        self.output_shape(shape)
        return self._book

    @property
    def _book(self) -> EndlessCodebook:
        return EndlessCodebook(bytes(self.key.tolist()), self.dim, self.size, 1 / self.cosine)

    # Release ---------------------------------------------------------------------------------

    def _encode(self, features: Tensor) -> Tensor:
        records, book = len(features), self._book
        with self._lock:
            first = self._position
            if first + records > book.positions:
                fix = "Make a new layer."
                raise PrivacyError(f"RandomCodebookLDP: position must stay below {book.positions}. {fix}")
            self._position += records
        directions = _directions(features.cpu())
        step = max(1, closeness.BLOCK // (self.size * self.dim))
        symbols = torch.empty(records, dtype=torch.int64)
        for start in range(0, records, step):
            part = directions[start : start + step]
            near = closeness.closest(self._scores(part, first + start), self.closest)
            near = near.squeeze(1) if self.closest == 1 else near
            symbols[start : start + step] = self.mechanism.sample(near, self._source)
        symbols += (torch.arange(records) + first) * self.size
        return symbols.to(features.device)

    def _scores(
        self,
        directions: Tensor,  # shape: (records, dim), float32 on the CPU
        first: int,
        positions: Tensor | None = None,  # shape: (records,); None for consecutive ones from ``first``
    ) -> Tensor:  # shape: (records, size)
        """The cosine of each record with each codeword of its book."""
        book, step = self._book, max(1, closeness.BLOCK // self.dim)
        places = torch.arange(first, first + len(directions)) if positions is None else positions
        parts = []
        for start in range(0, self.size, step):
            index = torch.arange(start, min(start + step, self.size))
            numbers = (places.unsqueeze(1) * self.size + index).reshape(-1).numpy()
            normals = book.normals(numbers).reshape(len(places), len(index), self.dim)
            lengths = torch.from_numpy(np.sqrt(np.einsum("bnd,bnd->bn", normals, normals)))
            parts.append(torch.bmm(torch.from_numpy(normals), directions.unsqueeze(2)).squeeze(2) / lengths)
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def channel_pairs(
        self,
        symbols: Tensor,  # shape: (batch,), int64
        features: Tensor,  # shape: (batch, *feature)
    ) -> tuple[Tensor, Tensor]:  # shapes: (batch,) with closest=1, else (batch, m); (batch,): int64 in [0, size)
        """What the channel read and wrote for each symbol: the closest codewords of its book, and its index; private.

        For tests: each record has a book of its own, so that features alone do not say what the channel reads.

        Raises:
            ShapeError: a symbol is no number of the codebook, or a record does not have dim elements.
        """
        self.output_shape(features.shape[1:])
        symbols = self._symbols(symbols, self._book.positions * self.size)
        directions, numbers = _directions(features.detach().cpu()), symbols.cpu()
        step = max(1, closeness.BLOCK // (self.size * self.dim))
        near = [
            closeness.closest(self._scores(part, 0, places), self.closest)
            for part, places in zip(torch.split(directions, step), torch.split(numbers // self.size, step), strict=True)
        ]
        sets = torch.cat(near).to(symbols.device)
        return sets.squeeze(1) if self.closest == 1 else sets, symbols % self.size

    def decode(
        self,
        symbols: Tensor,  # shape: (batch,), int64
    ) -> Tensor:  # shape: (batch, dim), float32
        """Public: the codeword of each number, over c: an unbiased estimate of the record's direction.

        Raises:
            ShapeError: a symbol is no number of the codebook, or not an integer.
        """
        book = self._book
        return book.codewords(self._symbols(symbols, book.positions * book.size)).to(symbols.device)

    def expected(
        self,
        features: Tensor,  # shape: (batch, *feature)
    ) -> Tensor:  # shape: (batch, dim), dtype of features
        """E[decode(encode(features))], which is the records' directions; for use on the edge, not private."""
        features = check.features("RandomCodebookLDP", features)
        self.output_shape(features.shape[1:])
        return _directions(features)

    def log_prob(
        self,
        symbols: Tensor,  # shape: (batch,), int64
        features: Tensor,  # shape: (batch, *feature)
        *,
        temperature: float = 0.02,
    ) -> Tensor:  # shape: (batch,)
        """ln Pr[symbol | features] of each record, given its position, the step from far to near relaxed.

        Exact as the temperature (> 0, a cosine) goes to 0. Differentiable in ``features``.

        Raises:
            InvalidParameterError: ``temperature`` is not finite and > 0.
            ShapeError: a symbol is no number of the codebook, or a record does not have dim elements.
        """
        temperature = check.positive("RandomCodebookLDP.log_prob", "temperature", temperature)
        self.output_shape(features.shape[1:])
        symbols = self._symbols(symbols, self._book.positions * self.size).cpu()
        directions = _directions(features.cpu())
        step = max(1, closeness.BLOCK // (self.size * self.dim))
        found = [
            closeness.log_likelihood(
                self._scores(part, 0, numbers // self.size), numbers % self.size, self.mechanism, temperature
            )
            for part, numbers in zip(torch.split(directions, step), torch.split(symbols, step), strict=True)
        ]
        return torch.cat(found).to(features.device)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()

    def _claim(self) -> str:
        return (
            f"the {self.closest} closest of {self.size:,} random codewords in {self.dim} dimensions, "
            f"expected squared error {self.error:.3g} times that of releasing 0"
        )


def _directions(features: Tensor) -> Tensor:
    """Records, flat and of length 1 (zeros stay zeros); float64 is kept, all else becomes float32."""
    flat = features.flatten(1)
    flat = flat if flat.dtype == torch.float64 else flat.float()
    flat = flat / flat.detach().abs().amax(dim=1, keepdim=True).clamp_min(torch.finfo(flat.dtype).tiny)
    return F.normalize(flat, dim=1).to(torch.float32)


def _cosine(mechanism: KClosest, dim: int) -> float:
    return (mechanism.near - mechanism.far) / mechanism.total * largest(dim, mechanism.size, mechanism.closest)[0]


def _least_error(dim: int, size: int, epsilon: float) -> int:
    """The m of the largest c, by ternary search: c rises up to it and falls from there on."""
    far = math.exp(-epsilon)

    def cosine(closest: int) -> float:
        return (1 - far) / (closest + (size - closest) * far) * largest(dim, size, closest)[0]

    low, high = 1, size - 1
    while high - low > 2:
        left, right = low + (high - low) // 3, high - (high - low) // 3
        low, high = (left, high) if cosine(left) < cosine(right) else (low, right)
    return max(range(low, high + 1), key=cosine)
