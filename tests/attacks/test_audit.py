"""The lower bound from draws: how often it is wrong, how close it comes, what it catches."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from cases_audit import Symbols
from scipy import stats
from torch import Tensor, nn

import splitpriv as sp
from splitpriv import CodebookLDP, InvalidParameterError, LaplaceLDP, NonFiniteError, RandomResponseLDP, ShapeError
from splitpriv.accounting import Spend
from splitpriv.attacks.auditing import AuditResult, LowerBoundAudit, audit
from splitpriv.attacks.auditing.candidates import records
from splitpriv.attacks.auditing.claim import claim_of
from splitpriv.attacks.auditing.events import Event, propose
from splitpriv.attacks.auditing.lower_bound import viewed
from splitpriv.attacks.auditing.one_run import one_run_epsilon
from splitpriv.attacks.auditing.search import Found, search
from splitpriv.attacks.auditing.trials import Trials
from splitpriv.mechanisms import Channel, DiscreteLaplace, KClosest, RandomizedResponse

TRIALS, ALPHA = 400, 0.05
# More errors than this have probability below 1e-3 where each audit is wrong with probability 0.05.
MOST_ERRORS = int(stats.binom.isf(1e-3, TRIALS, ALPHA))
NOTHING = Channel([[1, 1], [1, 1]])


def rows(count: int, elements: int) -> Tensor:
    return torch.randn(count, elements, generator=torch.Generator().manual_seed(0))


def bounds(channel: Channel, *, trials: int = TRIALS, draws: int = 10_000) -> np.ndarray[Any, Any]:
    """The bound of many audits, each with noise and coins of its own."""
    attack = [LowerBoundAudit(draws=draws, failure_probability=ALPHA, seed=seed) for seed in range(trials)]
    layers = [Symbols(channel, seed=seed) for seed in range(trials)]
    return np.array([run(layer, layer.ends).epsilon for run, layer in zip(attack, layers, strict=True)])


# Valid ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channel", [NOTHING, RandomizedResponse(epsilon=1.0)], ids=repr)
def test_the_bound_exceeds_the_truth_no_more_often_than_promised(channel: Channel) -> None:
    errors = int((bounds(channel) > channel.epsilon).sum())
    assert errors <= MOST_ERRORS


@pytest.mark.slow
@pytest.mark.parametrize(
    "channel",
    [
        Channel([[1] * 16] * 16),
        RandomizedResponse(epsilon=0.1),
        RandomizedResponse(epsilon=4.0),
        KClosest(8, 1, epsilon=1.0),
        KClosest(12, 3, epsilon=3.0),
        DiscreteLaplace(epsilon=0.1, levels=3),
        DiscreteLaplace(epsilon=1.0, levels=5),
        DiscreteLaplace(epsilon=4.0),
    ],
    ids=repr,
)
def test_the_bound_exceeds_the_truth_no_more_often_than_promised_by_others(channel: Channel) -> None:
    test_the_bound_exceeds_the_truth_no_more_often_than_promised(channel)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [RandomResponseLDP, LaplaceLDP])
def test_coins_of_the_elements_of_a_record_are_as_good_as_of_many_records(kind: Any) -> None:
    # At most 10 errors are expected in 200 audits; more than the limit have probability below 1e-3.
    options = {"sensitivity": 2.0, "outside": "clamp"} if kind is LaplaceLDP else {}
    wrong = 0
    for seed in range(200):
        attack = LowerBoundAudit(draws=10_000, failure_probability=ALPHA, seed=seed, extremes=False)
        found = attack(kind(epsilon=1.0, generator=seed, **options), torch.tensor([[1.0], [-1.0]]).repeat(1, 40))
        assert found.unit == "one element"
        wrong += found.refuted
    assert wrong <= stats.binom.isf(1e-3, 200, ALPHA)


def bound_chosen_where_it_is_tested(seed: int) -> float:
    """The planted fault: the best event is reported by the very draws that it was fitted to."""
    layer = Symbols(Channel([[1] * 16] * 2), seed=seed)
    trials = Trials(viewed(layer), torch.stack(records(layer, layer.ends)), False, True, 1 << 16)
    (readings,) = trials.draw([0, 1], 2500, np.random.default_rng(seed))
    bounds = [0.0]
    for event in propose(trials.names(), readings, [0, 1], 2.0):
        guessed, right = event.score(event.counts(readings))
        bounds.append(one_run_epsilon(max(1, guessed), guessed, right, 0.0, ALPHA))
    return max(bounds)


def test_an_event_chosen_on_the_tested_draws_is_caught() -> None:
    wrong = sum(bound_chosen_where_it_is_tested(seed) > 0 for seed in range(100))
    assert wrong > int(stats.binom.isf(1e-3, 100, ALPHA))
    assert wrong > 60


def test_the_error_of_the_last_step_is_exact() -> None:
    # No sampling: the chance that r guesses, each right with e^eps / (1 + e^eps), give a bound above eps.
    for epsilon in (0.0, 0.5, 2.0):
        share = 1 / (1 + math.exp(-epsilon))
        law = stats.binom.pmf(np.arange(201), 200, share)
        wrong = [one_run_epsilon(200, 200, v, 0.0, ALPHA) > epsilon for v in range(201)]
        assert law[wrong].sum() <= ALPHA


# Tight ----------------------------------------------------------------------------------------------


def mechanisms(epsilon: float) -> list[Channel]:
    return [
        RandomizedResponse(epsilon=epsilon),
        KClosest(8, 1, epsilon=epsilon),
        KClosest(64, epsilon=epsilon),
        DiscreteLaplace(epsilon=epsilon),
    ]


def shares_of_the_truth(epsilon: float, draws: int) -> list[float]:
    channels = mechanisms(epsilon)
    return [float(bounds(channel, trials=1, draws=draws)[0]) / channel.epsilon for channel in channels]


@pytest.mark.parametrize("epsilon", [0.1, 2.0])
def test_the_bound_is_above_80_percent_of_the_truth(epsilon: float) -> None:
    assert min(shares_of_the_truth(epsilon, 1_000_000)) > 0.8


@pytest.mark.slow
@pytest.mark.parametrize("epsilon", [0.5, 1.0, 4.0, 6.0])
def test_the_bound_is_above_80_percent_of_other_truths(epsilon: float) -> None:
    assert min(shares_of_the_truth(epsilon, 1_000_000)) > 0.8


@pytest.mark.parametrize(
    ("layer", "unit"),
    [
        (RandomResponseLDP(epsilon=1.0, generator=0), "one element"),
        (LaplaceLDP(epsilon=1.0, sensitivity=2.0, outside="clamp", generator=0), "one element"),
        (CodebookLDP(torch.eye(8), epsilon=1.0, closest=1, generator=0), "one record"),
    ],
    ids=repr,
)
def test_layers_as_they_are(layer: nn.Module, unit: str) -> None:
    found = audit(layer, torch.eye(8)[:4] - 0.5, draws=300_000)
    assert found.unit == unit
    assert found.claimed == layer.spend((8,)).per_use  # type: ignore[operator]
    assert 0.8 * found.claimed < found.epsilon <= found.claimed
    assert not found.refuted


def test_at_an_epsilon_of_almost_nothing_nothing_is_found() -> None:
    layer = RandomResponseLDP(epsilon=0.01, generator=3)
    assert audit(layer, rows(3, 20), draws=20_000, failure_probability=1e-4).epsilon <= 0.01


# What it catches ------------------------------------------------------------------------------------


class Half(RandomResponseLDP):
    """Claims half of what it costs."""

    def spend(self, shape: Sequence[int] | None = None) -> Spend:
        full = super().spend(shape)
        return Spend.of(full.per_use / 2, full.uses)


def test_a_layer_that_claims_half_is_refuted() -> None:
    found = audit(Half(epsilon=2.0, generator=0), rows(3, 6), draws=10_000, failure_probability=1e-6)
    assert found.refuted
    assert "claims 1: REFUTED" in str(found)
    assert not audit(RandomResponseLDP(epsilon=2.0, generator=0), rows(3, 6), draws=10_000).refuted


def test_one_use_in_the_books_and_many_in_the_release_are_refuted() -> None:
    class Once(RandomResponseLDP):
        def spend(self, shape: Sequence[int] | None = None) -> Spend:
            return Spend.of(super().spend(shape).per_use, 1)

        quantize = None  # type: ignore[assignment]

        def encode(self, features: Tensor) -> Tensor:
            return self.channel((1,)).sample((features > 0).to(torch.uint8), self._source)

        def log_prob(self, symbols: Tensor, features: Tensor) -> Tensor:
            return self.channel((1,)).log_prob(symbols, (features > 0).to(torch.uint8))

    found = audit(Once(epsilon=0.5, generator=0), rows(3, 12), draws=20_000, failure_probability=1e-6)
    assert (found.unit, found.refuted) == ("one record", True)
    assert "log-likelihood ratio of records" in found.event


def test_what_draws_nothing_is_told_apart_every_time() -> None:
    features = rows(4, 6)
    found = audit(sp.ReluSanitizer(b"a nonce for this test"), features, draws=4096, unit="record")
    assert math.isinf(found.claimed)
    assert found.right == found.guesses > 500
    assert found.epsilon > 5
    assert found.to_dict()["claimed"] is None
    assert "claims no epsilon" in found.verdict


# How it is asked ------------------------------------------------------------------------------------


def model(cut: Any) -> sp.SplitModel:
    torch.manual_seed(0)
    return sp.SplitModel(nn.Linear(4, 6), nn.Linear(6, 2), cut=cut, labels="public", edge_data="public")


def test_a_model_is_audited_at_its_cut_and_pays_nothing() -> None:
    target = model(RandomResponseLDP(epsilon=2.0, generator=0)).train()
    found = audit(target, rows(3, 4), draws=20_000)
    assert (found.unit, found.refuted) == ("one element", False)
    assert 1.7 < found.epsilon <= 2.0
    assert sp.accounting.epsilon_total() == 0
    assert target.training


def test_layers_in_a_row_and_none_at_all() -> None:
    chain = [sp.RandomVectorMask(b"a nonce for this test"), RandomResponseLDP(epsilon=2.0, generator=0)]
    found = audit(model(chain), rows(3, 4), draws=40_000)
    assert (found.unit, found.claimed) == ("one use", pytest.approx(2.0))
    assert 1.7 < found.epsilon <= 2.0
    bare = audit(model(None), rows(3, 4), draws=4096)
    assert (bare.layer, bare.claimed) == ("no layer", math.inf)
    assert bare.epsilon > 4


def test_what_a_coin_decides() -> None:
    example = rows(3, 6)
    layer = RandomResponseLDP(epsilon=1.0, generator=0)
    assert claim_of(layer, example, "auto").unit == "element"
    assert claim_of(layer, example, "record").epsilon == layer.spend((6,)).per_record

    class Turned(RandomResponseLDP):
        """Each symbol depends on two elements, so that an element costs two uses."""

        def quantize(self, features: Tensor) -> Tensor:
            return super().quantize(features + features.roll(1, dims=-1))

    assert claim_of(Turned(epsilon=1.0, generator=0), example, "auto").unit == "use"
    assert claim_of(object(), example, "auto").epsilon == math.inf


def test_the_records_of_the_example_alone() -> None:
    layer = LaplaceLDP(epsilon=4.0, sensitivity=2.0, outside="clamp", generator=0)
    near = torch.tensor([[0.25], [-0.25]])  # a quarter of the interval apart: a quarter of epsilon
    found = audit(layer, near, draws=200_000, extremes=False)
    assert 0.8 < found.epsilon <= 1.0
    assert audit(layer, near, draws=200_000).epsilon > 3


def test_a_seeded_layer_gives_the_same_bound_twice() -> None:
    runs = [audit(LaplaceLDP(epsilon=1.0, sensitivity=2.0, generator=4), torch.eye(3), draws=5000) for _ in range(2)]
    assert runs[0] == runs[1]
    assert np.array_equal(runs[0].counts, runs[1].counts)


def test_a_log_prob_that_does_not_fit_elements_is_not_used() -> None:
    class Summed(RandomResponseLDP):
        def log_prob(self, symbols: Tensor, features: Tensor) -> Tensor:
            return super().log_prob(symbols, features).flatten(1).sum(1)

    assert "ratio" not in audit(Summed(epsilon=1.0, generator=0), rows(3, 5), draws=5000).event


def test_a_result_reads_well_and_is_exported() -> None:
    found = audit(RandomResponseLDP(epsilon=1.0, generator=0), torch.eye(2), draws=5000)
    assert json.loads(json.dumps(found.to_dict()))["unit"] == "one element"
    assert "not refuted; draws show" in str(found)
    assert all(len(line) <= 120 for line in str(found).splitlines())
    assert found.plot().axes
    assert "nothing" in AuditResult(0.0, 0.0, "one use", "-", 0, 0, 10, 0.1, "layer").verdict
    event = Event("symbol", 0, (2, 5), np.array([1.0, 2, 3, 4, 5, 6, 7]), np.array([0, -1, 0, -1, 0, -1, 0, 1]))
    assert str(event) == (
        "symbol: record 2 where in [-inf, 1) or in [2, 3) or in [4, 5) or 1 more, record 5 where in [7, inf)"
    )
    empty = Event("symbol", 0, (0, 1), np.array([1.0]), np.array([-1, -1]))
    assert str(empty) == "symbol: nothing guessed"
    assert Found(0.0, empty, np.zeros((2, 2), dtype=int), 4).guessed == 0


def test_few_draws_and_many_records_are_no_error() -> None:
    found = audit(CodebookLDP(torch.eye(8), epsilon=1.0, generator=0), rows(3, 8), draws=64)
    assert 0 <= found.epsilon <= 1


def test_a_search_that_finds_nothing_to_guess_from_reports_zero() -> None:
    class Silent:
        def encode(self, features: Tensor) -> Tensor:
            return torch.zeros(len(features), 1, dtype=torch.uint8)

        def decode(self, symbols: Tensor) -> Tensor:
            return symbols.float()

    trials = Trials(viewed(Silent()), torch.tensor([[0.0], [1.0]]), False, False, 100)
    assert search(trials, 1000, 1e-3, 0).epsilon == 0


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"draws": 3}, "draws must be an integer >= 64"),
        ({"failure_probability": 0.0}, "failure_probability must be finite and > 0"),
        ({"failure_probability": 1.0}, "LowerBoundAudit: failure_probability must be below 1"),
        ({"unit": "batch"}, "unit must be 'auto' or 'element' or 'use' or 'record'"),
        ({"extremes": 1}, "extremes must be True or False"),
        ({"batch_size": 0}, "batch_size must be an integer >= 1"),
    ],
)
def test_bad_arguments(options: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidParameterError, match=text):
        audit(RandomResponseLDP(epsilon=1.0), torch.eye(2), **options)


def test_what_cannot_be_audited() -> None:
    layer = RandomResponseLDP(epsilon=1.0)
    with pytest.raises(InvalidParameterError, match="example must lead to two different records or more, got 1 that"):
        audit(layer, torch.eye(3)[:1], extremes=False)
    with pytest.raises(InvalidParameterError, match="layer must have encode and decode, got object without"):
        audit(object(), torch.eye(3))
    with pytest.raises(ShapeError, match="LowerBoundAudit: example must be features, floating-point of shape"):
        audit(layer, torch.eye(3).int())
    with pytest.raises(ShapeError, match=r"LowerBoundAudit: example must be a torch\.Tensor, got example of type int"):
        audit(layer, 3)  # type: ignore[arg-type]
    with pytest.raises(NonFiniteError, match="LowerBoundAudit: example must be finite, got NaN or infinity in shape="):
        audit(layer, torch.eye(3) * math.nan)
    with pytest.raises(ShapeError, match=r"audit: example must be a torch\.Tensor, got example of type NoneType"):
        audit(model(layer), None)  # type: ignore[arg-type]
    with pytest.raises(NonFiniteError, match=r"audit: example must be finite, got NaN or infinity in shape=\(3, 4\)"):
        audit(model(layer), torch.full((3, 4), math.inf))
    spoilt = model(layer)
    nn.init.constant_(spoilt.edge.weight, math.inf)
    with pytest.raises(NonFiniteError, match="audit: example must lead to finite features, got NaN or infinity from"):
        audit(spoilt, rows(3, 4))
    with pytest.raises(InvalidParameterError, match="LowerBoundAudit: device must be a device that this machine has"):
        audit(layer, torch.eye(3), device="cuda:63")
    with pytest.raises(InvalidParameterError, match="LowerBoundAudit: device must be a device that torch knows"):
        audit(layer, torch.eye(3), device="gpu")


def test_the_layer_says_why_it_takes_no_record() -> None:
    text = r"got 0 that the layer takes\. It says: RandomResponseLDP: features must have a floating-point dtype"
    with pytest.raises(InvalidParameterError, match=text) as caught:
        audit(RandomResponseLDP(epsilon=1.0), torch.arange(4))
    assert isinstance(caught.value.__cause__, ShapeError)
    with pytest.raises(InvalidParameterError, match=r"It says: LabelLDP: labels must be a torch\.Tensor of shape"):
        audit(sp.LabelLDP(4, epsilon=1.0), torch.eye(4))


def test_the_event_that_the_likelihood_declares_is_found_among_many_alike() -> None:
    # 16 symbols at a small epsilon: many events look as good by luck. A fixed seed; ten others gave 0.081 to 0.095.
    layer = CodebookLDP(torch.eye(16), epsilon=0.1, closest=1, generator=0)
    found = LowerBoundAudit(draws=1_000_000)(layer, torch.eye(16)[:2])
    assert 0.08 < found.epsilon <= 0.1


def test_a_likelihood_that_lies_neither_hides_a_leak_nor_makes_one() -> None:
    class Liar:
        """Randomized response whose log_prob speaks of another epsilon."""

        def __init__(self, true: float, said: float) -> None:
            self.real, self.said = (RandomResponseLDP(epsilon=one, generator=0) for one in (true, said))

        def encode(self, features: Tensor) -> Tensor:
            return self.real.encode(features)

        def decode(self, symbols: Tensor) -> Tensor:
            return self.real.decode(symbols)

        def log_prob(self, symbols: Tensor, features: Tensor) -> Tensor:
            return self.said.log_prob(symbols, features)

        def spend(self, shape: Any = None) -> Any:
            return self.said.spend(shape)

    example = torch.tensor([[1.0], [-1.0]])
    assert LowerBoundAudit(draws=100_000)(Liar(3.0, 1.0), example).epsilon > 2.8
    assert 0.9 < LowerBoundAudit(draws=100_000)(Liar(1.0, 3.0), example).epsilon <= 1.0
    assert LowerBoundAudit(draws=100_000)(Liar(1.0, 0.0001), example).epsilon > 0.9
