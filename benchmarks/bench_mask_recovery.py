"""How much of a mask, and of records behind a defence, leaked pairs or public data alone give back.

    python benchmarks/bench_mask_recovery.py [--data digits|fashion-mnist|cifar10] [--seeds 3] [--json FILE] [--smoke]

Raw images, less the public mean, cross a mask, a mask with ReLU behind it, or a private encoder: paper A's three
cases. The public part holds classes 0 to 4, the private part all ten. Three tables:

* leaked pairs (record, released record) against masks, signs and dyadic entries, with and without ReLU;
* released records alone, with public records of the same kind: by statistics, and by arithmetic, since pixels are
  multiples of a known step;
* an encoder fitted on the participant's own labels: leaked pairs, with public data alone at 0 pairs. The attacker's
  own encoders are fitted on the public part, from the participants' nonce or from others. The first row of them is
  an encoder that was not fitted, whose nonce the attacker knows.

*vector* is the share of the vector's elements that are recovered, among those that are not zero in every record,
*exact* the share of the records' elements that are reconstructed exactly, *error* the squared error over that of
guessing the public mean (1 learns nothing), *identified* the share of records whose reconstruction is closest to its
own original. Means over the seeds, which draw nonce, split and pairs.

A seed of digits takes about a minute on one CPU core; wider images take longer, by how much has not been measured.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import splitpriv as sp
from splitpriv.attacks.recovery import RecoveryResult, recover_mask
from timing import write

sys.path.append(str(Path(__file__).parents[1] / "examples"))
import data

STEPS = {"digits": 1 / 16, "fashion-mnist": 1 / 255, "cifar10": 1 / 255}
FIGURES = ("recovered", "exact", "relative", "identified")
KINDS: dict[str, Callable[[bytes], nn.Module]] = {
    "mask, sign": lambda nonce: sp.RandomVectorMask(nonce),
    "mask, dyadic": lambda nonce: sp.RandomVectorMask(nonce, entries="dyadic"),
    "mask + ReLU, sign": lambda nonce: sp.ReluSanitizer(nonce),
    "mask + ReLU, dyadic": lambda nonce: sp.ReluSanitizer(nonce, entries="dyadic"),
}


class Centre(nn.Module):
    """The edge: images less the public mean."""

    def __init__(self, mean: Tensor) -> None:  # shape: (channels, height, width)
        super().__init__()
        self.register_buffer("mean", mean)

    def forward(self, images: Tensor) -> Tensor:
        return images - self.mean


class Setting:
    """One seed's split of the data, its nonce and its edge."""

    def __init__(self, name: str, seed: int, records: int, public: int) -> None:
        splits = data.load(name, seed)
        images, labels = splits.private_train.tensors
        others, _ = splits.private_test.tensors
        # Half of the records that are released are among those that an encoder is fitted on, half are new.
        half = records // 2
        self.records = torch.cat([images[:half], others[: records - half]])
        self.fitted = images[: 2 * records], labels[: 2 * records]
        self.public, self.public_labels = (part[:public] for part in splits.public_train.tensors)
        self.edge = Centre(self.public.mean(0))
        self.nonce = random.Random(f"nonce {seed}").randbytes(16)
        self.step, self.seed = STEPS[name], seed

    def attack(self, layer: nn.Module, **options: Any) -> sp.attacks.recovery.RecoveryReport:
        model = sp.SplitModel(self.edge, nn.Flatten(), cut=layer)
        return recover_mask(model, self.records, public=self.public, seed=self.seed, **options)

    def encoder(self, epochs: int, nonce: bytes, *, public: bool, seed: int) -> sp.LocalPretrainedEncoder:
        """An encoder fitted on private labels, or on public ones."""
        images, labels = (self.public, self.public_labels) if public else self.fitted
        encoder = sp.LocalPretrainedEncoder(tuple(images.shape[1:]), 10, nonce=nonce)
        if epochs:
            features = self.edge(images), labels
            encoder.fit(features, epochs=epochs, seed=seed, public=public, progress=False)
        return encoder

    def surrogates(self, epochs: int, nonces: Sequence[bytes]) -> list[Callable[[Tensor], Tensor]]:
        return [self.encoder(epochs, nonce, public=True, seed=100 + i) for i, nonce in enumerate(nonces)]


def on_masks(setting: Setting, pairs: tuple[int, ...], released: tuple[int, ...]) -> dict[str, RecoveryResult]:
    """Name of a row -> result."""
    found = {}
    for kind, build in KINDS.items():
        layer = build(setting.nonce)
        report = setting.attack(layer, pairs=pairs, released=released)
        found[f"pairs|{kind}"] = report.results[0]
        found[f"released|{kind}, statistics"] = report["CiphertextOnlyMask"]
        grid = {"step": setting.step, "offset": -setting.edge.mean}
        report = setting.attack(layer, pairs=pairs[:1], released=released, **grid)
        found[f"released|{kind}, arithmetic"] = report["CiphertextOnlyMask"]
    return found


def on_encoders(setting: Setting, pairs: tuple[int, ...], epochs: int) -> dict[str, RecoveryResult]:
    """Name of a row -> result."""
    same, other = [setting.nonce] * 3, [setting.nonce + bytes([i]) for i in range(3)]
    fitted = setting.encoder(epochs, setting.nonce, public=False, seed=0)
    start = setting.encoder(0, setting.nonce, public=False, seed=0)
    ways = {
        "not fitted, nonce known": (start, setting.surrogates(0, same)),
        "fitted, no encoders of one's own": (fitted, []),
        "fitted, own ones of other nonces": (fitted, setting.surrogates(epochs, other)),
        "fitted, own ones of that nonce": (fitted, setting.surrogates(epochs, same)),
    }
    return {
        f"encoder|{name}": setting.attack(layer, pairs=pairs, surrogates=own)["EncoderInversion"]
        for name, (layer, own) in ways.items()
    }


def average(runs: list[RecoveryResult]) -> list[dict[str, float]]:
    """Points of a curve, each figure the mean over the runs."""
    curves = [result.points for result in runs]
    return [
        {"count": points[0].count}
        | {name: sum(point.summary[name].value for point in points) / len(points) for name in FIGURES}
        for points in zip(*curves, strict=True)
    ]


def show(title: str, rows: dict[str, list[dict[str, float]]]) -> None:
    """Print one table."""
    print(f"\n{title:<34}{'':>10}{'vector':>9}{'exact':>9}{'error':>9}{'identified':>12}")
    for name, points in rows.items():
        for i, point in enumerate(points):
            cells = ["-" if math.isnan(point[figure]) else f"{point[figure]:.3f}" for figure in FIGURES]
            print(f"{name if not i else '':<34}{point['count']:>10,}", end="")
            print(f"{cells[0]:>9}{cells[1]:>9}{cells[2]:>9}{cells[3]:>12}")


def main(argv: list[str] | None = None) -> None:
    """Attack, print, and write."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--data", choices=data.NAMES, default="digits", help="which images")
    parser.add_argument("--seeds", type=int, default=3, help="runs to average, each with its nonce, split and pairs")
    parser.add_argument("--records", type=int, default=520, help="private records, those that leak among them")
    parser.add_argument("--public", type=int, default=2000, help="public records, at most")
    parser.add_argument("--epochs", type=int, default=30, help="that encoders are fitted for, at most")
    parser.add_argument("--json", type=Path, default=None, help="a file for the numbers; None for none")
    parser.add_argument("--smoke", action="store_true", help="one seed, few records: does it run?")
    options = parser.parse_args(argv)
    if options.smoke:
        options.seeds, options.records, options.public, options.epochs = 1, 60, 120, 1
    pairs = (1, 4, 16) if options.smoke else (1, 2, 4, 8, 16)
    released = (4, 16) if options.smoke else (4, 16, 64, 256)
    more = (4, 16) if options.smoke else (4, 8, 16, 32, 64, 128, 256)
    runs: dict[str, list[RecoveryResult]] = {}
    before = torch.get_num_threads()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    try:
        for seed in range(options.seeds):
            setting = Setting(options.data, seed, options.records, options.public)
            found = on_masks(setting, pairs, released) | on_encoders(setting, more, options.epochs)
            for name, result in found.items():
                runs.setdefault(name, []).append(result)
    finally:
        torch.set_num_threads(before)
    rows = {name: average(results) for name, results in runs.items()}
    size = math.prod(setting.records.shape[1:])
    print(f"{options.data}: records of {size:,} elements less the public mean; {len(setting.records)} private ones,")
    print(f"{len(setting.public)} public ones (classes 0 to 4); means over {options.seeds} seeds")
    titles = {"pairs": "leaked pairs", "released": "released records alone", "encoder": "leaked pairs, encoder"}
    for part, title in titles.items():
        show(title, {name.split("|")[1]: points for name, points in rows.items() if name.startswith(f"{part}|")})
    kept = {name: [result.to_dict() for result in results] for name, results in runs.items()}
    for results in kept.values():
        for result in results:
            for point in result["points"]:
                del point["per_record"]
    write(options.json, {"data": options.data, "means": _plain(rows), "runs": kept})


def _plain(rows: dict[str, list[dict[str, float]]]) -> dict[str, list[dict[str, float | None]]]:
    """NaN as None, which JSON knows."""
    return {
        name: [{key: None if math.isnan(value) else value for key, value in point.items()} for point in points]
        for name, points in rows.items()
    }


if __name__ == "__main__":
    main()
