"""How much a budget for the whole record buys: accuracy against record-level epsilon.

    python benchmarks/bench_record_level.py [--data fashion-mnist|cifar10] [--classes disjoint|shared]
                                            [--labels private|public] [--epsilons 0.5 1 2 4 8 16] [--seeds 3]

An edge is trained on public records, frozen, and ends in a public projection to ``--dim`` dimensions. Each
private record crosses once, by each mechanism in turn, and the server is fitted to what crossed with
``fit(noise_aware=True)``. Four ways of inference on the test records:

* *clean*: on the edge device, by the trained server part (``SplitModel.local``); nothing crosses.
* *noisy, features*: the record's features cross at the same epsilon (no label does), and the server reads them.
* *noisy, discriminant*: the same in the few directions that the trained server tells classes apart by. They follow
  from what was released, so they are public and cost nothing.
* *noisy, decision*: the edge has the trained server part, and sends its decision by randomized response.

Epsilon is that of the whole record; with ``--labels private`` the label's is in it. What counts is the
share of the gap between *public data only* and *no privacy* that is closed. Mean and spread
(standard deviation) over the seeds of the noise; the edge and the split are those of seed 0, and random
codebooks are fresh in each run.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import scenarios
import splitpriv as sp
from scenarios import Part, Scenario

Cell = tuple[float, float, float, float]  # accuracy of clean inference, then of the three kinds of noisy inference


@dataclass(frozen=True)
class Task:
    """A scenario behind the projection, and the budget and seed of one run."""

    scenario: Scenario
    projection: sp.Projection
    public: Tensor  # shape: (n, dim)
    epsilon: float
    private_labels: bool
    seed: int

    @property
    def classes(self) -> int:
        return self.scenario.classes

    @property
    def dim(self) -> int:
        return self.public.shape[1]

    def server(self) -> nn.Linear:
        return nn.Linear(self.dim, self.classes)


# (epsilon, elements of a record, seed, public features in the same space) -> layer at the cut
Layer = Callable[[float, int, int, Tensor], nn.Module]


def book_size(epsilon: float) -> int:
    """Larger books lower the error only at large epsilon: 64 codewords are within 3 % of 4,096 at ε = 1."""
    return 64 if epsilon <= 1 else 256 if epsilon <= 8 else 1024


def random_codebook(epsilon: float, dim: int, seed: int, public: Tensor) -> nn.Module:
    return sp.CodebookLDP.random(dim, size=book_size(epsilon), epsilon=epsilon, generator=seed)


def randomized_response(epsilon: float, dim: int, seed: int, public: Tensor) -> nn.Module:
    return sp.RandomResponseLDP(epsilon=epsilon, per="record", generator=seed)


def laplace(epsilon: float, dim: int, seed: int, public: Tensor) -> nn.Module:
    return sp.LaplaceLDP(epsilon=epsilon, sensitivity=4 / dim**0.5, per="record", outside="clamp", generator=seed)


def l1_laplace(epsilon: float, dim: int, seed: int, public: Tensor) -> nn.Module:
    return sp.L1LaplaceLDP(epsilon=epsilon, radius=dim**0.5, generator=seed)


def learned_codebook(epsilon: float, dim: int, seed: int, public: Tensor) -> nn.Module:
    options = {"size": 256, "closest": 32, "decode": "membership"}
    return sp.CodebookLDP.fit(public[:5000], epsilon=epsilon, generator=seed, **options)


def separate(layer: Layer, task: Task) -> tuple[sp.SplitModel, Layer]:
    """Features by the layer, labels by k-ary randomized response; half of epsilon each."""
    half = task.epsilon / 2 if task.private_labels else task.epsilon
    labels = sp.LabelLDP(task.classes, epsilon=half, generator=task.seed) if task.private_labels else "public"
    cut = layer(half, task.dim, task.seed, task.public)
    return sp.SplitModel(task.projection, task.server(), cut, labels=labels), layer


def embedded(layer: Layer, task: Task) -> tuple[sp.SplitModel, Layer]:
    """Features and label as one vector, by one mechanism with all of epsilon."""
    cut = layer(task.epsilon, task.dim * task.classes, task.seed, task.public)
    labels = sp.EmbeddedLabels(task.classes)
    return sp.SplitModel(task.projection, task.server(), cut, labels=labels), layer


def run(make: Callable[[Task], tuple[sp.SplitModel, Layer]], task: Task) -> Cell:
    """Release the private records once, fit, and infer in the four ways."""
    private, test = task.scenario.private, task.scenario.test
    model, layer = make(task)
    with sp.accounting.simulation():
        release = model.release((private.features, private.labels), batch_size=2000, progress=False)
        assert release.epsilon <= task.epsilon * (1 + 1e-12), (release.epsilon, task.epsilon)
        fit(model, release, task)
        scores = model.local(test.features)
        few = discriminant(model, release, layer, task)
        response = sp.LabelLDP(task.classes, epsilon=task.epsilon, generator=task.seed + 200)
        decision = float((response.encode(scores.argmax(1)) == test.labels).float().mean())
        cut = layer(task.epsilon, task.dim, task.seed + 100, task.public)
        if hasattr(cut, "second_moment"):  # its noise is known: the server is solved for it
            fit(model, release, task, through=cut)
        noisy = sp.SplitModel(task.projection, model.server, cut)
        return accuracy(scores, test), accuracy(noisy(test.features), test), few, decision


def discriminant(model: sp.SplitModel, release: sp.Release, layer: Layer, task: Task) -> float:
    """Accuracy of noisy inference in the directions that span what the fitted server looks at."""
    weight = model.server.weight.detach()
    if weight.shape[1] != task.dim:  # of a codebook's membership: no directions of the features
        return math.nan
    directions = torch.linalg.svd(weight - weight.mean(0)).Vh[: max(2, task.classes - 1)]
    means = sp.class_moments(release, classes=task.classes).shrunk().float()
    few = sp.Projection(directions, means.mean(0))
    cut = layer(task.epsilon, few.dim, task.seed + 300, few(task.public))
    released = cut.decode(cut.encode(few(task.projection(task.scenario.test.features))))
    wanted = cut.expected(few(means))
    return accuracy((released - wanted.mean(0)) @ (wanted - wanted.mean(0)).T, task.scenario.test)


def fit(model: sp.SplitModel, release: sp.Release, task: Task, through: nn.Module | None = None) -> None:
    """Fit the server to what crossed, with public features and their labels for the spread within a class."""
    clean = model.clean(task.scenario.public.features)
    if clean.shape[1] != task.dim:  # membership in a codebook
        model.server = nn.Linear(clean.shape[1], task.classes)
    public = (clean, task.scenario.public.labels)
    sp.fit(model.server, release, noise_aware=True, public=public, through=through, seed=task.seed, progress=False)


def accuracy(outputs: Tensor, part: Part) -> float:
    return float((outputs.argmax(1) == part.labels).float().mean())


def mechanisms(private_labels: bool) -> dict[str, Callable[[Task], Cell]]:
    """The rows of a table."""
    layers = {
        "random codebook": random_codebook,
        "learned codebook": learned_codebook,
        "L1 Laplace": l1_laplace,
        "randomized response": randomized_response,
        "Laplace": laplace,
    }
    rows: dict[str, Callable[[Task], Cell]] = {}
    if private_labels:
        rows["random codebook, label embedded"] = lambda task: run(lambda t: embedded(random_codebook, t), task)
    for name, layer in layers.items():
        title = f"{name} + LabelLDP" if private_labels else name
        rows[title] = lambda task, layer=layer: run(lambda t: separate(layer, t), task)  # type: ignore[misc]
    return rows


def network(features: Tensor, labels: Tensor, classes: int, epochs: int = 8) -> Callable[[Tensor], Tensor]:
    """A perceptron with one hidden layer on standardised clean features: what no privacy allows."""
    centre, spread = features.mean(0), features.std(0) + 1e-3
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(features.shape[1], 256), nn.ReLU(), nn.Linear(256, classes))
    optimizer = torch.optim.AdamW(net.parameters(), 1e-3, weight_decay=1e-2)
    for _ in range(epochs):
        for rows in torch.randperm(len(features)).split(256):
            loss = F.cross_entropy(net((features[rows] - centre) / spread), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return lambda x: net((x - centre) / spread).detach()


def baselines(scenario: Scenario) -> tuple[float, float]:
    """Accuracy with public data only, and with no privacy."""
    public, private, test = scenario.public, scenario.private, scenario.test
    floor = 1 / scenario.classes
    if scenario.public_knows_classes:
        floor = accuracy(network(public.features, public.labels, scenario.classes)(test.features), test)
    return floor, accuracy(network(private.features, private.labels, scenario.classes)(test.features), test)


def table(scenario: Scenario, options: argparse.Namespace) -> dict[str, object]:
    """Run every cell; print a row as soon as it is known."""
    private_labels = options.labels == "private"
    projection = sp.Projection.pca(scenario.public.features, options.dim, whiten=True)
    public = projection(scenario.public.features)
    floor, ceiling = baselines(scenario)
    covered = "features and label" if private_labels else "features; labels are public"
    print(f"\n{scenario.title}: {len(scenario.private.labels):,} private records, {scenario.classes} classes")
    print(f"public data only {100 * floor:.1f} %, no privacy {100 * ceiling:.1f} %; ε of the record covers {covered}")
    print("accuracy in % ± spread (share of the gap between these two that is closed)")
    ways = ("clean inference", "noisy, features", "noisy, discriminant", "noisy, decision")
    print(f"{'':2}{'mechanism':<36}{'ε':>5}" + "".join(f"{way:>22}" for way in ways))
    rows: dict[str, object] = {}
    for name, way in mechanisms(private_labels).items():
        cells = {}
        for epsilon in options.epsilons:
            tasks = (Task(scenario, projection, public, epsilon, private_labels, seed) for seed in range(options.seeds))
            runs = cells[f"{epsilon:g}"] = [way(task) for task in tasks]
            texts = [_cell(values, floor, ceiling) for values in zip(*runs, strict=True)]
            print(f"{'':2}{name:<36}{epsilon:>5g}" + "".join(f"{text:>22}" for text in texts), flush=True)
        rows[name] = cells
    return {"public only": floor, "no privacy": ceiling, "rows": rows}


def _cell(values: tuple[float, ...], floor: float, ceiling: float) -> str:
    if any(math.isnan(value) for value in values):
        return "-"
    mean, spread = statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0
    gap = ceiling - floor
    share = f"{100 * (mean - floor) / gap:.0f} %" if gap > 0.02 else "no gap"
    return f"{100 * mean:.1f} ± {100 * spread:.1f} ({share})"


def main(argv: list[str] | None = None) -> None:
    """Print one table for each of the scenarios and kinds of labels asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", choices=("fashion-mnist", "cifar10"), default="fashion-mnist")
    parser.add_argument("--classes", choices=("disjoint", "shared"), default="disjoint")
    parser.add_argument("--labels", choices=("private", "public"), default="private")
    parser.add_argument("--epsilons", type=float, nargs="+", default=[0.5, 1.0, 2.0, 4.0, 8.0, 16.0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--limit", type=int, default=None, help="records of each set, for a quick look")
    parser.add_argument("--json", type=Path, default=None)
    options = parser.parse_args(argv)
    start = time.perf_counter()
    scenario = scenarios.load(options.data, shared=options.classes == "shared", limit=options.limit)
    found = table(scenario, options)
    print(f"{time.perf_counter() - start:.0f} s, {torch.get_num_threads()} threads")
    if options.json:
        options.json.write_text(json.dumps({"options": {k: str(v) for k, v in vars(options).items()}, **found}))


if __name__ == "__main__":
    main()
