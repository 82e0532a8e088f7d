"""LabelLDP: released labels, their epsilon, and the transition that a server may correct for."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from splitpriv import InvalidParameterError, LabelLDP, ShapeError, SplitModel
from splitpriv.accounting import Spend, epsilon_total
from splitpriv.mechanisms import SeededSource

PRIOR = [0.4, 0.3, 0.2, 0.05, 0.05]
Make = Callable[..., LabelLDP]
LAYERS: list[Make] = [
    lambda **options: LabelLDP(2, epsilon=0.5, **options),
    lambda **options: LabelLDP(10, epsilon=2.0, **options),
    lambda **options: LabelLDP(5, epsilon=1.0, prior=PRIOR, **options),
    lambda **options: LabelLDP(5, epsilon=1.0, prior=torch.tensor(PRIOR), **{"generator": 3, **options}),
]
every = pytest.mark.parametrize("make", LAYERS, ids=[repr(make()) for make in LAYERS])


def labels(classes: int, n: int = 4000) -> Tensor:
    return torch.randint(classes, (n,), generator=torch.Generator().manual_seed(classes))


@every
def test_labels_in_labels_out(make: Make) -> None:
    layer = make()
    true = labels(layer.classes)
    for dtype in (torch.uint8, torch.int16, torch.int32, torch.int64):
        released = layer.encode(true.to(dtype))
        assert released.dtype == torch.int64
        assert released.shape == true.shape
        assert set(released.tolist()) <= set(layer.kept)
        assert torch.equal(layer.decode(released), released)
    # Fresh noise: 4,000 labels come out alike twice with probability below 1e-100 at these epsilons.
    assert not torch.equal(layer.encode(true), layer.encode(true))
    assert layer.encode(true[:0]).shape == (0,)


@every
def test_what_it_says_is_what_runs(make: Make) -> None:
    layer = make()
    transition = layer.transition
    assert transition.dtype == torch.float64
    assert transition.shape == (layer.classes, layer.classes)
    table = torch.tensor([[float(n) for n in row] for row in layer.channel().table()], dtype=torch.float64)
    torch.testing.assert_close(transition, table / float(layer.channel().total), rtol=1e-15, atol=0)
    used = transition[:, list(layer.kept)]
    assert float((used.amax(0) / used.amin(0)).log().max()) == pytest.approx(layer.epsilon, rel=1e-12)
    assert layer.epsilon == layer.channel().epsilon <= layer.asked
    assert layer.spend() == layer.spend((3,)) == Spend(layer.epsilon, 1, layer.epsilon)
    assert epsilon_total(layer) == layer.epsilon
    every_pair = torch.cartesian_prod(torch.arange(layer.classes), torch.arange(layer.classes))
    found = layer.log_prob(every_pair[:, 1], every_pair[:, 0])
    torch.testing.assert_close(found.exp().reshape(transition.shape), transition)
    transition.zero_()
    assert float(layer.transition.sum()) == pytest.approx(layer.classes)


@every
def test_frequencies_are_those_of_the_transition(make: Make) -> None:
    # 2e5 draws for each of at most 10 classes; 5.5 standard deviations on at most 100 counts: failure
    # probability below 4e-6 for a correct layer; fixed seed.
    layer, draws = make(generator=8), 200_000
    for true, row in enumerate(layer.transition.tolist()):
        counts = torch.bincount(layer.encode(torch.full((draws,), true)), minlength=layer.classes).tolist()
        for count, p in zip(counts, row, strict=True):
            assert abs(count - draws * p) <= 5.5 * math.sqrt(draws * p * (1 - p))


def test_planted_fault_an_outsider_that_is_kept_is_caught() -> None:
    class Honest(LabelLDP):
        def encode(self, labels: Tensor) -> Tensor:
            released = super().encode(labels)
            return torch.where(labels == 4, labels, released)

    with pytest.raises(AssertionError):
        test_frequencies_are_those_of_the_transition(lambda **options: Honest(5, epsilon=1.0, prior=PRIOR, **options))


def test_a_prior_keeps_its_most_probable_classes() -> None:
    assert LabelLDP(5, epsilon=1.0, prior=PRIOR).kept == (0, 1, 2)
    assert LabelLDP(5, epsilon=1.0, prior=PRIOR[::-1]).kept == (2, 3, 4)
    assert LabelLDP(5, epsilon=8.0, prior=PRIOR).kept == (0, 1, 2, 3, 4)
    assert LabelLDP(5, epsilon=0.1, prior=[0.2] * 5).kept == (0, 1, 2, 3, 4)
    layer = LabelLDP(5, epsilon=1.0, prior=PRIOR)
    assert torch.equal(layer.transition[3], torch.tensor([1, 1, 1, 0, 0], dtype=torch.float64) / 3)
    # A prior that is right keeps more labels than none.
    prior = torch.tensor(PRIOR, dtype=torch.float64)
    assert prior @ layer.transition.diagonal() > LabelLDP(5, epsilon=1.0).transition[0, 0]


def test_a_seed_repeats_and_says_so() -> None:
    true = labels(5)
    one, two = (LabelLDP(5, epsilon=1.0, generator=3) for _ in range(2))
    assert torch.equal(one.encode(true), two.encode(true))
    assert (one.secure, LabelLDP(5, epsilon=1.0).secure) == (False, True)
    assert repr(one) == "LabelLDP(ε 1 per label; randomized response over 5 classes; noise from a seed: NOT SECURE)"
    assert "over 3 of 5 classes; secure noise" in repr(LabelLDP(5, epsilon=1.0, prior=PRIOR))


def test_a_seed_is_not_that_of_a_layer_at_the_cut() -> None:
    # Of 8,000 labels and bits, the same noise would move the same ones; fixed seed.
    zeros = torch.zeros(8000, dtype=torch.int64)
    moved = LabelLDP(2, epsilon=1.0, generator=5).encode(zeros).double()
    bits = LabelLDP(2, epsilon=1.0)._channel.sample(zeros, SeededSource(5)).double()
    assert abs(float(torch.corrcoef(torch.stack([moved, bits]))[0, 1])) < 0.06  # 5 / sqrt(8000)


@every
def test_copies_are_keyed_anew(make: Make) -> None:
    layer = make()
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert (twin.classes, twin.kept, twin.epsilon) == (layer.classes, layer.kept, layer.epsilon)
        assert not torch.equal(twin.encode(labels(layer.classes)), layer.encode(labels(layer.classes)))
        assert torch.equal(twin.transition, layer.transition)
    assert len(pickle.dumps(LabelLDP(200, epsilon=1.0))) < 5000


def test_high_epsilons_are_met_as_far_as_64_bits_go() -> None:
    true = labels(10)
    layer = LabelLDP(10, epsilon=44.0)
    assert torch.equal(layer.encode(true), true)  # 4,000 labels, one moved with probability below 1e-14
    assert LabelLDP(10, epsilon=1e4).epsilon < 45


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (torch.tensor([0, 5]), r"labels must be in \[0, 5\), got others \(not shown\)"),
        (torch.tensor([-1, 0]), r"labels must be in \[0, 5\), got others \(not shown\)"),
        (torch.tensor([0.0]), "labels must have an integer dtype, got dtype=torch.float32. A label is the number"),
        (torch.tensor([True]), "labels must have an integer dtype, got dtype=torch.bool"),
        (torch.tensor([0j]), "labels must have an integer dtype, got dtype=torch.complex64"),
        (torch.tensor([[0]]), r"labels must be a torch.Tensor of shape \(batch,\), got shape=\(1, 1\)"),
        (torch.tensor(0), r"labels must be a torch.Tensor of shape \(batch,\), got shape=\(\)"),
        ([0], r"labels must be a torch.Tensor of shape \(batch,\), got list"),
    ],
)
def test_wrong_labels_and_symbols_are_refused(wrong: object, text: str) -> None:
    layer, fine = LabelLDP(5, epsilon=1.0), torch.tensor([0])
    with pytest.raises(ShapeError, match=f"LabelLDP: {text}"):
        layer.encode(wrong)  # type: ignore[arg-type]
    for call in (lambda: layer.decode(wrong), lambda: layer.log_prob(wrong, fine)):  # type: ignore[arg-type]
        with pytest.raises(ShapeError, match=f"LabelLDP: {text.replace('labels', 'symbols')}"):
            call()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"classes": 1}, r"classes must be an integer in \[2, 1024\], got classes=1"),
        ({"classes": 1025}, r"classes must be an integer in \[2, 1024\], got classes=1025"),
        ({"classes": 3.0}, r"classes must be an integer in \[2, 1024\]"),
        ({"epsilon": 0.0}, "epsilon must be finite and > 0, got epsilon=0.0. Declare public labels"),
        ({"epsilon": math.inf}, "epsilon must be finite and > 0"),
        ({"epsilon": 1e-19}, "epsilon must be large enough to be expressed in 64 bits, got epsilon=1e-19"),
        ({"prior": [0.5, 0.5]}, "prior must be 3 finite numbers >= 0 that sum to one"),
        ({"prior": [0.5, 0.5, 0.5]}, "prior must be 3 finite numbers >= 0 that sum to one"),
        ({"prior": [1.5, -0.5, 0.0]}, "prior must be 3 finite numbers >= 0 that sum to one"),
        ({"prior": [math.nan, 0.5, 0.5]}, "prior must be 3 finite numbers >= 0 that sum to one"),
        ({"prior": [math.inf, 0.5, 0.5]}, "prior must be 3 finite numbers >= 0 that sum to one"),
        ({"prior": torch.eye(3)}, r"prior must be 3 finite .* got prior=a tensor of shape \(3, 3\)"),
        ({"prior": 0.5}, "prior must be 3 finite numbers >= 0 that sum to one, got prior=0.5"),
        ({"prior": [0.9, 0.05, 0.05]}, "prior must be less one-sided at epsilon=1.0.*Class 0 would be released for"),
        ({"generator": -1}, "generator must be an int in"),
    ],
)
def test_bad_arguments(arguments: dict[str, object], text: str) -> None:
    with pytest.raises(InvalidParameterError, match=text):
        LabelLDP(**{"classes": 3, "epsilon": 1.0, **arguments})  # type: ignore[arg-type]


def test_it_does_not_stand_at_the_cut() -> None:
    for cut in (LabelLDP(3, epsilon=1.0), [LabelLDP(3, epsilon=1.0)]):
        with pytest.raises(InvalidParameterError, match=r"cut.* must be a privacy layer.*a LabelLDP goes to labels="):
            SplitModel(nn.Identity(), nn.Identity(), cut=cut)  # type: ignore[arg-type]
