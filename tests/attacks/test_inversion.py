"""Inversion: succeeds where nothing protects, is at chance where the channel says so, and knows what it may know."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from cases_inversion import LABELS, PRIVATE, PUBLIC, conv_edge, noisy_view, open_view, smooth_images
from torch import Tensor, nn

import splitpriv as sp
from splitpriv import InvalidParameterError, NonFiniteError, ShapeError
from splitpriv.attacks import (
    CutView,
    DecoderInversion,
    GradientInversion,
    InversionResult,
    LikelihoodInversion,
    PosteriorInversion,
    QueryFreeInversion,
    invert,
    metrics,
    view_of,
)
from splitpriv.attacks.inversion.problem import Problem

QUICK = GradientInversion(steps=150, learning_rate=0.1, eps=1e-8, decay=True)
SHARED: dict[str, Any] = {"batch_size": 4, "seed": 0, "device": None, "progress": False}
DECODER = DecoderInversion(epochs=5, width=8, minibatch=16, learning_rate=0.01)
LIKELY = LikelihoodInversion(steps=80, tuning_records=4, weights=(0.1, 1.0, 10.0), decoder=DECODER)
POSTERIOR = PosteriorInversion()
TUNED = dataclasses.replace(QUICK, total_variation="public", weights=(0.0, 0.03, 0.3, 3.0), tuning_records=4)
MEAN_IMAGE = float(metrics.psnr(PUBLIC.mean(0, keepdim=True).expand_as(PRIVATE), PRIVATE).mean())


@pytest.fixture(autouse=True)
def _one_thread_without_warnings_about_seeds() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sp.PrivacyWarning)
        yield
    torch.set_num_threads(threads)


def at(layer: nn.Module) -> CutView:
    return view_of(sp.SplitModel(conv_edge(), nn.Flatten(), cut=layer).eval())


def value(result: InversionResult, name: str) -> float:
    return result.summary[name].value


def features() -> Tensor:
    with torch.no_grad():
        return conv_edge()(PUBLIC)


# Both ways ------------------------------------------------------------------------------------------

NEXT_TO_NOTHING = {
    "randomized response": lambda: sp.RandomResponseLDP(epsilon=0.01, threshold=0.2, generator=1),
    "Laplace": lambda: sp.LaplaceLDP(epsilon=0.01, sensitivity=2.0, outside="clamp", generator=1),
    "codebook": lambda: sp.CodebookLDP.fit(features(), size=32, epsilon=0.01, generator=1),
}


@pytest.mark.parametrize("attack", [TUNED, LIKELY, DECODER], ids=lambda one: type(one).__name__)
@pytest.mark.parametrize("name", NEXT_TO_NOTHING)
def test_at_a_small_epsilon_nothing_is_found(name: str, attack: Any) -> None:
    # One of 40 candidates by chance. 8 records: 4 or more hits have a probability below 3e-5 in each of the nine
    # (at these epsilons 1,152 elements pay 12 in all, so that a little more than chance is possible). Fixed seeds.
    view = at(NEXT_TO_NOTHING[name]())
    others = smooth_images(32, seed=7)
    result = attack(view, view.released(PRIVATE), public=PUBLIC, originals=PRIVATE, candidates=others)
    assert result.candidates == 40
    assert result.chance == 1 / 40
    assert result.summary["identification"].low <= 1 / 40
    assert int((result.rank < 1).sum()) < 4
    assert value(result, "psnr") < MEAN_IMAGE + 0.5


def test_the_likelihood_beats_plain_gradients_on_randomized_response() -> None:
    # Measured: 5.1 dB, where 8 records differ by 1 dB from run to run. Fixed seed.
    view = at(sp.RandomResponseLDP(epsilon=2.0, threshold=0.2, generator=1))
    crossed = view.released(PRIVATE)
    likely, plain = (attack(view, crossed, public=PUBLIC, originals=PRIVATE) for attack in (LIKELY, TUNED))
    assert value(likely, "psnr") > value(plain, "psnr") + 3
    assert value(likely, "psnr") > MEAN_IMAGE + 3


@pytest.mark.parametrize("attack", [TUNED, LIKELY, DECODER], ids=lambda one: type(one).__name__)
def test_sixteen_releases_tell_more_than_one(attack: Any) -> None:
    view = at(sp.LaplaceLDP(epsilon=1.0, sensitivity=2.0, outside="clamp", generator=1))
    crossed = [view.released(PRIVATE) for _ in range(16)]
    once = attack(view, crossed[0], public=PUBLIC, originals=PRIVATE)
    often = attack(view, crossed, public=PUBLIC, originals=PRIVATE)
    assert value(often, "psnr") > value(once, "psnr") + 1


@pytest.mark.parametrize("prior", ["public", "decoder", "gaussian", "smooth"])
@pytest.mark.parametrize("name", ["RandomResponse", "Laplace", "Codebook", "RandomCodebook"])
def test_the_likelihood_attack_takes_every_mechanism(name: str, prior: str) -> None:
    layers: dict[str, Any] = {
        "RandomResponse": lambda: sp.RandomResponseLDP(epsilon=4.0, threshold=0.2, generator=1),
        "Laplace": lambda: sp.LaplaceLDP(epsilon=8.0, sensitivity=2.0, outside="clamp", generator=1),
        "Codebook": lambda: sp.CodebookLDP.fit(features(), size=64, epsilon=12.0, closest=1, generator=1),
        "RandomCodebook": lambda: sp.CodebookLDP.random(8 * 144, size=16, epsilon=8.0, generator=1),
    }
    layer = layers[name]()
    view = at(layer)
    few = 4 if name == "RandomCodebook" else 8  # a book for each record: slow
    attack = dataclasses.replace(LIKELY, steps=5 if few == 4 else 60, tuning_records=2, prior=prior)
    result = attack(view, view.released(PRIVATE[:few]), public=PUBLIC, originals=PRIVATE[:few])
    assert bool(torch.isfinite(result.reconstructions).all())
    if prior == "gaussian" and few == 8:
        assert value(result, "psnr") > MEAN_IMAGE


def test_gradients_through_a_codebook_and_other_shapes() -> None:
    for layer in (
        sp.CodebookLDP.fit(features(), size=16, epsilon=8.0, decode="membership", generator=1),
        sp.CodebookLDP.random(8 * 144, size=16, epsilon=8.0, generator=1),
    ):
        view = at(layer)
        crossed = view.released(PRIVATE[:2])
        for attack in (dataclasses.replace(QUICK, steps=2), dataclasses.replace(DECODER, epochs=1)):
            assert attack(view, crossed, public=PUBLIC[:20]).reconstructions.shape == PRIVATE[:2].shape


# What it may know ----------------------------------------------------------------------------------


@pytest.mark.parametrize("attack", [TUNED, LIKELY, DECODER], ids=lambda one: type(one).__name__)
def test_no_choice_depends_on_the_truth(attack: Any) -> None:
    # The same symbols and noise; other originals, or none, must give the same reconstructions.
    found = []
    for originals in (PRIVATE, PRIVATE.flip(-1), None):
        view = noisy_view()
        crossed = view.released(PRIVATE)
        found.append(attack(view, crossed, public=PUBLIC, originals=originals).reconstructions)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_weights_are_chosen_on_public_records_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from splitpriv.attacks.inversion import tuning

    seen: list[Tensor] = []
    real = tuning.tuning_problem

    def spy(*arguments: Any) -> Any:
        simulated, truth = real(*arguments)
        seen.append(truth)
        return simulated, truth

    monkeypatch.setattr(tuning, "tuning_problem", spy)
    view = noisy_view()
    LIKELY(view, view.released(PRIVATE), public=PUBLIC, originals=PRIVATE)
    assert len(seen) == 2  # the temperature, and the weight
    for truth in seen:
        assert len(truth) == 4
        assert all(bool((one == PUBLIC).flatten(1).all(1).any()) for one in truth)
        assert not any(bool((one == PRIVATE).flatten(1).all(1).any()) for one in truth)


def test_choices_rest_on_records_that_the_prior_was_not_fitted_to(monkeypatch: pytest.MonkeyPatch) -> None:
    from splitpriv.attacks.inversion import prior, tuning
    from splitpriv.attacks.inversion.problem import problem_of

    fitted: list[Tensor] = []
    real = prior._components

    def spy(centred: Tensor, count: int) -> tuple[Tensor, int]:
        fitted.append(centred)
        return real(centred, count)

    monkeypatch.setattr(prior, "_components", spy)
    nothing: dict[str, Any] = {"public_labels": None, "originals": None, "input_range": None, "device": None}
    for public in (PUBLIC, PUBLIC[:6]):
        view = noisy_view()
        problem = problem_of("test", view, view.released(PRIVATE), public=public, input_shape=None, **nothing)
        mean = prior.about_mean(problem, None, seed=3, choosing=3).of(problem, slice(None)).mean
        attack = dataclasses.replace(LIKELY, seed=3, tuning_records=3)
        truth = tuning.tuning_problem(attack, problem)[1]
        assert len(truth) == 3
        for one in truth.flatten(1) - mean:
            assert not bool((fitted[-1] == one).all(1).any())


def test_the_weight_follows_the_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    from splitpriv.attacks.inversion import gradient

    chosen: list[float] = []

    def spy(*arguments: Any) -> float:
        chosen.append(real(*arguments))
        return chosen[-1]

    real = gradient.best_weight
    monkeypatch.setattr(gradient, "best_weight", spy)
    for view in (open_view(), at(sp.LaplaceLDP(epsilon=0.2, sensitivity=2.0, outside="clamp", generator=1))):
        TUNED(view, view.released(PRIVATE), public=PUBLIC)
    assert chosen[0] == 0 < chosen[1]


def test_the_decoder_asks_queries_only() -> None:
    edge = conv_edge()

    def opaque(inputs: Tensor) -> Tensor:
        assert not torch.is_grad_enabled()
        return edge(inputs)

    view = CutView(edge=opaque, encode=lambda one: one)
    assert value(DECODER(view, edge(PRIVATE).detach(), public=PUBLIC, originals=PRIVATE), "psnr") > 20


# One by one ----------------------------------------------------------------------------------------


def test_adam_is_that_of_torch() -> None:
    from splitpriv.attacks.inversion.descent import Descent, descend

    target = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))

    def objective(z: Tensor, alive: Any, share: float) -> tuple[Tensor, Tensor]:
        return (z - target[alive]).pow(4).sum(1), 0.1 * z.square().sum(1)

    found, moved = descend(objective, torch.zeros(3, 5), Descent(0.05, 1e-3), range(50), 50, None)
    leaf = torch.zeros(3, 5, requires_grad=True)
    optimizer = torch.optim.Adam([leaf], lr=0.05, eps=1e-3, amsgrad=True)
    for _ in range(50):
        optimizer.zero_grad()
        sum(objective(leaf, slice(None), 0.0), torch.zeros(3)).sum().backward()
        optimizer.step()
    assert torch.allclose(found, leaf.detach(), atol=1e-5)
    assert moved.tolist() == [True] * 3


@pytest.mark.parametrize(
    "attack",
    [
        dataclasses.replace(TUNED, total_variation=0.03),
        dataclasses.replace(LIKELY, prior="gaussian", weight=1.0, temperature=0.3),
    ],
    ids=lambda one: type(one).__name__,
)
def test_a_record_is_found_alike_alone_and_among_others(attack: Any) -> None:
    found = []
    for batch in (1, 3, 64):
        view = noisy_view()
        some = dataclasses.replace(attack, steps=40, batch_size=batch)
        found.append(some(view, view.released(PRIVATE), public=PUBLIC).reconstructions)
    assert torch.allclose(found[0], found[2], atol=1e-3)
    assert torch.allclose(found[1], found[2], atol=1e-3)


@pytest.mark.parametrize("attack", [LIKELY, DECODER, POSTERIOR], ids=lambda one: type(one).__name__)
def test_what_is_found_of_a_record_does_not_depend_on_the_others(attack: Any) -> None:
    # Networks are trained on fresh public releases: the same for any private ones.
    attack = dataclasses.replace(attack, steps=40) if attack is LIKELY else attack
    crossed = noisy_view().released(PRIVATE)
    together = attack(noisy_view(), crossed, public=PUBLIC).reconstructions
    few = attack(noisy_view(), crossed[:3], public=PUBLIC).reconstructions
    assert torch.allclose(together[:3], few, atol=1e-3)


@pytest.mark.parametrize("attack", [QUICK, LIKELY, DECODER, POSTERIOR], ids=lambda one: type(one).__name__)
def test_no_more_than_a_batch_is_held_at_once(attack: Any) -> None:
    edge, sizes = conv_edge(), []

    def counted(inputs: Tensor) -> Tensor:
        sizes.append(len(inputs))
        return edge(inputs)

    layer = sp.RandomResponseLDP(epsilon=4.0, threshold=0.2, generator=3)
    view = CutView(counted, layer.encode, layer.decode, layer.log_prob)
    changes: dict[str, Any] = {"batch_size": 4, "tuning_records": 9, "steps": 3}
    if attack in (DECODER, POSTERIOR):
        changes = {"batch_size": 4, **({"minibatch": 4, "epochs": 1} if attack is DECODER else {})}
    dataclasses.replace(attack, **changes)(view, layer.encode(edge(PRIVATE)), public=PUBLIC)
    assert max(sizes) <= 4


def test_an_early_stop_saves_steps_and_costs_little() -> None:
    edge, calls = conv_edge(), []

    def counted(inputs: Tensor) -> Tensor:
        calls.append(len(inputs))
        return edge(inputs)

    view = CutView(edge=counted, encode=lambda one: one)
    released = edge(PRIVATE).detach()
    whole = dataclasses.replace(QUICK, steps=900, decay=False, learning_rate=0.05)
    full = whole(view, released, public=PUBLIC, originals=PRIVATE)
    spent, calls[:] = sum(calls), []
    early = dataclasses.replace(whole, stop=0.99)(view, released, public=PUBLIC, originals=PRIVATE)
    assert sum(calls) < spent
    assert value(early, "psnr") > min(35, value(full, "psnr") - 1)


def test_restarts_keep_what_the_attackers_own_objective_prefers() -> None:
    attack = dataclasses.replace(LIKELY, weight=1.0, temperature=0.1, start=1.0, steps=30)

    def objective(result: InversionResult) -> Tensor:
        view = noisy_view()
        likely = view.need("log_prob")(view.released(PRIVATE), view.need("edge")(result.reconstructions))
        return likely.detach().flatten(1).sum(1)

    view = noisy_view()
    crossed = view.released(PRIVATE)
    one, three = (dataclasses.replace(attack, restarts=n)(view, crossed, public=PUBLIC) for n in (1, 3))
    assert not torch.equal(one.reconstructions, three.reconstructions)
    assert float(objective(three).mean()) > float(objective(one).mean())


def test_what_did_not_move_is_said_so() -> None:
    def dead(inputs: Tensor) -> Tensor:  # every unit is off, whatever the input
        return torch.relu(inputs.flatten(1) - 100)

    view = CutView(edge=dead, encode=lambda one: one)
    result = QUICK(view, dead(PRIVATE), input_shape=(1, 12, 12), originals=PRIVATE)
    assert result.stuck
    assert not bool(result.moved.any())
    assert "no record moved: the attack failed" in str(result)
    pulled = dataclasses.replace(QUICK, l2=1.0)(view, dead(PRIVATE), input_shape=(1, 12, 12))
    assert pulled.stuck  # the prior moved it, the release did not
    halfway = CutView(edge=lambda x: torch.relu(x.flatten(1) * torch.arange(len(x)).clamp_max(1)[:, None] - 0.3))
    mixed = QUICK(halfway, torch.ones(8, 144), input_shape=(1, 12, 12))
    assert mixed.moved.tolist() == [False] + [True] * 7
    assert "1 records did not move" in str(mixed)


def test_a_start_at_exactly_zero_is_noticed() -> None:
    # He's start in normalised space: without biases a ReLU network has no slope there.
    edge = nn.Sequential(nn.Conv2d(1, 4, 3, bias=False), nn.ReLU())
    view = CutView(edge=edge, encode=lambda one: one)
    released = edge(PRIVATE - 0.5).detach()
    attack = dataclasses.replace(QUICK, input_range=(-1.0, 1.0))
    assert dataclasses.replace(attack, start=0.0)(view, released, input_shape=(1, 12, 12)).stuck
    assert bool(attack(view, released, input_shape=(1, 12, 12)).moved.all())


def test_presets_are_those_of_the_paper() -> None:
    for name, weight in (("he2019-conv1", 0.0), ("he2019-relu22", 10.0), ("he2019-relu32", 1000.0)):
        found = GradientInversion.preset(name, batch_size=3)
        assert found == GradientInversion(total_variation=weight, batch_size=3)
        assert (found.steps, found.learning_rate, found.eps, found.l2) == (5000, 1e-2, 1e-3, 0.0)
    with pytest.raises(InvalidParameterError, match=r"GradientInversion.preset: name must be 'he2019-conv1' or"):
        GradientInversion.preset("he2020")


def test_the_prior_of_the_paper_by_hand() -> None:
    from splitpriv.attacks.inversion.smoothness import energy, roughness

    image = torch.tensor([[[[0.0, 1.0], [3.0, 5.0]]]])
    assert roughness(image).tolist() == [(9 + 16) / 2 + (1 + 4) / 2]
    assert energy(image).tolist() == [35 / 4]
    assert roughness(torch.ones(2, 5)).tolist() == [0, 0]


def test_the_normal_prior_has_the_covariance_of_public_inputs() -> None:
    from splitpriv.attacks.inversion.prior import about_mean
    from splitpriv.attacks.inversion.problem import problem_of

    rng = torch.Generator().manual_seed(0)
    mixing = torch.randn(6, 6, generator=rng)
    for records, close in ((20_000, 0.05), (5, math.inf)):  # more records than elements, and fewer
        public = torch.randn(records, 6, generator=rng) @ mixing + 3
        nothing: dict[str, Any] = {"public_labels": None, "originals": None, "input_range": None, "device": None}
        problem = problem_of("test", CutView(), torch.ones(1), public=public, input_shape=None, **nothing)
        prior = about_mean(problem, None, seed=0, choosing=8).of(problem, slice(None))
        drawn = prior.inputs(torch.randn(50_000, *prior.shape, generator=rng))
        assert drawn.shape == (50_000, 6)
        error = (torch.cov(drawn.T) - mixing.T @ mixing).norm() / (mixing.T @ mixing).norm()
        assert float(error) < close
        assert bool(torch.isfinite(drawn).all())


def test_the_query_free_attack_leaves_the_server_alone() -> None:
    server = nn.Sequential(nn.Flatten(), nn.Linear(8 * 144, 2))
    before = [one.clone() for one in server.parameters()]
    attack = QueryFreeInversion(shadow=conv_edge, epochs=1, inversion=GradientInversion(steps=2))
    view = CutView(server=server)
    found = attack(view, features()[:2], public=PUBLIC, public_labels=LABELS)
    assert found.reconstructions.shape == (2, 1, 12, 12)
    assert all(torch.equal(now, then) for now, then in zip(server.parameters(), before, strict=True))
    assert all(one.grad is None for one in server.parameters())
    values = LABELS[:, None].float().expand(-1, 2)  # a server that estimates numbers
    attack(view, features()[:2], public=PUBLIC, public_labels=values)


def test_a_network_of_ones_own() -> None:
    shapes = []
    view = open_view()
    state = torch.random.get_rng_state()

    def plain(released: tuple[int, ...], shape: tuple[int, ...]) -> nn.Module:
        shapes.append((released, shape))
        return nn.Sequential(nn.Flatten(), nn.Dropout(0.1), nn.Linear(1152, 144), nn.Unflatten(1, shape))

    found = dataclasses.replace(DECODER, network=plain)(view, view.released(PRIVATE), public=PUBLIC, originals=PRIVATE)
    assert shapes == [((8, 12, 12), (1, 12, 12))]
    assert value(found, "psnr") > MEAN_IMAGE
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize(
    ("released", "shape"),
    [
        ((3, 4, 4), (1, 13, 17)),
        ((3, 32, 32), (2, 8, 8)),
        ((5,), (3, 11, 11)),
        ((4, 6), (3, 8, 8)),
        ((2, 4, 4), (7,)),
        ((9,), (7,)),
    ],
)
def test_inverse_networks_fit_all_shapes_and_start_at_the_mean(
    released: tuple[int, ...], shape: tuple[int, ...]
) -> None:
    from splitpriv.attacks.inversion.networks import inverse_network

    network = inverse_network(released, shape, 4)
    assert torch.equal(network(torch.randn(2, *released)), torch.zeros(2, *shape))


# Results -------------------------------------------------------------------------------------------


def test_without_originals_there_are_no_figures() -> None:
    view = open_view()
    result = dataclasses.replace(QUICK, steps=2)(view, view.released(PRIVATE), public=PUBLIC)
    assert (result.psnr, result.ssim, result.rank, result.chance, result.summary) == (None, None, None, None, {})
    assert json.loads(json.dumps(result.to_dict(), allow_nan=False))["psnr"] is None
    pytest.importorskip("matplotlib")
    assert len(result.plot(records=3).axes) == 3


def test_small_images_have_no_ssim() -> None:
    view = CutView(edge=nn.Conv2d(1, 2, 3), encode=lambda one: one)
    small = smooth_images(3, seed=1, size=8)
    result = dataclasses.replace(QUICK, steps=2)(view, view.released(small), originals=small)
    assert bool(torch.isnan(result.ssim).all())
    assert math.isnan(value(result, "ssim"))
    assert json.loads(json.dumps(result.to_dict(), allow_nan=False))["summary"]["ssim"]["value"] is None


def test_flat_inputs() -> None:
    rng = torch.Generator().manual_seed(0)
    mixing = torch.randn(5, 5, generator=rng)
    table, public = (torch.randn(n, 5, generator=rng) @ mixing * torch.tensor([1, 1, 1, 1, 9.0]) for n in (20, 400))
    edge = nn.Sequential(nn.Linear(5, 16, bias=False), nn.Tanh())
    with torch.no_grad():
        edge[0].weight.copy_(0.1 * torch.randn(16, 5, generator=rng))
    model = sp.SplitModel(edge, nn.Linear(16, 2), cut=sp.LaplaceLDP(epsilon=20.0, sensitivity=2.0, generator=1))
    tolerance = torch.tensor([0.5, 0.5, 0.5, 0.5, 4.5])
    attacks = [
        dataclasses.replace(QUICK, input_range=None, total_variation="public"),
        dataclasses.replace(LIKELY, input_range=None, steps=200),
        dataclasses.replace(LIKELY, input_range=None, prior="smooth", steps=200),
        dataclasses.replace(DECODER, input_range=None, epochs=40),
    ]
    report = invert(model, table, public=public, attacks=attacks, tolerance=tolerance)
    nothing = report.baseline.summary["within"].value
    for result in report.results:
        assert result.errors.shape == result.within.shape == (20, 5)
        assert value(result, "within") > nothing + 0.1
        assert math.isnan(value(result, "ssim"))
        columns = result.columns()
        assert len(columns) == 5
        assert columns[4]["error"].value == pytest.approx(float(result.errors[:, 4].mean()))
        assert columns[0]["within"].value == pytest.approx(float((result.errors[:, 0] <= 0.5).double().mean()))
    assert value(report["LikelihoodInversion"], "identification") > 0.5
    assert "within" in str(report)
    json.dumps(report.to_dict(), allow_nan=False)
    assert default_range(public) is None
    pytest.importorskip("matplotlib")
    report.plot(records=2)


def default_range(public: Tensor) -> Any:
    return sys.modules["splitpriv.attacks.inversion.invert"]._range(public, tuple(public.shape[1:]))


def test_default_ranges_hold_the_public_inputs() -> None:
    assert default_range(PUBLIC) == (0.0, 1.0)
    low, high = default_range(4 * PUBLIC - 2)
    assert low < float((4 * PUBLIC - 2).min()) < float((4 * PUBLIC - 2).max()) < high


def test_columns_of_a_table_need_no_tolerance() -> None:
    view = CutView(edge=nn.Linear(3, 4), encode=lambda one: one)
    result = dataclasses.replace(QUICK, steps=2, input_range=None)(view, torch.ones(2, 4), originals=torch.randn(2, 3))
    assert result.within is None
    assert [list(column) for column in result.columns()] == [["error"]] * 3
    assert open_result().columns() == []


def open_result() -> InversionResult:
    view = open_view()
    return dataclasses.replace(QUICK, steps=2)(view, view.released(PRIVATE), originals=PRIVATE)


# The front door ------------------------------------------------------------------------------------


def test_invert_runs_what_applies_charges_nothing_and_leaves_the_model_as_it_was() -> None:
    edge = nn.Sequential(conv_edge(), nn.Dropout(0.5))
    model = sp.SplitModel(edge, nn.Flatten(), cut=sp.RandomResponseLDP(epsilon=4.0, threshold=0.2, generator=1))
    model.train()
    edge[0].eval()
    modes = [module.training for module in model.modules()]
    with sp.accounting.Ledger(limit=1.0):
        report = invert(model, PRIVATE, public=PUBLIC, attacks=[QUICK, LIKELY, DECODER], releases=2)
        assert sp.accounting.epsilon_total() == 0
    assert [module.training for module in model.modules()] == modes
    assert [result.name for result in report.results] == [type(one).__name__ for one in (QUICK, LIKELY, DECODER)]
    assert report.skipped == {}
    assert value(report["LikelihoodInversion"], "psnr") > MEAN_IMAGE + 5  # in eval mode: dropout would ruin it
    figures = torch.stack([result.psnr for result in report.results])
    assert torch.equal(report.best_psnr, figures.amax(0))
    assert report.best["psnr"].value >= max(value(result, "psnr") for result in report.results)
    assert report.best["identification"].value == float(report.identified.double().mean())
    assert report.chance == pytest.approx(3 / 8)
    assert value(report.baseline, "psnr") == pytest.approx(MEAN_IMAGE, abs=1e-3)
    assert "released 2 times" in str(report)
    assert max(map(len, str(report).splitlines())) <= 160
    json.dumps(report.to_dict(), allow_nan=False)
    pytest.importorskip("matplotlib")
    assert len(report.plot(records=4).axes) == 16
    with pytest.raises(KeyError, match="no attack 'Unknown' was run: it was not asked for"):
        report["Unknown"]


def test_invert_says_why_an_attack_does_not_apply() -> None:
    shadow = QueryFreeInversion(shadow=conv_edge)
    report = invert(open_view(), PRIVATE, attacks=[dataclasses.replace(QUICK, steps=2), LIKELY, DECODER, TUNED, shadow])
    assert [result.name for result in report.results] == ["GradientInversion"]
    assert report.skipped == {
        "LikelihoodInversion": (
            "nothing is drawn at this cut, or its likelihood is not known (a single mechanism, as the last layer)"
        ),
        "DecoderInversion": "it needs public inputs, at least 4",
        "GradientInversion": "total_variation='public' needs public inputs, and queries to the layer",
        "QueryFreeInversion": "it needs the server",
    }
    assert "not run: DecoderInversion: it needs public inputs" in str(report)
    assert invert(open_view(), PRIVATE, attacks=[]).best["identification"].value == 0


def test_defaults_run() -> None:
    report = invert(open_view(), PRIVATE[:2], device="cpu")
    assert [result.name for result in report.results] == ["GradientInversion"]
    assert value(report["GradientInversion"], "psnr") > 35
    assert set(report.skipped) == {
        "PosteriorInversion",
        "DecoderInversion",
        "LikelihoodInversion",
        "QueryFreeInversion",
    }


@pytest.mark.parametrize(
    ("attack", "view", "text"),
    [
        (QUICK, CutView(), "it needs the edge"),
        (TUNED, CutView(edge=conv_edge()), "total_variation='public' needs"),
        (LIKELY, CutView(), "nothing is drawn at this cut"),
        (LIKELY, CutView(log_prob=lambda s, f: f), "it needs the edge"),
        (LIKELY, CutView(edge=conv_edge(), log_prob=lambda s, f: f), "weight='public' needs"),
        (DECODER, CutView(edge=conv_edge()), "it needs queries"),
        (QueryFreeInversion(shadow=conv_edge), CutView(server=nn.Flatten()), "it needs public inputs with labels"),
    ],
)
def test_an_attack_that_lacks_something_is_refused(attack: Any, view: CutView, text: str) -> None:
    with pytest.raises(InvalidParameterError, match=f"this attack does not apply: {text}"):
        attack(view, torch.ones(2, 8, 12, 12), input_shape=(1, 12, 12))


# Refusals ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: GradientInversion(steps=0), "steps must be an integer >= 1"),
        (lambda: GradientInversion(total_variation="auto"), "total_variation must be 'public'"),
        (lambda: GradientInversion(total_variation=-1.0), "total_variation must be a number that is not negative"),
        (lambda: GradientInversion(l2=-1.0), "l2 must be a number that is not negative"),
        (lambda: GradientInversion(weights=()), "weights must be a non-empty tuple of numbers"),
        (lambda: GradientInversion(weights=(1.0, -1.0)), "weights must be a number that is not negative"),
        (lambda: GradientInversion(stop=0.0), "stop must be finite and > 0"),
        (lambda: GradientInversion(input_range=(1.0, 0.0)), r"input_range must be None or a tuple \(low, high\)"),
        (lambda: LikelihoodInversion(input_range=[0.0, 1.0]), r"input_range must be None or a tuple \(low, high\)"),
        (lambda: LikelihoodInversion(weight="best"), "weight must be 'public'"),
        (lambda: LikelihoodInversion(weight=-1.0), "weight must be a number that is not negative"),
        (lambda: LikelihoodInversion(prior="flat"), "prior must be 'public' or 'decoder' or 'gaussian' or 'smooth'"),
        (lambda: LikelihoodInversion(decoder=QUICK), "decoder must be None or a DecoderInversion"),
        (lambda: LikelihoodInversion(cooling=0.5), "cooling must be a number that is 1 or more"),
        (lambda: LikelihoodInversion(temperature=0.0), "temperature must be finite and > 0"),
        (lambda: DecoderInversion(held_out=1.0), "held_out must be a share below 1"),
        (lambda: DecoderInversion(network=3), "network must be None or a callable that makes a module"),
        (lambda: QueryFreeInversion(shadow=3), "shadow must be a callable that makes an edge"),
        (
            lambda: QueryFreeInversion(shadow=conv_edge, inversion=TUNED),
            "inversion must be a GradientInversion whose total_variation is a number",
        ),
    ],
)
def test_configurations_out_of_range_are_refused(make: Any, text: str) -> None:
    with pytest.raises(InvalidParameterError, match=text):
        make()


def test_parts_that_do_not_fit_are_refused() -> None:
    view = open_view()
    crossed, quick = view.released(PRIVATE), dataclasses.replace(QUICK, steps=1)
    with pytest.raises(InvalidParameterError, match="symbols must be one or more non-empty tensors"):
        quick(view, [])
    with pytest.raises(ShapeError, match="symbols and originals must have the same records"):
        quick(view, crossed, originals=PRIVATE[:3])
    with pytest.raises(ShapeError, match="symbols and originals must have the same records"):
        quick(view, [crossed, crossed[:3]], input_shape=(1, 12, 12))
    with pytest.raises(InvalidParameterError, match="input_shape must be given where no public inputs are"):
        quick(view, crossed)
    with pytest.raises(ShapeError, match=r"public must have shape \(records, \*\(1, 12, 12\)\)"):
        quick(view, crossed, originals=PRIVATE, public=PUBLIC[..., :5])
    with pytest.raises(ShapeError, match="public_labels must be one per public input"):
        quick(view, crossed, public=PUBLIC, public_labels=LABELS[:3])
    with pytest.raises(NonFiniteError, match="public must be finite, got NaN"):
        quick(view, crossed, public=PUBLIC * math.nan)
    with pytest.raises(ShapeError, match=r"candidates must have shape \(others, \*\(1, 12, 12\)\)"):
        quick(view, crossed, originals=PRIVATE, candidates=PRIVATE[..., :4])
    with pytest.raises(InvalidParameterError, match="tolerance must be None but for flat inputs"):
        quick(view, crossed, originals=PRIVATE, tolerance=0.1)
    flat = CutView(edge=nn.Linear(3, 4), encode=lambda one: one)
    for tolerance in (torch.ones(2), torch.zeros(3)):
        with pytest.raises(
            InvalidParameterError, match=r"tolerance must be a number, or a tensor of shape \(3,\), > 0"
        ):
            quick(flat, torch.ones(2, 4), originals=torch.rand(2, 3), tolerance=tolerance)


def test_the_front_door_refuses_what_does_not_fit() -> None:
    with pytest.raises(InvalidParameterError, match="images must be one record or more"):
        invert(open_view(), PRIVATE[:0])
    with pytest.raises(InvalidParameterError, match="attacks must be inversion attacks, got one of type int"):
        invert(open_view(), PRIVATE, attacks=[3])  # type: ignore[list-item]
    with pytest.raises(InvalidParameterError, match="input_range of GradientInversion must hold all records") as error:
        invert(open_view(), 3 * PRIVATE, attacks=[QUICK])
    assert str(round(float(3 * PRIVATE.max()), 2)) not in str(error.value)
    with pytest.raises(InvalidParameterError, match="releases must be an integer >= 1"):
        invert(open_view(), PRIVATE, releases=0)
    one = torch.ones(1)
    problem = Problem(CutView(), (one,), (1,), None, None, one, one)
    with pytest.raises(InvalidParameterError, match="public must be inputs like the private ones"):
        _ = problem.known_public


def test_likelihoods_that_take_a_temperature_are_told_apart() -> None:
    relaxed = at(sp.RandomResponseLDP(epsilon=1.0, threshold=0.2, generator=1))
    crossed = relaxed.released(PRIVATE)
    likely = relaxed.need("log_prob")
    assert not torch.equal(likely(crossed, features()[:8], temperature=1.0), likely(crossed, features()[:8]))
    from splitpriv.attacks.inversion.problem import Problem

    one = torch.ones(1)
    assert Problem(relaxed, (one,), (1,), None, None, one, one).relaxes
    assert Problem(relaxed, (one,), (1,), None, None, one, one).temperature == 0.1
    steps = at(sp.LaplaceLDP(epsilon=1.0, sensitivity=2.0, generator=1))
    assert Problem(steps, (one,), (1,), None, None, one, one).relaxes
    assert Problem(steps, (one,), (1,), None, None, one, one).temperature is None
    plain = at(sp.LaplaceLDP(epsilon=1.0, sensitivity=2.0, outside="clamp", generator=1))
    assert not Problem(plain, (one,), (1,), None, None, one, one).relaxes
    assert np.isfinite(plain.need("log_prob")(plain.released(PRIVATE), features()[:8]).sum().item())


def test_a_report_has_no_attack_that_was_not_run() -> None:
    report = invert(open_view(), PRIVATE[:2], attacks=[QUICK])
    with pytest.raises(KeyError, match="InversionReport: no attack 'DecoderInversion' was run: it was not asked for"):
        report["DecoderInversion"]


def test_a_laplace_layer_that_zeroes_is_inverted_like_one_that_clamps() -> None:
    # The jump at half the sensitivity has no slope: without a temperature the search stays near the mean image.
    found = {}
    for outside in ("zero", "clamp"):
        layer = sp.LaplaceLDP(epsilon=8.0, sensitivity=1.0, outside=outside, generator=1)
        view = at(layer)
        few = dataclasses.replace(LIKELY, prior="gaussian")
        found[outside] = value(few(view, view.released(PRIVATE), public=PUBLIC, originals=PRIVATE), "psnr")
    assert float((features().abs() >= 0.5).double().mean()) > 0.1  # of the elements lie outside
    assert found["zero"] > MEAN_IMAGE + 5
    assert found["zero"] > found["clamp"] - 1.5


def test_a_softened_interval_is_the_layer_s_own_as_it_gets_cold() -> None:
    layer = sp.LaplaceLDP(epsilon=1.0, sensitivity=2.0, generator=1)
    values = torch.tensor([[-3.0, -0.7, 0.2, 0.99, 1.5]])
    symbols = layer.encode(values)
    exact = layer.log_prob(symbols, values)
    assert torch.allclose(layer.log_prob(symbols, values, temperature=1e-4), exact, atol=1e-5)
    assert not torch.allclose(layer.log_prob(symbols, values, temperature=0.5), exact, atol=1e-2)
    with pytest.raises(InvalidParameterError, match="temperature must be finite and > 0"):
        layer.log_prob(symbols, values, temperature=0.0)


@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e3])
def test_the_units_of_features_change_nothing(unit: float) -> None:
    edge = conv_edge()
    view = CutView(edge=lambda x: unit * edge(x), encode=lambda one: one.detach())
    attack = dataclasses.replace(QUICK, relative=True)
    found = attack(view, view.released(PRIVATE), originals=PRIVATE)
    assert value(found, "psnr") > 35
    assert bool(found.moved.all())


def test_the_posterior_is_that_of_bayes() -> None:
    public, edge = torch.tensor([[0.9], [0.2], [-0.8]]), nn.Identity()
    layer = sp.RandomResponseLDP(epsilon=1.0, generator=1)
    view = CutView(edge=edge, encode=layer.encode, decode=layer.decode, log_prob=layer.log_prob)
    crossed = [torch.tensor([[1], [0]], dtype=torch.uint8), torch.tensor([[1], [1]], dtype=torch.uint8)]
    found = PosteriorInversion(input_range=None)(view, crossed, public=public)
    q = 1 / (1 + math.e)
    likely = torch.tensor([[(1 - q) ** 2, (1 - q) ** 2, q**2], [q * (1 - q)] * 3])
    by_hand = likely / likely.sum(1, keepdim=True) @ public
    assert torch.allclose(found.reconstructions, by_hand, atol=1e-6)
    assert found.moved.tolist() == [True, False]  # one of each says nothing


def test_attacks_run_without_gradients_around_them_and_not_in_inference_mode() -> None:
    view = noisy_view()
    crossed = view.released(PRIVATE)
    with torch.no_grad():
        for attack in (dataclasses.replace(DECODER, epochs=1), dataclasses.replace(LIKELY, steps=2), QUICK):
            assert bool(torch.isfinite(attack(view, crossed, public=PUBLIC).reconstructions).all())
    with torch.inference_mode(), pytest.raises(InvalidParameterError, match=r"outside torch.inference_mode\(\)"):
        QUICK(view, crossed, public=PUBLIC)


def test_symbols_that_do_not_fit_are_refused() -> None:
    view = noisy_view()
    crossed = view.released(PRIVATE)
    for wrong in (crossed[:, :1], crossed[..., :1]):
        for attack in (QUICK, LIKELY, DECODER):
            with pytest.raises(ShapeError, match="symbols must have the shape that crosses the cut"):
                attack(view, wrong, public=PUBLIC)
    bare = CutView(edge=conv_edge())
    with pytest.raises(ShapeError, match="symbols must have the shape that crosses the cut"):
        QUICK(bare, features()[:2, :1], input_shape=(1, 12, 12))
    with pytest.raises(ShapeError, match="input_shape must be one that the edge takes"):
        QUICK(bare, features()[:2], input_shape=(3, 12, 12))
    with pytest.raises(NonFiniteError, match="symbols must be finite"):
        QUICK(bare, features()[:2] * math.nan, input_shape=(1, 12, 12))
    with pytest.raises(InvalidParameterError, match="view must be a CutView"):
        QUICK(conv_edge(), features()[:2], input_shape=(1, 12, 12))  # type: ignore[arg-type]
    few = dataclasses.replace(DECODER, held_out=0.9, epochs=1)
    assert len(few(view, crossed, public=PUBLIC[:4]).reconstructions) == len(PRIVATE)
