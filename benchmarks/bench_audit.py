"""Lower bounds on epsilon from draws: how often they are wrong, how close they come; and floating-point noise.

    python benchmarks/bench_audit.py [--trials 400] [--draws 1000000] [--seeds 5] [--smoke] [--json found.json]

Valid: audits of 10,000 draws at a known epsilon, failure probability 0.05, and in how many the bound is above the
truth. Tight: the bound from ``--draws`` draws of one symbol over the truth. The one-run audit at published values.
Floating point: how often two inputs are told apart by what torch.distributions.Laplace releases in float32, and by
what LaplaceLDP does, beside what epsilon allows. Layers draw from seeds, for numbers that can be had again. One
thread; ten minutes or more, most of them for the audits of the first table.
"""

from __future__ import annotations

import argparse
import math
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from scipy import stats
from torch import Tensor

import timing
from splitpriv import CodebookLDP, LaplaceLDP, PrivacyWarning, RandomResponseLDP
from splitpriv.accounting import Spend
from splitpriv.attacks.auditing import FloatingPointAttack, LowerBoundAudit, one_run_epsilon

ALPHA = 0.05
VALIDITY_DRAWS = 10_000
EPSILONS = (0.1, 0.5, 1.0, 2.0, 4.0, 6.0)
PUBLISHED = {(1000, 100, 95, 1e-5, ALPHA): 2.16517, (1000, 1000, 600, 0.0, ALPHA): 0.29746}
Make = Callable[[float, int], Any]


class Coin:
    """Releases a fair coin, whatever the record."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def encode(self, features: Tensor) -> Tensor:
        return torch.randint(0, 2, (len(features), 1), generator=self.generator, dtype=torch.uint8)

    def decode(self, symbols: Tensor) -> Tensor:
        return symbols.float()

    def spend(self, shape: Sequence[int]) -> Spend:
        return Spend.of(0.0, 1)


def k_ary(size: int) -> Make:
    """k-ary randomized response on the largest of ``size`` elements."""
    return lambda epsilon, seed: CodebookLDP(torch.eye(size), epsilon=epsilon, closest=1, generator=seed)


BIT = torch.tensor([[1.0], [-1.0]])
KINDS: dict[str, tuple[Make, Tensor]] = {
    "randomized response": (lambda epsilon, seed: RandomResponseLDP(epsilon=epsilon, generator=seed), BIT),
    "k-ary, k = 8": (k_ary(8), torch.eye(8)[:2]),
    "Laplace": (
        lambda epsilon, seed: LaplaceLDP(epsilon=epsilon, sensitivity=2.0, outside="clamp", generator=seed),
        BIT,
    ),
}


# Many symbols leave few draws for each: at epsilon 0.1 their bounds are the loosest.
MORE = {f"k-ary, k = {size}": (k_ary(size), torch.eye(size)[:2]) for size in (16, 32)}


def validity(trials: int, draws: int) -> list[dict[str, Any]]:
    """In how many audits the bound is above the truth."""
    cases: list[tuple[str, float, Make, Tensor]] = [("coin", 0.0, lambda _, seed: Coin(seed), BIT)]
    cases += [(name, epsilon, *kind) for name, kind in KINDS.items() for epsilon in (0.5, 2.0)]
    most = int(stats.binom.isf(1e-3, trials, ALPHA))
    print(
        f"valid: bounds above the truth in {trials} audits of {draws:,} draws "
        f"(expected at most {ALPHA * trials:g}, limit {most})"
    )
    rows = []
    for name, epsilon, make, example in cases:
        wrong, shown = 0, 0.0
        for seed in range(trials):
            layer = make(epsilon, seed)
            found = LowerBoundAudit(draws=draws, failure_probability=ALPHA, seed=seed)(layer, example)
            wrong += found.epsilon > found.claimed
            shown += found.epsilon / trials
        print(f"  {name:<22} ε {epsilon:<5g} above in {wrong:>3}, mean bound {shown:.3f}")
        rows.append({"layer": name, "epsilon": epsilon, "above": wrong, "trials": trials, "limit": most, "mean": shown})
    return rows


def tightness(draws: int, seeds: int) -> list[dict[str, Any]]:
    """The bound over the truth for one symbol: mean over seeds, and the lowest."""
    print(f"\ntight: bound / truth from {draws:,} draws of one symbol, mean and lowest of {seeds} seeds (goal 0.8)")
    print(f"  {'':<22}" + "".join(f"{f'ε {epsilon:g}':>13}" for epsilon in EPSILONS) + "   seconds each")
    rows = []
    for name, (make, example) in {**KINDS, **MORE}.items():
        start, shares = time.perf_counter(), {}
        for epsilon in EPSILONS:
            found = [
                LowerBoundAudit(draws=draws, failure_probability=ALPHA, seed=seed)(make(epsilon, seed), example)
                for seed in range(seeds)
            ]
            shares[str(epsilon)] = [one.epsilon / one.claimed for one in found]
        seconds = (time.perf_counter() - start) / len(EPSILONS) / seeds
        shown = [f"{sum(some) / seeds:.3f} {min(some):.3f}" for some in shares.values()]
        print(f"  {name:<22}" + "".join(f"{one:>13}" for one in shown) + f"{seconds:>10.2f}")
        rows.append({"layer": name, "draws": draws, "seconds": seconds, "share": shares})
    return rows


def one_run() -> list[dict[str, Any]]:
    """Published values of the one-run audit."""
    print("\none run: (canaries, guesses, right, delta, failure probability) -> epsilon")
    rows = []
    for case, published in PUBLISHED.items():
        found = one_run_epsilon(*case)
        print(f"  {case} -> {found:.5f}, published {published}")
        rows.append({"case": list(case), "epsilon": found, "published": published})
    return rows


def floating_point(trials: int) -> list[dict[str, Any]]:
    """How often two inputs one epsilon apart are told apart."""
    print(
        f"\nfloating point at ε 1: inputs told apart in {trials:,} trials; "
        f"ε allows {math.e / (1 + math.e):.3f} from one element"
    )
    torch.manual_seed(0)
    layer = LaplaceLDP(epsilon=1.0, sensitivity=1.0, outside="clamp", generator=0)
    ways: dict[str, tuple[Callable[[Tensor], Tensor], tuple[float, float]]] = {
        "torch.distributions.Laplace, scale 1": (
            lambda x: torch.distributions.Laplace(x, 1.0).sample(),
            (0.0, 1.0),
        ),
        "LaplaceLDP, sensitivity 1": (layer, (-0.5, 0.5)),
    }
    rows = []
    for name, (release, inputs) in ways.items():
        for elements in (1, 16):
            found = FloatingPointAttack(inputs=inputs, elements=elements, trials=trials)(release)
            print(
                f"  {name}, inputs {inputs[0]:g} and {inputs[1]:g}, {elements} elements: {found.accuracy}, "
                f"ε ≥ {found.epsilon:.3g} of {found.claimed:g}: {found.verdict}"
            )
            rows.append({"noise": name, **found.to_dict()})
    return rows


def main(argv: list[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=400, help="audits of each row of the first table")
    parser.add_argument("--draws", type=int, default=1_000_000, help="draws of each audit of the second table")
    parser.add_argument("--seeds", type=int, default=5, help="audits of each cell of the second table")
    parser.add_argument("--smoke", action="store_true", help="a run of seconds, of no meaning")
    parser.add_argument("--json", type=Path, default=None, help="a file for the numbers")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    trials, draws, apart = (3, 5000, 64) if options.smoke else (options.trials, options.draws, 20_000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PrivacyWarning)  # of seeds: said above
        found = {
            "validity": validity(trials, min(draws, VALIDITY_DRAWS)),
            "tightness": tightness(draws, 1 if options.smoke else options.seeds),
            "one_run": one_run(),
            "floating_point": floating_point(apart),
        }
    timing.write(options.json, found)


if __name__ == "__main__":
    main()
