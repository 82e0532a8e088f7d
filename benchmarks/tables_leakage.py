"""The tables of the guide's page on attacks, from the cells that bench_leakage.py has kept.

    python benchmarks/tables_leakage.py [--preset cpu|gpu] [--to docs/guide]

Writes ``attacks_inversion.inc`` and ``attacks_membership.inc``, which that page includes, and ``attacks_figures.rst``:
every attacker, with intervals.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import bench_leakage
from bench_leakage import Cell, interval, total
from leakage_target import CUTS, LAYERS, PRESETS, Preset

INVERSION = {
    "GradientInversion": "gradient",
    "PosteriorInversion": "Bayes",
    "DecoderInversion": "inverse network",
    "LikelihoodInversion": "likelihood",
}
MEMBERSHIP = ("threshold on loss", "LiRA, online", "RMIA, offline")
NONE = "–"


def cells(preset: Preset, kind: str) -> Iterator[tuple[int, str, Cell]]:
    """Cut, layer with what a record pays, and cell, in the order of the table; as far as they are there."""
    for cut, layer in ((c, n) for c in CUTS for n in LAYERS):
        path = bench_leakage.folder_of(preset) / bench_leakage.name_of(kind, cut, layer) / "cell.json"
        if path.is_file():
            yield cut, layer + total(preset, cut, layer), json.loads(path.read_text(encoding="utf-8"))


def inversion(preset: Preset) -> list[list[str]]:
    """SSIM / PSNR / identification of each attacker."""
    rows = [["Cut", "Layer", *INVERSION.values()]]
    for cut, layer, cell in cells(preset, "inversion"):
        found = {one["attack"]: one["summary"] for one in cell["results"]}
        shown = [_three(found[name]) if name in found else NONE for name in INVERSION]
        rows.append([str(cut), layer, *shown])
    return rows


def membership(preset: Preset) -> list[list[str]]:
    """AUC / F1 / true positives at 1 % false positives on the ROC, and the attacker with the largest AUC."""
    rows = [["Cut", "Layer", "accuracy", *MEMBERSHIP, "largest AUC"]]
    for cut, layer, cell in cells(preset, "membership"):
        found = {name: one["summary"] for name, one in cell["results"].items()}
        best = max(found, key=lambda name: found[name]["auc"]["value"])
        shown = [_rates(found[name]) if name in found else NONE for name in MEMBERSHIP]
        rows.append([str(cut), layer, f"{cell['accuracy']:.0%}", *shown, f"{interval(found[best]['auc'])} {best}"])
    return rows


def everything(preset: Preset) -> str:
    """The page with all figures and their intervals."""
    images, members = preset.images, preset.members
    parts = ["All figures", "===========", ""]
    parts += [
        "What :doc:`attacks` draws on: every attacker, with 95 % intervals over the records that were attacked.",
        "They say nothing of another model, or another run. Written by ``benchmarks/tables_leakage.py``.",
        "",
        f"Inversion of {images} records: SSIM, PSNR in dB, identification rate (chance {1 / images:.3g}).",
        "",
    ]
    rows = [["Cut", "Layer", "Attacker", "SSIM", "PSNR", "identified"]]
    for cut, layer, cell in cells(preset, "inversion"):
        shown = [(one["attack"], one["summary"]) for one in cell["results"]]
        shown += [(cell["baseline"]["attack"], cell["baseline"]["summary"]), ("best of each record", cell["best"])]
        rows += [
            [str(cut), layer, name, *(interval(found[key]) for key in ("ssim", "psnr", "identification"))]
            for name, found in shown
        ]
    parts += [table(rows, (5, 24, 24, 16, 16, 16)), ""]
    parts += [
        f"Membership, {members} members and as many others: AUC, F1 at a threshold from shadow models (calling all",
        "members: 0.667), true positives at 1 % false positives on the ROC of these records.",
        "",
    ]
    rows = [["Cut", "Layer", "Attacker", "AUC", "F1", "TPR at 1 %"]]
    for cut, layer, cell in cells(preset, "membership"):
        rows += [
            [str(cut), layer, name, *(interval(one["summary"][key]) for key in ("auc", "f1", "roc_1"))]
            for name, one in cell["results"].items()
        ]
    return "\n".join([*parts, table(rows, (5, 24, 24, 16, 16, 16))])


def table(rows: Sequence[Sequence[str]], widths: Sequence[int]) -> str:
    """A list-table."""
    lines = [".. list-table::", "   :header-rows: 1", f"   :widths: {' '.join(map(str, widths))}", ""]
    for row in rows:
        lines += [f"   {'* -' if place == 0 else '  -'} {text}" for place, text in enumerate(row)]
    return "\n".join([*lines, ""])


def _three(found: dict[str, Any]) -> str:
    ssim, psnr, identified = (found[key]["value"] for key in ("ssim", "psnr", "identification"))
    return f"{ssim:.2f} / {psnr:.1f} / {identified:.0%}"


def _rates(found: dict[str, Any]) -> str:
    auc, f1, rate = (found[key]["value"] for key in ("auc", "f1", "roc_1"))
    return " / ".join(
        NONE if one is None else form.format(one) for form, one in (("{:.2f}", auc), ("{:.2f}", f1), ("{:.0%}", rate))
    )


def main(argv: list[str] | None = None) -> None:
    """Write what is there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", choices=tuple(PRESETS), default="cpu")
    parser.add_argument(
        "--to", type=Path, default=Path(__file__).parents[1] / "docs" / "guide", help="an existing folder"
    )
    options = parser.parse_args(argv)
    preset = PRESETS[options.preset]
    written = {
        "attacks_inversion.inc": table(inversion(preset), (5, 23, 18, 18, 18, 18)),
        "attacks_membership.inc": table(membership(preset), (5, 22, 9, 16, 16, 16, 20)),
        "attacks_figures.rst": everything(preset),
    }
    for name, text in written.items():
        (options.to / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
