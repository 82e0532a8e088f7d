"""Draws by ChaCha20 words: exactly the channel's table, by enumeration; every word used once."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable

import numpy as np
import pytest
import torch
from exact import keystream_blocks
from scipy import stats
from torch import Tensor

from splitpriv.mechanisms import Channel, DiscreteLaplace, RandomizedResponse, device_draw
from splitpriv.mechanisms.chacha import key_words
from splitpriv.mechanisms.device_draw import (
    TILE,
    DeviceDraw,
    leading_words,
    leading_words_at,
    remaining_words,
)
from splitpriv.mechanisms.inverse import InverseTable

CPU = torch.device("cpu")
KEY = bytes(range(32))
WORDS = torch.arange(1 << 16, dtype=torch.int32)

Small = RandomizedResponse | DiscreteLaplace
CHANNELS: dict[str, Callable[[], Small]] = {
    "response": lambda: RandomizedResponse(epsilon=1.0),
    "response, large epsilon": lambda: RandomizedResponse(epsilon=20.0),
    "Laplace": lambda: DiscreteLaplace(epsilon=2.0, levels=5),
    "Laplace, wide": lambda: DiscreteLaplace(epsilon=1.0, levels=33),
    "Laplace, large epsilon": lambda: DiscreteLaplace(epsilon=40.0, levels=3),
}
SIXTEEN: dict[str, Callable[[], Small]] = {
    "response": lambda: RandomizedResponse(epsilon=1.0, bits=16),
    "Laplace": lambda: DiscreteLaplace(epsilon=1.0, levels=3, bits=16),
    "Laplace, finer": lambda: DiscreteLaplace(epsilon=1.0, levels=5, bits=16),
}


def fresh(channel: Small) -> DeviceDraw:
    device_draw.device_draw.cache_clear()
    return device_draw.device_draw(channel, CPU)


def decide(draw: DeviceDraw, x: int, words: list[int]) -> list[int]:
    """All bits of some 64-bit words, through the deterministic kernel."""
    leading = torch.tensor([word >> 48 for word in words], dtype=torch.int32)
    rest = torch.tensor([word & (1 << 48) - 1 for word in words])
    return draw.decide(torch.full(rest.shape, x), leading, rest).tolist()


def counted(draw: DeviceDraw, x: int, outputs: int) -> list[int]:
    """How many of the 2**64 words lead to each output, from every leading word and every tie.

    Where a tied word's outcome changes is found from the table; both ends of each stretch between are run.
    """
    counts = [0] * outputs
    marked = draw.mark(torch.full((1 << 16,), x), WORDS)
    undecided = marked < 0
    assert bool((marked[undecided] == -1 - x).all())
    for symbol, words in zip(*np.unique(marked[~undecided].numpy(), return_counts=True), strict=True):
        counts[symbol] += int(words) << 48
    edges = [int(edge) for edge in draw.kernel.edges]
    for first in undecided.nonzero()[:, 0].tolist():
        start, end = first << 48, (first + 1) << 48
        inside = edges[bisect_right(edges, start) : bisect_right(edges, end - 1)]
        stretches = list(zip([start, *inside], [*inside, end], strict=True))
        lows, highs = (decide(draw, x, words) for words in ([a for a, _ in stretches], [b - 1 for _, b in stretches]))
        assert lows == highs
        for symbol, (a, b) in zip(lows, stretches, strict=True):
            counts[symbol] += b - a
    return counts


def assert_exact(channel: Small) -> None:
    draw = fresh(channel)
    for x, row in enumerate(channel.table()):
        assert counted(draw, x, channel.outputs) == row


@pytest.mark.parametrize("make", SIXTEEN.values(), ids=SIXTEEN)
def test_every_16_bit_word_gives_the_table(make: Callable[[], Small]) -> None:
    channel = make()
    draw = fresh(channel)
    for x, row in enumerate(channel.table()):
        symbols = draw.mark(torch.full((1 << 16,), x), WORDS)
        assert torch.bincount(symbols.long(), minlength=channel.outputs).tolist() == row
        assert torch.equal(draw.decide(torch.full((1 << 16,), x), WORDS, torch.zeros(1 << 16).long()), symbols)


@pytest.mark.parametrize("make", CHANNELS.values(), ids=CHANNELS)
def test_64_bit_words_give_the_table(make: Callable[[], Small]) -> None:
    assert_exact(make())


def test_every_word_of_18_bits_gives_the_weights() -> None:
    # Several edges within one leading word, and at both of its ends.
    weights = [5, 1, 1, 2, (1 << 17) - 9, 3, 0, 1, (1 << 17) - 4]
    kernel, channel = InverseTable(weights, 18, 16), Channel([weights, weights])
    draw = DeviceDraw(kernel, lambda inputs, outcome: outcome, torch.int16, channel, CPU)
    words = torch.arange(1 << 18)
    leading, rest = (words >> 2).int(), (words & 3) << 46 | words & 0xFFFFF
    found = draw.decide(torch.zeros(1 << 18), leading, rest)
    assert torch.bincount(found.long(), minlength=len(weights)).tolist() == weights
    marked = draw.mark(torch.zeros(1 << 18), leading)
    assert torch.equal(marked[marked >= 0], found[marked >= 0])
    assert (marked < 0).sum() == 3 * 4  # those of edges 5 to 7, 9 and 2**17 + 3


def signed_edges(draw: DeviceDraw) -> None:
    draw.edges = torch.from_numpy(draw.kernel.edges.view(np.int64)).sort()[0]


def blind_to_ties(draw: DeviceDraw) -> None:
    draw.decided = draw.decided.clamp(min=0)


def one_word_too_many(draw: DeviceDraw) -> None:
    draw.edges = draw.edges + 1


@pytest.mark.parametrize("fault", [signed_edges, blind_to_ties, one_word_too_many])
@pytest.mark.parametrize("make", CHANNELS.values(), ids=CHANNELS)
def test_planted_faults_are_caught(
    make: Callable[[], Small], fault: Callable[[DeviceDraw], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    build = DeviceDraw.__init__

    def faulty(self: DeviceDraw, *arguments: object) -> None:
        build(self, *arguments)  # type: ignore[arg-type]
        fault(self)

    monkeypatch.setattr(DeviceDraw, "__init__", faulty)
    with pytest.raises(AssertionError):
        assert_exact(make())
    device_draw.device_draw.cache_clear()


# Which word belongs to which element --------------------------------------------------------------------


def halves(number: int) -> list[int]:
    """The 32 halves of a block of stream 0, as they come."""
    return np.frombuffer(keystream_blocks(KEY, [number], 0), dtype="<u2").tolist()


def test_leading_words_are_where_the_layout_says() -> None:
    key, count = key_words(KEY, CPU), 2 * TILE + 77
    found = leading_words(key, 0, count).tolist()
    for tile in range(3):
        for column in (0, 1, 76, 127):
            for lane, word in enumerate(halves(128 * tile + column)):
                place = TILE * tile + 128 * lane + column
                assert place >= count or found[place] == word
    # In parts, one by one and in any order: the same.
    assert torch.cat([leading_words(key, 0, TILE), leading_words(key, TILE, TILE + 77)]).tolist() == found
    places = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    assert leading_words_at(key, places).tolist() == [found[place] for place in places.tolist()]


def test_no_two_elements_share_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    def numbered(key: Tensor, counters: Tensor, stream: int) -> Tensor:
        word = 16 * counters[None] + torch.arange(16)[:, None]  # below 2**15
        return (2 * word + 1 << 16 | 2 * word).int()

    monkeypatch.setattr(device_draw, "blocks", numbered)
    key = key_words(KEY, CPU)
    assert leading_words(key, 0, 8 * TILE).sort()[0].tolist() == list(range(8 * TILE))


def test_remaining_words_are_48_bits_of_another_stream() -> None:
    words = np.frombuffer(keystream_blocks(KEY, list(range(4)), 1), dtype="<u4").reshape(4, 2, 8).astype(np.uint64)
    expected = (words[:, 1] & np.uint64(0xFFFF)) << np.uint64(32) | words[:, 0]
    assert remaining_words(key_words(KEY, CPU), 27).tolist() == expected.ravel()[:27].tolist()


@pytest.mark.parametrize("make", CHANNELS.values(), ids=CHANNELS)
def test_a_whole_call_is_the_inverse_of_its_64_bit_words(make: Callable[[], Small]) -> None:
    channel, count, key = make(), 400 * TILE + 5, key_words(KEY, CPU)
    draw = fresh(channel)
    inputs = torch.arange(count) % channel.inputs
    leading = leading_words(key, 0, count)
    marked = draw.mark(inputs, leading)
    ties = (marked < 0).numpy()
    draw.settle(marked, key)
    word = leading.numpy().astype(np.uint64) << np.uint64(48)
    word[ties] |= remaining_words(key, int(ties.sum())).numpy().astype(np.uint64)
    outcome = torch.from_numpy(np.searchsorted(draw.kernel.edges, word, side="right")).int()
    assert ties.any()
    assert torch.equal(marked, draw._combine(inputs.int(), outcome).to(draw.dtype))
    assert marked.min() >= 0
    assert marked.max() < channel.outputs


@pytest.mark.parametrize("make", CHANNELS.values(), ids=CHANNELS)
def test_what_is_drawn_follows_the_table(make: Callable[[], Small]) -> None:
    # Chi-square on one fixed key; it fails with probability 1e-6 for a right draw under a random one.
    channel, count, key = make(), 200 * TILE, key_words(KEY, CPU)
    draw = fresh(channel)
    marked = draw.mark(torch.zeros(count), leading_words(key, 0, count))
    draw.settle(marked, key)
    expected = np.array([entry / channel.total for entry in channel.table()[0]]) * count
    observed = np.bincount(marked.numpy(), minlength=channel.outputs).astype(float)
    rare = expected < 5
    expected, observed = (np.append(part[~rare], part[rare].sum()) for part in (expected, observed))
    if expected[-1] < 5:  # too rare together even: with the next
        expected, observed = (np.append(part[:-2], part[-2:].sum()) for part in (expected, observed))
    if len(expected) > 1:
        assert stats.chisquare(observed, expected * count / expected.sum()).pvalue > 1e-6
    else:
        assert count - observed[0] < 5
