"""CodebookLDP: closeness, both ways to decode, what fit chooses."""

from __future__ import annotations

import math
import pickle

import pytest
import torch
from torch import Tensor

from splitpriv import CodebookLDP, InvalidParameterError, NonFiniteError, ShapeError, SplitModel
from splitpriv.layers.codebook_choice import least_squared_error, squared_error
from splitpriv.layers.kmeans import kmeans


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def clusters(records: int = 1500, classes: int = 5) -> tuple[Tensor, Tensor]:
    labels = torch.arange(records) % classes
    return 4 * draw(classes, 12, seed=1)[labels] + draw(records, 12, seed=2), labels


@pytest.mark.parametrize("closest", [1, 4, 19])
def test_the_closest_codewords_are_those_of_least_distance(closest: int) -> None:
    words, x = draw(20, 3, 4) + 7, draw(50, 3, 4, seed=1) + 7
    layer = CodebookLDP(words, epsilon=1.0, closest=closest)
    near = layer.quantize(x).reshape(50, closest).sort(dim=1).values
    distances = torch.cdist(x.flatten(1).double(), words.flatten(1).double())
    assert torch.equal(near, distances.argsort(dim=1)[:, :closest].sort(dim=1).values)


def test_ties_go_to_the_smaller_index() -> None:
    words = torch.tensor([[1.0], [-1.0], [1.0], [-1.0], [1.0]])
    layer = CodebookLDP(words, epsilon=1.0, closest=2)
    assert layer.quantize(torch.tensor([[2.0], [-2.0], [0.0]])).sort(dim=1).values.tolist() == [[0, 2], [1, 3], [0, 1]]


def test_symbols_are_one_per_record_and_decode_to_codewords() -> None:
    words = draw(300, 2, 3)
    layer = CodebookLDP(words, epsilon=1.0)
    symbols = layer.encode(draw(40, 2, 3, seed=1))
    assert (symbols.shape, symbols.dtype) == ((40,), torch.int16)
    assert torch.equal(layer.decode(symbols), words[symbols.long()])
    assert torch.equal(layer.decode_table((2, 3)), words)
    release = SplitModel(torch.nn.Identity(), torch.nn.Identity(), cut=layer).release(draw(10, 2, 3))
    assert (release.bits, release.feature_shape, release.symbol_shape) == (9, (2, 3), ())


def test_a_layer_cast_to_half_precision_still_works() -> None:
    layer = CodebookLDP(draw(16, 6), epsilon=1.0).half()
    released = layer(draw(3, 6).half())
    assert released.dtype == torch.float16
    assert layer.decode(torch.arange(16)).dtype == torch.float32


def test_spend_is_epsilon_once_whatever_the_elements() -> None:
    layer = CodebookLDP(draw(16, 100), epsilon=2.0, closest=3)
    spend = layer.spend((100,))
    assert (spend.per_use, spend.uses, spend.per_record) == (layer.epsilon, 1, layer.epsilon)
    assert layer.epsilon == layer.channel((100,)).epsilon <= 2.0
    with pytest.raises(ShapeError, match=r"features must have shape \(100,\) after the batch, got shape=\(99,\)"):
        layer.spend((99,))


@pytest.mark.parametrize("decode", ["codeword", "membership"])
def test_expected_is_the_mean_of_what_is_decoded(decode: str) -> None:
    layer = CodebookLDP(draw(10, 6), epsilon=1.0, closest=3, decode=decode, generator=5)
    x = draw(4, 6, seed=3)
    exact = layer.expected(x)
    released = layer(x.repeat(40_000, 1)).reshape(40_000, 4, -1).double()
    # Up to 40 means of 40,000 draws, each within 5.5 standard errors.
    error = 5.5 * released.std(dim=0) / 200
    assert bool(((released.mean(dim=0) - exact).abs() <= error + 1e-6).all())
    # And by the channel, without draws.
    outputs = torch.arange(10)
    p = layer.channel((6,)).log_prob(outputs, layer.quantize(x).unsqueeze(1)).exp()
    torch.testing.assert_close((p @ layer.decode_table((6,)).double()).float(), exact, atol=1e-5, rtol=1e-5)


def test_membership_is_unbiased() -> None:
    layer = CodebookLDP(draw(8, 5), epsilon=1.0, closest=3, decode="membership")
    exact = layer.expected(draw(6, 5, seed=1))
    assert torch.equal(exact.sum(dim=1), torch.full((6,), 3.0))
    assert layer.output_shape((5,)) == (8,)
    assert layer(draw(6, 5)).shape == (6, 8)


def test_planted_fault_membership_without_debiasing_is_caught() -> None:
    layer = CodebookLDP(draw(8, 5), epsilon=1.0, closest=3, decode="membership")
    x = draw(6, 5, seed=1)
    p = layer.channel((5,)).log_prob(torch.arange(8), layer.quantize(x).unsqueeze(1)).exp()
    assert not torch.allclose(p.float() * 3, layer.expected(x), atol=0.05)  # what the plain one-hot would tell


@pytest.mark.parametrize("closest", [1, 3])
def test_log_prob_is_the_channel_s_as_the_temperature_goes_to_zero(closest: int) -> None:
    layer, x = CodebookLDP(draw(10, 6), epsilon=1.5, closest=closest), draw(30, 6, seed=4)
    symbols = layer.encode(x)
    exact = layer.channel((6,)).log_prob(symbols, layer.quantize(x))
    torch.testing.assert_close(layer.log_prob(symbols, x, temperature=1e-6).double(), exact, atol=1e-4, rtol=1e-4)


def test_gradients_pass_straight_through() -> None:
    layer, x = CodebookLDP(draw(10, 6), epsilon=1.0), draw(7, 6).requires_grad_()
    for released in (layer(x), layer.expected(x)):
        (grad,) = torch.autograd.grad(released, x, torch.full_like(x, 3.0))
        assert torch.equal(grad, torch.full_like(x, 3.0))
    assert torch.isin(layer(x).detach(), layer.codebook).all()  # and no low bits of the features
    assert not CodebookLDP(draw(10, 6), epsilon=1.0, decode="membership")(x).requires_grad


def test_auto_without_data_is_the_least_expected_squared_error() -> None:
    words = draw(64, 8)
    layer = CodebookLDP(words, epsilon=2.0)
    far = math.exp(-2.0)
    distances = torch.cdist(words.double(), words.double()).square().sort(dim=1).values
    errors = []
    for m in range(1, 64):
        p = torch.full((64,), far, dtype=torch.float64)
        p[:m] = 1.0
        errors.append(float((distances @ (p / p.sum())).mean()))
    torch.testing.assert_close(torch.tensor(squared_error(words, words, 2.0, range(1, 64))), torch.tensor(errors))
    assert layer.closest == least_squared_error(words, words, 2.0) == 1 + min(range(63), key=errors.__getitem__)


# Fitting ----------------------------------------------------------------------------------------


def test_class_means_where_there_are_as_many_codewords_as_classes() -> None:
    x, labels = clusters()
    layer = CodebookLDP.fit(x, size=5, epsilon=2.0, labels=labels + 3, closest=1)
    means = torch.stack([x[labels == k].mean(dim=0) for k in range(5)])
    torch.testing.assert_close(layer.codebook, means)
    assert str(layer.choice) == "size and m as given"


def test_fit_with_labels_takes_the_most_accurate_and_says_so() -> None:
    x, labels = clusters()
    layer = CodebookLDP.fit(x, size=(5, 20), epsilon=3.0, labels=labels)
    choice = layer.choice
    assert choice is not None
    assert {size for size, _, _ in choice.scores} == {5, 20}
    best = max(value for _, _, value in choice.scores)
    assert (choice.size, choice.closest) == (layer.size, layer.closest)
    assert (choice.size, choice.closest, best) in choice.scores
    assert "accuracy of the nearest class mean on what is released" in repr(layer)
    # With five clear clusters, 5 codewords and m = 1, accuracy is that of 5-ary randomized response.
    value = next(v for size, m, v in choice.scores if (size, m) == (5, 1))
    assert value == pytest.approx(math.exp(3) / (math.exp(3) + 4), abs=0.01)


def test_fit_without_labels_takes_the_least_squared_error() -> None:
    x, _ = clusters()
    layer = CodebookLDP.fit(x, size=[4, 16], epsilon=2.0, seed=3)
    assert layer.choice is not None
    value = min(v for _, _, v in layer.choice.scores)
    assert (layer.size, layer.closest, value) in layer.choice.scores
    assert "expected squared error" in repr(layer)
    # The value is what releasing costs: 30,000 draws of a variance that is of the order of its square.
    released = layer(x.repeat(20, 1))
    assert float((released - x.repeat(20, 1)).square().sum(1).mean()) == pytest.approx(value, rel=0.1)


def test_fit_is_repeatable_and_survives_pickling() -> None:
    x, labels = clusters(400)
    one, two = (CodebookLDP.fit(x, size=8, epsilon=1.0, labels=labels, seed=4) for _ in range(2))
    assert torch.equal(one.codebook, two.codebook)
    assert repr(pickle.loads(pickle.dumps(one))) == repr(one)
    other = CodebookLDP.fit(x, size=8, epsilon=1.0, labels=labels, seed=5)
    assert not torch.equal(one.codebook, other.codebook)


def test_kmeans_finds_clear_clusters_and_keeps_none_empty() -> None:
    x, labels = clusters()
    found = kmeans(x, 5, torch.Generator().manual_seed(0))
    means = torch.stack([x[labels == k].mean(dim=0) for k in range(5)])
    assert float(torch.cdist(means, found).min(dim=1).values.max()) < 0.5
    repeated = torch.tensor([[0.0], [1.0], [2.0]]).repeat(10, 1)
    assert torch.equal(kmeans(repeated, 3, torch.Generator().manual_seed(1)).sort(0).values, repeated[:3])
    assert kmeans(torch.zeros(6, 2), 4, torch.Generator().manual_seed(1)).shape == (4, 2)


def test_what_cannot_be_fitted_is_refused() -> None:
    x, labels = clusters(100)
    with pytest.raises(InvalidParameterError, match=r"CodebookLDP.fit: size must be an integer in \[2, 100\]"):
        CodebookLDP.fit(x, size=101, epsilon=1.0)
    with pytest.raises(InvalidParameterError, match=r"CodebookLDP.fit: size must be an integer in \[2, 100\]"):
        CodebookLDP.fit(x, size=[], epsilon=1.0)
    with pytest.raises(InvalidParameterError, match="size must be at least one codeword per class, got size=4"):
        CodebookLDP.fit(x, size=4, epsilon=1.0, labels=labels)
    with pytest.raises(InvalidParameterError, match="public_features must hold about 129 records, a fifth of them"):
        CodebookLDP.fit(x, size=100, epsilon=1.0)
    with pytest.raises(ShapeError, match=r"labels must be 100 integers, one per public record, got torch.float32"):
        CodebookLDP.fit(x, size=10, epsilon=1.0, labels=labels.float())
    with pytest.raises(NonFiniteError, match=r"CodebookLDP.fit: features must be finite"):
        CodebookLDP.fit(x / 0, size=10, epsilon=1.0)
    with pytest.raises(InvalidParameterError, match=r"CodebookLDP.fit: closest must be an integer in \[1, 9\]"):
        CodebookLDP.fit(x, size=[10, 20], epsilon=1.0, closest=15)


def test_bad_parameters_are_refused() -> None:
    with pytest.raises(InvalidParameterError, match=r"codebook must be a floating-point tensor of shape \(N, \*feat"):
        CodebookLDP(torch.zeros(1, 3), epsilon=1.0)
    with pytest.raises(NonFiniteError, match="CodebookLDP: codebook must be finite as float32"):
        CodebookLDP(torch.full((2, 3), 1e39, dtype=torch.float64), epsilon=1.0)
    with pytest.raises(InvalidParameterError, match="CodebookLDP: epsilon must be finite and > 0"):
        CodebookLDP(torch.eye(3), epsilon=0.0)
    with pytest.raises(InvalidParameterError, match=r"closest must be an integer in \[1, 2\]"):
        CodebookLDP(torch.eye(3), epsilon=1.0, closest=3)
    with pytest.raises(InvalidParameterError, match=r"decode must be 'codeword' or 'membership', got decode="):
        CodebookLDP(torch.eye(3), epsilon=1.0, decode="mean")
    with pytest.raises(InvalidParameterError, match=r"CodebookLDP.log_prob: temperature must be finite"):
        CodebookLDP(torch.eye(3), epsilon=1.0).log_prob(torch.zeros(1).long(), torch.zeros(1, 3), temperature=0.0)
