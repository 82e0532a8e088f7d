"""The audit of a training in one run: published values, validity, and a server trained on releases."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

import splitpriv as sp
from splitpriv import InvalidParameterError, NonFiniteError, ShapeError
from splitpriv.attacks.auditing import OneRunAudit, audit_training, one_run_epsilon
from splitpriv.attacks.auditing.one_run import _chance


@pytest.mark.parametrize(
    ("case", "expected"),
    [((1000, 100, 95, 1e-5, 0.05), 2.16517), ((1000, 1000, 600, 0.0, 0.05), 0.29746)],
)
def test_published_values(case: tuple[int, int, int, float, float], expected: float) -> None:
    assert one_run_epsilon(*case) == pytest.approx(expected, abs=1e-5)


def test_a_tiny_delta_is_none() -> None:
    for case in ((1000, 1000, 600), (500, 40, 40), (100, 100, 51), (50, 10, 0)):
        exact = one_run_epsilon(*case, 0.0, 0.05)
        assert one_run_epsilon(*case, 1e-12, 0.05) == pytest.approx(exact, abs=1e-6)
        assert one_run_epsilon(*case, 1e-3, 0.05) <= exact


def test_the_correction_for_delta_by_hand() -> None:
    # Two guesses, both right: Pr[X >= 2] = q^2, and the maximum of Pr[X = 1] and Pr[X in {0, 1}] / 2.
    q = math.e / (1 + math.e)
    assert _chance(10, 2, 2, 0.01, 1.0) == pytest.approx(q**2 + 0.2 * max(2 * q * (1 - q), (1 - q**2) / 2))


def test_more_right_guesses_show_more() -> None:
    found = [one_run_epsilon(200, 100, v, 1e-5, 0.05) for v in range(0, 101, 5)]
    assert found == sorted(found)
    assert found[10] == 0
    assert found[-1] > 3


def test_the_bound_on_known_coins_is_wrong_no_more_often_than_promised() -> None:
    # Each of 300 canaries is released by randomized response: scores are the bits. 400 runs, level 1e-3.
    epsilon, runs = 1.0, 400
    rng = np.random.default_rng(0)
    attack = OneRunAudit(guesses=(50, 150, 300))
    wrong = {0.0: 0, epsilon: 0}
    for truth in wrong:
        for _ in range(runs):
            coins = rng.random(300) < 0.5
            bits = coins ^ (rng.random(300) > 1 / (1 + math.exp(-truth)))
            scores = torch.from_numpy(bits + rng.random(300) * 0.5)
            wrong[truth] += attack(scores, torch.from_numpy(coins)).epsilon > truth
    assert max(wrong.values()) <= stats.binom.isf(1e-3, runs, 0.05)


def test_guesses_are_the_ends_of_the_scores() -> None:
    included = torch.tensor([True, False, True, True, False, False, True, False])
    scores = torch.tensor([9.0, 8, 7, 6, 5, 4, -3, -4])
    found = OneRunAudit(guesses=5)(scores, included)
    assert (found.guesses, found.right) == (5, 3)  # 9, 8, 7 included; -3, -4 left out
    assert found.event == "the 3 highest and the 2 lowest scores of 8 canaries"
    assert found.plot().axes
    perfect = OneRunAudit(guesses=(2, 8))(included.float(), included)
    assert (perfect.guesses, perfect.right) == (8, 8)
    assert OneRunAudit()(torch.zeros(64), torch.ones(64, dtype=torch.bool)).draws == 64


def test_ties_do_not_follow_the_coins() -> None:
    included = torch.arange(400) < 200
    right = [OneRunAudit(guesses=400, seed=seed)(torch.zeros(400), included).right for seed in range(30)]
    # Mean 200, standard deviation of the mean 1.83: five of them.
    assert abs(np.mean(right) - 200) < 9.2


def server_audit(cut: Any, claimed: float, canaries: int = 200) -> Any:
    """Canaries with random labels, released through a layer; a linear server is trained on what was released."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(canaries, 400, generator=generator)
    labels = (torch.rand(canaries, generator=generator) < 0.5).float() * 2 - 1

    def train(included: Tensor) -> Tensor:
        released = features[included] if cut is None else cut.decode(cut.encode(features[included]))
        gram = released @ released.T + 0.1 * torch.eye(len(released))
        return released.T @ torch.linalg.solve(gram, labels[included])  # ridge regression

    def score(weights: Tensor) -> Tensor:
        return -(features @ weights - labels).square()

    return audit_training(train, score, canaries=canaries, claimed=claimed)


def test_a_server_trained_on_clear_features_gives_its_canaries_away() -> None:
    found = server_audit(None, math.inf)
    assert found.epsilon > 2
    assert found.unit == "one canary"


def test_a_server_trained_on_private_features_does_not() -> None:
    layer = sp.CodebookLDP(torch.randn(64, 400, generator=torch.Generator().manual_seed(1)), epsilon=0.5, generator=0)
    found = server_audit(layer, layer.epsilon)
    assert not found.refuted
    assert found.epsilon <= 0.5


def test_the_coins_are_independent_of_what_train_does_with_them() -> None:
    def spoil(included: Tensor) -> Tensor:
        copy = included.clone()
        included[:] = False
        return copy.float()

    assert audit_training(spoil, lambda seen: seen, canaries=100).right > 90


@pytest.mark.parametrize(
    ("case", "text"),
    [
        ((0, 0, 0, 0.0, 0.05), "m must be an integer >= 1"),
        ((10, 11, 0, 0.0, 0.05), r"r must be an integer in \[0, 10\]"),
        ((10, 5, 6, 0.0, 0.05), r"v must be an integer in \[0, 5\]"),
        ((10, 5, 5, 1.0, 0.05), r"one_run_epsilon: delta must be in \[0, 1\)"),
        ((10, 5, 5, 0.0, 1.5), "one_run_epsilon: failure_probability must be below 1"),
    ],
)
def test_bad_counts(case: tuple[int, int, int, float, float], text: str) -> None:
    with pytest.raises(InvalidParameterError, match=text):
        one_run_epsilon(*case)


def test_bad_arguments() -> None:
    with pytest.raises(InvalidParameterError, match="guesses must be one number or more, or None"):
        OneRunAudit(guesses=())
    with pytest.raises(InvalidParameterError, match="guesses must be an integer >= 1"):
        OneRunAudit(guesses=(0, 3))
    with pytest.raises(InvalidParameterError, match=r"OneRunAudit: delta must be in \[0, 1\)"):
        OneRunAudit(delta=1.0)
    with pytest.raises(InvalidParameterError, match="guesses must be at most the number of canaries, 3"):
        OneRunAudit(guesses=4)(torch.zeros(3), torch.ones(3, dtype=torch.bool))
    with pytest.raises(ShapeError, match=r"scores and included must have one shape \(canaries,\), included bool"):
        OneRunAudit()(torch.zeros(3), torch.zeros(3))
    with pytest.raises(NonFiniteError, match="scores must not be NaN"):
        OneRunAudit()(torch.tensor([math.nan]), torch.tensor([True]))
    with pytest.raises(InvalidParameterError, match="canaries must be an integer >= 16"):
        audit_training(lambda x: x, lambda x: x, canaries=3)


def test_a_model_can_be_what_is_trained() -> None:
    found = audit_training(lambda included: nn.Linear(1, 1), lambda _: torch.zeros(32), canaries=32, claimed=0.0)
    assert found.verdict.startswith("claims 0: ")
