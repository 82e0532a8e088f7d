"""What an attack chooses by attacking public records: never by looking at a private one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from splitpriv.attacks.inversion.prior import Prior
from splitpriv.attacks.inversion.problem import Problem

Found = Callable[[Problem, slice, Tensor], tuple[Tensor, Tensor]]
"""(problem, which of its records, one weight each) to (reconstructions, whether they moved)."""

FIRST = (0.3, 3.0)  # weights of the prior at which priors and temperatures are compared


def tuning_problem(attack: Any, problem: Problem) -> tuple[Problem, Tensor]:
    """Some public records as if they were private: their releases, and their inputs."""
    order = problem.shuffled(attack.seed)[: attack.tuning_records]
    return problem.simulated(order, attack.batch_size), problem.public_at(order)


def best_weight(attack: Any, problem: Problem, weights: Sequence[float], found: Found) -> float:
    """The weight of the prior with the least mean squared error on released public records."""
    if len(weights) == 1:
        return weights[0]
    simulated, truth = tuning_problem(attack, problem)
    return weights[int(_errors(attack, simulated, truth, weights, found).argmin())]


def best_search(
    attack: Any,
    problem: Problem,
    priors: Sequence[Prior],
    weights: Sequence[float],
    found: Callable[[Prior, float | None], Found],
) -> tuple[Prior, float | None]:
    """The prior and the first temperature with the least mean squared error on released public records.

    Temperatures tried are the likelihood's own, the spread of public features, a tenth of it, and the one whose slope
    points best to the truth; None where the likelihood takes none.
    """
    simulated, truth = tuning_problem(attack, problem)
    pairs: list[tuple[Prior, float | None]] = []
    for prior in priors:
        fixed = attack.temperature is not None or not problem.relaxes
        tried = [attack.temperature] if fixed else _temperatures(attack, simulated, truth, prior)
        pairs += [(prior, one if problem.relaxes else None) for one in tried]
    if len(pairs) == 1:
        return pairs[0]
    errors = [float(_errors(attack, simulated, truth, weights, found(*pair)).min()) for pair in pairs]
    return pairs[errors.index(min(errors))]


def _temperatures(attack: Any, simulated: Problem, truth: Tensor, prior: Prior) -> list[float]:
    batches = list(attack._batches(len(truth), "features of public records"))
    edge = simulated.view.need("edge")
    with torch.no_grad():
        spread = float(torch.cat([edge(truth[rows]) for rows in batches]).std(0, correction=0).mean()) or 1.0
    agreements = dict.fromkeys((spread * 10 ** (exponent / 2) for exponent in range(-4, 9)), 0.0)
    for rows in batches:
        here = prior.of(simulated, rows)
        for one in agreements:
            agreements[one] += _agreement(simulated, rows, truth[rows], here, one)
    slope = max(agreements, key=lambda one: agreements[one])
    own = [] if simulated.temperature is None else [simulated.temperature]
    return sorted({spread, spread / 10, slope, *own})


def _errors(
    attack: Any, simulated: Problem, truth: Tensor, weights: Sequence[float], found: Found
) -> Tensor:  # shape: (weights,)
    """Mean squared error of each weight on every record; all these runs are one long list of records."""
    count, device = len(truth), simulated.centre.device
    record = torch.arange(count, device=device).repeat(len(weights))
    repeated = replace(simulated, releases=tuple(symbols[record] for symbols in simulated.releases))
    each = torch.tensor(weights, device=device).repeat_interleave(count)
    errors = []
    for rows in attack._batches(len(record), "choices on public records"):
        inputs, _ = found(repeated, rows, each[rows])
        errors.append((inputs - truth[record[rows]]).double().square().flatten(1).mean(1))
    return torch.cat(errors).reshape(len(weights), count).mean(1)


def _agreement(simulated: Problem, rows: slice, truth: Tensor, prior: Prior, temperature: float) -> float:
    """How well the slope points to the truth, at the middle of the prior and halfway from there: a sum of cosines.

    Too cold a likelihood has no slope, too hot a one a wrong one.
    """
    edge, total = simulated.view.need("edge"), 0.0
    with torch.no_grad():
        middle = prior.inputs(truth.new_zeros(len(truth), *prior.shape))
    way = truth - middle
    for share in (0.0, 0.5):
        with torch.enable_grad():
            inputs = (middle + share * way).requires_grad_(True)
            likely = simulated.log_prob(rows, edge(inputs), temperature)
            (slope,) = torch.autograd.grad(likely.sum(), inputs)
        cosine = torch.cosine_similarity(slope.flatten(1).double(), way.flatten(1).double(), eps=1e-30)
        total += float(cosine.sum())
    return total
