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


def test_ledger(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    arguments = ["--records", "300", "--batch", "10", "--charges", "3", "--folder", str(tmp_path)]
    runpy.run_path(str(BENCHMARKS / "bench_ledger.py"))["main"](arguments)
    printed = capsys.readouterr().out
    for row in (
        "charging 10 of 300 records",
        "in memory, pure limit",
        "file, (ε, δ) limit",
        "apart",
        "opened and checked",
    ):
        assert row in printed


def test_every_benchmark_is_run_here() -> None:
    assert [path.name for path in sorted(BENCHMARKS.glob("bench_*.py"))] == [
        "bench_ledger.py",
        "bench_mechanisms.py",
    ]
