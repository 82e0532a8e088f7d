"""The endless codebook: the same alone and together, pinned, and spherical."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from scipy.special import ndtri

from splitpriv import InvalidParameterError
from splitpriv.mechanisms import EndlessCodebook
from splitpriv.mechanisms.endless_codebook import _normal_table

KEY = EndlessCodebook.key_of(b"a public nonce")


@pytest.mark.parametrize("dim", [2, 7, 8, 16, 127])
def test_one_codeword_alone_is_the_one_in_bulk(dim: int) -> None:
    book = EndlessCodebook(KEY, dim, 100, 2.5)
    numbers = torch.tensor([0, 1, 99, 100, 12345, 2**40 + 3, 100 * book.positions - 1])
    together = book.codewords(numbers)
    for number, codeword in zip(numbers, together, strict=True):
        assert torch.equal(book.codewords(number.reshape(1))[0], codeword)
        assert float(codeword.norm()) == pytest.approx(2.5, rel=1e-6)
    run = book.codewords(torch.arange(12_000, 13_000))
    assert torch.equal(run[345], together[4])
    assert len(torch.unique(run, dim=0)) == 1000


def test_the_stream_is_counter_mode_of_the_documented_key() -> None:
    key = hashlib.sha256(b"splitpriv endless codebook 1" + b"a public nonce").digest()
    assert key == KEY
    book = EndlessCodebook(KEY, 12, 10, 1.0)  # two blocks of 8 words each
    stream = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor().update(bytes(32 * 50))
    words = np.frombuffer(stream, dtype="<u2").reshape(50, 16)[:, :12]
    assert np.array_equal(book.normals(np.arange(50)), _normal_table()[words])


def test_pinned_codeword() -> None:
    codeword = EndlessCodebook(bytes(32), 4, 10, 1.0).codewords(torch.tensor([7]))[0]
    torch.testing.assert_close(
        codeword, torch.tensor([0.3366276, 0.3408385, 0.6021993, -0.6386447]), atol=1e-6, rtol=1e-6
    )


def test_the_table_is_a_normal_law() -> None:
    table = _normal_table().astype(np.float64)
    assert np.array_equal(table, -table[::-1])
    assert (np.diff(table) > 0).all()
    assert np.mean(table**2) == pytest.approx(1, abs=1e-8)
    assert np.mean(table**4) == pytest.approx(3, abs=1e-8)
    assert np.mean(table**6) == pytest.approx(15, rel=1e-3)
    quantiles = ndtri((np.arange(1 << 16) + 0.5) / (1 << 16))
    assert np.abs(table - quantiles)[100:-100].max() < 2e-3


def test_codewords_are_spread_evenly() -> None:
    # 1e5 codewords in 8 dimensions: every entry of the mean and of the second moment within 5.5 deviations.
    book = EndlessCodebook(KEY, 8, 100, 1.0)
    words = book.codewords(torch.arange(100_000)).double()
    assert float(words.mean(dim=0).abs().max()) < 5.5 * (1 / 8 / 1e5) ** 0.5
    assert float((words.T @ words / 1e5 - torch.eye(8) / 8).abs().max()) < 5.5 * (3 / 80 / 1e5) ** 0.5


def test_keys_positions_and_sizes_matter() -> None:
    one = EndlessCodebook(KEY, 4, 10, 1.0).codewords(torch.arange(5))
    other = EndlessCodebook(EndlessCodebook.key_of(b"another"), 4, 10, 1.0).codewords(torch.arange(5))
    assert not torch.isclose(one, other).any(dim=1).all()


def test_bad_parameters_are_refused() -> None:
    with pytest.raises(InvalidParameterError, match=r"key must be 32 bytes, got 3 bytes\. Use key_of"):
        EndlessCodebook(b"abc", 4, 10, 1.0)
    with pytest.raises(InvalidParameterError, match=r"EndlessCodebook: dim must be an integer in \[2, 65536\]"):
        EndlessCodebook(KEY, 1, 10, 1.0)
    with pytest.raises(InvalidParameterError, match=r"EndlessCodebook: size must be an integer in \[2, 65536\]"):
        EndlessCodebook(KEY, 4, 1, 1.0)
    with pytest.raises(InvalidParameterError, match=r"EndlessCodebook: scale must be in \(0, 1e30\]"):
        EndlessCodebook(KEY, 4, 10, 1e31)
