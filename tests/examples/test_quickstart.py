"""The quickstart runs, reports what it should, and draws its conclusions from the numbers."""

from __future__ import annotations

import json
import math
import re
import struct
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import TensorDataset

import data
import quickstart
import splitpriv as sp
from quickstart_network import QUICK, make_network
from quickstart_report import Row, average, conclusions, table, write_json

ELEMENTS = 4 * 8 * 8  # at the cut of the quick network on digits


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """One quick run on digits: the folder it wrote to, and what it printed."""
    out = tmp_path_factory.mktemp("out") / "made by the program"
    with pytest.MonkeyPatch.context() as patch:
        printed: list[str] = []
        patch.setattr("builtins.print", lambda *parts, sep=" ", **_: printed.append(sep.join(map(str, parts))))
        assert quickstart.main(["--quick", "--epsilon", "2", "1", "--out", str(out)]) == 0
    return out, "\n".join(printed)


@pytest.fixture(scope="module")
def rows(outcome: tuple[Path, str]) -> list[dict[str, Any]]:
    return json.loads((outcome[0] / "quickstart.json").read_text("utf-8"))["rows"]


def row(name: str, accuracy: float, asked: float | None = None, size: int = 0) -> Row:
    return Row(name, asked, accuracy, asked or 0.0, asked or 0.0, size, 0.5, ())


# The run ----------------------------------------------------------------------------------------


def test_the_table_has_every_row(outcome: tuple[Path, str], rows: list[dict[str, Any]]) -> None:
    defences = ["public data only", "no layer", "RandomVectorMask", "ReluSanitizer", "LocalPretrainedEncoder"]
    mechanisms = ["LaplaceLDP", "LaplaceLDP", "RandomResponseLDP", "RandomResponseLDP"]
    assert [row["name"] for row in rows] == defences + mechanisms
    lines = outcome[1].splitlines()
    head = next(number for number, line in enumerate(lines) if line.startswith("at the cut"))
    for title in ("test accuracy", "gap closed", "ε per element", "ε per record", "bytes", "edge ms"):
        assert title in lines[head]
    assert [line.split("  ")[0] for line in lines[head + 2 : head + 11]] == defences + mechanisms


def test_epsilons_are_what_was_asked_and_add_up_over_a_record(rows: list[dict[str, Any]]) -> None:
    assert [row["per_element"] for row in rows[:5]] == [0.0, *["inf"] * 4]
    assert [row["asked"] for row in rows[5:]] == [1.0, 2.0, 1.0, 2.0]
    for row in rows[5:]:
        assert 0.999 * row["asked"] < row["per_element"] <= row["asked"]
        assert row["per_record"] == pytest.approx(row["per_element"] * ELEMENTS, rel=1e-12)
        assert f"= {row['asked'] * ELEMENTS:,.0f} per record" in row["layers"][0]


def test_bytes_and_edge_times_are_measured(rows: list[dict[str, Any]]) -> None:
    by_name = {row["name"]: row for row in rows}
    assert by_name["public data only"]["bytes_per_record"] == 0
    assert by_name["no layer"]["bytes_per_record"] == 4 * ELEMENTS
    assert by_name["RandomResponseLDP"]["bytes_per_record"] == ELEMENTS // 8
    assert by_name["LocalPretrainedEncoder"]["bytes_per_record"] == 4 * 64
    assert all(row["edge_milliseconds"] > 0 for row in rows[1:])
    assert all(0 <= row["accuracy"] <= 1 for row in rows)


def test_the_conclusions_are_printed(outcome: tuple[Path, str]) -> None:
    assert re.search(r"ε 1 per element: \w+LDP (beats|ties with) \w+LDP", outcome[1])
    assert f"{ELEMENTS // 8} bytes per record, against {4 * ELEMENTS:,} as float32: 32 times smaller" in outcome[1]
    assert "ε is what a record pays where that row alone is used" in outcome[1]


def test_the_figure_is_a_png_of_a_sensible_size(outcome: tuple[Path, str]) -> None:
    content = (outcome[0] / "quickstart.png").read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", content[16:24])
    assert 1200 < width < 2400
    assert 400 < height < 1200
    assert len(content) < 300_000


def test_a_comparison_is_a_simulation_and_charges_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = replace(QUICK, tuning=20)
    quickstart.run("digits", recipe, [1.0], limit=20)
    assert sp.accounting.epsilon_total() == 0


def test_candidates_are_judged_without_private_records() -> None:
    splits = data.load("digits")
    guarded = data.Splits(splits.public_train, splits.public_validation, None, None)  # reading None would raise
    network = make_network((1, 8, 8), QUICK, 10).eval()
    trial = quickstart.Trial(network, guarded, QUICK, 0, lambda what: None)
    train = quickstart.features_of(trial, splits.public_train, 60)
    validation = quickstart.features_of(trial, splits.public_validation)
    with sp.accounting.simulation():
        for choices in (quickstart.laplace_candidates, quickstart.response_candidates):
            candidates = choices(train.tensors[0], 1.0)
            assert quickstart.best_on_public(trial, train, validation, candidates) in candidates


def test_the_floor_is_measured_without_dropout_whatever_was_wrapped_before() -> None:
    network = make_network((1, 8, 8), QUICK, 10).eval()
    trial = quickstart.Trial(network, data.load("digits"), QUICK, 0, lambda what: None)
    accuracies = []
    for training in (False, True):
        network.train(training)
        torch.manual_seed(0)
        accuracies.append(quickstart.public_only(trial).accuracy)
    assert accuracies[0] == accuracies[1]


def test_the_candidate_that_works_is_chosen() -> None:
    features = torch.randn(200, 4, 8, 8) * 0.1
    labels = torch.arange(200) % 2
    features[labels == 1] += 1
    part = TensorDataset(features, labels)
    trial = quickstart.Trial(make_network((1, 8, 8), QUICK, 10), None, replace(QUICK, epochs=5), 0, lambda what: None)
    blind, seeing = (sp.RandomResponseLDP(epsilon=4.0, threshold=threshold) for threshold in (9.0, 0.5))
    with sp.accounting.simulation():
        assert quickstart.best_on_public(trial, part, part, [blind, seeing]) is seeing


def test_the_lines_for_a_model_of_your_own_run(capsys: pytest.CaptureFixture[str]) -> None:
    text = quickstart.__doc__.split("With a model of your own:\n")[1].split("\n``try_cut``")[0]
    splits = data.load("digits")
    names = {
        "sp": sp,
        "network": make_network((1, 8, 8), QUICK, 10),
        "public_images": splits.public_train.tensors[0],
        "private_records": TensorDataset(*(t[:50] for t in splits.private_train.tensors)),
    }
    exec(textwrap.dedent(text), names)
    assert float(capsys.readouterr().out.splitlines()[-1]) == pytest.approx(ELEMENTS, rel=1e-6)


# Refusals ---------------------------------------------------------------------------------------


def test_missing_data_give_one_clear_line_and_an_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data._pool.cache_clear()
    monkeypatch.setenv("SPLITPRIV_DATA", str(tmp_path))
    assert quickstart.main(["--data", "cifar10"]) == 2
    error = capsys.readouterr().err
    assert "quickstart: cifar10.npz was not found in" in error
    assert "Set SPLITPRIV_DATA" in error
    assert len(error.splitlines()) == 1  # no traceback, no progress bar


@pytest.mark.parametrize("wrong", [["--epsilon", "0"], ["--epsilon", "nan"], ["--seeds", "0"], ["--threads", "-1"]])
def test_options_must_be_above_zero(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        quickstart.main(wrong)
    assert "--epsilon, --seeds and --threads must be above zero" in capsys.readouterr().err


# The report -------------------------------------------------------------------------------------


def table_of(response: float, laplace: float) -> list[Row]:
    floor, plain = row("public data only", 0.5), row("no layer", 0.9, size=8192)
    mechanisms = [row("LaplaceLDP", laplace, 1.0, 3072), row("RandomResponseLDP", response, 1.0, 256)]
    return average([[floor, plain, *mechanisms]])


@pytest.mark.parametrize(
    ("response", "laplace", "line"),
    [
        (0.8, 0.7, "ε 1 per element: RandomResponseLDP beats LaplaceLDP, 80.0 % against 70.0 %."),
        (0.7, 0.8, "ε 1 per element: LaplaceLDP beats RandomResponseLDP, 80.0 % against 70.0 %."),
        (0.7, 0.7, "ε 1 per element: RandomResponseLDP ties with LaplaceLDP, 70.0 % against 70.0 %."),
        (0.8, 0.4, "80.0 % against 40.0 %; LaplaceLDP would do better with public data alone."),
    ],
)
def test_the_winner_is_whoever_wins(response: float, laplace: float, line: str) -> None:
    assert line in conclusions(table_of(response, laplace))


def test_the_wire_ratio_is_computed() -> None:
    rows = table_of(0.8, 0.7)
    assert "256 bytes per record, against 8,192 as float32: 32 times smaller" in conclusions(rows)
    rows[-1] = replace(rows[-1], bytes_per_record=512)
    assert "16 times smaller" in conclusions(rows)


def test_the_gap_runs_from_public_data_to_no_layer() -> None:
    assert [r.gap for r in table_of(0.8, 0.4)] == [0, 1, pytest.approx(-0.25), pytest.approx(0.75)]
    assert average([[row("public data only", 0.5), row("no layer", 0.4)]])[0].gap is None


def test_trials_are_averaged_row_by_row() -> None:
    first, second = table_of(0.8, 0.7), table_of(0.6, 0.7)
    mean = average([first, second])[-1]
    assert mean.accuracy == pytest.approx(0.7)
    assert mean.accuracies == (0.8, 0.6)
    assert "70.0 ± 14.1 %" in table([mean])


def test_json_is_strict(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", [replace(row("no layer", 0.9), per_record=math.inf)], {"data": "digits"})
    content = json.loads((tmp_path / "x.json").read_text("utf-8"), parse_constant=pytest.fail)
    assert content["data"] == "digits"
    assert content["rows"][0]["per_record"] == "inf"


def test_the_network_is_cut_where_features_are_eight_wide() -> None:
    for image in ((1, 8, 8), (1, 28, 28), (3, 32, 32)):
        recipe = replace(QUICK, stages=(4,) if image[1] == 8 else (4, 4))
        network = make_network(image, recipe, 10).eval()
        edge, server = sp.split(network, at=quickstart.CUT, example_input=torch.zeros(2, *image))
        features = edge(torch.zeros(2, *image))
        assert features.shape[1:] in ((4, 8, 8), (4, 7, 7))
        assert server(features).shape == (2, 10)
