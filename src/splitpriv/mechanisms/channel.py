"""A mechanism is a finite channel: a table of integers, and everything that follows from it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from functools import cached_property
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from splitpriv._errors import InvalidParameterError, ShapeError
from splitpriv._validation import message
from splitpriv.mechanisms.blocks import Scratch, in_blocks
from splitpriv.mechanisms.randomness import Source, words
from splitpriv.mechanisms.rounding import log_up, show
from splitpriv.mechanisms.worst_pair import WorstPair

MAX_ENTRIES = 1 << 20
"""Tables above this many entries are not written out."""

_UNSIGNED = (torch.uint16, torch.uint32, torch.uint64)
_BLOCK = 1 << 18  # elements per step: keeps temporary arrays inside the cache


class Channel:
    r"""A randomised map from input symbols to output symbols, given by an integer table.

    .. math:: \Pr[y \mid x] = \text{table}[x][y] / \text{total}

    The table *is* the mechanism: sampling is exact for it, and epsilon is computed from the same
    integers that run,

    .. math:: \epsilon = \max_y \ln \frac{\max_x \text{table}[x][y]}{\min_x \text{table}[x][y]},

    as an exact ratio, and rounded outward as a float.

    Args:
        table: rows of non-negative ints, one row per input symbol, all with the same sum
            ``total`` <= 2**64; at most 2**20 entries and 2**15 columns.

    Raises:
        InvalidParameterError: the table is empty, ragged, too large, holds something else than
            non-negative ints, or its rows have different sums.

    Attributes:
        inputs: size of the input alphabet.
        outputs: size of the output alphabet.
        total: the integer that each row sums to.

    Does not protect: against an attacker who knows the noise source's key, or who times the
    sampler. Exactness is for ideal random bits.

    Source: epsilon as the largest log-ratio within a column is the definition of local
    differential privacy (Kasiviswanathan, Lee, Nissim, Raskhodnikova, Smith 2011) for a finite
    output alphabet.

    Example:
        >>> coin = Channel([[3, 1], [1, 3]])
        >>> coin.epsilon_ratio
        Fraction(3, 1)
        >>> round(coin.epsilon, 4)
        1.0986
    """

    inputs: int
    outputs: int
    total: int

    def __init__(self, table: Sequence[Sequence[int]]) -> None:
        rows = [list(row) for row in table]
        self._check(rows)
        self._rows = rows
        self.inputs, self.outputs, self.total = len(rows), len(rows[0]), sum(rows[0])

    @staticmethod
    def _check(rows: list[list[int]]) -> None:
        def refuse(constraint: str, value: object) -> None:
            raise InvalidParameterError(message("Channel", "table", constraint, value))

        if not rows or not rows[0]:
            refuse("non-empty", rows)
        if len({len(row) for row in rows}) > 1:
            refuse("rectangular", f"rows of {sorted({len(row) for row in rows})} entries")
        if len(rows) * len(rows[0]) > MAX_ENTRIES or len(rows[0]) > 1 << 15:
            refuse("at most 2**20 entries and 2**15 columns", f"{len(rows)} x {len(rows[0])}")
        for row in rows:
            for entry in row:
                if not isinstance(entry, int) or isinstance(entry, bool) or entry < 0:
                    refuse("of non-negative ints", entry)
        sums = sorted({sum(row) for row in rows})
        if len(sums) > 1 or not 0 < sums[0] <= 1 << 64:
            refuse("of rows with one common sum in [1, 2**64]", f"sums {sums[:3]}")

    # What follows from the table -----------------------------------------------------------

    def table(self) -> list[list[int]]:
        """The table, as rows of Python ints that each sum to ``total``.

        Raises:
            InvalidParameterError: it would have more than 2**20 entries.
        """
        if self.inputs * self.outputs > MAX_ENTRIES:
            size = f"{self.inputs} x {self.outputs}"
            fix = "Use epsilon_ratio, sample and log_prob, which do not need it."
            raise InvalidParameterError(message(type(self).__name__, "table", "<= 2**20 entries", size, fix))
        return self._table()

    def _table(self) -> list[list[int]]:
        return [list(row) for row in self._rows]

    @cached_property
    def epsilon_ratio(self) -> Fraction | None:
        """exp(epsilon), exactly; None where a column holds both a zero and a non-zero."""
        return worst_ratio([(max(column), min(column)) for column in zip(*self.table(), strict=True)])

    @cached_property
    def epsilon(self) -> float:
        """The privacy loss of one symbol (natural log), never below the exact one; may be inf."""
        return log_up(self.epsilon_ratio)

    def worst_pair(self) -> WorstPair | None:
        """Two rows that bound all others at every epsilon; None: unknown, compare all rows.

        A family that knows its own says so here, and spares (epsilon, delta) accounting the search.
        """
        return None

    def cascade(self, other: Channel) -> Channel:
        """The channel that feeds this one's output symbols to ``other``, one to one.

        Its table is the exact matrix product, its total the product of the totals. By
        post-processing its epsilon is at most the smaller of the two.

        Raises:
            InvalidParameterError: ``other.inputs`` is not this channel's ``outputs``.
        """
        return Cascade(self, other)

    # Drawing -------------------------------------------------------------------------------

    @property
    def symbol_dtype(self) -> torch.dtype:
        """The narrowest torch dtype that holds every output symbol."""
        return torch.uint8 if self.outputs <= 256 else torch.int16 if self.outputs <= 1 << 15 else torch.int32

    def sample(
        self,
        symbols: Tensor,  # shape: any, integers in [0, inputs)
        source: Source,
    ) -> Tensor:  # shape: as symbols, integers in [0, outputs), symbol_dtype
        """One independent draw per symbol, exact for the table.

        Args:
            symbols: input symbols, any integer dtype and device.
            source: where the random words come from.

        Raises:
            ShapeError: ``symbols`` is not an integer tensor with values in [0, inputs).
        """
        flat = self._symbols(symbols, self.inputs, "symbols").reshape(-1).cpu().numpy()
        out = torch.empty(flat.size, dtype=self.symbol_dtype)
        view = out.numpy()

        def work(start: int, stop: int, source: Source, scratch: Scratch) -> None:
            view[start:stop] = self._draw_block(flat[start:stop], source, scratch)

        in_blocks(flat.size, _BLOCK, source, work)
        return out.reshape(symbols.shape).to(symbols.device)

    def _symbols(self, symbols: Tensor, size: int, name: str) -> Tensor:
        owner = type(self).__name__
        kind = symbols.dtype
        if kind.is_floating_point or kind.is_complex:
            raise ShapeError(f"{owner}: {name} must have an integer dtype, got dtype={symbols.dtype}.")
        symbols = symbols.detach()
        if kind in _UNSIGNED:  # torch has few operations for them
            symbols = symbols.to(torch.int64)
        if symbols.numel():
            low, high = (int(v) for v in torch.aminmax(symbols))
            if low < 0 or high >= size:
                raise ShapeError(f"{owner}: {name} must be in [0, {size}), got values in [{low}, {high}].")
        return symbols

    def _draw_block(self, symbols: npt.NDArray[Any], source: Source, scratch: Scratch) -> npt.NDArray[Any]:
        """``_draw`` in memory that is used again; the result may lie in it."""
        return self._draw(symbols, source)

    def _draw(self, symbols: npt.NDArray[Any], source: Source) -> npt.NDArray[Any]:
        return self.decide(symbols, self._words(symbols.size, source))

    def _words(self, count: int, source: Source) -> npt.NDArray[Any]:
        """Uniform words in [0, total)."""
        bits = (self.total - 1).bit_length()
        power_of_two = self.total == 1 << bits

        def word(count: int) -> npt.NDArray[Any]:
            return words(source, count, 64) >> np.uint64(64 - bits) if bits else np.zeros(count, np.uint64)

        drawn = word(count)
        while not power_of_two and (beyond := np.flatnonzero(drawn >= np.uint64(self.total))).size:
            drawn[beyond] = word(beyond.size)  # rejection: uniform on [0, total), whatever total is
        return drawn

    def decide(self, symbols: npt.NDArray[Any], drawn: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The deterministic kernel: the output for each input symbol and word in [0, total)."""
        out = np.empty(symbols.size, dtype=np.int32)
        for row in np.unique(symbols):
            here = np.flatnonzero(symbols == row)
            out[here] = np.searchsorted(self._edges[int(row)], drawn[here], side="right")
        return out

    @cached_property
    def _edges(self) -> list[npt.NDArray[Any]]:
        edges = []
        for row in self._rows:
            reached = accumulate(row[:-1])
            edges.append(np.array([e for e in reached if e < self.total], dtype=np.uint64))
        return edges

    # Likelihood ----------------------------------------------------------------------------

    def log_prob(
        self,
        outputs: Tensor,  # shape: any, integers in [0, self.outputs)
        inputs: Tensor,  # shape: broadcastable with outputs, integers in [0, self.inputs)
    ) -> Tensor:  # shape: broadcast, float64
        """ln Pr[outputs | inputs], element by element; -inf where impossible.

        Raises:
            ShapeError: a symbol is outside its alphabet, or not an integer.
        """
        outputs = self._symbols(outputs, self.outputs, "outputs").long()
        inputs = self._symbols(inputs, self.inputs, "inputs").long()
        return self._log_prob(outputs, inputs)

    def _log_prob(self, outputs: Tensor, inputs: Tensor) -> Tensor:
        return self._log_table.to(outputs.device)[inputs, outputs]

    @cached_property
    def _log_table(self) -> Tensor:
        rows = [[log_ratio(entry, self.total) for entry in row] for row in self.table()]
        return torch.tensor(rows, dtype=torch.float64)

    def __repr__(self) -> str:
        size = f"inputs={self.inputs}, outputs={self.outputs}"
        return f"{type(self).__name__}({size}, epsilon={show(self.epsilon)})"


class Cascade(Channel):
    """Two channels in a row; see :meth:`Channel.cascade`.

    Where the product is too large to write out (2**20 entries, or 2**24 multiplications), epsilon
    is the smaller of the two, which bounds it; ``log_prob`` then raises.

    Args:
        first: the channel that reads the input symbols.
        second: the channel that reads the first one's output symbols.

    Raises:
        InvalidParameterError: ``second.inputs`` is not ``first.outputs``.
    """

    def __init__(self, first: Channel, second: Channel) -> None:
        if first.outputs != second.inputs:
            fix = f"The first channel writes {first.outputs} symbols."
            constraint = f"a channel with inputs={first.outputs}"
            raise InvalidParameterError(message("Channel.cascade", "other", constraint, second, fix))
        self.first, self.second = first, second
        self.inputs, self.outputs = first.inputs, second.outputs
        self.total = first.total * second.total

    @property
    def writable(self) -> bool:
        """Whether the exact product is small enough to write out."""
        parts = (self, self.first, self.second)
        small = all(c.inputs * c.outputs <= MAX_ENTRIES for c in parts)
        return small and self.inputs * self.first.outputs * self.outputs <= 1 << 24

    def table(self) -> list[list[int]]:
        """The exact product of the two tables. See :meth:`Channel.table`."""
        if not self.writable:
            fix = "Use epsilon and sample, which do not need it."
            constraint = "<= 2**20 entries and 2**24 products"
            size = f"{self.inputs} x {self.first.outputs} x {self.outputs}"
            raise InvalidParameterError(message("Cascade", "table", constraint, size, fix))
        return [list(row) for row in self._product]

    @cached_property
    def _product(self) -> list[list[int]]:
        columns = list(zip(*self.second.table(), strict=True))
        return [
            [sum(a * b for a, b in zip(row, column, strict=True)) for column in columns] for row in self.first.table()
        ]

    @cached_property
    def epsilon_ratio(self) -> Fraction | None:
        """exp(epsilon): exact where the product is writable, else the smaller one's (a bound)."""
        if self.writable:
            return worst_ratio([(max(c), min(c)) for c in zip(*self.table(), strict=True)])
        finite = [c.epsilon_ratio for c in (self.first, self.second) if c.epsilon_ratio is not None]
        return min(finite, default=None)

    def _draw(self, symbols: npt.NDArray[Any], source: Source) -> npt.NDArray[Any]:
        return self.second._draw(self.first._draw(symbols, source), source)


def worst_ratio(columns: list[tuple[int, int]]) -> Fraction | None:
    """The largest of the ratios max/min; None if a column has a zero and a non-zero."""
    top, bottom = 1, 1
    for high, low in columns:
        if high == 0:
            continue  # an output that never happens tells nothing
        if low == 0:
            return None
        if high * bottom > top * low:
            top, bottom = high, low
    return Fraction(top, bottom)


def log_ratio(part: int, whole: int) -> float:
    """ln(part / whole) for ints of any size, to float precision also where part is near whole."""
    if part == 0:
        return -math.inf
    if 2 * part >= whole:
        return math.log1p(-float(Fraction(whole - part, whole)))
    return math.log(part) - math.log(whole)
