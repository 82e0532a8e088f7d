"""What an audit may compare with what: units, labels, and layers that do not draw anew."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import splitpriv as sp
from splitpriv import InvalidParameterError, LaplaceLDP, RandomResponseLDP
from splitpriv.accounting import Spend
from splitpriv.attacks.auditing import audit
from splitpriv.attacks.auditing.claim import symbolwise
from splitpriv.attacks.auditing.freshness import ANEW, BY_CALL, NEVER, draws_anew


def rows(count: int, elements: int) -> Tensor:
    return torch.randn(count, elements, generator=torch.Generator().manual_seed(0))


# Labels ---------------------------------------------------------------------------------------------


def test_a_label_is_audited_as_what_it_is() -> None:
    found = audit(sp.LabelLDP(10, epsilon=2.0, generator=0), torch.tensor([3, 3, 1]), draws=200_000)
    assert (found.unit, found.refuted) == ("one record", False)
    assert 0.9 * found.claimed < found.epsilon <= found.claimed
    with pytest.raises(InvalidParameterError, match="got 1 that the layer takes"):
        audit(sp.LabelLDP(10, epsilon=2.0), torch.tensor([3]), extremes=False)

    class Half(sp.LabelLDP):
        def spend(self, shape: Sequence[int] | None = None) -> Spend:
            return Spend.of(super().spend(shape).per_use / 2, 1)

    assert audit(Half(10, epsilon=2.0, generator=0), torch.arange(10), draws=20_000, failure_probability=1e-6).refuted


def test_labels_inside_the_features_are_audited_with_them() -> None:
    layer = RandomResponseLDP(epsilon=1.0, generator=0)
    target = sp.SplitModel(nn.Linear(4, 6), nn.Linear(6, 2), cut=layer, labels=sp.EmbeddedLabels(3), edge_data="public")
    found = audit(target, rows(3, 4), draws=40_000)
    assert (found.unit, found.refuted) == ("one element", False)
    assert 0.8 < found.epsilon <= 1.0


# Whose number is it? --------------------------------------------------------------------------------

# A true claim is refuted with probability 1e-6 in each of these.
SURE: dict[str, Any] = {"draws": 20_000, "failure_probability": 1e-6}
NONCE = b"a nonce for this test"


class Mixing:
    """Randomized response of public coefficients, as many symbols as uses; decode inverts the transform."""

    def __init__(self) -> None:
        self.response = RandomResponseLDP(epsilon=0.5, generator=0)

    def encode(self, features: Tensor) -> Tensor:
        return self.response.encode(features)

    def decode(self, symbols: Tensor) -> Tensor:
        return self.response.decode(symbols).cumsum(-1)

    def spend(self, shape: Sequence[int]) -> Spend:
        return self.response.spend(shape)


class Packing(Mixing):
    """Eight uses in one symbol."""

    def encode(self, features: Tensor) -> Tensor:
        return (super().encode(features).long() << torch.arange(8)).sum(1, keepdim=True)

    def decode(self, symbols: Tensor) -> Tensor:
        return symbols.float()


class MixingElements(RandomResponseLDP):
    """Elements are seen apart in quantize, and meet in decode."""

    def decode(self, symbols: Tensor) -> Tensor:
        return super().decode(symbols).cumsum(-1)


@pytest.mark.parametrize(
    ("layer", "unit", "elements"),
    [
        (Mixing(), "one use", 16),
        (Packing(), "one record", 8),
        (MixingElements(epsilon=0.5, generator=0), "one element", 16),
    ],
)
def test_what_mixes_uses_is_not_held_against_one(layer: Any, unit: str, elements: int) -> None:
    found = audit(layer, rows(3, elements), **SURE)
    assert (found.unit, found.refuted) == (unit, False)


@pytest.mark.parametrize(
    ("mechanism", "defence"),
    [
        (RandomResponseLDP(epsilon=0.5, generator=0), sp.LocalPretrainedEncoder((16,), 4, nonce=NONCE)),
        (
            LaplaceLDP(epsilon=0.5, sensitivity=2.0, outside="clamp", generator=0),
            sp.LocalPretrainedEncoder((16,), 4, nonce=NONCE),
        ),
        (RandomResponseLDP(epsilon=0.5, generator=0), sp.RandomVectorMask(NONCE)),
    ],
    ids=repr,
)
def test_what_follows_the_priced_mechanism_may_mix_its_uses(mechanism: nn.Module, defence: nn.Module) -> None:
    released = 4 if isinstance(defence, sp.LocalPretrainedEncoder) else 16
    target = sp.SplitModel(nn.Identity(), nn.Linear(released, 2), cut=[mechanism, defence], labels="public")
    found = audit(target, rows(3, 16), **SURE)
    assert (found.unit, found.claimed, found.refuted) == ("one record", pytest.approx(8.0), False)


def test_a_cheaper_mechanism_before_one_that_mixes_is_priced_by_the_record() -> None:
    class Sums(nn.Module):
        """A dearer mechanism, each of whose symbols looks at all elements before it."""

        def __init__(self) -> None:
            super().__init__()
            self.response = RandomResponseLDP(epsilon=8.0, generator=1)

        def encode(self, features: Tensor) -> Tensor:
            return self.response.encode(features.cumsum(-1))

        def decode(self, symbols: Tensor) -> Tensor:
            return self.response.decode(symbols)

        def log_prob(self, symbols: Tensor, features: Tensor) -> Tensor:
            return self.response.log_prob(symbols, features.cumsum(-1))

        def spend(self, shape: Sequence[int]) -> Spend:
            return self.response.spend(shape)

    cut = [RandomResponseLDP(epsilon=0.5, generator=0), Sums()]
    found = audit(sp.SplitModel(nn.Identity(), nn.Linear(6, 2), cut=cut, labels="public"), rows(3, 6), **SURE)
    assert (found.unit, found.claimed, found.refuted) == ("one record", pytest.approx(3.0), False)


def test_elementwise_layers_in_a_row_are_priced_by_the_use() -> None:
    cut = [RandomResponseLDP(epsilon=2.0, generator=0), RandomResponseLDP(epsilon=2.0, generator=1)]
    found = audit(sp.SplitModel(nn.Identity(), nn.Linear(6, 2), cut=cut, labels="public"), rows(3, 6), draws=100_000)
    assert found.unit == "one use"
    assert 0.9 * found.claimed < found.epsilon <= found.claimed < 2


@pytest.mark.parametrize(
    ("layer", "unit", "text"),
    [
        (Packing(), "use", "'auto' or 'record' where .* got unit='use'. It has 8 uses and 1 symbols"),
        (Mixing(), "element", "got unit='element'. Elements must be seen apart in quantize"),
    ],
)
def test_a_unit_of_which_symbols_do_not_speak_is_refused(layer: Any, unit: str, text: str) -> None:
    with pytest.raises(InvalidParameterError, match=text):
        audit(layer, rows(3, 8), unit=unit)


def test_decoders_that_mix_are_told_from_those_that_do_not() -> None:
    symbols = torch.randint(0, 2, (64, 5), generator=torch.Generator().manual_seed(0))
    assert symbolwise(lambda s: 2.0 * s, symbols, 8)
    assert not symbolwise(lambda s: s + s.sum(1, keepdim=True) % 2, symbols, 8)
    assert not symbolwise(lambda s: s[:, :1], symbols, 8)

    def refuses(given: Tensor) -> Tensor:
        if not torch.equal(given, symbols):
            raise InvalidParameterError("no such symbols")
        return given

    assert not symbolwise(refuses, symbols, 8)


# Fresh draws ----------------------------------------------------------------------------------------


class Memoised(Mixing):
    """Permanent randomized response: a record gets the answer again that it got first, or once in each call."""

    def __init__(self, *, forget: bool) -> None:
        super().__init__()
        self.kept: dict[bytes, Tensor] = {}
        self.forget = forget

    def encode(self, features: Tensor) -> Tensor:
        if self.forget:
            self.kept = {}
        return torch.stack([self._answer(record) for record in features])

    def _answer(self, record: Tensor) -> Tensor:
        key = record.numpy().tobytes()
        if key not in self.kept:
            self.kept[key] = self.response.encode(record[None])[0]
        return self.kept[key]


def test_noise_that_is_kept_is_not_counted_as_many_draws() -> None:
    example = torch.tensor([[0.5], [-0.5]])
    text = "LowerBoundAudit: layer must draw anew at each call, got the same symbols again from layer="
    with pytest.raises(InvalidParameterError, match=text):
        audit(Memoised(forget=False), example, draws=2000)
    found = audit(Memoised(forget=True), example, draws=4000, failure_probability=1e-6)
    assert not found.refuted


def test_when_a_layer_draws() -> None:
    ends = torch.ones(2, 16) * torch.tensor([[1.0], [-1.0]])

    def drawn(encode: Any, epsilon: float = 0.5) -> str:
        return draws_anew(encode, ends, epsilon=epsilon, uses=16)

    assert drawn(Mixing().encode) == ANEW
    assert drawn(Memoised(forget=True).encode) == BY_CALL
    assert drawn(Memoised(forget=False).encode) == NEVER
    assert drawn(lambda features: features * 0) == ANEW  # a constant tells nothing
    assert drawn(lambda features: features, epsilon=20.0) == ANEW  # noise would hardly be seen
