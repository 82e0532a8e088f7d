"""What attackers who know the defence get out of a cut: inversion and membership on CIFAR-10.

    python benchmarks/bench_leakage.py [--preset cpu|gpu] [--minutes 8] [--only inversion|membership] [--json FILE]

Rows: no layer, randomized response and Laplace noise at ε per element 0.5, 1 and 2, a codebook at ε 8 for the whole
record; cuts 1 and 2 of a ResNet-18 (after its first and its second stage). Columns: each attacker.

* *Inversion*: test images of CIFAR-10 are released, and reconstructed by each attacker, with CIFAR-100 as its
  public images. SSIM (Gaussian window), PSNR in dB, and the identification rate: how often a reconstruction is
  nearest to its own original among all that were released.
* *Membership*: the server is trained on what members released. Then: was this record among them? The attackers
  query it in the clear. AUC, F1 at a threshold from shadow models, and true positives at 1 % false positives.

Each cell is kept in ``benchmarks/.cache`` when it is done, and a run stops before a new cell once ``--minutes`` are
over: run it again to go on. ``--preset cpu`` is a smaller experiment than the paper's, see ``leakage_target.py`` for
its scale; its figures are no substitute for those of ``--preset gpu``. On one core a cell of the CPU preset takes 2 to
3 minutes, training the network 6. ``tables_leakage.py`` and ``plot_leakage.py`` make the guide's page of the cells.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import leakage_target
import splitpriv as sp
from leakage_target import CACHE, CUTS, LAYERS, PRESETS, Preset, Target
from splitpriv import attacks
from timing import write

Cell = dict[str, Any]
VERSION = 2  # of the cells: another one makes them anew


def inversion(preset: Preset, target: Target, model: sp.SplitModel, folder: Path) -> Cell:
    """All inversion attackers on one cut and layer; pictures of ten records beside the figures."""
    batch = 128 if preset.device == "cuda" else 32
    steps: dict[str, Any] = {"steps": preset.steps, "learning_rate": 0.05, "batch_size": batch}
    kinds = (
        attacks.GradientInversion(eps=1e-8, relative=True, decay=True, total_variation="public", **steps),
        attacks.PosteriorInversion(),
        inverse := attacks.DecoderInversion(epochs=preset.decoder[0], width=preset.decoder[1]),
        attacks.LikelihoodInversion(decoder=inverse, **steps),
    )
    where = preset.device
    report = attacks.invert(model, target.inverted.x.to(where), public=target.public.x.to(where), attacks=kinds)
    rows = [("originals", target.inverted.x), *((one.name, one.reconstructions) for one in report.results)]
    shown = {name: (x[:: max(1, len(x) // 10)][:10] * 255).byte().cpu().numpy() for name, x in rows}
    np.savez(folder / "pictures.npz", **shown)
    return report.to_dict()


def membership(preset: Preset, target: Target, model: sp.SplitModel, folder: Path) -> Cell:
    """All membership attackers on a server that is trained here on what members released."""
    start = copy.deepcopy(model.server)
    how: dict[str, Any] = {"epochs": preset.epochs, "lr": 2e-3}
    inside, outside = target.members, target.non_members
    release = model.release((inside.x.to(preset.device), inside.y), progress=False)
    sp.fit(model.server, release, seed=0, progress=False, **how)
    held_out = accuracy(preset, target, model)
    records = ((part.x.to(preset.device), part.y.to(preset.device)) for part in (inside, outside))
    report = attacks.membership(model, *records, start=start, shadows=preset.shadows, **how)
    return {**report.to_dict(), "accuracy": held_out}


def _released(model: sp.SplitModel, images: Tensor, device: str) -> Tensor:
    with torch.no_grad():
        return torch.cat([model.cut(model.edge(x.to(device))).cpu() for x in images.split(250)])


def accuracy(preset: Preset, target: Target, model: sp.SplitModel) -> float:
    """Of the trained server, on the non-members, whose features cross the same cut."""
    released = _released(model, target.non_members.x, preset.device)
    with torch.no_grad():
        outputs = torch.cat([model.server(x.to(preset.device)).cpu() for x in released.split(250)])
    return float((outputs.argmax(1) == target.non_members.y).double().mean())


# Cells ---------------------------------------------------------------------------------------------

KINDS: dict[str, Callable[[Preset, Target, sp.SplitModel, Path], Cell]] = {
    "inversion": inversion,
    "membership": membership,
}


def folder_of(preset: Preset) -> Path:
    """Where the cells of a preset are kept; another scale or another version of a cell has another one."""
    key = hashlib.sha256(f"{preset} {VERSION}".encode()).hexdigest()[:12]
    return CACHE / f"leakage-{key}"


def name_of(kind: str, cut: int, layer: str) -> str:
    return f"{kind}-{cut}-{layer.replace(' ', '_').replace(',', '')}"


def run(preset: Preset, kinds: Sequence[str], minutes: float) -> dict[str, Cell]:
    """Every cell that is there, or was made before the time was over."""
    folder, start = folder_of(preset), time.monotonic()
    target: Target | None = None
    found: dict[str, Cell] = {}
    for kind, cut, layer in ((k, c, n) for k in kinds for c in CUTS for n in LAYERS):
        name = name_of(kind, cut, layer)
        path = folder / name / "cell.json"
        if not path.is_file():
            if time.monotonic() - start > 60 * minutes:
                continue
            target = target or leakage_target.load(preset)
            path.parent.mkdir(parents=True, exist_ok=True)
            began = time.monotonic()
            model = leakage_target.model_at(target, cut, layer, preset.device)
            cell = {**KINDS[kind](preset, target, model, path.parent), "seconds": time.monotonic() - began}
            path.with_suffix(".new").write_text(json.dumps(cell), encoding="utf-8")
            path.with_suffix(".new").replace(path)
            print(f"{name}: {cell['seconds']:.0f} s", flush=True)
        found[name] = json.loads(path.read_text(encoding="utf-8"))
    return found


# Showing -------------------------------------------------------------------------------------------


def show(found: dict[str, Cell], preset: Preset) -> None:
    """Both tables; a dash where a cell is not there yet."""
    pretraining, epochs = preset.pretraining
    print(f"\nResNet-18 of width {preset.width}, {pretraining:,} public images and {epochs} epochs; {preset}")
    print(f"\nInversion of {preset.images} records: SSIM, PSNR in dB, identification (chance {1 / preset.images:.3g})")
    for cut, layer in ((c, n) for c in CUTS for n in LAYERS):
        cell = found.get(name_of("inversion", cut, layer))
        print(f"\ncut {cut}, {layer}{total(preset, cut, layer)}" + ("" if cell else ": not yet run"))
        for row in inversion_rows(cell) if cell else []:
            print(f"  {row[0]:<32}" + "".join(f"{figure:<24}" for figure in row[1:]))
    print("\nMembership, the server queried in the clear: AUC, F1, TPR at 1 % FPR")
    for cut, layer in ((c, n) for c in CUTS for n in LAYERS):
        cell = found.get(name_of("membership", cut, layer))
        text = f": accuracy on non-members {cell['accuracy']:.1%}" if cell else ": not yet run"
        print(f"\ncut {cut}, {layer}{total(preset, cut, layer)}{text}")
        for row in membership_rows(cell) if cell else []:
            print(f"  {row[0]:<32}" + "".join(f"{figure:<24}" for figure in row[1:]))


def total(preset: Preset, cut: int, layer: str) -> str:
    """What a record pays where a layer's epsilon is that of an element: features are width x 32 x 32, then half."""
    epsilon = LAYERS[layer][1]
    return f" ({epsilon * preset.width * 2048 / 2**cut:,.0f} per record)" if "per element" in layer else ""


def inversion_rows(cell: Cell) -> list[tuple[str, ...]]:
    """Attacker, SSIM, PSNR, identification rate, with their intervals."""
    rows = [(one["attack"], one["summary"]) for one in (*cell["results"], cell["baseline"])]
    rows.append(("best of each record", cell["best"]))
    return [(name, *(interval(found[key]) for key in ("ssim", "psnr", "identification"))) for name, found in rows]


def membership_rows(cell: Cell) -> list[tuple[str, ...]]:
    """Attacker, AUC, F1, and the true positives at 1 % false positives on the ROC of these records, with intervals."""
    found = [(name, one["summary"]) for name, one in cell["results"].items()]
    return [(name, *(interval(summary[key]) for key in ("auc", "f1", "roc_1"))) for name, summary in found]


def interval(figure: dict[str, Any]) -> str:
    """A figure and its ends."""
    value, low, high = (figure[key] for key in ("value", "low", "high"))
    return "undefined" if value is None else f"{value:.3g} [{low:.3g}, {high:.3g}]"


def main(argv: list[str] | None = None) -> None:
    """Make what is missing, as far as the time goes; print, and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", choices=tuple(PRESETS), default="cpu", help="its scale")
    parser.add_argument("--minutes", type=float, default=8, help="no new cell is begun after so many; 0 only shows")
    parser.add_argument("--only", choices=tuple(KINDS), default=None, help="half of the table")
    parser.add_argument("--json", type=Path, default=None, help="write the cells there too")
    options = parser.parse_args(argv)
    preset = PRESETS[options.preset]
    with sp.accounting.simulation():
        found = run(preset, [options.only] if options.only else list(KINDS), options.minutes)
    show(found, preset)
    write(options.json, {"preset": dataclasses.asdict(preset), "cells": found})


if __name__ == "__main__":
    main()
