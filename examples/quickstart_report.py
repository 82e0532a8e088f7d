"""What the quickstart reports: rows, their averages, a text table, conclusions and JSON."""

from __future__ import annotations

import json
import math
import statistics
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

FLOOR, CEILING = "public data only", "no layer"
RESPONSE, LAPLACE = "RandomResponseLDP", "LaplaceLDP"


@dataclass(frozen=True)
class Row:
    """One cut: what it cost, and what a server made of it."""

    name: str
    asked: float | None  # ε per element that was asked for; None without a mechanism
    accuracy: float
    per_element: float
    per_record: float
    bytes_per_record: int
    edge_milliseconds: float | None
    layers: tuple[str, ...]  # the claims of what stood at the cut, of each seed where they differ
    gap: float | None = None  # share of the way from FLOOR to CEILING
    accuracies: tuple[float, ...] = field(default=())  # of each seed


def average(trials: list[list[Row]]) -> list[Row]:
    """Average the same rows of several trials, and say how much of the gap each one closes."""
    means = []
    for rows in zip(*trials, strict=True):
        accuracies = tuple(row.accuracy for row in rows)
        times = [row.edge_milliseconds for row in rows if row.edge_milliseconds is not None]
        fields = {**asdict(rows[0]), "accuracies": accuracies, "accuracy": statistics.mean(accuracies)}
        fields["edge_milliseconds"] = statistics.median(times) if times else None
        fields["layers"] = tuple(dict.fromkeys(layer for row in rows for layer in row.layers))
        means.append(Row(**fields))
    floor, ceiling = (_named(means, name).accuracy for name in (FLOOR, CEILING))
    if ceiling <= floor:
        return means
    return [Row(**{**asdict(row), "gap": (row.accuracy - floor) / (ceiling - floor)}) for row in means]


def table(rows: list[Row]) -> str:
    """The rows as text, columns aligned."""
    heads = ("at the cut", "test accuracy", "gap closed", "ε per element", "ε per record", "bytes", "edge ms")
    lines = [heads, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    texts = [
        "  ".join([line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))])
        for line in lines
    ]
    return "\n".join([texts[0], "-" * len(texts[0]), *texts[1:]])


def _cells(row: Row) -> tuple[str, ...]:
    spread = f" ± {100 * statistics.stdev(row.accuracies):.1f}" if len(row.accuracies) > 1 else ""
    return (
        row.name,
        f"{100 * row.accuracy:.1f}{spread} %",
        "-" if row.gap is None else f"{100 * row.gap:.0f} %",
        _loss(row.per_element),
        _loss(row.per_record),
        f"{row.bytes_per_record:,}",
        "-" if row.edge_milliseconds is None else f"{row.edge_milliseconds:.3f}",
    )


def _loss(epsilon: float) -> str:
    return "∞" if math.isinf(epsilon) else f"{epsilon:,.6g}"


def conclusions(rows: list[Row]) -> str:
    """Who wins at each ε, what crosses the wire, and what the numbers do not say."""
    lines = []
    for response in (row for row in rows if row.name == RESPONSE):
        laplace = next(row for row in rows if row.name == LAPLACE and row.asked == response.asked)
        first, second = sorted((response, laplace), key=lambda row: row.accuracy, reverse=True)
        verb = "ties with" if first.accuracy == second.accuracy else "beats"
        figures = f"{100 * first.accuracy:.1f} % against {100 * second.accuracy:.1f} %"
        below = [row.name for row in (first, second) if row.gap is not None and row.gap < 0]
        note = f"; {' and '.join(below)} would do better with public data alone" if below else ""
        lines.append(f"ε {response.asked:g} per element: {first.name} {verb} {second.name}, {figures}{note}.")
    plain, response = _named(rows, CEILING), _named(rows, RESPONSE)
    ratio = plain.bytes_per_record / response.bytes_per_record
    sizes = f"{response.bytes_per_record:,} bytes per record, against {plain.bytes_per_record:,} as float32"
    lines.append(f"On the wire {RESPONSE} takes {sizes}: {ratio:.3g} times smaller.")
    return "\n".join(lines)


def _named(rows: list[Row], name: str) -> Row:
    return next(row for row in rows if row.name == name)


def write_json(path: Path, rows: list[Row], about: dict[str, Any]) -> None:
    """Write everything as strict JSON: infinity becomes the string "inf"."""
    content = {**about, "rows": [asdict(row) for row in rows]}
    path.write_text(json.dumps(_strict(content), indent=2, allow_nan=False, ensure_ascii=False) + "\n", "utf-8")


def _strict(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _strict(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strict(item) for item in value]
    return "inf" if value == math.inf else value
