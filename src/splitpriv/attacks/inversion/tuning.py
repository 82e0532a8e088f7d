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


def tuning_problem(seed: int, problem: Problem, records: int) -> tuple[Problem, Tensor]:
    """Some public records as if they were private: their releases, and their inputs."""
    public, order = problem.known_public, problem.shuffled(seed)[:records]
    truth = public[order.to(public.device)].to(problem.centre.device)
    return problem.simulated(order), truth


def best_weight(attack: Any, problem: Problem, weights: Sequence[float], records: int, found: Found) -> float:
    """The weight of the prior with the least mean squared error on released public records."""
    if len(weights) == 1:
        return weights[0]
    simulated, truth = tuning_problem(attack.seed, problem, records)
    return weights[int(_errors(attack, simulated, truth, weights, found).argmin())]


def best_temperature(
    attack: Any, problem: Problem, prior: Prior, records: int, found: Callable[[float], Found]
) -> float:
    """The first temperature with the least mean squared error on released public records, at weight 0.1 or 1.

    Three are tried: the spread of public features, a tenth of it, and the one whose slope points best to the truth.
    """
    simulated, truth = tuning_problem(attack.seed, problem, records)
    with torch.no_grad():
        spread = float(problem.view.need("edge")(truth).std(0, correction=0).mean()) or 1.0
    tried = sorted({spread, spread / 10, _best_slope(simulated, truth, prior, spread)})
    errors = [float(_errors(attack, simulated, truth, (0.1, 1.0), found(one)).min()) for one in tried]
    return tried[errors.index(min(errors))]


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


def _best_slope(simulated: Problem, truth: Tensor, prior: Prior, spread: float) -> float:
    """The temperature whose slope points best to the truth, at the mean input and halfway from there.

    In a geometric grid about the spread of features: too cold a likelihood has no slope, too hot a one a wrong one.
    """
    edge = simulated.view.need("edge")
    with torch.no_grad():
        middle = prior.inputs(truth.new_zeros(len(truth), *prior.shape))
    way, best, level = truth - middle, spread, -torch.inf
    for exponent in range(-4, 9):
        temperature, agreement = spread * 10 ** (exponent / 2), 0.0
        for share in (0.0, 0.5):
            with torch.enable_grad():
                inputs = (middle + share * way).requires_grad_(True)
                likely = simulated.log_prob(slice(None), edge(inputs), temperature)
                (slope,) = torch.autograd.grad(likely.sum(), inputs)
            cosine = torch.cosine_similarity(slope.flatten(1).double(), way.flatten(1).double(), eps=1e-30)
            agreement += float(cosine.mean())
        if agreement > level:
            best, level = temperature, agreement
    return best
