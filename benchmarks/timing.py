"""Timing side by side: every way in each round, in turn, so that a slow moment slows all of them."""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

Way = Callable[[], Any]


def medians(ways: Mapping[str, Way], runs: int) -> dict[str, float]:
    """Median seconds of each way over ``runs`` rounds, after one to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for round_number in range(runs + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            if round_number:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in seconds.items()}


def machine() -> dict[str, Any]:
    """What the numbers depend on."""
    return {"torch": torch.__version__, "python": platform.python_version(), "machine": platform.machine()}


def write(path: Path | None, found: dict[str, Any]) -> None:
    """The numbers as JSON, where a path is given."""
    if path is not None:
        path.write_text(json.dumps({"machine": machine(), **found}, indent=1), encoding="utf-8")
