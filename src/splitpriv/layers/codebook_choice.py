"""Codebooks from public features, and the choice among them by one criterion on held-out public records."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from splitpriv import _validation as check
from splitpriv._errors import InvalidParameterError, ShapeError
from splitpriv.layers.closeness import BLOCK
from splitpriv.layers.kmeans import kmeans, squared_distances
from splitpriv.mechanisms.k_closest import least_variance

_OWNER = "CodebookLDP.fit"
_HELD_OUT = 0.2
_MAX_HELD_OUT = 2000
_ACCURACY = "accuracy of the nearest class mean on what is released"
_ERROR = "expected squared error of the released codeword"


@dataclass(frozen=True)
class CodebookChoice:
    """Which size and m were taken, and why.

    Attributes:
        size: N, the number of codewords.
        closest: m.
        criterion: what was compared, on held-out public records, the noise included.
        scores: (size, m, value) of every candidate.
        held_out: number of public records that the values are means over.
    """

    size: int
    closest: int
    criterion: str
    scores: tuple[tuple[int, int, float], ...]
    held_out: int

    def __str__(self) -> str:
        if not self.scores:
            return "size and m as given"
        value = next(v for size, closest, v in self.scores if (size, closest) == (self.size, self.closest))
        return f"best of {len(self.scores)} by {self.criterion}: {value:.3g} on {self.held_out:,} public records"


def choose(
    public_features: Tensor,  # shape: (records, *feature)
    *,
    size: int | Sequence[int],
    epsilon: float,
    labels: Tensor | None,  # shape: (records,)
    closest: int | str,
    decode: str,
    seed: int,
) -> tuple[Tensor, CodebookChoice]:
    """The best codebook, and how it was chosen; see :meth:`splitpriv.CodebookLDP.fit`."""
    features = check.features(_OWNER, public_features).detach().float().cpu()
    classes = _classes(labels, len(features))
    sizes = list(size) if isinstance(size, Sequence) else [int(size)]
    for number in sizes or [0]:
        check.integer(_OWNER, "size", number, 2, min(1 << 16, len(features)), "At most one per public record.")
    epsilon = check.positive(_OWNER, "epsilon", epsilon)
    check.choice(_OWNER, "decode", decode, ("codeword", "membership"))
    check.integer(_OWNER, "seed", seed, 0, (1 << 63) - 1)
    generator = torch.Generator().manual_seed(seed)
    points = features.flatten(1)
    if len(sizes) == 1 and not isinstance(closest, str):
        words = _codebook(points, classes, sizes[0], generator)
        return words.reshape(-1, *features.shape[1:]), CodebookChoice(sizes[0], closest, "", (), 0)
    held, kept = _split(len(points), max(sizes), generator)
    scores = []
    for number in sizes:
        words = _codebook(points[kept], None if classes is None else classes[kept], number, generator)
        for m in _candidates(number, epsilon, closest):
            if classes is None:
                value = squared_error(words, points[held], epsilon, [m])[0]
            else:
                value = _accuracy(words, points, classes, held, epsilon, m)
            scores.append((number, m, value))
    sign = 1 if classes is None else -1
    best = min(scores, key=lambda score: (sign * score[2], score[0]))
    chosen = CodebookChoice(best[0], best[1], _ERROR if classes is None else _ACCURACY, tuple(scores), len(held))
    # The choice is made; what was held out may now help to place the codewords.
    words = _codebook(points, classes, best[0], generator)
    return words.reshape(-1, *features.shape[1:]), chosen


def least_squared_error(words: Tensor, points: Tensor, epsilon: float) -> int:
    """The m for which the codeword that is released is nearest to the point, in squared mean."""
    errors = squared_error(words, points[: max(1, _MAX_HELD_OUT)], epsilon, range(1, len(words)))
    return 1 + min(range(len(errors)), key=errors.__getitem__)


def squared_error(words: Tensor, points: Tensor, epsilon: float, counts: Sequence[int]) -> list[float]:
    """E |released codeword - point|², the noise included, for each m in ``counts``."""
    reached = torch.zeros(len(words), dtype=torch.float64)
    for part in torch.split(points, max(1, BLOCK // len(words))):
        distances = squared_distances(part, words).sort(dim=1).values
        reached += distances.double().cumsum(dim=1).sum(dim=0)
    far, size = math.exp(-epsilon), len(words)
    errors = [(float(reached[m - 1]) * (1 - far) + far * float(reached[-1])) / (m + (size - m) * far) for m in counts]
    return [error / len(points) for error in errors]


def _accuracy(words: Tensor, points: Tensor, classes: Tensor, held: Tensor, epsilon: float, m: int) -> float:
    """Exact over the noise: each codeword is given the class whose mean release is nearest to it."""
    far, size = math.exp(-epsilon), len(words)
    total = m + (size - m) * far
    count = int(classes.max()) + 1
    likely = torch.zeros(count, size, dtype=torch.float64)  # Pr[codeword | class] on all public records
    correct = torch.zeros(count, size, dtype=torch.float64)  # the same on those held out, weighted by class
    held_out = torch.zeros(len(points), dtype=torch.bool)
    held_out[held] = True
    step = max(1, BLOCK // size)
    for start in range(0, len(points), step):
        rows = slice(start, start + step)
        near = squared_distances(points[rows], words).topk(m, dim=1, largest=False).indices
        shares = torch.full((len(near), size), far / total, dtype=torch.float64).scatter_(1, near, 1 / total)
        likely.index_add_(0, classes[rows], shares)
        there = held_out[rows]
        correct.index_add_(0, classes[rows][there], shares[there])
    likely = likely / likely.sum(dim=1, keepdim=True)
    released = words.double()
    nearest = squared_distances(released, likely @ released).argmin(dim=1)
    return float(correct[nearest, torch.arange(size)].sum()) / len(held)


def _codebook(points: Tensor, classes: Tensor | None, size: int, generator: torch.Generator) -> Tensor:
    if classes is None:
        return kmeans(points, size, generator)
    present, counts = torch.unique(classes, return_counts=True)
    shares = _shares(size, counts.tolist())
    parts = [kmeans(points[classes == k], n, generator) for k, n in zip(present.tolist(), shares, strict=True)]
    return torch.cat(parts)


def _shares(size: int, counts: list[int]) -> list[int]:
    """``size`` codewords over the classes, as evenly as their numbers of records allow."""
    if size < len(counts):
        fix = f"There are {len(counts)} classes."
        raise InvalidParameterError(check.message(_OWNER, "size", "at least one codeword per class", size, fix))
    shares = [1] * len(counts)
    for _ in range(size - len(counts)):
        open_ones = [k for k, n in enumerate(counts) if shares[k] < n]
        shares[min(open_ones, key=shares.__getitem__)] += 1
    return shares


def _split(records: int, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Indices to hold out, and the rest, which must be enough for the largest codebook."""
    held = min(_MAX_HELD_OUT, int(records * _HELD_OUT))
    if held < 1 or records - held < size:
        needed = math.ceil(size / (1 - _HELD_OUT)) + 4
        got = f"{records} for size={size}"
        raise InvalidParameterError(
            f"{_OWNER}: public_features must hold about {needed} records, a fifth of them to compare on, got {got}."
        )
    order = torch.randperm(records, generator=generator)
    return order[:held], order[held:]


def _candidates(size: int, epsilon: float, closest: int | str) -> list[int]:
    if not isinstance(closest, str):
        return [check.integer(_OWNER, "closest", closest, 1, size - 1)]
    check.choice(_OWNER, "closest", closest, ("auto",), "Or an integer in [1, size - 1].")
    powers = [1 << k for k in range(size.bit_length()) if 1 << k < size]
    return sorted({*powers, least_variance(size, epsilon)})


def _classes(labels: Tensor | None, records: int) -> Tensor | None:
    """Labels as indices 0 .. classes - 1."""
    if labels is None:
        return None
    kind = isinstance(labels, Tensor) and not labels.is_floating_point() and not labels.is_complex()
    if not kind or labels.shape != (records,):
        got = f"{labels.dtype} {tuple(labels.shape)}" if isinstance(labels, Tensor) else type(labels).__name__
        raise ShapeError(f"{_OWNER}: labels must be {records} integers, one per public record, got {got}.")
    index: Tensor = torch.unique(labels.detach().cpu(), return_inverse=True)[1]
    return index
