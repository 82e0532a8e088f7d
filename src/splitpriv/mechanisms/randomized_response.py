"""Randomized response on one bit."""

from __future__ import annotations

from fractions import Fraction
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from splitpriv._errors import InvalidParameterError
from splitpriv._validation import choice, message, positive
from splitpriv.mechanisms.bit_slices import BitSlices
from splitpriv.mechanisms.blocks import Scratch
from splitpriv.mechanisms.channel import Channel
from splitpriv.mechanisms.randomness import Source
from splitpriv.mechanisms.rounding import exp_decimal, log_up, precise
from splitpriv.mechanisms.worst_pair import WorstPair


class RandomizedResponse(Channel):
    r"""Keeps a bit with probability about e^ε/(e^ε+1), else flips it.

    The number of flipping words among the ``2**bits`` is rounded *up*,

    .. math:: T = \lceil 2^w / (e^\epsilon + 1) \rceil, \qquad
              \epsilon_{\text{realised}} = \ln\frac{2^w - T}{T} \le \epsilon,

    so the realised epsilon never passes the one asked. (Rounding T to nearest would: 1.0000268
    for 1 at 16 bits.)

    Args:
        epsilon: the privacy loss asked for, per bit (natural log), > 0.
        bits: 64, or 16 to make the whole table enumerable.

    Raises:
        InvalidParameterError: epsilon is not finite and > 0, or so small that at this many bits
            only the fair coin (epsilon 0) is at most it.

    Does not protect: the number of bits, or anything that is a function of many bits (their
    losses add).

    Source: Warner 1965; optimal among binary epsilon-LDP channels (Kairouz, Oh, Viswanath 2014).

    Example:
        >>> channel = RandomizedResponse(epsilon=1.0, bits=16)
        >>> channel.table()
        [[47910, 17626], [17626, 47910]]
        >>> channel.epsilon <= 1.0
        True
    """

    inputs = 2
    outputs = 2

    def __init__(self, *, epsilon: float, bits: int = 64) -> None:
        epsilon = positive("RandomizedResponse", "epsilon", epsilon)
        choice("RandomizedResponse", "bits", bits, (16, 64))
        self.total = 1 << bits
        self.flips = _flips(epsilon, bits)
        if 2 * self.flips >= self.total:
            constraint = f"large enough to be expressed in {bits} bits"
            raise InvalidParameterError(message("RandomizedResponse", "epsilon", constraint, epsilon))
        self.kernel = BitSlices(self.flips, bits)

    def _table(self) -> list[list[int]]:
        keep = self.total - self.flips
        return [[keep, self.flips], [self.flips, keep]]

    def worst_pair(self) -> WorstPair:
        """The two rows that there are; each order gives the same curve."""
        first, second = self._table()
        return WorstPair.of(first, second)

    @property
    def flip_probability(self) -> Fraction:
        """Exact probability that a bit is flipped."""
        return Fraction(self.flips, self.total)

    @cached_property
    def epsilon_ratio(self) -> Fraction | None:
        """exp(epsilon), exactly: kept words over flipped words."""
        return Fraction(self.total - self.flips, self.flips)

    def flip(self, packed: npt.NDArray[np.uint8], source: Source, scratch: Scratch) -> None:
        """Randomise bits where they lie, eight to a byte, each on its own.

        Args:
            packed: input bits, which become the output bits. # shape: (bytes,), contiguous
            source: where the random words come from.
            scratch: memory to work in.
        """
        np.bitwise_xor(packed, self.kernel.draw(packed.size, source, scratch), out=packed)

    def _draw(self, symbols: npt.NDArray[Any], source: Source) -> npt.NDArray[Any]:
        return self._draw_block(symbols, source, Scratch())

    def _draw_block(self, symbols: npt.NDArray[Any], source: Source, scratch: Scratch) -> npt.NDArray[Any]:
        flips = np.zeros(-(-symbols.size // 8), dtype=np.uint8)
        self.flip(flips, source, scratch)
        drawn = np.unpackbits(flips, count=symbols.size, bitorder="little")
        return np.bitwise_xor(symbols.astype(np.uint8, copy=False), drawn, out=drawn)


@lru_cache(maxsize=1024)
def _flips(epsilon: float, bits: int) -> int:
    odds = precise().add(exp_decimal(Fraction(epsilon)), 1)
    flips = -int(precise().divide(-(1 << bits), odds).to_integral_value(rounding="ROUND_FLOOR"))
    # The reported float must not pass the one asked either: a step or two at the last digits.
    while log_up(Fraction((1 << bits) - flips, flips)) > epsilon:
        flips += 1 + flips // 2**53
    return min(flips, 1 << (bits - 1))
