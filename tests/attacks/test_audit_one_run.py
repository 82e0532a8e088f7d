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
from splitpriv import InvalidParameterError, NonFiniteError, RandomResponseLDP, ShapeError
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
    found = OneRunAudit(guesses=6)(scores, included)
    assert (found.guesses, found.right) == (6, 4)  # 9, 8, 7 included; 4, -3, -4 left out
    assert found.event == "the 3 highest and the 3 lowest scores of 8 canaries"
    assert found.plot().axes
    perfect = OneRunAudit(guesses=(2, 8))(included.float(), included)
    assert (perfect.guesses, perfect.right) == (8, 8)
    for count in (2, 3, 64, 103):
        found = OneRunAudit()(torch.zeros(count), torch.ones(count, dtype=torch.bool))
        assert found.draws == count
        assert found.guesses % 2 == 0


def test_ties_do_not_follow_the_coins() -> None:
    included = torch.arange(400) < 200
    right = [OneRunAudit(guesses=400, seed=seed)(torch.zeros(400), included).right for seed in range(30)]
    # Mean 200, standard deviation of the mean 1.83: five of them.
    assert abs(np.mean(right) - 200) < 9.2


def server_audit(cut: Any, claimed: float, canaries: int = 200) -> Any:
    """Rows with random labels, released through a layer; a linear server is trained on what was released."""
    generator = torch.Generator().manual_seed(0)
    ours, others = torch.randn(2, canaries, 400, generator=generator)
    labels = (torch.rand(canaries, generator=generator) < 0.5).float() * 2 - 1

    def train(records: Tensor) -> Tensor:
        released = records if cut is None else cut.decode(cut.encode(records))
        gram = released @ released.T + 0.1 * torch.eye(len(released))
        return released.T @ torch.linalg.solve(gram, labels)  # ridge regression

    def score(weights: Tensor, records: Tensor) -> Tensor:
        return -(records @ weights - labels).square()

    return audit_training(train, score, ours, others, claimed=claimed)


def test_a_server_trained_on_clear_features_gives_its_canaries_away() -> None:
    found = server_audit(None, math.inf)
    assert found.epsilon > 2
    assert found.unit == "one canary"


def test_a_server_trained_on_private_features_does_not() -> None:
    layer = sp.CodebookLDP(torch.randn(64, 400, generator=torch.Generator().manual_seed(1)), epsilon=0.5, generator=0)
    found = server_audit(layer, layer.epsilon)
    assert not found.refuted
    assert found.epsilon <= 0.5


def released_labels(elements: int = 8, classes: int = 400) -> Any:
    """Features at an epsilon of almost nothing, public labels; a server that learns from the labels alone."""
    rows = 1000
    generator = torch.Generator().manual_seed(0)
    ours, others = torch.randn(2, rows, elements, generator=generator)
    labels = torch.randint(0, classes, (rows,), generator=generator)
    layer = RandomResponseLDP(epsilon=1e-3 / elements, generator=0)

    def train(records: Tensor) -> Tensor:
        layer.decode(layer.encode(records))
        return torch.bincount(labels[: len(records)], minlength=classes).double()

    def score(priors: Tensor, records: Tensor) -> Tensor:
        return torch.log(priors[labels[: len(records)]])

    return audit_training(train, score, ours, others, claimed=1e-3)


def test_a_true_claim_is_not_refuted_by_public_labels() -> None:
    assert released_labels().epsilon == 0

    # The fault that this replaced: coins that leave rows out, and their labels with them.
    included = torch.rand(1000, generator=torch.Generator().manual_seed(0)) < 0.5
    assert OneRunAudit()(included.double(), included, claimed=1e-3).refuted  # the labels of the rows that are there


def test_the_bound_for_replaced_records_is_wrong_no_more_often_than_promised() -> None:
    # Each row is one element by randomized response; the server repeats what it was sent. 200 runs, level 1e-3.
    ours, epsilon, wrong, shown = torch.ones(200, 1), 1.0, 0, 0.0
    for seed in range(200):
        layer = RandomResponseLDP(epsilon=epsilon, generator=seed)
        found = audit_training(
            lambda records, layer=layer: layer.decode(layer.encode(records)),
            lambda sent, records: (sent * records).sum(1),
            ours,
            -ours,
            claimed=epsilon,
            seed=seed,
        )
        wrong += found.refuted
        shown += found.epsilon / 200
    assert shown > 0.4
    assert wrong <= stats.binom.isf(1e-3, 200, 0.05)


def test_train_gets_a_record_for_each_row_and_cannot_change_what_is_scored() -> None:
    ours, others = torch.arange(100.0)[:, None], -1 - torch.arange(100.0)[:, None]
    seen: list[Tensor] = []

    def train(records: Tensor) -> Tensor:
        seen.append(records.clone())
        kept = records.clone()
        records.zero_()
        return kept

    def score(kept: Tensor, records: Tensor) -> Tensor:
        found = (kept == records).all(1).float()
        records.zero_()
        return found

    assert audit_training(train, score, ours, others, guesses=20).right == 20
    assert bool(((seen[0] == ours) | (seen[0] == others)).all())
    assert 20 < int((seen[0] == ours).sum()) < 80


def test_labels_that_the_claim_covers_may_differ() -> None:
    # Row numbers stand for records with labels; the labels are released by a mechanism.
    labels, layer = torch.arange(400) % 2, sp.LabelLDP(2, epsilon=1.0, generator=0)
    found = audit_training(
        lambda rows: layer.encode(labels[rows]),
        lambda sent, rows: (sent == labels[rows]).float(),
        torch.arange(0, 400, 2),
        torch.arange(1, 400, 2),
        claimed=layer.epsilon,
    )
    assert 0.3 < found.epsilon <= 1.0


def test_nothing_is_charged() -> None:
    def released(records: Tensor) -> Tensor:
        model = sp.SplitModel(nn.Identity(), nn.Identity(), cut=RandomResponseLDP(epsilon=1.0), labels="public")
        return model(records)

    audit_training(released, lambda sent, records: released(records).sum(1), torch.ones(16, 2), torch.zeros(16, 2))
    assert sp.accounting.epsilon_total() == 0


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
    with pytest.raises(InvalidParameterError, match="guesses must be an integer >= 2"):
        OneRunAudit(guesses=(0, 4))
    with pytest.raises(InvalidParameterError, match="guesses must be even: as many are said to be included as left"):
        OneRunAudit(guesses=11)
    for claimed in (-1, math.nan, "1"):
        text = f"OneRunAudit: claimed must be a number >= 0, or math.inf, got claimed={claimed!r}"
        with pytest.raises(InvalidParameterError, match=text):
            OneRunAudit()(torch.zeros(4), torch.ones(4, dtype=torch.bool), claimed=claimed)  # type: ignore[arg-type]
    with pytest.raises(InvalidParameterError, match=r"OneRunAudit: delta must be in \[0, 1\)"):
        OneRunAudit(delta=1.0)
    with pytest.raises(InvalidParameterError, match="guesses must be at most the number of canaries, 3"):
        OneRunAudit(guesses=4)(torch.zeros(3), torch.ones(3, dtype=torch.bool))
    with pytest.raises(ShapeError, match=r"scores and included must have one shape \(canaries,\), included bool"):
        OneRunAudit()(torch.zeros(3), torch.zeros(3))
    with pytest.raises(NonFiniteError, match="scores must not be NaN"):
        OneRunAudit()(torch.tensor([math.nan]), torch.tensor([True]))
    with pytest.raises(ShapeError, match=r"OneRunAudit: scores must be a torch\.Tensor, got scores of type list"):
        OneRunAudit()([0.0], torch.tensor([True]))  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match=r"OneRunAudit: included must be a torch\.Tensor, got included of type list"):
        OneRunAudit()(torch.zeros(1), [True])  # type: ignore[arg-type]


PAIRS = (torch.ones(16, 2), torch.zeros(16, 2))


@pytest.mark.parametrize(
    ("arguments", "options", "error", "text"),
    [
        ((3, sum, *PAIRS), {}, InvalidParameterError, "audit_training: train must be a callable, got train=3"),
        ((sum, None, *PAIRS), {}, InvalidParameterError, "audit_training: score must be a callable, got score=None"),
        (
            (sum, sum, 100, 3),
            {},
            InvalidParameterError,
            "canaries must be a tensor of at least 16 records, got canaries=",
        ),
        (
            (sum, sum, PAIRS[0][:3], PAIRS[1]),
            {},
            InvalidParameterError,
            "at least 16 records, got canaries=a tensor",
        ),
        ((sum, sum, PAIRS[0], None), {}, ShapeError, r"substitutes must be torch\.float32 of shape .* got NoneType"),
        ((sum, sum, PAIRS[0], PAIRS[1][:, 0]), {}, ShapeError, r"as canaries are, got torch\.float32 of shape \(16,\)"),
        ((sum, sum, *PAIRS), {"claimed": -1}, InvalidParameterError, "audit_training: claimed must be a number >= 0"),
        ((sum, lambda _, __: 3, *PAIRS), {}, ShapeError, r"score must return a tensor of shape \(16,\), got int"),
        ((sum, lambda _, r: r, *PAIRS), {}, ShapeError, r"score must return .* got shape \(16, 2\)"),
    ],
)
def test_bad_arguments_of_a_training(arguments: Any, options: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        audit_training(*arguments, **options)


def test_a_model_can_be_what_is_trained() -> None:
    found = audit_training(lambda _: nn.Linear(1, 1), lambda _, records: torch.zeros(32), PAIRS[0].repeat(2, 1),
                           PAIRS[1].repeat(2, 1), claimed=0.0)  # fmt: skip
    assert found.verdict.startswith("claims 0: ")
