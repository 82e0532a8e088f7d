"""What all layers share, from one table of cases."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from splitpriv import (
    CodebookLDP,
    L1LaplaceLDP,
    LaplaceLDP,
    LocalPretrainedEncoder,
    NonFiniteError,
    PrivacyLayer,
    RandomCodebookLDP,
    RandomResponseLDP,
    RandomVectorMask,
    ReluSanitizer,
    ShapeError,
)

NONCE = b"a nonce for the tests of all layers"
SHAPE = (3, 4, 4)
Make = Callable[[], nn.Module]

MECHANISMS: list[Make] = [
    lambda: RandomResponseLDP(epsilon=2.0),
    lambda: RandomResponseLDP(epsilon=1.0, threshold=torch.tensor([0.1, 0.0, -0.1]), debias=True),
    lambda: RandomResponseLDP(epsilon=4.0, per="record"),
    lambda: RandomResponseLDP(epsilon=2.0, generator=3),
    lambda: LaplaceLDP(epsilon=2.0, sensitivity=4.0),
    lambda: LaplaceLDP(epsilon=0.5, sensitivity=2.0, outside="clamp", levels=33),
    lambda: LaplaceLDP(epsilon=3.0, sensitivity=2.0, per="record"),
    lambda: LaplaceLDP(epsilon=2.0, sensitivity=4.0, generator=torch.Generator().manual_seed(4)),
]
WORDS = torch.randn(64, *SHAPE, generator=torch.Generator().manual_seed(1))
RECORDWISE: list[Make] = [
    lambda: CodebookLDP(WORDS, epsilon=2.0),
    lambda: CodebookLDP(WORDS, epsilon=2.0, closest=1, generator=5),
    lambda: CodebookLDP(WORDS, epsilon=0.5, closest=20, decode="membership"),
    lambda: RandomCodebookLDP(48, size=200, epsilon=2.0),
    lambda: RandomCodebookLDP(48, size=32, epsilon=4.0, closest=1, nonce=NONCE, generator=6),
    lambda: L1LaplaceLDP(epsilon=4.0, radius=20.0),
    lambda: L1LaplaceLDP(epsilon=0.5, radius=20.0, steps=8, generator=7),
]
DEFENCES: list[Make] = [
    lambda: RandomVectorMask(NONCE),
    lambda: RandomVectorMask(NONCE, entries="dyadic"),
    lambda: ReluSanitizer(NONCE),
    lambda: ReluSanitizer(NONCE, threshold=0.2),
    lambda: LocalPretrainedEncoder(SHAPE, 5, nonce=NONCE),
]


def cases(makers: list[Make]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("make", makers, ids=[repr(make()) for make in makers])


every = cases(MECHANISMS + RECORDWISE + DEFENCES)
private = cases(MECHANISMS + RECORDWISE)
recordwise = cases(RECORDWISE)
mechanisms = cases(MECHANISMS)
defences = cases(DEFENCES)
dtypes = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)


def batch(seed: int = 0, n: int = 6, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(n, *SHAPE, generator=torch.Generator().manual_seed(seed)).to(dtype)


@every
def test_it_satisfies_the_protocol(make: Make) -> None:
    assert isinstance(make(), PrivacyLayer)


@every
@dtypes
def test_forward_is_decode_of_encode_in_the_dtype_of_the_features(make: Make, dtype: torch.dtype) -> None:
    layer, x = make(), batch(dtype=dtype)
    symbols = layer.encode(x)
    features = layer.decode(symbols)
    released = layer(x)
    assert released.dtype == dtype
    assert features.dtype == torch.float32
    assert released.shape == features.shape
    assert len(released) == len(x)
    if math.isinf(layer.spend(SHAPE).per_record):
        assert symbols.dtype == torch.float32
    else:
        assert not symbols.is_floating_point()
        table = layer.decode_table(SHAPE)
        if not isinstance(table, Tensor):  # a codebook without an end
            books = torch.arange(len(x), 2 * len(x)).unsqueeze(1) * table.size  # of the second call
            table = table.codewords(books + torch.arange(table.size))
        assert torch.isin(released.float(), table.to(dtype).float()).all()  # nothing but the alphabet's values


def indices(layer: nn.Module, symbols: Tensor) -> Tensor:
    """What was drawn: a number of the endless codebook also holds the position, which always differs."""
    return symbols % layer.size if isinstance(layer, RandomCodebookLDP) else symbols


@private
def test_noise_is_fresh_at_each_call_and_on_in_eval(make: Make) -> None:
    layer, x = make(), batch(n=100)
    for mode in (True, False):
        layer.train(mode)
        drawn = {indices(layer, layer.encode(x)).numpy().tobytes() for _ in range(4)}
        assert len(drawn) == 4  # 100 random symbols or more: a repeat has probability below 2**-100 at these epsilons


def test_planted_fault_noise_off_in_eval_is_caught() -> None:
    class QuietInEval(RandomResponseLDP):
        def encode(self, features: Tensor) -> Tensor:
            return super().encode(features) if self.training else self.quantize(features)

    with pytest.raises(AssertionError):
        test_noise_is_fresh_at_each_call_and_on_in_eval(lambda: QuietInEval(epsilon=1.0))


@every
def test_train_and_eval_make_no_difference_to_what_is_claimed(make: Make) -> None:
    layer = make()
    layer(batch())
    assert repr(layer.train()) == repr(layer.eval())
    assert layer.train().spend(SHAPE) == layer.eval().spend(SHAPE)


@mechanisms
def test_the_claim_is_that_of_the_channel_that_runs(make: Make) -> None:
    layer = make()
    spend = layer.spend(SHAPE)
    assert spend.per_use == layer.channel(SHAPE).epsilon
    assert spend.uses == 48
    assert spend.per_record >= spend.per_use * 48 * (1 - 1e-15)
    if layer.per == "record":
        assert layer.asked * (1 - 1e-4) <= spend.per_record <= layer.asked
    layer(batch())
    assert layer.epsilon == spend.per_use
    assert str(spend) in repr(layer)


@recordwise
def test_the_claim_of_a_whole_record_is_one_use(make: Make) -> None:
    layer = make()
    spend = layer.spend(SHAPE)
    assert (spend.per_use, spend.uses, spend.per_record) == (layer.epsilon, 1, layer.epsilon)
    assert layer.asked * (1 - 1e-4) <= layer.epsilon <= layer.asked
    assert layer.spend() == spend
    assert str(spend) in repr(layer)
    assert ("secure noise" in repr(layer)) == layer.secure
    assert layer.feature_shape is None
    layer.encode(batch())
    assert layer.feature_shape == SHAPE


@recordwise
def test_what_is_decoded_has_the_shape_that_is_declared(make: Make) -> None:
    layer = make()
    for n in (0, 1, 5):
        symbols = layer.encode(batch(n=n))
        assert layer.decode(symbols).shape == (n, *layer.output_shape(SHAPE))
        assert layer.expected(batch(n=n)).shape == (n, *layer.output_shape(SHAPE))
        assert len(layer.log_prob(symbols, batch(n=n))) == n


@recordwise
def test_records_of_another_shape_and_other_symbols_are_refused(make: Make) -> None:
    layer = make()
    if not isinstance(layer, L1LaplaceLDP):  # which takes any shape
        with pytest.raises(ShapeError, match=r"features must have .* after the batch, got shape=\(3, 4\)"):
            layer(torch.zeros(2, 3, 4))
        with pytest.raises(ShapeError, match=r"features must have .* after the batch, got shape=\(3, 4\)"):
            layer.spend((3, 4))
    with pytest.raises(ShapeError, match=r"symbols must have an integer dtype, got dtype=torch\.float32"):
        layer.decode(torch.zeros(2))
    with pytest.raises(ShapeError, match=r"symbols must be in \[0, .*\), got values in \[-1, 0\]"):
        layer.decode(torch.tensor([-1, 0]))


@mechanisms
def test_log_prob_is_that_of_the_channel(make: Make) -> None:
    layer, x = make(), batch()
    symbols = layer.encode(x)
    exact = layer.channel(SHAPE).log_prob(symbols, layer.quantize(x))
    if isinstance(layer, LaplaceLDP):  # between two grid points; compare on the grid
        grid = (layer.quantize(x) / (layer.channel(SHAPE).inputs - 1) - 0.5) * layer.sensitivity
        inside = grid.abs() < layer.sensitivity / 2
        found = layer.log_prob(symbols, grid.double())
        torch.testing.assert_close(found[inside], exact[inside], atol=1e-4, rtol=1e-4)
    else:
        found = layer.log_prob(symbols, x.double(), temperature=1e-9)
        torch.testing.assert_close(found, exact, atol=1e-6, rtol=1e-6)


@every
def test_log_prob_is_differentiable_in_the_features(make: Make) -> None:
    layer, x = make(), batch().requires_grad_()
    symbols = layer.encode(x).detach()
    layer.log_prob(symbols, x * 0.9).sum().backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()
    assert (x.grad != 0).any()


@every
def test_state_dict_pickle_and_deep_copy(make: Make) -> None:
    layer = make()
    layer(batch())
    fresh = make()
    fresh.load_state_dict(layer.state_dict())
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), fresh):
        assert twin.spend(SHAPE) == layer.spend(SHAPE)
        assert twin.state_dict().keys() == layer.state_dict().keys()
        if math.isinf(layer.spend(SHAPE).per_record):
            assert torch.equal(twin(batch()), layer(batch()))
        elif twin is not fresh:  # re-keyed
            assert not torch.equal(twin.encode(batch()), layer.encode(batch()))


@every
def test_each_record_is_encoded_by_itself(make: Make) -> None:
    # With seeded noise: what a record becomes depends neither on the others nor on their number.
    layer = make()
    if isinstance(layer, RandomCodebookLDP):
        scores = layer._scores(batch().flatten(1), 0)
        torch.testing.assert_close(scores[:2], layer._scores(batch()[:2].flatten(1), 0))
    elif hasattr(layer, "quantize"):
        layer.quantize(batch())
        assert torch.equal(layer.quantize(batch())[:2], layer.quantize(batch()[:2]))
    else:
        torch.testing.assert_close(layer.encode(batch())[:2], layer.encode(batch()[:2]))


@every
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_nan_and_infinity_are_refused(make: Make, value: float) -> None:
    x = batch()
    x[1, 0, 0, 0] = value
    with pytest.raises(NonFiniteError, match=r"features must be finite, got NaN or infinity in shape=\(6, 3, 4, 4\)"):
        make()(x)


@every
def test_wrong_input_is_refused(make: Make) -> None:
    layer = make()
    with pytest.raises(ShapeError, match=r"features must have a floating-point dtype, got dtype=torch\.int64"):
        layer(torch.zeros(2, *SHAPE, dtype=torch.int64))
    with pytest.raises(ShapeError, match=r"features must have shape \(batch, \*feature\)"):
        layer(torch.zeros(4))
    with pytest.raises(ShapeError, match=r"features must be a torch.Tensor, got list"):
        layer([[1.0]])


@mechanisms
def test_wrong_symbols_are_refused(make: Make) -> None:
    layer = make()
    outputs = layer.channel(SHAPE).outputs
    with pytest.raises(ShapeError, match=r"symbols must have an integer dtype, got dtype=torch\.float32"):
        layer.decode(torch.zeros(2, *SHAPE))
    with pytest.raises(ShapeError, match=rf"symbols must be in \[0, {outputs}\), got values in \[0, {outputs}\]"):
        layer.decode(torch.tensor([[0, outputs]]).repeat(1, 24).reshape(1, *SHAPE))


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")  # torch's own
@every
def test_inside_sequential_under_autocast_and_compiled(make: Make) -> None:
    model = nn.Sequential(nn.Conv2d(3, 3, 1), make())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model(batch()).dtype == torch.bfloat16
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="eager")
    for n in (6, 2):
        assert compiled(batch(n=n)).shape[0] == n
    if not math.isinf(model[1].spend(SHAPE).per_record):
        assert not torch.equal(compiled(batch()), compiled(batch()))  # noise is not compiled in


@every
def test_an_empty_batch_is_an_empty_release(make: Make) -> None:
    assert len(make()(batch(n=0))) == 0


@mechanisms
def test_gradients_pass_straight_through(make: Make) -> None:
    layer, x = make(), (2 * batch()).requires_grad_()
    layer(x).backward(torch.full_like(x, 3.0))
    inside = x.detach().abs() < layer.sensitivity / 2 if isinstance(layer, LaplaceLDP) else torch.ones_like(x) > 0
    assert torch.equal(x.grad, torch.where(inside, 3.0, 0.0))


@mechanisms
def test_what_is_released_while_training_holds_no_low_bits_of_the_features(make: Make) -> None:
    layer, x = make(), (batch() * 3 + 0.1234567).requires_grad_()
    released = layer(x)
    assert released.requires_grad
    assert torch.isin(released.detach(), layer.decode_table(SHAPE)).all()


def test_planted_fault_the_usual_straight_through_trick_leaks_low_bits() -> None:
    class Trick(RandomResponseLDP):
        def forward(self, features: Tensor) -> Tensor:
            released = super().forward(features.detach())
            return features + (released - features).detach()

    with pytest.raises(AssertionError):
        test_what_is_released_while_training_holds_no_low_bits_of_the_features(
            lambda: Trick(epsilon=1.0, debias=True, generator=1)
        )


@defences
def test_defences_claim_infinity(make: Make) -> None:
    layer = make()
    assert layer.epsilon == math.inf
    assert layer.spend(SHAPE).per_record == math.inf
    assert layer.channel(SHAPE) is None
    assert "defence, ε ∞" in repr(layer)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@every
def test_on_a_gpu(make: Make) -> None:
    layer, x = make().to("cuda"), batch().to("cuda")
    assert layer.encode(x).device.type == "cuda"
    assert layer(x).device.type == "cuda"
    assert torch.isfinite(layer.log_prob(layer.encode(x), x)).all()
