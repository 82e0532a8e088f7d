"""Runs a layer's own ``encode`` and holds the symbols against the table that it declares."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from splitpriv.attacks.auditing.candidates import copies, records
from splitpriv.cut import packs
from splitpriv.mechanisms.bit_slices import BitSlices
from splitpriv.release import unpack
from splitpriv.release.packing import bits_for
from splitpriv.testing.inputs import input_symbols, values_by_input
from splitpriv.testing.sources import Played, playing
from splitpriv.testing.statistics import Array, law_p
from splitpriv.testing.tables import Table
from splitpriv.testing.words import WORDS, PlayedSlices, PlayedWords

_BLOCK = 1 << 18  # elements per call
_SLACK = 2  # of 65,536 words: ties at both ends of a symbol's stretch


class Drive:
    """One layer, one kind of record, one table.

    Args:
        layer: that declares the table.
        example: # shape: (batch, *feature)
        table: rows of integers, as ``layer.channel(shape).table()``.
        worst: the two rows that differ most; they get most of the draws.
        draws: symbols to draw in all.
        alpha: probability of rejecting a layer that follows its table.
        seed: of the bytes that are played.
    """

    def __init__(
        self, layer: Any, example: Tensor, table: Table, worst: tuple[int, int], draws: int, alpha: float, seed: int
    ) -> None:
        self.layer, self.example, self.table, self.worst = layer, example, table, worst
        self._packs = packs(layer)  # what is overridden further down is not what a release calls
        self.draws, self.alpha, self.seed = draws, alpha / 2 if self._packs else alpha, seed
        self._packed = False
        self.shape = tuple(example.shape[1:])
        self.inputs, self.outputs, total = len(table), len(table[0]), sum(table[0])
        self.power_of_two = total & (total - 1) == 0
        self.laws = np.array([[entry / total for entry in row] for row in table])

    def run(self) -> str:
        """Drive ``encode``; returns what was driven, in words.

        Raises:
            AssertionError: symbols do not follow the table.
        """
        with playing(self.layer, Played(self.seed)) as injected:
            self.symbol_shape = tuple(self._encode(self.example[:1]).shape[1:])
            values = values_by_input(self.layer, self.example, self.inputs, self.symbol_shape)
            drawn = self._by_input(values) if values else self._by_record()
            known = f"{len(values)} of {self.inputs}" if values else f"some of {self.inputs}"
            said = f"{drawn:,} draws at {known} inputs"
            if self._packs:  # what a release calls instead
                self._packed = True
                drawn = self._by_input(values) if values else self._by_record()
                self._packed = False
                said += f", {drawn:,} of them again from encode_packed"
        if not injected:
            return f"{said} from its own source (it keeps none where a test could replace it)"
        if values and self.power_of_two and (rows := self._enumerate(values)):
            said = f"every 16-bit word at {rows} of {self.inputs} inputs and {said}"
        return said

    @property
    def _name(self) -> str:
        return "encode_packed" if self._packed else "encode"

    def _encode(self, features: Tensor) -> Tensor:
        if self._packed:
            packed = self.layer.encode_packed(features).cpu()
            symbols: Tensor = unpack(packed, bits_for(max(2, self.outputs)), self.symbol_shape).long()
        else:
            symbols = self.layer.encode(features).cpu().long()
        low, high = (int(v) for v in torch.aminmax(symbols))
        if low < 0 or high >= self.outputs:
            raise AssertionError(
                f"assert_ldp: {self._name} must give symbols in [0, {self.outputs}), the columns of its table, "
                f"got values in [{low}, {high}]."
            )
        return symbols

    # Where quantize says which row of the table an element uses -------------------------------------

    def _by_input(self, values: dict[int, float]) -> int:
        """Draw at each input found, the worst pair most, and at the example as it is."""
        most = [row for row in self.worst if row in values]
        most = most or list(values)
        others = [row for row in values if row not in most]
        main = 0.6 if others else 0.9
        shares = [(row, main / len(most)) for row in most] + [(row, (0.9 - main) / len(others)) for row in others]
        counts = np.zeros((self.inputs, self.outputs), dtype=np.int64)
        for row, share in shares:
            record = torch.full_like(self.example[0], values[row])
            self._count(record[None], math.ceil(share * self.draws), counts)
        self._count(self.example, math.ceil(0.1 * self.draws), counts)
        used = np.flatnonzero(counts.sum(1))
        for row in map(int, used):
            if law_p(counts[row], self.laws[row]) * len(used) < self.alpha:
                self._refuse(row, counts[row])
        return int(counts.sum())

    def _count(self, batch: Tensor, draws: int, counts: Array) -> None:
        """Encode a batch again and again until it gave ``draws`` symbols."""
        elements = max(1, math.prod(self.symbol_shape))
        block = max(1, _BLOCK // (elements * len(batch)))
        rows = input_symbols(self.layer, batch, self.inputs, self.symbol_shape)
        assert rows is not None
        flat = rows.cpu().numpy().ravel()
        left = math.ceil(draws / (elements * len(batch)))
        while left > 0:
            times = min(block, left)
            symbols = self._encode(batch.repeat(times, *[1] * (batch.ndim - 1))).numpy().ravel()
            code = np.tile(flat, times) * self.outputs + symbols
            counts += np.bincount(code, minlength=counts.size).reshape(counts.shape)
            left -= times

    def _refuse(self, row: int, counts: Array, of: str = "draws") -> None:
        law, draws = self.laws[row], int(counts.sum())
        error = np.abs(counts - draws * law) / np.sqrt(draws * law * (1 - law) + 1e-9)
        symbol = int(error.argmax())
        raise AssertionError(
            f"assert_ldp: {self._name} must follow the table that the layer declares, got symbol {symbol} in "
            f"{counts[symbol]:,} of {draws:,} {of} at input {row}, where {draws * law[symbol]:,.1f} are expected. "
            "Draw with the channel that is declared, or declare the one that is drawn with."
        )

    # Where nothing says so ---------------------------------------------------------------------------

    def _by_record(self) -> int:
        """Each symbol of each record must follow *some* row: which one is the layer's own affair."""
        tried = records(self.layer, self.example)
        elements = max(1, math.prod(self.symbol_shape))
        times = max(64, self.draws // (elements * len(tried)))
        block = max(1, _BLOCK // elements)
        alpha = self.alpha / (len(tried) * elements)
        for number, record in enumerate(tried):
            counts = np.zeros((elements, self.outputs), dtype=np.int64)
            for start in range(0, times, block):
                symbols = self._encode(copies(record, min(block, times - start))).numpy().reshape(-1, elements)
                code = np.arange(elements) * self.outputs + symbols
                counts += np.bincount(code.ravel(), minlength=counts.size).reshape(counts.shape)
            for position in range(elements):
                self._some_row(counts[position], alpha, number)
        return len(tried) * times * elements

    def _some_row(self, counts: Array, alpha: float, number: int) -> None:
        likely = np.argsort(-(counts * np.log(np.maximum(self.laws, 1e-300))).sum(1))
        if all(law_p(counts, self.laws[row]) < alpha for row in likely):
            best, draws = int(likely[0]), int(counts.sum())
            raise AssertionError(
                f"assert_ldp: symbols must follow a row of the table that the layer declares, got {draws:,} draws "
                f"for record {number} of the trial that fit none of {self.inputs} rows, least badly row {best}."
            )

    # Words ---------------------------------------------------------------------------------------------

    def _enumerate(self, values: dict[int, float]) -> int:
        """At how many inputs every leading 16-bit word, played once, gives the counts of the table."""
        elements = max(1, math.prod(self.symbol_shape))
        batch = -(-WORDS // elements)
        kernel = getattr(self.layer.channel(self.shape), "kernel", None)
        proved = 0
        for row, value in values.items():
            features = copies(torch.full_like(self.example[0], value), batch)
            rows = input_symbols(self.layer, features, self.inputs, self.symbol_shape)
            if rows is None or not bool((rows == row).all()):
                continue
            source: PlayedSlices | PlayedWords = PlayedWords(batch * elements, self.seed)
            if isinstance(kernel, BitSlices):
                source = PlayedSlices(kernel, batch, elements, self.seed)
            symbols = self._of_words(features, source)
            counts = np.bincount(symbols, minlength=self.outputs)
            if np.abs(counts - WORDS * self.laws[row]).max() > _SLACK:
                # Only where symbols follow the words, and nothing else that is drawn, is a wrong count a fault.
                if isinstance(source, PlayedSlices) and source.read_as_played:
                    back = self._of_words(features, source.backwards(self.seed + 1))
                    if int((back[::-1] != symbols).sum()) <= _SLACK:
                        self._refuse(row, counts, "words, each of 16 bits once,")
                return 0
            proved += 1
        return proved

    def _of_words(self, features: Tensor, source: PlayedSlices | PlayedWords) -> Array:
        with playing(self.layer, source):
            symbols: Array = self._encode(features).numpy().ravel()[:WORDS]
        return symbols
