"""ChaCha20 in torch's signed integers: the RFC's vectors, and another implementation's keystream."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from exact import keystream_blocks
from torch import Tensor

from splitpriv.mechanisms import SecureSource, SeededSource, chacha

CPU = torch.device("cpu")
# RFC 8439: (key, block counter, nonce of 96 bits, keystream block) of section 2.3.2, and of A.1, vectors 1, 2 and 5.
VECTORS = [
    (
        *(bytes(range(32)), 1, "000000090000004a00000000"),
        "10f1e7e4d13b5915500fdd1fa32071c4c7d1f4c733c068030422aa9ac3d46c4e"
        "d2826446079faa0914c2d705d98b02a2b5129cd1de164eb9cbd083e8a2503c4e",
    ),
    (
        *(bytes(32), 0, "000000000000000000000000"),
        "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7"
        "da41597c5157488d7724e03fb8d84a376a43b8f41518a11cc387b669b2ee6586",
    ),
    (
        *(bytes(32), 1, "000000000000000000000000"),
        "9f07e7be5551387a98ba977c732d080dcb0f29a048e3656912c6533e32ee7aed"
        "29b721769ce64e43d57133b074d839d531ed1f28510afb45ace10a1f4b794d6f",
    ),
    (
        *(bytes(32), 0, "000000000000000000000002"),
        "c2c64d378cd536374ae204b9ef933fcd1a8b2288b3dfa49672ab765b54ee27c7"
        "8a970e0e955c14f3a88e741b97c286f75f8fc299e8148362fa198a39531bed6d",
    ),
]


def stream_bytes(words: Tensor) -> bytes:
    """Blocks that are columns of words, as the bytes of a keystream."""
    return words.T.contiguous().numpy().astype("<i4").tobytes()


def assert_chacha() -> None:
    """The shipped code against the RFC and the reference."""
    for key, counter, nonce, block in VECTORS:
        first, second, third = np.frombuffer(bytes.fromhex(nonce), dtype="<u4").tolist()
        counters = torch.tensor([counter + (first << 32)])
        assert stream_bytes(chacha.blocks(chacha.key_words(key, CPU), counters, second + (third << 32))).hex() == block
    draw = np.random.default_rng(0)
    for start in (0, 1, 2**31 - 3, 2**32 - 3, 2**33 + 7, 2**63 - 12):
        key, stream = draw.bytes(32), int.from_bytes(draw.bytes(8), "little")
        counters = torch.arange(start, start + 8)
        found = chacha.blocks(chacha.key_words(key, CPU), counters, stream)
        assert stream_bytes(found) == keystream_blocks(key, counters.tolist(), stream)


def test_it_is_the_chacha20_of_the_rfc_and_of_another_library() -> None:
    assert_chacha()


def test_the_quarter_round_of_the_rfc() -> None:
    words = [torch.tensor([chacha._signed(w)], dtype=torch.int32) for w in (0x11111111, 0x01020304, 0x9B8D6F43)]
    found = chacha._quarter_round(*words, torch.tensor([0x01234567], dtype=torch.int32))
    assert [word.item() & 0xFFFFFFFF for word in found] == [0xEA2A92F4, 0xCB1CF8CE, 0x4581472E, 0x5881C4BB]


def unmasked(word: Tensor, by: int) -> Tensor:
    return (word << by) | (word >> (32 - by))


def off_by_one(word: Tensor, by: int) -> Tensor:
    return chacha_rotate(word, 11 if by == 12 else by)


def short_counter(numbers: Tensor) -> Tensor:
    return chacha_low_word(numbers & 0xFFFF)


chacha_rotate, chacha_low_word = chacha._rotate, chacha._low_word


@pytest.mark.parametrize(
    ("name", "fault"),
    [("_rotate", unmasked), ("_rotate", off_by_one), ("_low_word", short_counter), ("ROUNDS", 8)],
    ids=["the sign shifted in", "a rotation off by one", "a counter that comes again", "eight rounds"],
)
def test_planted_faults_are_caught(name: str, fault: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    assert chacha.known_answer(CPU)
    monkeypatch.setattr(chacha, name, fault)
    with pytest.raises(AssertionError):
        assert_chacha()
    assert chacha.known_answer(CPU) == (fault is short_counter)  # one block cannot show that blocks repeat


def test_a_block_is_the_same_alone_and_among_others() -> None:
    key = chacha.key_words(bytes(range(32)), CPU)
    counters = torch.randperm(1000, generator=torch.Generator().manual_seed(0))
    together = chacha.blocks(key, counters, 5)
    for place in (0, 17, 999):
        assert torch.equal(chacha.blocks(key, counters[place : place + 1], 5)[:, 0], together[:, place])
    assert chacha.blocks(key, counters[:0]).shape == (16, 0)


def test_each_key_is_the_next_bytes_of_its_source() -> None:
    source = SeededSource(3)
    keys = [chacha.draw_key(source, CPU), chacha.draw_key(source, CPU)]
    assert torch.cat(keys).numpy().astype("<i4").tobytes() == SeededSource(3).read(64).tobytes()
    secure = SecureSource()
    assert len({tuple(chacha.draw_key(secure, CPU).tolist()) for _ in range(8)}) == 8
