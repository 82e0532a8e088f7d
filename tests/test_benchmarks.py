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


def test_layer(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["splitpriv:RandomResponseLDP", "--option", "epsilon=2.0", "--shape", "4", "4", "--records", "5"]
    runpy.run_path(str(BENCHMARKS / "bench_layer.py"))["main"]([*arguments, "--runs", "1"])
    printed = capsys.readouterr().out
    for part in ("RandomResponseLDP(ε 2 per element × 16 = 32 per record", "encode", "pack", "decode"):
        assert part in printed


def test_every_benchmark_is_run_here() -> None:
    found = [path.name for path in sorted(BENCHMARKS.glob("bench_*.py"))]
    assert found == ["bench_layer.py", "bench_mechanisms.py"]
