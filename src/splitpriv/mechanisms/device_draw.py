"""Exact draws where the features are: a channel's own integers, driven by ChaCha20 on any device.

As on the CPU, 16 leading bits of a 64-bit word decide nearly every element, by one look-up; the elements that
they leave undecided (a tie) read the other 48. Leading bits come from stream 0 of the call's key, the others
from stream 1.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from splitpriv.mechanisms.chacha import WORDS, blocks
from splitpriv.mechanisms.channel import Channel
from splitpriv.mechanisms.discrete_laplace import DiscreteLaplace
from splitpriv.mechanisms.inverse import InverseTable
from splitpriv.mechanisms.randomized_response import RandomizedResponse

LANES = 2 * WORDS
"""Elements that one block of the keystream serves, with 16 bits each."""

WIDTH = 128
"""Blocks side by side in a tile."""

TILE = LANES * WIDTH
"""Elements of a tile: lane l of its block b is element l * WIDTH + b, so that neighbours lie together."""

LEADING, REST = 0, 1
_LEADING_BITS = 16
_REST_BITS = 48

Combine = Callable[[Tensor, Tensor], Tensor]


def leading_words(key: Tensor, start: int, count: int) -> Tensor:  # shape: (count,), int32 in [0, 2**16)
    """The leading bits of elements ``start``, a multiple of TILE, to ``start + count - 1``."""
    tiles = -(-count // TILE)
    first = start // LANES
    words = blocks(key, torch.arange(first, first + tiles * WIDTH, device=key.device), LEADING)
    lanes = torch.stack([words & 0xFFFF, words >> 16 & 0xFFFF], dim=1).reshape(LANES, tiles, WIDTH)
    return lanes.transpose(0, 1).reshape(-1)[:count]


def leading_words_at(key: Tensor, places: Tensor) -> Tensor:  # shape: (count,), int32 in [0, 2**16)
    """The leading bits of some elements, by number."""
    lane, column = places % TILE // WIDTH, places % WIDTH
    words = blocks(key, places // TILE * WIDTH + column, LEADING)
    word = words.gather(0, (lane // 2)[None])[0]
    return word >> (16 * (lane % 2)).int() & 0xFFFF


def remaining_words(key: Tensor, count: int) -> Tensor:  # shape: (count,), int64 in [0, 2**48)
    """The other bits of the first ``count`` elements that ask for them: eight of each block."""
    words = blocks(key, torch.arange(-(-count // 8), device=key.device), REST).long()
    return ((words[8:] & 0xFFFF) << 32 | words[:8] & 0xFFFFFFFF).T.reshape(-1)[:count]


class DeviceDraw:
    """One channel's table on one device.

    Args:
        kernel: the inverse table that is drawn from, with 16 leading bits.
        combine: input symbols and outcomes of the kernel to output symbols, element by element.
        dtype: signed, with room for the output symbols and for -1 - each input symbol.
        channel: whose law it is.
        device: where.
    """

    def __init__(
        self, kernel: InverseTable, combine: Combine, dtype: torch.dtype, channel: Channel, device: torch.device
    ) -> None:
        assert kernel.first_bits == _LEADING_BITS
        assert kernel.rest_bits <= _REST_BITS
        self.kernel, self._combine, self.dtype = kernel, combine, dtype
        self.steps, self.last = channel.inputs - 1, channel.outputs - 1
        decided = kernel.decided.astype(np.int16)
        self.decided = torch.from_numpy(np.where(decided == kernel.tie, np.int16(-1), decided)).to(device)
        # Flipping the sign bit takes the order of unsigned words to that of torch's signed ones.
        self.edges = torch.from_numpy((kernel.edges ^ np.uint64(1 << 63)).view(np.int64)).to(device)

    def mark(
        self,
        inputs: Tensor,  # shape: (count,), integers
        leading: Tensor,  # shape: (count,), int32 in [0, 2**16)
    ) -> Tensor:  # shape: (count,), dtype
        """The output symbol where the leading bits decide; elsewhere -1 - input, which is none."""
        outcome = self.decided.index_select(0, leading).int()
        inputs = inputs.int()
        return torch.where(outcome < 0, -1 - inputs, self._combine(inputs, outcome)).to(self.dtype)

    def decide(
        self,
        inputs: Tensor,  # shape: (count,), integers
        leading: Tensor,  # shape: (count,), in [0, 2**16)
        rest: Tensor,  # shape: (count,), int64 in [0, 2**48)
    ) -> Tensor:  # shape: (count,), dtype
        """The deterministic kernel: output symbols from all bits of the words."""
        bits = self.kernel.rest_bits
        word = leading.long() << bits | rest >> (_REST_BITS - bits)
        outcome = torch.searchsorted(self.edges, word ^ torch.iinfo(torch.int64).min, right=True)
        return self._combine(inputs.int(), outcome.int()).to(self.dtype)

    def settle(self, marked: Tensor, key: Tensor) -> None:
        """Put output symbols in the place of all marks.

        Args:
            marked: what ``mark`` gives for all elements of a call, in order. # shape: (count,), contiguous
            key: of that call.
        """
        places = (marked < 0).nonzero()[:, 0]
        if places.numel():
            inputs = -1 - marked[places].int()
            rest = remaining_words(key, places.numel())
            marked[places] = self.decide(inputs, leading_words_at(key, places), rest)


@lru_cache(maxsize=32)
def device_draw(channel: RandomizedResponse | DiscreteLaplace, device: torch.device) -> DeviceDraw:
    """The channel's table on a device; kept for the next call."""
    if isinstance(channel, RandomizedResponse):
        bits = (channel.total - 1).bit_length()
        flips = InverseTable([channel.flips, channel.total - channel.flips], bits, _LEADING_BITS)
        return DeviceDraw(flips, _flip, torch.int8, channel, device)
    shift, last = channel.inputs - 1, channel.outputs - 1

    def add(points: Tensor, noise: Tensor) -> Tensor:
        return (points + noise - shift).clamp(0, last)

    return DeviceDraw(channel.kernel, add, torch.int16, channel, device)


def _flip(inputs: Tensor, outcome: Tensor) -> Tensor:
    return inputs ^ (outcome == 0).int()
