"""Each benchmark runs, and prints what it promises."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def test_mechanisms(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(BENCHMARKS / "bench_mechanisms.py"))["main"](
        ["--vectors", "2", "--elements", "50", "--runs", "1"]
    )
    printed = capsys.readouterr().out
    for row in (
        "torch.bernoulli",
        "torch.rand < p",
        "splitpriv, packed",
        "torch.distributions.Laplace",
        "times as fast",
    ):
        assert row in printed


def test_accounting(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(BENCHMARKS / "bench_accounting.py"))["main"](["--uses", "1000", "--runs", "1"])
    printed = capsys.readouterr().out
    for row in ("1,000 uses at 0.1", "Laplace noise", "calibrated", "shuffled", "upper - lower"):
        assert row in printed


def test_every_benchmark_is_run_here() -> None:
    names = [path.name for path in sorted(BENCHMARKS.glob("bench_*.py"))]
    assert names == ["bench_accounting.py", "bench_mechanisms.py"]
