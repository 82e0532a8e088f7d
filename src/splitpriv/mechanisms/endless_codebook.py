"""A public codebook without an end: codeword number k follows from a nonce and k alone."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from scipy.special import ndtr, ndtri
from torch import Tensor

from splitpriv import _validation as check
from splitpriv._errors import InvalidParameterError

KEY_BYTES = 32
_SALT = b"splitpriv endless codebook 1"
_BLOCK = 1 << 21  # numbers expanded per step

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class EndlessCodebook:
    r"""Random vectors of one length, in books of ``size``: number k = position * size + index.

    Codeword k is :math:`\text{scale} \cdot g_k / |g_k|`, g_k a vector of ``dim`` independent normal numbers. They are
    looked up by 16-bit words, read little-endian from AES-256 of the counters ``k * b, ..., (k + 1) * b - 1``,
    b = ceil(dim / 8), as 128-bit big-endian numbers: counter mode, so that one codeword costs b
    blocks wherever it stands. A word w stands for the mean of a normal number between its w-th and
    (w + 1)-th of 2**16 quantiles; a cubic correction gives the table the variance and the fourth moment of
    the normal law.

    Public randomness: it takes no part in noise, and its key is no secret.

    Args:
        key: 32 bytes, see :meth:`key_of`.
        dim: of a codeword, in [2, 2**16].
        size: codewords in a book, in [2, 2**16].
        scale: length of a codeword, in (0, 1e30].

    Raises:
        InvalidParameterError: a parameter is outside its range.

    Example:
        >>> book = EndlessCodebook(EndlessCodebook.key_of(b"a public nonce"), dim=3, size=8, scale=1.0)
        >>> together = book.codewords(torch.arange(1000))
        >>> torch.equal(book.codewords(torch.tensor([877])), together[877:878])
        True
    """

    key: bytes
    dim: int
    size: int
    scale: float

    def __post_init__(self) -> None:
        owner = "EndlessCodebook"
        if not isinstance(self.key, bytes) or len(self.key) != KEY_BYTES:
            got = f"{len(self.key)} bytes" if isinstance(self.key, bytes) else type(self.key).__name__
            raise InvalidParameterError(f"{owner}: key must be {KEY_BYTES} bytes, got {got}. Use key_of(nonce).")
        check.integer(owner, "dim", self.dim, 2, 1 << 16)
        check.integer(owner, "size", self.size, 2, 1 << 16)
        if check.positive(owner, "scale", self.scale) > 1e30:
            raise InvalidParameterError(check.message(owner, "scale", "in (0, 1e30]", self.scale))

    @staticmethod
    def key_of(nonce: bytes) -> bytes:
        """SHA-256 of a fixed salt and a nonce."""
        return hashlib.sha256(_SALT + nonce).digest()

    @property
    def positions(self) -> int:
        """Number of books: k and all counters stay below 2**62."""
        return (1 << 62) // (self.size * self._blocks)

    @property
    def _blocks(self) -> int:
        return -(-self.dim // 8)

    def normals(self, numbers: npt.NDArray[np.int64]) -> Floats:
        """The g_k of some codewords.

        Args:
            numbers: k. # shape: (count,)

        Returns:
            Before they are brought to one length. # shape: (count, dim)
        """
        counters = np.zeros((len(numbers), self._blocks, 2), dtype=">u8")
        counters[:, :, 1] = numbers[:, None] * self._blocks + np.arange(self._blocks)
        stream = Cipher(algorithms.AES(self.key), modes.ECB()).encryptor().update(counters.tobytes())
        words = np.frombuffer(stream, dtype="<u2").reshape(len(numbers), 8 * self._blocks)
        normals: Floats = np.take(_normal_table(), words[:, : self.dim])
        return normals

    def codewords(
        self,
        numbers: Tensor,  # shape: any, int64 in [0, size * positions)
    ) -> Tensor:  # shape: (*numbers, dim), float32 on the CPU
        """Codewords by number, each of length ``scale``; the same one by one and together."""
        flat = numbers.detach().cpu().reshape(-1).to(torch.int64).numpy()
        out = np.empty((flat.size, self.dim), dtype=np.float32)
        step = max(1, _BLOCK // self.dim)
        for start in range(0, flat.size, step):
            normals = self.normals(flat[start : start + step]).astype(np.float64)
            lengths = np.sqrt(np.einsum("kd,kd->k", normals, normals))
            out[start : start + step] = normals * (self.scale / lengths)[:, None]
        return torch.from_numpy(out).reshape(*numbers.shape, self.dim)


@cache
def _normal_table() -> Floats:
    """What each 16-bit word stands for; odd-symmetric, so that no number is 0."""
    edges = ndtri(np.arange(1, 1 << 15) / (1 << 16))  # the negative half, without its ends -inf and 0
    density = np.concatenate([[0.0], np.exp(-(edges**2) / 2), [1.0]]) / np.sqrt(2 * np.pi)
    means = -np.diff(density) * (1 << 16)  # of a normal number in each cell
    assert abs(ndtr(edges[0]) - 2.0**-16) < 1e-12
    table = _corrected(means)
    return np.concatenate([table, -table[::-1]]).astype(np.float32)


def _corrected(means: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """``a x + b x**3`` with mean square 1 and mean fourth power 3, by Newton's method."""
    a, b = 1.0, 0.0
    for _ in range(20):
        x = a * means + b * means**3
        wrong = np.array([np.mean(x**2) - 1, np.mean(x**4) - 3])
        slopes = [[np.mean(2 * x * means), np.mean(2 * x * means**3)]]
        slopes += [[np.mean(4 * x**3 * means), np.mean(4 * x**3 * means**3)]]
        a, b = np.array([a, b]) - np.linalg.solve(np.array(slopes), wrong)
    corrected: npt.NDArray[Any] = a * means + b * means**3
    return corrected
