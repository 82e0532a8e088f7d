"""k-closest encoding: of N symbols, m are each e^ε times as likely as the rest."""

from __future__ import annotations

import math
from fractions import Fraction
from functools import cached_property, lru_cache
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from splitpriv._errors import InvalidParameterError, ShapeError
from splitpriv._validation import choice, integer, message, positive
from splitpriv.mechanisms.channel import MAX_ENTRIES, Channel, log_ratio
from splitpriv.mechanisms.randomness import Source
from splitpriv.mechanisms.rounding import exp_decimal, log_up, precise, show
from splitpriv.mechanisms.worst_pair import WorstPair

MAX_SIZE = 1 << 24
_BLOCK = 1 << 20  # entries of close sets per step
_TRIED = 64  # values of B, from the largest down

Integers = npt.NDArray[Any]


class KClosest(Channel):
    r"""Writes one of N symbols, each of the m that the input names e^ε times as likely as any other.

    An input is a set of m of the N symbols; with integer weights A > B,

    .. math:: \Pr[y \mid x] = \begin{cases} A / T & y \in x \\ B / T & \text{else} \end{cases}, \qquad
              T = m A + (N - m) B \le 2^{w}, \qquad \epsilon = \ln (A / B).

    m is the same for all inputs, and so is T: the mechanism is a channel with two weights in a row,
    and epsilon is exact for the whole input. A and B are chosen such that the outward-rounded
    epsilon is at most the one asked; words beyond T are drawn again, so sampling is exact.

    With ``closest=1`` an input is one symbol, and this is k-ary randomized response. Else an
    input is m distinct symbols along the last dimension, and ``inputs`` counts the sets.

    Args:
        size: N, in [2, 2**24].
        closest: m, in [1, N - 1]; ``"auto"`` for :func:`least_variance`.
        epsilon: the privacy loss asked for (natural log), finite and > 0.
        bits: w = 64, or 8 or 16 to make every random word enumerable.

    Raises:
        InvalidParameterError: a parameter is out of range, or w bits cannot express epsilon.

    Attributes:
        size: N.
        closest: m.
        near: A, the weight of each symbol of the input.
        far: B, the weight of each other symbol.

    Does not protect: anything that is a function of several releases (their losses add).

    Source: Isik, Chen, Ozgur, Weissman, No 2023 (k-closest encoding); Ye, Barg 2018 for subsets of
    size N / (e^ε + 1); Kairouz, Bonawitz, Ramage 2016 for k-ary randomized response.

    Example:
        >>> channel = KClosest(4, 2, epsilon=1.0, bits=16)
        >>> (channel.inputs, channel.outputs), channel.epsilon <= 1.0
        ((6, 4), True)
        >>> channel.table()[0] == [channel.near, channel.near, channel.far, channel.far]
        True
    """

    def __init__(self, size: int, closest: int | str = "auto", *, epsilon: float, bits: int = 64) -> None:
        self.size = integer("KClosest", "size", size, 2, MAX_SIZE)
        self.asked = positive("KClosest", "epsilon", epsilon)
        self.bits: int = choice("KClosest", "bits", bits, (8, 16, 64))
        if isinstance(closest, str):
            choice("KClosest", "closest", closest, ("auto",), "Or an integer in [1, size - 1].")
            closest = least_variance(self.size, self.asked)
        self.closest = integer("KClosest", "closest", closest, 1, self.size - 1)
        self.outputs = self.size
        self.near, self.far = _weights(self.size, self.closest, self.asked, bits)
        self.total = self.closest * self.near + (self.size - self.closest) * self.far

    @cached_property  # an attribute elsewhere; here a number of thousands of digits, made only where it is asked for
    def inputs(self) -> int:  # type: ignore[override]
        """Number of sets of m symbols; they are numbered in the order of ``itertools.combinations``."""
        return math.comb(self.size, self.closest)

    @cached_property
    def epsilon_ratio(self) -> Fraction | None:
        """exp(epsilon), exactly: A / B."""
        return Fraction(self.near, self.far)

    def table(self) -> list[list[int]]:
        """The table, a row for each set, in the order of ``itertools.combinations``. See :meth:`Channel.table`."""
        if self.inputs * self.size > MAX_ENTRIES:
            size = f"all {self.closest} of {self.size} x {self.size}"  # the number of sets may have 10,000 digits
            fix = "Use epsilon_ratio, sample, log_prob and dominating_rows, which do not need it."
            raise InvalidParameterError(message("KClosest", "table", "at most 2**20 entries", size, fix))
        return self._table()

    def _table(self) -> list[list[int]]:
        rows = []
        for near in combinations(range(self.size), self.closest):
            row = [self.far] * self.size
            for symbol in near:
                row[symbol] = self.near
            rows.append(row)
        return rows

    def worst_pair(self) -> WorstPair:
        """Those of :meth:`dominating_rows`."""
        return WorstPair.of(*self.dominating_rows())

    def dominating_rows(self) -> tuple[list[int], list[int]]:
        """Two rows of integers, each of sum ``total``, that no pair of inputs exceeds in any composition.

        They are those of two inputs with as few symbols in common as possible, outputs of one
        likelihood ratio merged: for each (ε, δ) the pair is worst, since its hockey-stick divergence
        grows with the number of symbols that only one of the inputs names.
        """
        apart = min(self.closest, self.size - self.closest)
        common = self.total - apart * (self.near + self.far)
        return [apart * self.near, apart * self.far, common], [apart * self.far, apart * self.near, common]

    # Drawing -------------------------------------------------------------------------------

    def sample(
        self,
        symbols: Tensor,  # shape: any with closest=1, else (*batch, m): distinct integers in [0, N)
        source: Source,
    ) -> Tensor:  # shape: any, or (*batch,); integers in [0, N), symbol_dtype
        """One independent draw per input, exact for the table.

        Raises:
            ShapeError: ``symbols`` are not integers in [0, N), or not m distinct ones per input.
        """
        near = self._sets(symbols, "symbols").cpu().numpy()
        rows = near.reshape(-1, self.closest)
        out = torch.empty(len(rows), dtype=self.symbol_dtype)
        step = max(1, _BLOCK // self.closest)
        for start in range(0, len(rows), step):
            block = self._sorted(rows[start : start + step])
            out.numpy()[start : start + step] = self.decide(block, self._words(len(block), source))
        return out.reshape(near.shape[:-1]).to(symbols.device)

    def _sets(self, symbols: Tensor, name: str) -> Tensor:
        """The inputs as sets: m symbols along the last dimension."""
        symbols = self._symbols(symbols, self.size, name)
        if self.closest == 1:
            return symbols.unsqueeze(-1)
        if not symbols.ndim or symbols.shape[-1] != self.closest:
            shape = tuple(symbols.shape)
            raise ShapeError(f"KClosest: {name} must have shape (*batch, {self.closest}), got shape={shape}.")
        return symbols

    def _sorted(self, rows: Integers) -> Integers:
        """The sets in ascending order; a symbol that stands there twice would be more than e^ε as likely."""
        rows = np.sort(rows, axis=1)
        if (rows[:, 1:] == rows[:, :-1]).any():
            raise ShapeError(f"KClosest: symbols must be {self.closest} distinct ones per input, got a repeated one.")
        return rows

    def _draw(self, symbols: Integers, source: Source) -> Integers:
        # For a cascade, which numbers its inputs; sample() takes the sets themselves, however many there are.
        sets = symbols.reshape(-1, 1) if self.closest == 1 else self._numbered[symbols]
        return self.decide(sets, self._words(symbols.size, source))

    @cached_property
    def _numbered(self) -> Integers:
        return np.array([[y for y, weight in enumerate(row) if weight == self.near] for row in self.table()])

    def decide(self, symbols: Integers, drawn: Integers) -> Integers:
        """The deterministic kernel: the output for each input and each word in [0, total).

        Words below mA pick one of the m, A words each; the others one of the rest, B words each.

        Args:
            symbols: ascending sets. # shape: (count, m), or (count,) with closest=1
            drawn: uniform words in [0, total). # shape: (count,)
        """
        sets = symbols.reshape(-1, self.closest)
        near_words = np.uint64(self.closest * self.near)
        is_near = drawn < near_words
        out = np.empty(len(sets), dtype=np.int64)
        here = np.flatnonzero(is_near)
        out[here] = sets[here, (drawn[here] // np.uint64(self.near)).astype(np.int64)]
        there = np.flatnonzero(~is_near)
        rank = ((drawn[there] - near_words) // np.uint64(self.far)).astype(np.int64)
        # The set's i-th symbol has (symbol - i) others below it; as many as are <= rank come before the answer.
        others_below = sets[there] - np.arange(self.closest)
        out[there] = rank + (others_below <= rank[:, None]).sum(axis=1)
        return out

    # Likelihood ----------------------------------------------------------------------------

    def log_prob(
        self,
        outputs: Tensor,  # shape: (*batch,), integers in [0, N)
        inputs: Tensor,  # shape: as for sample
    ) -> Tensor:  # shape: (*batch,), broadcast, float64
        """ln Pr[outputs | inputs]: ln(A/T) for an output that the input names, else ln(B/T).

        Raises:
            ShapeError: a symbol is outside its alphabet, or not an integer.
        """
        outputs = self._symbols(outputs, self.outputs, "outputs").long()
        named = (self._sets(inputs, "inputs").to(outputs.device) == outputs.unsqueeze(-1)).any(-1)
        near, far = (torch.tensor(log_ratio(w, self.total), dtype=torch.float64) for w in (self.near, self.far))
        return torch.where(named, near.to(named.device), far.to(named.device))

    def __repr__(self) -> str:
        return f"KClosest(size={self.size}, closest={self.closest}, epsilon={show(self.epsilon)})"


def least_variance(size: int, epsilon: float) -> int:
    r"""The m for which the debiased membership vector has the least noise for its signal.

    With r = e^ε, :math:`\frac{T^2 - m r^2 - (N - m)}{(r - 1)^2 \, m (1 - m/N)}`, T = mr + N - m, is the total
    variance of the estimated memberships over their spread; its minimum lies near N / (e^ε + 1).

    Args:
        size: N, at least 2.
        epsilon: > 0.
    """
    far = math.exp(-epsilon)  # B for A = 1, which cannot overflow
    m = np.arange(1, size, dtype=np.float64)
    total = m + (size - m) * far
    noise = (total**2 - m - (size - m) * far**2) / (m * (1 - m / size))
    return int(np.argmin(noise)) + 1


@lru_cache(maxsize=1024)
def _weights(size: int, closest: int, epsilon: float, bits: int) -> tuple[int, int]:
    """The integers A and B with the largest A/B for which log_up(A/B) <= epsilon and T fits."""
    context, room = precise(), 1 << bits
    odds = exp_decimal(Fraction(min(epsilon, 99.0)))  # 64 bits express less than 45
    weight = context.add(context.multiply(odds, closest), size - closest)
    most = max(1, int(context.divide(room, weight).to_integral_value(rounding="ROUND_FLOOR")))
    best = (1, 1)
    for far in range(most, max(0, most - _TRIED), -1):
        near = int(context.multiply(odds, far).to_integral_value(rounding="ROUND_FLOOR"))
        near = min(near, (room - (size - closest) * far) // closest)
        # The reported float must not pass the one asked either: a step or two at the last digits.
        while near > far and log_up(Fraction(near, far)) > epsilon:
            near -= 1 + near // 2**53
        if near * best[1] > best[0] * far:
            best = near, far
    if best[0] <= best[1]:
        constraint = f"large enough to be expressed in {bits} bits for {size} symbols"
        raise InvalidParameterError(message("KClosest", "epsilon", constraint, epsilon))
    return best
