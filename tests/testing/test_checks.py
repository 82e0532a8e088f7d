"""Further faults, one for each message that a check can end with; and what checks leave alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from broken import NoTable
from torch import Tensor, nn

from splitpriv import InvalidParameterError, LaplaceLDP, NonFiniteError, RandomResponseLDP, ReluSanitizer, ShapeError
from splitpriv import testing as checks
from splitpriv.accounting import Spend, epsilon_total
from splitpriv.release import pack
from splitpriv.testing.shipped import SHIPPED

EXAMPLE = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
NONCE = b"a nonce for the tests of the checks"


class Response(RandomResponseLDP):
    def __init__(self) -> None:
        super().__init__(epsilon=1.0)


class SymbolsFollowDtype(Response):
    def encode(self, features: Tensor) -> Tensor:
        return super().encode(features).to(torch.int16 if features.dtype == torch.float64 else torch.uint8)


class NoSlope(Response):
    def log_prob(self, symbols: Tensor, features: Tensor, **options: Any) -> Tensor:
        return super().log_prob(symbols, features.detach(), **options)


class Infinite(ReluSanitizer):
    def __init__(self) -> None:
        super().__init__(NONCE)

    def encode(self, features: Tensor) -> Tensor:
        return super().encode(features) / 0


class OtherCostWhenCopied(Response):
    def __deepcopy__(self, memo: Any) -> nn.Module:
        return RandomResponseLDP(epsilon=0.5)


class OtherCodeWhenCopied(ReluSanitizer):
    def __init__(self, nonce: bytes = NONCE) -> None:
        super().__init__(nonce)

    def __reduce__(self) -> Any:
        return OtherCodeWhenCopied, (NONCE[::-1],)


class ForgetsItsValues(NoTable):
    """Decodes with a number that no state dict restores."""

    def __init__(self) -> None:
        super().__init__(epsilon=1.0)
        self.register_buffer("scale", torch.tensor(1.0))

    def decode(self, symbols: Tensor) -> Tensor:
        return super().decode(symbols) * self.scale

    def _load_from_state_dict(self, *args: Any) -> None: ...


class Costs(Response):
    def __init__(self, price: Callable[[Spend, bool], Spend]) -> None:
        super().__init__()
        self.price = price

    def spend(self, shape: Sequence[int] | None = None) -> Spend:
        return self.price(super().spend(shape), self.training)


class OtherEpsilon(Response):
    @property
    def epsilon(self) -> float:
        return 0.1


class PacksWider(Response):
    def encode_packed(self, features: Tensor) -> Tensor:
        return self.encode(features)


class PacksStrangers(LaplaceLDP):
    """Packs symbols beyond its alphabet, which the bits of its symbols can still hold."""

    def __init__(self) -> None:
        super().__init__(epsilon=2.0, sensitivity=2.0, levels=3)

    def encode_packed(self, features: Tensor) -> Tensor:
        bits = (self.channel((1,)).outputs - 1).bit_length()
        return pack(torch.full_like(features, 2**bits - 1).int(), bits)


def test_symbols_beyond_the_table_are_noticed() -> None:
    class Shifted(Response):
        def encode(self, features: Tensor) -> Tensor:
            return super().encode(features) + 1

    text = r"encode must give symbols in \[0, 2\), the columns of its table, got values in"
    with pytest.raises(AssertionError, match=text):
        checks.assert_ldp(Shifted(), EXAMPLE)


def cheaper_in_eval(spend: Spend, training: bool) -> Spend:
    return spend if training else Spend.of(spend.per_use / 2, spend.uses)


@pytest.mark.parametrize(
    ("check", "make", "text"),
    [
        (checks.check_dtype, SymbolsFollowDtype, "symbols must have one dtype, got torch.uint8 and torch.int16"),
        (checks.check_gradient, NoSlope, "log_prob must be differentiable in the features, got no gradient"),
        (checks.check_symbols, Infinite, "released floats must be finite, got NaN or infinity"),
        (checks.check_pickle, OtherCostWhenCopied, "a copy must cost and decode the same, got another cost or values"),
        (checks.check_pickle, OtherCodeWhenCopied, "a copy of a layer without noise must encode the same, got another"),
        (checks.check_state_dict, OtherCostWhenCopied, "a loaded state must have the same names and cost, got others"),
        (checks.check_state_dict, ForgetsItsValues, "a loaded state must decode as before, got other values"),
        (
            checks.check_spend,
            lambda: Costs(lambda spend, _: Spend(-1.0, 8, -8.0)),
            "a cost must be >= 0 and have a use at least, got Spend",
        ),
        (
            checks.check_spend,
            lambda: Costs(cheaper_in_eval),
            "a use must cost the same in every mode, got another than Spend",
        ),
        (checks.check_spend, OtherEpsilon, "layer.epsilon must be .*, that of a use, got 0.1"),
        (
            checks.check_packing,
            PacksWider,
            r"encode_packed must give uint8 of shape \(6, 1\), got",
        ),
        (checks.check_packing, PacksStrangers, r"encode_packed must give symbols in \[0, .*\), got a larger one"),
    ],
)
def test_a_planted_fault_is_noticed(check: Any, make: Callable[[], nn.Module], text: str) -> None:
    with pytest.raises(AssertionError, match=f"{check.__name__}: {text}"):
        check(make(), EXAMPLE)


def test_a_release_that_differs_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    from splitpriv.testing import checks_values

    layer = ReluSanitizer(NONCE)
    wrong = [(row, 0) for row in layer(EXAMPLE) + 1]
    monkeypatch.setattr(checks_values, "_released", lambda layer, features: wrong)
    with pytest.raises(AssertionError, match="a release must give back what is encoded, got other features"):
        checks.check_packing(layer, EXAMPLE)
    short = [(row[:-1], 0) for row in EXAMPLE]
    monkeypatch.setattr(checks_values, "_released", lambda layer, features: short)
    with pytest.raises(AssertionError, match=r"a release must keep the shape that decode gives, \(6, 8\)"):
        checks.check_packing(layer, EXAMPLE)


def test_an_example_must_be_a_batch() -> None:
    layer = Response()
    with pytest.raises(InvalidParameterError, match="check_shape: example must hold at least one record, got an empty"):
        checks.check_shape(layer, EXAMPLE[:0])
    with pytest.raises(NonFiniteError, match="check_dtype: features must be finite"):
        checks.check_dtype(layer, EXAMPLE / 0)
    with pytest.raises(ShapeError, match="assert_ldp: features must have shape"):
        checks.assert_ldp(layer, EXAMPLE[0])


@pytest.mark.parametrize("shipped", SHIPPED, ids=[repr(shipped.make()) for shipped in SHIPPED])
def test_checks_leave_the_mode_the_state_and_the_ledger_alone(shipped: Any) -> None:
    layer = shipped.make().eval()
    own = getattr(layer, "_source", None)
    state = {name: value.clone() for name, value in layer.state_dict().items()}
    for name in checks.__all__:
        if name.startswith("check_"):
            getattr(checks, name)(layer, shipped.example)
    assert not layer.training
    assert getattr(layer, "_source", None) is own
    assert all(torch.equal(state[name], value) for name, value in layer.state_dict().items())
    if math.isfinite(layer.spend(shipped.shape).per_record):
        assert epsilon_total() == 0.0
