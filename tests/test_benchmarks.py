"""Each benchmark runs, and prints and writes what it promises."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(autouse=True)
def _as_a_script(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])


def run(name: str, tmp_path: Path, *options: str) -> dict[str, Any]:
    found = tmp_path / "found.json"
    runpy.run_path(str(BENCHMARKS / f"bench_{name}.py"))["main"]([*options, "--runs", "1", "--json", str(found)])
    return json.loads(found.read_text(encoding="utf-8"))


def test_mechanisms(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    found = run("mechanisms", tmp_path, "--vectors", "2", "--elements", "50", "--few", "5")
    printed = capsys.readouterr().out
    for text in (
        *("torch.bernoulli", "torch.rand < p", "NumPy random < p", "torch.distributions.Laplace", "NumPy laplace"),
        *("splitpriv, secure", "splitpriv, seeded", "times as fast", "ms, 1 thread", "ms, 2 threads"),
        *("binarise or truncate", "draw", "combine", "goal 10", "goal 4", "goal 3", "faster than Laplace"),
    ):
        assert text in printed
    assert set(found["seconds"]) == {"1", "2"}
    assert found["steps"]["splitpriv, Laplace"].keys() == {"check", "binarise or truncate", "draw", "combine"}


def test_other_libraries_are_extrapolated_and_marked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    import others

    def slow(x: Any, epsilon: float, sensitivity: float) -> dict[str, Any]:
        assert len(x) == 5
        return {"randomized response": x.sum, "Laplace": x.sum}

    def absent(x: Any, epsilon: float, sensitivity: float) -> dict[str, Any]:
        raise ImportError("not installed")

    monkeypatch.setattr(others, "LIBRARIES", {"Slow": slow, "Absent": absent})
    found = run("mechanisms", tmp_path, "--vectors", "2", "--elements", "50", "--few", "5", "--threads", "1")
    printed = capsys.readouterr().out
    assert "Slow *" in printed
    assert "* extrapolated" in printed
    assert "Absent is left out: not installed" in printed
    assert "Absent *" not in printed
    assert found["seconds"]["1"]["Laplace"]["Slow *"] > 0


def test_cut(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    found = run("cut", tmp_path, "--images", "2", "--width", "1")
    printed = capsys.readouterr().out
    for text in ("ResNet-18", "VGG-16", "layer1.0", "layer4.1", "added", "release", "decode", "goal under 5%"):
        assert text in printed
    assert {row["layer"] for row in found["cuts"]["VGG-16"]} == {"randomized response", "Laplace"}
    assert len(found["cuts"]["ResNet-18"]) == 16


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


def test_accounting(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(BENCHMARKS / "bench_accounting.py"))["main"](["--uses", "1000", "--runs", "1"])
    printed = capsys.readouterr().out
    for row in ("1,000 uses at 0.1", "Laplace noise", "calibrated", "shuffled", "upper - lower"):
        assert row in printed


def test_layer(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["splitpriv:RandomResponseLDP", "--option", "epsilon=2.0", "--shape", "4", "4", "--records", "5"]
    runpy.run_path(str(BENCHMARKS / "bench_layer.py"))["main"]([*arguments, "--runs", "1"])
    printed = capsys.readouterr().out
    for part in ("RandomResponseLDP(ε 2 per element × 16 = 32 per record", "encode", "pack", "decode"):
        assert part in printed


def test_gpu(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    import bench_gpu
    from splitpriv.layers import device_encode

    with monkeypatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: False)
        bench_gpu.main([])
    assert capsys.readouterr().out == "no CUDA device: nothing measured\n"
    monkeypatch.setattr(device_encode, "DEVICES", ("cpu",))  # the same table, by operations of torch
    found = bench_gpu.measure(torch.device("cpu"), 5, 100, 1)
    printed = capsys.readouterr().out
    for text in (
        *("copied", "torch.bernoulli", "torch.rand < p", "torch.distributions.Laplace", "of the copy's bandwidth"),
        *("splitpriv, noise of the device", "splitpriv, noise of the CPU", "operations of torch"),
    ):
        assert text in printed
    assert found["seconds"]["Laplace"].keys() >= {"torch.distributions.Laplace", bench_gpu.OURS}


def test_every_benchmark_is_run_here() -> None:
    run_here = ("accounting", "attacks", "audit", "cut", "gpu", "layer", "leakage", "ledger", "mask_recovery")
    run_here += ("mechanisms", "record_level")
    assert [path.name for path in sorted(BENCHMARKS.glob("bench_*.py"))] == [f"bench_{name}.py" for name in run_here]


def test_record_level(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    import bench_record_level
    import scenarios

    generator = torch.Generator().manual_seed(0)

    def part(records: int, classes: range) -> scenarios.Part:
        y = torch.tensor(list(classes))[torch.arange(records) % len(classes)]
        return scenarios.Part(torch.randn(records, 6, generator=generator) + y[:, None], y)

    sets = part(300, range(3)), part(60, range(2)), part(40, range(2))
    monkeypatch.setattr(scenarios, "load", lambda *_, **__: scenarios.Scenario("made up", 2, *sets, False))
    bench_record_level.main(["--epsilons", "4", "--seeds", "1", "--dim", "4"])
    printed = capsys.readouterr().out
    for text in ("public data only 50.0 %", "label embedded", "noisy, decision", "L1 Laplace + LabelLDP", " %)"):
        assert text in printed


@pytest.mark.parametrize(
    ("name", "texts"),
    [
        ("attacks", ("inversion", "times as fast", "PSNR apart", "goal 10 times", "vmap is", "auto takes")),
        ("audit", ("2.16517", "0.29746")),
        ("mask_recovery", ("mask, sign", "mask + ReLU, dyadic", "identified")),
    ],
)
def test_attacks(name: str, texts: tuple[str, ...], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    found = tmp_path / "found.json"
    runpy.run_path(str(BENCHMARKS / f"bench_{name}.py"))["main"](["--smoke", "--json", str(found)])
    printed = capsys.readouterr().out
    assert [text for text in texts if text not in printed] == []
    assert json.loads(found.read_text(encoding="utf-8"))


def test_leakage(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import bench_leakage
    import leakage_target
    import plot_leakage
    import tables_leakage

    preset = leakage_target.Preset(1, (40, 1), 100, 1, 2, 10, 20, 2, (1, 2), "cpu")
    draw = torch.Generator().manual_seed(0)

    def images(count: int) -> leakage_target.Images:
        return leakage_target.Images(torch.rand(count, 3, 32, 32, generator=draw), torch.arange(count) % 10)

    network = leakage_target.resnet18(width=1, classes=100).eval()
    target = leakage_target.Target(network, images(40), images(100), images(100), images(10))
    monkeypatch.setattr(leakage_target, "load", lambda preset: target)
    monkeypatch.setattr(bench_leakage, "CACHE", tmp_path)
    monkeypatch.setitem(bench_leakage.PRESETS, "smoke", preset)
    for module in (bench_leakage, leakage_target, tables_leakage):
        layers = {name: leakage_target.LAYERS[name] for name in ("no layer", "codebook, ε 8 per record")}
        monkeypatch.setattr(module, "LAYERS", layers)
        monkeypatch.setattr(module, "CUTS", {2: "layer2"})
    bench_leakage.main(["--preset", "smoke", "--minutes", "0"])
    assert capsys.readouterr().out.count("not yet run") == 4
    found = tmp_path / "found.json"
    bench_leakage.main(["--preset", "smoke", "--json", str(found)])
    printed = capsys.readouterr().out
    for text in (
        "DecoderInversion",
        "LikelihoodInversion",
        "best of each record",
        "RMIA, offline",
        "accuracy on non-members",
    ):
        assert text in printed
    assert len(json.loads(found.read_text(encoding="utf-8"))["cells"]) == 4
    plot_leakage.main(["--preset", "smoke", "--out", str(tmp_path / "figure.png")])
    assert (tmp_path / "figure.png").stat().st_size > 1000
    tables_leakage.main(["--preset", "smoke", "--to", str(tmp_path)])
    tables = [
        (tmp_path / f"attacks_{name}").read_text(encoding="utf-8") for name in ("inversion.inc", "membership.inc")
    ]
    assert [table.count("codebook, ε 8 per record") for table in tables] == [1, 1]
    everything = (tmp_path / "attacks_figures.rst").read_text(encoding="utf-8")
    for text in ("best of each record", "threshold on loss", "RMIA, offline"):
        assert everything.count(text) == 2
