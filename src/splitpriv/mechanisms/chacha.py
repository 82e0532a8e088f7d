"""ChaCha20 as plain integer operations of torch: a keystream that any device can compute where it is read.

Counter-based: each block of 64 bytes follows from the key, the number of the stream and the number of the
block alone, so that all blocks are computed at once. A key serves *one* call, and is the next 32 bytes of
the layer's own source: the secure one is keyed by the operating system for each thread and process and is
never continued by a fork, a copy or an unpickled layer, so neither is a counter here; from a seeded source
all this is repeatable, and as insecure as that source.

torch's integers are signed. Sums wrap, as they do modulo 2**32; a right shift copies the sign, so that
the bits it brings in are masked off.
"""

from __future__ import annotations

import torch
from torch import Tensor

from splitpriv.mechanisms.randomness import Source

ROUNDS = 20
KEY_BYTES = 32
WORDS = 16
"""32-bit words in a block."""

_CONSTANT = tuple(int.from_bytes(b"expand 32-byte k"[i : i + 4], "little") for i in range(0, 16, 4))
_ANSWER = (
    *(0xE4E7F110, 0x15593BD1, 0x1FDD0F50, 0xC47120A3, 0xC7F4D1C7, 0x0368C033, 0x9AAA2204, 0x4E6CD4C3),
    *(0x466482D2, 0x09AA9F07, 0x05D7C214, 0xA2028BD9, 0xD19C12B5, 0xB94E16DE, 0xE883D0CB, 0x4E3C50A2),
)


def draw_key(source: Source, device: torch.device) -> Tensor:  # shape: (8,), int32
    """A fresh key: the next 32 bytes of a source, as little-endian words on a device."""
    return key_words(source.read(KEY_BYTES).tobytes(), device)


def key_words(key: bytes, device: torch.device) -> Tensor:  # shape: (8,), int32
    """32 bytes as little-endian words on a device."""
    assert len(key) == KEY_BYTES  # callers are this package's own
    words = [int.from_bytes(key[i : i + 4], "little") for i in range(0, KEY_BYTES, 4)]
    return torch.tensor([_signed(word) for word in words], dtype=torch.int32).to(device)


def blocks(
    key: Tensor,  # shape: (8,), int32
    counters: Tensor,  # shape: (count,), int64 in [0, 2**63)
    stream: int = 0,
) -> Tensor:  # shape: (16, count), int32: the words of each block are a column
    """The keystream blocks of some counters, on their device.

    The counter is 64 bits wide and the stream's number the other 64, as Bernstein has it; a message of the
    RFC's layout (32 and 96 bits) is the case ``counters = counter + (first word of the nonce << 32)``.

    Args:
        key: as :func:`key_words` gives it, on the device of the counters.
        counters: block numbers, in any order.
        stream: in [0, 2**64); different streams of a key have nothing in common.

    Source: Bernstein 2008, ChaCha; RFC 8439 (Nir, Langley 2018), section 2.3.
    """
    start = _start(key, counters, stream)
    # Row r of the 4 x 4 state, all blocks: a quarter round works on four columns at once.
    a, b, c, d = start.clone().reshape(4, 4, -1).unbind(0)
    for _ in range(ROUNDS // 2):
        a, b, c, d = _quarter_round(a, b, c, d)
        # The diagonals become columns, and go back.
        a, b, c, d = _quarter_round(a, b.roll(-1, 0), c.roll(-2, 0), d.roll(-3, 0))
        b, c, d = b.roll(1, 0), c.roll(2, 0), d.roll(3, 0)
    return torch.cat([a, b, c, d]) + start


def known_answer(device: torch.device) -> bool:
    """Whether a device computes the block of RFC 8439, section 2.3.2."""
    counter = torch.tensor([1 + (0x09000000 << 32)], device=device)
    found = blocks(key_words(bytes(range(KEY_BYTES)), device), counter, stream=0x4A000000)
    return bool(found[:, 0].tolist() == list(map(_signed, _ANSWER)))


def _start(key: Tensor, counters: Tensor, stream: int) -> Tensor:
    """The state before the rounds. # shape: (16, count)"""
    constant = torch.tensor([_signed(word) for word in _CONSTANT], dtype=torch.int32, device=key.device)
    number = [_signed(stream & 0xFFFFFFFF), _signed(stream >> 32)]
    nonce = torch.tensor(number, dtype=torch.int32, device=key.device)
    fixed = torch.cat([constant, key, nonce]).reshape(-1, 1).expand(-1, counters.numel())
    low = _low_word(counters)
    high = (counters >> 32).to(torch.int32)
    return torch.cat([fixed[:12], low[None], high[None], fixed[12:]])


def _low_word(numbers: Tensor) -> Tensor:
    """The low 32 bits of int64, as int32; a plain cast of what does not fit is nowhere defined."""
    low = numbers & 0xFFFFFFFF
    return (low - ((low >> 31) << 32)).to(torch.int32)


def _quarter_round(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    a = a + b
    d = _rotate(d ^ a, 16)
    c = c + d
    b = _rotate(b ^ c, 12)
    a = a + b
    d = _rotate(d ^ a, 8)
    c = c + d
    b = _rotate(b ^ c, 7)
    return a, b, c, d


def _rotate(word: Tensor, by: int) -> Tensor:
    """Rotate 32 bits to the left."""
    return (word << by) | ((word >> (32 - by)) & ((1 << by) - 1))


def _signed(word: int) -> int:
    """The int32 of the same 32 bits."""
    return word - (word >> 31 << 32)
