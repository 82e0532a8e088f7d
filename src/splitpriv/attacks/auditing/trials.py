"""Releases of records that a coin chose among candidates, and the numbers that are read off each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from tqdm.auto import tqdm

from splitpriv.attacks.auditing.candidates import copies
from splitpriv.attacks.cut_view import CutView

Array = npt.NDArray[Any]

POSITIONS = 8
"""Symbols of a long record that are looked at one by one."""

_ELEMENTS = 1 << 22  # of features in one batch


@dataclass(frozen=True)
class Readings:
    """What is known of some trials.

    Attributes:
        labels: which candidate the coin chose.  # shape: (trials,)
        columns: what is read off the release.  # shape: (trials, statistics)
        logs: ln Pr[release | candidate], up to what all candidates share; None where unknown.  # (trials, candidates)
    """

    labels: Array
    columns: Array
    logs: Array | None

    def ratio(self, first: int, second: int) -> Array:  # shape: (trials,)
        """The log-likelihood ratio of two candidates; 0 where both are impossible."""
        assert self.logs is not None
        with np.errstate(invalid="ignore"):
            found: Array = np.nan_to_num(self.logs[:, first] - self.logs[:, second])
        return found


@dataclass(frozen=True)
class Trials:
    """Draws trials: a fair coin picks a candidate, and the layer releases it.

    By record, one coin decides a whole record. By element, each element of a record has its own coin, and its own
    symbol is what is read: then one release is as many trials as it has elements.

    Attributes:
        view: the layer: ``encode``, ``decode``, and ``log_prob`` where it is known.
        candidates: records.  # shape: (candidates, *feature)
        by_element: a coin for each element.
        whole: by record, read the log-likelihood of all symbols too.
        batch_size: records at a time, at most.
        progress: show a bar.
        values: read decoded values too: not where one of them may mix symbols, and one symbol is the unit.
        singly: encode each record in a call of its own, where copies in one call share their noise.
    """

    view: CutView
    candidates: Tensor
    by_element: bool
    whole: bool
    batch_size: int
    progress: bool = False
    values: bool = True
    singly: bool = False

    @property
    def per_release(self) -> int:
        """Trials in one release."""
        return self.candidates[0].numel() if self.by_element else 1

    def draw(
        self, among: list[int], trials: int, coins: np.random.Generator, *, likelihoods: bool = True
    ) -> Iterator[Readings]:
        """Trials whose candidate is one of ``among``, in batches."""
        rows = min(self.batch_size, max(1, _ELEMENTS // max(1, self.candidates[0].numel())))
        wanted = np.asarray(among)
        bar = tqdm(total=trials, desc="audit: draws", disable=not self.progress, leave=False)
        while trials > 0:
            count = min(rows, -(-trials // self.per_release))
            shape = (count, *self.candidates.shape[1:]) if self.by_element else (count,)
            labels = wanted[coins.integers(len(wanted), size=shape)]
            read = self._read(labels, among if likelihoods else [])
            yield Readings(read[0][:trials], read[1][:trials], None if read[2] is None else read[2][:trials])
            bar.update(min(trials, count * self.per_release))
            trials -= count * self.per_release
        bar.close()

    def _read(self, labels: Array, among: list[int]) -> tuple[Array, Array, Array | None]:
        index = torch.from_numpy(labels).to(self.candidates.device)
        features = self.candidates.gather(0, index) if self.by_element else self.candidates[index]
        with torch.no_grad():
            symbols = self._encode(features)
            _, columns = self._columns(symbols)
            logs = self._logs(symbols, among)
        return labels.reshape(-1), columns, logs

    def _encode(self, features: Tensor) -> Tensor:
        encode = self.view.need("encode")
        return torch.cat([encode(record[None]) for record in features]) if self.singly else encode(features)

    def names(self) -> list[str]:
        """What the columns are."""
        with torch.no_grad():
            return self._columns(self.view.need("encode")(self.candidates[:1]))[0]

    def _columns(self, symbols: Tensor) -> tuple[list[str], Array]:
        shown = {"symbol": symbols}
        if self.values:
            shown["value"] = self.view.need("decode")(symbols).detach()
        if self.by_element:
            parts = {name: _numbers(part).reshape(-1, 1) for name, part in shown.items() if part.shape == symbols.shape}
        else:
            parts = {name: _numbers(part.reshape(len(part), -1)[:, :POSITIONS]) for name, part in shown.items()}
        if "value" in parts:
            parts["grid of value"] = _grid(parts["value"])
        single = self.by_element
        names = [name if single else f"{name} {i}" for name, part in parts.items() for i in range(part.shape[1])]
        return names, np.concatenate(list(parts.values()), axis=1)

    def _logs(self, symbols: Tensor, among: list[int]) -> Array | None:
        if self.view.log_prob is None or not (self.by_element or self.whole) or not among:
            return None
        trials = symbols.numel() if self.by_element else len(symbols)
        logs = np.zeros((trials, len(self.candidates)))
        for candidate in among:
            log = self.view.log_prob(symbols, copies(self.candidates[candidate], len(symbols)))
            if self.by_element and log.shape != symbols.shape:
                return None
            logs[:, candidate] = _numbers(log.reshape(trials, -1)).sum(1)
        return logs


def _numbers(tensor: Tensor) -> Array:
    found: Array = tensor.detach().double().cpu().numpy()
    return found


def _grid(values: Array) -> Array:
    """log2 of the finest power of two that a number is a multiple of; floats betray what they were added to."""
    mantissas, exponents = np.frexp(values)
    whole = np.abs(np.ldexp(mantissas, 53)).astype(np.int64)
    lowest = np.log2(np.maximum(whole & -whole, 1).astype(np.float64))
    grid: Array = np.where(whole == 0, 0.0, exponents - 53 + lowest)
    return grid
