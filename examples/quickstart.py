"""Quickstart: cut a trained model, privatise what crosses, train a server on it, compare.

    python examples/quickstart.py --data digits        (or: make demo)

A small network is trained on a *public* part of the data, which holds classes 0 to 4 only. It is cut
by name. Its front, the edge, is frozen and encodes *private* records of all ten classes through a
privacy layer, each record once; a fresh server trains on what crossed. With a model of your own:

    model = sp.SplitModel.from_model(network, at="norm", cut=sp.RandomResponseLDP(epsilon=1.0),
                                     labels="public", example_input=public_images[:2])
    release = model.release(private_records)      # the edge runs once; charged to the ledger
    print(release)                                # what crossed, and what it cost
    sp.fit(model.server, release)                 # free: what happens after the cut costs nothing
    print(sp.accounting.epsilon_total())          # what the worst record has paid so far

``try_cut`` below does this for every row of the table. The same records would pay for all rows
together, "no layer" included, so the comparison runs under ``accounting.simulation()``: the ε of a row
is what a record pays where that row alone is used. Test records pay as much: they cross the same
cut, with noise of their own.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset
from tqdm import tqdm

import splitpriv as sp
from data import CLASSES, NAMES, PUBLIC_CLASSES, DataMissingError, Splits, load
from quickstart_network import QUICK, RECIPES, Recipe, make_network, pretrain
from quickstart_plot import draw
from quickstart_report import Row, average, conclusions, table, write_json

CUT = "norm"  # the last module of the edge; sp.valid_cuts(network) lists the choices
INTERVALS = ((0.125, "clamp"), (0.25, "clamp"), (0.5, "clamp"), (1.0, "clamp"), (2.0, "clamp"), (4.0, "zero"))
DRAWS = 5  # of the noise, when a candidate is judged on public validation records

NOTES = """\
ε per record is ε per element times the elements of a record: totals this large bound little by themselves.
ε is what a record pays where that row alone is used, for training and for inference alike. Labels are public.
∞: masks, ReLU and encoders are defences; nothing bounds what is learned from them.
Sensitivities, thresholds and the edge come from public records alone, so they cost nothing.
Noise is fresh in each run, so accuracies move a little. Edge time: edge, layer and packing, per record."""


@dataclass(frozen=True)
class Trial:
    """One repetition: a trained network, its data, and how its servers are trained."""

    network: nn.Module
    data: Splits
    recipe: Recipe
    seed: int
    step: Callable[[str], None]  # moves the progress bar


# One cut: wrap, release, train, test ---------------------------------------------------------


def try_cut(trial: Trial, name: str, layer: nn.Module | None, epsilon: float | None = None) -> Row:
    """One row of the table."""
    model = wrap(trial, layer)
    start = time.perf_counter()
    release = model.release(trial.data.private_train, progress=False)
    seconds = time.perf_counter() - start
    server = train_server(trial, model, release)
    accuracy = accuracy_of(server, model.release(trial.data.private_test, progress=False))
    trial.step(name)
    return Row(
        name=name,
        asked=epsilon,
        accuracy=accuracy,
        per_element=release.claims.per_use,
        per_record=release.epsilon,
        bytes_per_record=release.bytes_per_record,
        edge_milliseconds=1000 * seconds / len(release),
        layers=release.claims.layers,
    )


def wrap(trial: Trial, layer: nn.Module | None) -> sp.SplitModel:
    """Cut the network after "norm" and put a privacy layer there."""
    public_images = trial.data.public_train.tensors[0]
    return sp.SplitModel.from_model(trial.network, at=CUT, cut=layer, labels="public", example_input=public_images[:2])


def train_server(trial: Trial, model: sp.SplitModel, release: sp.Release) -> nn.Module:
    """A fresh server, which learns from what crossed and from nothing else."""
    torch.manual_seed(trial.seed)
    if len(release.feature_shape) == 1:  # the encoder sends a vector, no map for the network's server
        (width,) = release.feature_shape
        server: nn.Module = nn.Sequential(nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, CLASSES))
    else:
        server = copy.deepcopy(model.server)
        for module in server.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
    sp.fit(
        server,
        release,
        epochs=trial.recipe.epochs,
        batch_size=trial.recipe.batch,
        lr=2e-3,
        weight_decay=1e-2,
        seed=trial.seed,
        progress=False,
    )
    return server


def accuracy_of(server: nn.Module, release: sp.Release) -> float:
    """Share of what crossed that the server classifies rightly."""
    _, accuracy = sp.evaluate(server, release)
    assert accuracy is not None  # None is for labels that are not classes
    return accuracy


@torch.no_grad()
def public_only(trial: Trial) -> Row:
    """The floor, at ε = 0: the public network runs on the device, so nothing crosses and no noise is added.

    It knows five of the ten classes. Where it is less sure than on 95 % of public validation
    records, it guesses one of the others.
    """
    trial.network.eval()  # it shares its server half with the wrapped models
    known = trial.network(trial.data.public_validation.tensors[0]).softmax(1).amax(1)
    images, labels = trial.data.private_test.tensors
    confidence, answer = torch.cat([trial.network(part) for part in images.split(500)]).softmax(1).max(1)
    unseen = torch.randint(PUBLIC_CLASSES, CLASSES, answer.shape)
    answer = torch.where(confidence < known.quantile(0.05), unseen, answer)
    trial.step("public data only")
    return Row("public data only", None, float((answer == labels).float().mean()), 0.0, 0.0, 0, None, ())


# What stands at the cut, chosen on public records ---------------------------------------------


def defences(trial: Trial) -> dict[str, nn.Module | None]:
    """Layers without a guarantee. Features at "norm" are centred, as ReluSanitizer needs."""
    private = features_of(trial, trial.data.private_train)
    encoder = sp.LocalPretrainedEncoder(private.tensors[0].shape[1:], 64)
    encoder.fit(private, epochs=trial.recipe.epochs, seed=trial.seed, progress=False)  # on the device
    return {
        "no layer": None,
        "RandomVectorMask": sp.RandomVectorMask(),
        "ReluSanitizer": sp.ReluSanitizer(),
        "LocalPretrainedEncoder": encoder,
    }


def laplace_candidates(features: Tensor, epsilon: float) -> list[nn.Module]:
    """Intervals of several widths around 0; elements beyond them are clamped, or set to zero."""
    widths = [(width * float(features.std()), outside) for width, outside in INTERVALS]
    return [sp.LaplaceLDP(epsilon=epsilon, sensitivity=width, outside=outside) for width, outside in widths]


def response_candidates(features: Tensor, epsilon: float) -> list[nn.Module]:
    """Bits above the mean of the features, which is 0, or above the median of each channel."""
    thresholds = (0.0, features.transpose(0, 1).flatten(1).median(1).values)
    return [sp.RandomResponseLDP(epsilon=epsilon, threshold=threshold) for threshold in thresholds]


def best_on_public(
    trial: Trial, train: TensorDataset, validation: TensorDataset, candidates: list[nn.Module]
) -> nn.Module:
    """The candidate whose server does best on public validation features; no private record is read."""
    _, server = sp.split(trial.network, at=CUT)
    scores = []
    for layer in candidates:
        model = sp.SplitModel(nn.Identity(), server, cut=layer, labels="public")  # the edge has run already
        learned = train_server(trial, model, model.release(train, progress=False))
        draws = [model.release(validation, progress=False) for _ in range(DRAWS)]
        scores.append(sum(accuracy_of(learned, draw) for draw in draws))
        trial.step(f"{type(layer).__name__}: choosing on public records")
    return candidates[scores.index(max(scores))]


@torch.no_grad()
def features_of(trial: Trial, records: TensorDataset, limit: int | None = None) -> TensorDataset:
    """What reaches the cut, and the labels; private features stay on the device."""
    images, labels = (tensor[:limit] for tensor in records.tensors)
    edge = wrap(trial, None).edge
    return TensorDataset(torch.cat([edge(part) for part in images.split(500)]), labels)


# The whole run -----------------------------------------------------------------------------------


def run_trial(
    data: Splits, recipe: Recipe, epsilons: list[float], seed: int, step: Callable[[str], None]
) -> tuple[list[Row], dict[str, Tensor]]:
    """All rows of the table for one seed, and the pictures of the figure."""
    torch.manual_seed(seed)
    network = make_network(data.public_train.tensors[0].shape[1:], recipe, CLASSES)
    pretrain(network, data.public_train, recipe, step)
    trial = Trial(network, data, recipe, seed, step)
    shown = defences(trial)
    rows = [public_only(trial), *(try_cut(trial, name, layer) for name, layer in shown.items())]
    train, validation = features_of(trial, data.public_train, recipe.tuning), features_of(trial, data.public_validation)
    for name, candidates in (("LaplaceLDP", laplace_candidates), ("RandomResponseLDP", response_candidates)):
        for epsilon in epsilons:
            layer = best_on_public(trial, train, validation, candidates(train.tensors[0], epsilon))
            rows.append(try_cut(trial, name, layer, epsilon))
            if epsilon == epsilons[len(epsilons) // 2]:
                shown[f"{name}\nε = {epsilon:g}"] = layer
    return rows, pictures(trial, shown)


def pictures(trial: Trial, layers: dict[str, nn.Module | None]) -> dict[str, Tensor]:
    """A public record of three classes, and what crosses the cut of each: the channel most like the record."""
    records, labels = trial.data.public_validation.tensors
    images = torch.stack([records[labels == label][0] for label in range(3)])
    (features, _) = features_of(trial, TensorDataset(images, labels[:3])).tensors
    small = nn.functional.adaptive_avg_pool2d(images.mean(1, keepdim=True), tuple(features.shape[-2:]))
    like = ((small - small.mean()) * features).mean((0, 2, 3)).abs().argmax()
    shown = {"input": images.movedim(1, -1).squeeze(-1)}
    for name, layer in layers.items():
        crossed, _ = wrap(trial, layer).release(images, progress=False).batch(slice(None))
        shown[name] = crossed.reshape(len(images), 8, 8) if crossed.ndim == 2 else crossed[:, like]
    return shown


def run(name: str, recipe: Recipe, epsilons: list[float], limit: int | None) -> tuple[list[Row], dict[str, Tensor]]:
    """Repeat the trial with several seeds behind one progress bar; average."""
    steps = recipe.pretraining + 5 + len(epsilons) * (len(INTERVALS) + 2 + 2)
    trials = []
    with tqdm(total=recipe.seeds * steps, desc="quickstart", unit="step") as bar, sp.accounting.simulation():

        def step(what: str) -> None:
            bar.set_postfix_str(what, refresh=False)
            bar.update()

        for seed in range(recipe.seeds):
            data = load(name, seed)
            if limit:
                data = Splits(*(TensorDataset(*(t[:limit] for t in part.tensors)) for part in vars(data).values()))
            trials.append(run_trial(data, recipe, epsilons, seed, step))
    return average([rows for rows, _ in trials]), trials[0][1]


def report(out: Path, name: str, recipe: Recipe, rows: list[Row], shown: dict[str, Tensor]) -> None:
    """Print the table and what it means; write quickstart.json and quickstart.png."""
    runs = "one run" if recipe.seeds == 1 else f"mean ± standard deviation of {recipe.seeds} runs"
    print(f"\n{name}: servers tested on private records of all ten classes, {runs}\n")
    print(table(rows), conclusions(rows), NOTES, sep="\n\n")
    out.mkdir(parents=True, exist_ok=True)
    about = {"data": name, "splitpriv": sp.__version__, "torch": torch.__version__, "recipe": asdict(recipe)}
    write_json(out / "quickstart.json", rows, about)
    draw(out / "quickstart.png", rows, shown, title=f"{name}: accuracy on private records")
    print(f"\nWritten: {out / 'quickstart.png'} and {out / 'quickstart.json'}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the comparison; returns the exit code."""
    parser = argparse.ArgumentParser(description="Compare privacy layers at the cut of one network.")
    parser.add_argument("--data", choices=NAMES, default="digits")
    parser.add_argument("--epsilon", type=float, nargs="+", default=[0.5, 1.0, 2.0], help="per element")
    parser.add_argument("--seeds", type=int, help="repetitions to average")
    parser.add_argument("--threads", type=int, default=1, help="1: more of them slow a busy machine down")
    parser.add_argument("--out", type=Path, default=Path(), help="folder for quickstart.png and quickstart.json")
    parser.add_argument("--quick", action="store_true", help="a tiny network and few records, to try the program")
    options = parser.parse_args(argv)
    recipe = QUICK if options.quick else RECIPES[options.data]
    recipe = replace(recipe, seeds=recipe.seeds if options.seeds is None else options.seeds)
    epsilons = sorted(set(options.epsilon))
    if recipe.seeds < 1 or options.threads < 1 or not all(epsilon > 0 for epsilon in epsilons):
        parser.error("--epsilon, --seeds and --threads must be above zero")
    torch.set_num_threads(options.threads)
    try:
        load(options.data)  # kept in memory; before the progress bar, since it may be missing
    except DataMissingError as error:
        print(f"quickstart: {error}", file=sys.stderr)
        return 2
    rows, shown = run(options.data, recipe, epsilons, limit=100 if options.quick else None)
    report(options.out, options.data, recipe, rows, shown)
    return 0


if __name__ == "__main__":
    sys.exit(main())
