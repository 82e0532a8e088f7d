"""Which outputs floating-point noise can give betrays the input; noise on a grid does not."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from cases_audit import float_laplace
from faults import float_laplace_outputs
from torch import Tensor

from splitpriv import InvalidParameterError, LaplaceLDP, NonFiniteError, ShapeError
from splitpriv.attacks.auditing import FloatingPointAttack, one_run_epsilon
from splitpriv.attacks.auditing.float_samplers import SAMPLERS, TorchLaplace, rounds_once, stretched, ways


def library(scale: float = 1.0) -> Any:
    return lambda values: torch.distributions.Laplace(values, scale).sample()


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def test_one_element_of_the_library_is_enough_for_84_percent() -> None:
    found = FloatingPointAttack(trials=20_000)(library())
    assert found.accuracy.low >= 0.84
    assert found.fits
    assert found.impossible == pytest.approx(0.8, abs=0.02)
    assert found.refuted
    assert found.bound == pytest.approx(math.e / (1 + math.e))


def test_sixteen_elements_are_enough_for_all() -> None:
    found = FloatingPointAttack(elements=16, trials=8192)(library())
    assert found.accuracy.low >= 0.999
    # More than trials can show was claimed: that is said, and what would follow.
    assert found.epsilon <= found.most < found.claimed == 16
    assert found.most == one_run_epsilon(8192, 8192, 8192, 0.0, 0.05)
    assert "8,192 trials show 7.91 at most; if this is the sampler's noise, impossible outputs leave no" in str(found)
    other = FloatingPointAttack(elements=16, trials=64)(lambda values: values.round())
    assert other.verdict == "claim not refuted: 64 trials show 3.04 at most"
    assert FloatingPointAttack(trials=64)(torch.zeros_like).verdict == "claim not refuted"


@pytest.mark.parametrize("elements", [1, 4])
@pytest.mark.parametrize("sampler", list(SAMPLERS))
def test_noise_on_a_grid_keeps_its_bound(elements: int, sampler: str) -> None:
    layer = LaplaceLDP(epsilon=1.0, sensitivity=1.0, outside="clamp", generator=0)
    attack = FloatingPointAttack(inputs=(-0.5, 0.5), elements=elements, trials=8192, sampler=sampler)
    found = attack(layer)
    assert not found.fits
    assert found.accuracy.low <= found.bound
    assert found.epsilon <= found.claimed
    if elements == 1:
        # Two-sided at 95 %; a density test of this noise gets 1 - exp(-1/2)/2 = 0.697 right.
        assert found.accuracy.low <= 0.697 <= found.accuracy.high


def test_textbook_noise_betrays_itself_too() -> None:
    rng = np.random.default_rng(0)

    def release(values: Tensor) -> Tensor:
        rows = [float_laplace_outputs(float(row[0]), 1.0, rng.random(values.shape[1])) for row in values]
        return torch.from_numpy(np.stack(rows))

    found = FloatingPointAttack(sampler="textbook", trials=4096)(release)
    assert found.accuracy.low >= 0.84
    assert found.fits
    many = FloatingPointAttack(sampler="textbook", elements=16, trials=1024)(release)
    assert many.accuracy.value > 0.999


@pytest.mark.parametrize("count", [1, 7, 4099])
@pytest.mark.parametrize("scale", [0.05, 1.0, 3.0])
def test_every_output_is_possible_for_its_own_input(count: int, scale: float) -> None:
    # Whole vectors and the rest of them may be computed by different code: all sizes must agree.
    for value in (0.0, 1.0, -0.3):
        values = torch.full((count,), value)
        outputs = torch.cat([library(scale)(values) for _ in range(max(1, 500 // count))])
        assert bool((ways(TorchLaplace(), outputs, float(values[0]), scale) > 0).all())


def test_ways_are_counted_as_by_full_enumeration() -> None:
    # All places of a stretch of 2**18, against the search around the exact inverse.
    places = torch.arange(1 << 22, (1 << 22) + (1 << 18))
    outputs = TorchLaplace().outputs(1.0, places, 1.0)
    seen, counts = torch.unique(outputs, return_counts=True)
    inner = slice(5, -5)  # ends may have more places outside the stretch
    assert torch.equal(ways(TorchLaplace(), seen[inner], 1.0, 1.0), counts[inner])


def test_both_ways_to_round_uniform_numbers_are_told_apart() -> None:
    places = torch.arange(0, 1 << 24, 9973)
    assert not torch.equal(stretched(places, fused=True), stretched(places, fused=False))
    drawn = torch.empty(5000).uniform_(torch.finfo(torch.float32).eps - 1, 1)
    exact = (drawn.double() - (2.0**-23 - 1)) / (2 - 2.0**-23) * 2**24
    assert torch.equal(stretched(exact.round(), fused=rounds_once()), drawn)


def test_the_seed_decides_the_coins_alone() -> None:
    first, again = (FloatingPointAttack(trials=500, seed=3)(float_laplace(1.0)) for _ in range(2))
    assert first == again
    assert np.array_equal(first.log_odds, again.log_odds)
    other = FloatingPointAttack(trials=500, seed=4)(float_laplace(1.0))
    assert not np.array_equal(first.second, other.second)


def test_a_result_reads_well_and_is_exported() -> None:
    found = FloatingPointAttack(trials=500)(library())
    assert "claim REFUTED" in str(found)
    assert json.loads(json.dumps(found.to_dict()))["fits"] is True
    assert found.plot().axes
    other = FloatingPointAttack(trials=64)(lambda values: values.round())
    assert other.to_dict()["impossible"] is None
    assert "other noise" in str(other)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"inputs": (1.0, 1.0)}, "inputs must be two different numbers"),
        ({"inputs": 3}, "inputs must be two different numbers, got inputs=3"),
        ({"inputs": (1.0, math.inf)}, "inputs must be a finite number"),
        ({"scale": 0.0}, "scale must be finite and > 0"),
        ({"elements": 0}, "elements must be an integer >= 1"),
        ({"trials": 3}, "trials must be an integer >= 16"),
        ({"sampler": "numpy"}, "sampler must be 'torch' or 'textbook'"),
        ({"failure_probability": 1.0}, "FloatingPointAttack: failure_probability must be below 1"),
    ],
)
def test_bad_arguments(options: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidParameterError, match=text):
        FloatingPointAttack(**options)


def test_what_is_released_must_fit() -> None:
    with pytest.raises(ShapeError, match="release must return float32 of shape"):
        FloatingPointAttack(trials=16)(lambda values: values.double())
    with pytest.raises(ShapeError, match=r"release must return float32 of shape \(16, 1\), got int"):
        FloatingPointAttack(trials=16)(lambda values: 3)  # type: ignore[arg-type, return-value]
    with pytest.raises(InvalidParameterError, match="FloatingPointAttack: release must be a callable, got release=3"):
        FloatingPointAttack()(3)  # type: ignore[arg-type]


@pytest.mark.parametrize("betrays", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_gets_no_verdict(betrays: float) -> None:
    def release(values: Tensor) -> Tensor:
        return torch.where(values > 0.5, torch.tensor(betrays), torch.zeros_like(values))

    text = r"got NaN or infinity in 0 trials of the first input and \d+ of the second"
    with pytest.raises(NonFiniteError, match=text):
        FloatingPointAttack(trials=500)(release)
