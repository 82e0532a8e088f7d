"""Every 16-bit word through the bit-sliced sampler, and a wrong digit of its threshold."""

from __future__ import annotations

import pytest
import torch

from splitpriv import RandomResponseLDP
from splitpriv.mechanisms import RandomizedResponse
from splitpriv.mechanisms.bit_slices import BitSlices
from splitpriv.testing import assert_ldp


@pytest.mark.parametrize("shape", [(10,), (16,), (3, 5, 5), (70_000,)])
@pytest.mark.parametrize("per_channel", [False, True])
def test_slices_are_played_whatever_the_records_take(shape: tuple[int, ...], per_channel: bool) -> None:
    layer = RandomResponseLDP(epsilon=1.5, threshold=torch.zeros(shape[0]) if per_channel else 0.0)
    result = assert_ldp(layer, torch.randn(2, *shape, generator=torch.Generator().manual_seed(0)), draws=10_000)
    assert result.driven.startswith("every 16-bit word at 2 of 2 inputs and ")


@pytest.mark.parametrize("epsilon", [0.01, 0.5, 2.0, 7.0, 12.0])
def test_slices_are_played_whatever_the_threshold(epsilon: float) -> None:
    result = assert_ldp(RandomResponseLDP(epsilon=epsilon), torch.ones(2, 24), draws=10_000)
    assert result.driven.startswith("every 16-bit word at 2 of 2 inputs and ")


@pytest.mark.parametrize("digit", [8, 9, 12, 15])
def test_a_wrong_digit_of_the_threshold_is_noticed(digit: int) -> None:
    layer = RandomResponseLDP(epsilon=1.0)
    channel = layer.channel((24,))
    assert isinstance(channel, RandomizedResponse)
    channel.kernel = BitSlices(channel.flips ^ 1 << 64 - digit, 64)
    with pytest.raises(AssertionError, match=r"got symbol . in .* of 65,536 words, each of 16 bits once, at input 0"):
        assert_ldp(layer, torch.ones(2, 24), draws=10_000)


def test_a_kernel_that_reads_otherwise_is_neither_accused_nor_proved() -> None:
    class Stepwise(BitSlices):
        """Draws eight bytes at a time: the same bits, from reads of other sizes."""

        def draw(self, count, source, scratch):  # type: ignore[no-untyped-def]
            import numpy as np

            parts = [super(Stepwise, self).draw(8, source, scratch).copy() for _ in range(0, count, 8)]
            return np.concatenate(parts)[:count]

    layer = RandomResponseLDP(epsilon=1.0)
    channel = layer.channel((16,))
    assert isinstance(channel, RandomizedResponse)
    channel.kernel = Stepwise(channel.flips, 64)
    assert assert_ldp(layer, torch.ones(2, 16), draws=10_000).driven.startswith("1")
