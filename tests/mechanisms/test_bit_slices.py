"""The bit-sliced kernel: every word of small widths, and faults that the enumeration catches."""

from __future__ import annotations

import numpy as np
import pytest
from exact import Drawn, below, differing

from splitpriv.mechanisms import SeededSource, bit_slices
from splitpriv.mechanisms.bit_slices import BitSlices
from splitpriv.mechanisms.blocks import Scratch


def assert_exact(kernel: BitSlices) -> None:
    # In no order: eight words in a row share their leading digits, and would be tied together.
    words = np.random.default_rng(1).permutation(1 << kernel.bits).tolist()
    assert not differing(below(kernel, words), [word < kernel.threshold for word in words])


@pytest.mark.parametrize("threshold", [0, 1, 2, 17, 85, 127, 128, 170, 254, 255])
def test_every_word_of_eight_bits(threshold: int) -> None:
    assert_exact(BitSlices(threshold, 8))


@pytest.mark.parametrize("threshold", [0, 1, 255, 256, 257, 0x8000, 0xFF00, 0x5AA5, 0xFFFF])
def test_every_word_of_sixteen_bits(threshold: int) -> None:
    assert_exact(BitSlices(threshold, 16))


def test_words_in_any_order_and_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bit_slices, "_DENSE", 5)  # several portions, the last one short
    words = np.random.default_rng(0).permutation(1 << 16).tolist()
    kernel = BitSlices(0x1E39, 16)
    for count in (8, 40, 48, 1 << 16):
        assert not differing(below(kernel, words[:count]), [word < 0x1E39 for word in words[:count]])


class TiesFlip(BitSlices):
    """Takes a tie that outlasts all digits for a flip."""

    def _resolve(self, level: int, slices: Drawn, bits: np.ndarray, tied: np.ndarray) -> None:
        if level == self.levels:
            bits |= tied
        else:
            super()._resolve(level, slices, bits, tied)


class StopsEarly(BitSlices):
    """Never reads beyond the first eight digits."""

    def _resolve(self, level: int, slices: Drawn, bits: np.ndarray, tied: np.ndarray) -> None:
        return


class ForgetsWhoWasTied(BitSlices):
    """Takes what later digits say also of bits that were decided before."""

    def _compare(self, level: int, slices: np.ndarray, below: np.ndarray, tied: np.ndarray) -> None:
        super()._compare(level, slices, below, tied)
        if level == 0:
            tied[tied != 0] = 255


class SwapsDigits(BitSlices):
    """Says another order of digits than the one it compares in."""

    def rows(self, level: int) -> list[int]:
        return super().rows(level)[::-1]


@pytest.mark.parametrize("fault", [TiesFlip, StopsEarly, ForgetsWhoWasTied, SwapsDigits])
def test_planted_faults_are_caught(fault: type[BitSlices]) -> None:
    with pytest.raises(AssertionError):
        assert_exact(fault(0x1E39, 16))


def test_bits_are_independent_and_of_the_right_share() -> None:
    # 2**23 bits: the share, and how often a bit repeats its neighbour at each of 16 distances; 5 standard
    # deviations each, failure probability below 1e-5 in all for a correct sampler; fixed seed.
    count, share = 1 << 20, 0.3
    kernel = BitSlices(int(share * 2**64), 64)
    bits = np.unpackbits(kernel.draw(count, SeededSource(3), Scratch()), bitorder="little")
    n = bits.size
    assert abs(int(bits.sum()) - n * share) < 5 * np.sqrt(n * share * (1 - share))
    both = share**2
    for distance in range(1, 17):
        together = int((bits[distance:] & bits[:-distance]).sum())
        deviation = np.sqrt(n * (both * (1 - both) + 2 * (share**3 - both**2)))
        assert abs(together - (n - distance) * both) < 5 * deviation
