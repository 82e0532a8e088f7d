"""How much a budget for the whole record buys: accuracy against record-level epsilon.

    python benchmarks/bench_record_level.py [--data fashion-mnist|cifar10] [--classes disjoint|shared]
                                            [--labels private|public] [--epsilons 0.5 1 2 4 8 16] [--seeds 3]

An edge is trained on public records, frozen, and ends in a public projection to ``--dim`` dimensions. Each
private record crosses once, by each mechanism in turn, and the server is fitted to what crossed with
``fit(noise_aware=True)``. Two kinds of inference on the test records:

* *clean*: on the edge device, by the trained server part (``SplitModel.local``); nothing crosses.
* *noisy*: the record's features cross at the same epsilon (no label does), and the server reads them.

Epsilon is that of the whole record; with ``--labels private`` the label's is in it. What counts is the
share of the gap between *public data only* and *no privacy* that is closed. Mean and spread
(standard deviation) over the seeds of the noise; the edge and the split are those of seed 0.
"""

from __future__ import annotations

import argparse
import json
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

Cell = tuple[float, float]  # accuracy of clean and of noisy inference


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


Layer = Callable[[float, int, int], nn.Module]  # (epsilon, dim, seed) -> layer at the cut


def book_size(epsilon: float) -> int:
    """Larger books lower the error only at large epsilon: 64 codewords are within 3 % of 4,096 at ε = 1."""
    return 64 if epsilon <= 1 else 256 if epsilon <= 8 else 1024


def random_codebook(epsilon: float, dim: int, seed: int) -> nn.Module:
    return sp.CodebookLDP.random(dim, size=book_size(epsilon), epsilon=epsilon, generator=seed)


def randomized_response(epsilon: float, dim: int, seed: int) -> nn.Module:
    return sp.RandomResponseLDP(epsilon=epsilon, per="record", generator=seed)


def laplace(epsilon: float, dim: int, seed: int) -> nn.Module:
    return sp.LaplaceLDP(epsilon=epsilon, sensitivity=4 / dim**0.5, per="record", outside="clamp", generator=seed)


def l1_laplace(epsilon: float, dim: int, seed: int) -> nn.Module:
    return sp.L1LaplaceLDP(epsilon=epsilon, radius=dim**0.5, generator=seed)


def learned_codebook(public: Tensor) -> Layer:
    def make(epsilon: float, dim: int, seed: int) -> nn.Module:
        options = {"size": 256, "closest": 32, "decode": "membership"}
        return sp.CodebookLDP.fit(public[:5000], epsilon=epsilon, generator=seed, **options)

    return make


def separate(layer: Layer, task: Task) -> tuple[sp.SplitModel, Layer]:
    """Features by the layer, labels by k-ary randomized response; half of epsilon each."""
    half = task.epsilon / 2 if task.private_labels else task.epsilon
    labels = sp.LabelLDP(task.classes, epsilon=half, generator=task.seed) if task.private_labels else "public"
    return sp.SplitModel(task.projection, task.server(), layer(half, task.dim, task.seed), labels=labels), layer


def embedded(layer: Layer, task: Task) -> tuple[sp.SplitModel, Layer]:
    """Features and label as one vector, by one mechanism with all of epsilon."""
    cut = layer(task.epsilon, task.dim * task.classes, task.seed)
    labels = sp.EmbeddedLabels(task.classes)
    return sp.SplitModel(task.projection, task.server(), cut, labels=labels), layer


def run(make: Callable[[Task], tuple[sp.SplitModel, Layer]], task: Task) -> Cell:
    """Release, fit, and infer in both ways."""
    test = task.scenario.test
    model, layer = make(task)
    with sp.accounting.simulation():
        fitted(model, task)
        noisy = sp.SplitModel(task.projection, model.server, layer(task.epsilon, task.dim, task.seed + 100))
        return accuracy(model.local(test.features), test), accuracy(noisy(test.features), test)


def decision(task: Task) -> Cell:
    """Embedded labels; at inference the edge sends the trained server's decision, by randomized response."""
    scenario = task.scenario
    model, _ = embedded(random_codebook, task)
    with sp.accounting.simulation():
        fitted(model, task)
    scores = model.local(scenario.test.features)
    response = sp.LabelLDP(task.classes, epsilon=task.epsilon, generator=task.seed + 100)
    sent = response.encode(scores.argmax(1))
    return accuracy(scores, scenario.test), float((sent == scenario.test.labels).float().mean())


def fitted(model: sp.SplitModel, task: Task) -> None:
    """Release the private records once, and fit the server to what crossed."""
    private, public = task.scenario.private, task.scenario.public
    release = model.release((private.features, private.labels), batch_size=2000, progress=False)
    assert release.epsilon <= task.epsilon * (1 + 1e-12), (release.epsilon, task.epsilon)
    clean = model.clean(public.features)
    if clean.shape[1] != task.dim:  # membership in a codebook
        model.server = nn.Linear(clean.shape[1], task.classes)
    sp.fit(model.server, release, noise_aware=True, public=(clean, public.labels), seed=task.seed, progress=False)


def accuracy(outputs: Tensor, part: Part) -> float:
    return float((outputs.argmax(1) == part.labels).float().mean())


def mechanisms(public: Tensor, private_labels: bool) -> dict[str, Callable[[Task], Cell]]:
    """The rows of a table."""
    layers = {
        "random codebook": random_codebook,
        "learned codebook": learned_codebook(public),
        "L1 Laplace": l1_laplace,
        "randomized response": randomized_response,
        "Laplace": laplace,
    }
    rows: dict[str, Callable[[Task], Cell]] = {}
    if private_labels:
        rows["random codebook, label embedded"] = lambda task: run(lambda t: embedded(random_codebook, t), task)
        rows["  the same, decision sent"] = decision
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
    print("accuracy in % ± spread, and the share of the gap that is closed: clean inference | noisy inference")
    print(f"{'':2}{'mechanism':<36}" + "".join(f"{f'ε {e:g}':^36}" for e in options.epsilons))
    rows: dict[str, object] = {}
    for name, way in mechanisms(public, private_labels).items():
        cells = {}
        print(f"{'':2}{name:<36}", end="", flush=True)
        for epsilon in options.epsilons:
            runs = [
                way(Task(scenario, projection, public, epsilon, private_labels, seed)) for seed in range(options.seeds)
            ]
            cells[f"{epsilon:g}"] = runs
            print("".join(f"{text:^36}" for text in [_cell(runs, floor, ceiling)]), end="", flush=True)
        rows[name.strip()] = cells
        print()
    return {"public only": floor, "no privacy": ceiling, "rows": rows}


def _cell(runs: list[Cell], floor: float, ceiling: float) -> str:
    parts = []
    for values in zip(*runs, strict=True):
        mean, spread = statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0
        parts.append(f"{100 * mean:.1f} ± {100 * spread:.1f} ({100 * (mean - floor) / (ceiling - floor):.0f} %)")
    return " | ".join(parts)


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
