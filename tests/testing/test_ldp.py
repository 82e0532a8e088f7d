"""assert_ldp: what it proves, what it notices, and how often it is wrong."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
import torch
from broken import NoTable, tilted
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from own_layer import LargestElement
from splitpriv import CodebookLDP, InvalidParameterError, LaplaceLDP, RandomResponseLDP, ReluSanitizer
from splitpriv.accounting import Spend
from splitpriv.attacks.estimate import lower_bound, upper_bound
from splitpriv.mechanisms import Channel, RandomizedResponse
from splitpriv.release import pack
from splitpriv.testing import LDPResult, assert_ldp
from splitpriv.testing.statistics import association_p, difference_p, law_p
from splitpriv.testing.tables import exceeds, worst_pair

EXAMPLE = torch.randn(4, 10, generator=torch.Generator().manual_seed(0))


class Drawn(RandomResponseLDP):
    """Declares one channel, and draws with another."""

    def __init__(self, declared: Channel, drawn: Channel) -> None:
        self.declared, self.drawn = declared, drawn
        super().__init__(epsilon=math.log(3))

    def channel(self, shape: object) -> Channel:
        return self.declared

    def encode(self, features: Tensor) -> Tensor:
        return self.drawn.sample(self.quantize(features), self._source)


@pytest.mark.parametrize(
    ("layer", "inputs"),
    [
        (RandomResponseLDP(epsilon=2.0), "2 of 2"),
        (RandomResponseLDP(epsilon=4.0, per="record"), "2 of 2"),
        (LaplaceLDP(epsilon=2.0, sensitivity=4.0), "257 of 257"),
        (LaplaceLDP(epsilon=1.0, sensitivity=1e-3, outside="clamp", levels=5), "5 of 5"),
    ],
    ids=repr,
)
def test_every_input_and_every_word_is_driven(layer: RandomResponseLDP, inputs: str) -> None:
    result = assert_ldp(layer, EXAMPLE)
    assert result.method == "exact"
    assert result.claimed == result.found == layer.spend((10,)).per_use
    assert f"at {inputs} inputs" in result.driven


def test_a_result_is_the_same_each_time_and_reads_well() -> None:
    first, again = (assert_ldp(RandomResponseLDP(epsilon=2.0), EXAMPLE, draws=10_000) for _ in range(2))
    assert first == again == pickle.loads(pickle.dumps(first))
    assert repr(first).startswith("LDPResult(exact: ε 2 claimed, 2 found; encode driven with ")
    lower = LDPResult("statistical", 1.0, 0.51234, 1e-6, "5 releases")
    assert "ε 1 claimed, at least 0.512 found" in repr(lower)


def test_without_quantize_each_symbol_must_fit_some_row() -> None:
    layer = LargestElement(epsilon=2.0, elements=10)
    assert "at some of 10 inputs" in assert_ldp(layer, EXAMPLE).driven
    layer._channel.sample = LargestElement(epsilon=2.2, elements=10)._channel.sample
    with pytest.raises(AssertionError, match="symbols must follow a row of the table that the layer declares"):
        assert_ldp(layer, EXAMPLE)


@pytest.mark.parametrize("share", [0.05, 0.02])
def test_small_faults_in_any_entry_are_noticed(share: float) -> None:
    declared = Channel([[(3 << 14) + 1, (1 << 14) - 1], [(1 << 14) - 1, (3 << 14) + 1]])
    assert_ldp(Drawn(declared, declared), EXAMPLE)
    for row in (0, 1):
        with pytest.raises(AssertionError, match=f"got symbol . in .* draws at input {row}"):
            assert_ldp(Drawn(declared, tilted(declared, row, 0, share)), EXAMPLE)


def test_what_no_release_would_call_is_not_driven() -> None:
    layer = Drawn(RandomizedResponse(epsilon=1.0), RandomizedResponse(epsilon=1.0))
    assert "encode_packed" not in assert_ldp(layer, EXAMPLE, epsilon=1.0, draws=10_000).driven


def test_records_that_name_symbols_are_driven_alone_and_together() -> None:
    words = torch.randn(256, 10, generator=torch.Generator().manual_seed(3))
    layer = CodebookLDP(words, epsilon=4.0, closest=13)
    result = assert_ldp(layer, EXAMPLE, draws=100_000)
    assert (result.method, result.claimed) == ("exact", layer.epsilon)
    assert result.found == layer.epsilon
    assert result.driven.endswith("records, alone and together")
    with pytest.raises(AssertionError, match=r"epsilon claimed, 3\.9, got 4 between records that name other symbols"):
        assert_ldp(layer, EXAMPLE, epsilon=3.9)


def test_faults_of_layers_that_name_symbols() -> None:
    class Restless(CodebookLDP):
        def quantize(self, features: Tensor) -> Tensor:
            return torch.randint(0, self.size, (len(features),))

    layer = Restless(torch.eye(10), epsilon=1.0, closest=1)
    with pytest.raises(AssertionError, match="quantize must give copies of a record the same symbols, got others"):
        assert_ldp(layer, EXAMPLE)
    layer = CodebookLDP(torch.eye(10), epsilon=1.0, closest=1)
    layer.mechanism.near += 1
    with pytest.raises(AssertionError, match=r"the weights of a row must be integers of sum .*, got 1 of .* and 9 of "):
        assert_ldp(layer, EXAMPLE)


def test_what_packs_is_driven_too() -> None:
    class Packs(RandomResponseLDP):
        kept = 1.0

        def encode_packed(self, features: Tensor) -> Tensor:
            keep = torch.rand(features.shape, generator=torch.Generator().manual_seed(0)) < self.kept
            return pack(torch.where(keep, self.encode(features), self.quantize(features)), 1)

    layer = Packs(epsilon=1.0)
    assert "again from encode_packed" in assert_ldp(layer, EXAMPLE).driven
    layer.kept = 0.95
    with pytest.raises(AssertionError, match="assert_ldp: encode_packed must follow the table"):
        assert_ldp(layer, EXAMPLE)


def test_a_large_alphabet_without_order_or_table_is_bounded_by_its_likeliest_symbols() -> None:
    class Untabled(LargestElement):
        channel = None

        def spend(self, shape: object = None) -> Spend:
            return Spend.of(super().spend().per_use * share, 1)

    features, share = torch.eye(64)[[5, 40, 17]] + 0.0, 1.0
    result = assert_ldp(Untabled(epsilon=3.0, elements=64), features)
    assert result.method == "statistical"
    assert 2.0 <= result.found <= 3.0
    share = 0.5
    with pytest.raises(AssertionError, match=r"claimed, 1\.5, got at least 2\.\d+ "):
        assert_ldp(Untabled(epsilon=3.0, elements=64), features)


def test_a_bare_lower_bound_comes_close_and_never_passes_the_truth() -> None:
    for epsilon in (0.5, 1.0, 2.0):
        layer = NoTable(epsilon=epsilon)
        result = assert_ldp(layer, EXAMPLE)
        assert result.method == "statistical"
        assert 0.7 * epsilon <= result.found <= epsilon
        with pytest.raises(AssertionError, match="one use must cost at most the epsilon claimed"):
            assert_ldp(layer, EXAMPLE, epsilon=0.7 * epsilon)


def test_a_claim_of_ones_own_is_tested_in_the_place_of_the_layers() -> None:
    layer = RandomResponseLDP(epsilon=1.0)
    assert assert_ldp(layer, EXAMPLE, epsilon=1.5, draws=10_000).claimed == 1.5
    with pytest.raises(AssertionError, match=r"the table must cost at most the epsilon claimed, 0\.99, got 1 between"):
        assert_ldp(layer, EXAMPLE, epsilon=0.99)


def test_what_claims_nothing_cannot_be_asserted() -> None:
    text = "layer must claim a finite epsilon, got ∞ from ReluSanitizer. A defence guarantees nothing"
    with pytest.raises(AssertionError, match=text):
        assert_ldp(ReluSanitizer(b"a nonce for this test"), EXAMPLE)


def test_a_table_must_be_one() -> None:
    class Ragged:
        inputs = outputs = 2
        epsilon = 1.0

        def table(self) -> list[list[int]]:
            return [[1, 3], [2, 3]]

    layer = Drawn(RandomizedResponse(epsilon=1.0), RandomizedResponse(epsilon=1.0))
    layer.declared = Ragged()  # type: ignore[assignment]
    with pytest.raises(AssertionError, match="the table must hold non-negative integers, rows of one length"):
        assert_ldp(layer, EXAMPLE)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"epsilon": -1.0}, "assert_ldp: epsilon must be finite and > 0"),
        ({"draws": 10}, "assert_ldp: draws must be an integer >= 1000"),
        ({"seed": -1}, "assert_ldp: seed must be an integer >= 0"),
        ({"failure_probability": 0.0}, "assert_ldp: failure_probability must be finite and > 0"),
        ({"failure_probability": 1.0}, "assert_ldp: failure_probability must be below 1, got failure_probability=1.0"),
    ],
)
def test_bad_arguments(options: dict[str, float], text: str) -> None:
    with pytest.raises(InvalidParameterError, match=text):
        assert_ldp(RandomResponseLDP(epsilon=1.0), EXAMPLE, **options)  # type: ignore[arg-type]


# The tests behind it ---------------------------------------------------------------------------------


@given(st.lists(st.lists(st.integers(1, 50), min_size=3, max_size=3), min_size=2, max_size=4))
def test_the_worst_pair_is_that_of_brute_force(rows: list[list[int]]) -> None:
    ratio, first, second = worst_pair(rows)
    best = max(a[y] / b[y] for a in rows for b in rows for y in range(3))
    assert ratio is not None
    assert float(ratio) == pytest.approx(best)
    assert float(ratio) == pytest.approx(max(a / b for a, b in zip(rows[first], rows[second], strict=True)))
    assert exceeds(ratio, math.log(best) * (1 - 1e-9) - 1e-12)
    assert not exceeds(ratio, math.log(best) * (1 + 1e-9) + 1e-12)


def test_an_impossible_symbol_costs_infinity() -> None:
    assert worst_pair([[1, 1, 0], [1, 0, 1]])[0] is None
    assert exceeds(None, 100.0)
    assert not exceeds(None, math.inf)


def test_p_values_are_those_of_valid_tests() -> None:
    # Of 2,000 true hypotheses at level .01 at most 20 are expected to be rejected; 50 has a probability below 1e-7.
    generator = np.random.default_rng(0)
    law = np.array([0.5, 0.3, 0.2])
    wrong = {"law": 0, "association": 0, "difference": 0}
    for _ in range(2000):
        wrong["law"] += law_p(generator.multinomial(500, law), law) < 0.01
        one, other = generator.random((2, 300, 1)) < 0.4
        wrong["association"] += bool(association_p(one, other)[0] < 0.01)
        wrong["difference"] += bool(difference_p(one, other)[0] < 0.01)
    assert max(wrong.values()) < 50
    assert law_p(np.array([500, 0, 0]), law) < 1e-50
    assert law_p(np.array([1, 0]), np.array([0.0, 1.0])) == 0.0
    same = generator.random((300, 1)) < 0.4
    assert association_p(same, same)[0] < 1e-30


@given(st.integers(1, 200), st.data())
def test_bounds_lie_on_both_sides_of_the_share(draws: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, draws))
    low, high = lower_bound(hits, draws, 1e-3), upper_bound(hits, draws, 1e-3)
    assert 0 <= low <= hits / draws <= high <= 1
    assert (low == 0) == (hits == 0)
    assert (high == 1) == (hits == draws)


# Whose number is it? ---------------------------------------------------------------------------------


class Bare:
    """Randomized response without a table: as many symbols as uses."""

    def __init__(self, epsilon: float = 0.5) -> None:
        self.response = RandomResponseLDP(epsilon=epsilon, generator=0)

    def encode(self, features: Tensor) -> Tensor:
        return self.response.encode(features)

    def decode(self, symbols: Tensor) -> Tensor:
        return self.response.decode(symbols)

    def log_prob(self, symbols: Tensor, features: Tensor) -> Tensor:
        return self.response.log_prob(symbols, features)

    def spend(self, shape: tuple[int, ...]) -> Spend:
        return self.response.spend(shape)


def test_a_decoder_that_mixes_is_not_held_against_one_use() -> None:
    class Mixes(Bare):
        def decode(self, symbols: Tensor) -> Tensor:
            return super().decode(symbols).cumsum(-1)

    found = assert_ldp(Mixes(), EXAMPLE, draws=100_000)
    assert 0 < found.found <= found.claimed == 0.5


def test_where_symbols_are_not_one_use_each_the_record_is_what_is_claimed() -> None:
    class Packs(Bare):
        def encode(self, features: Tensor) -> Tensor:
            return (super().encode(features).long() << torch.arange(10)).sum(1, keepdim=True)

        def decode(self, symbols: Tensor) -> Tensor:
            return symbols.float()

        def log_prob(self, symbols: Tensor, features: Tensor) -> Tensor:
            return super().log_prob(symbols >> torch.arange(10) & 1, features)

    class Twice(Bare):
        """Two uses, each of which is told five times."""

        def spend(self, shape: tuple[int, ...]) -> Spend:
            return Spend.of(0.5, 2)

        def encode(self, features: Tensor) -> Tensor:
            return super().encode(features[:, :2]).repeat(1, 5)

        def log_prob(self, symbols: Tensor, features: Tensor) -> Tensor:
            return super().log_prob(symbols[:, :2], features[:, :2])

    for layer, claim in ((Packs(), 5.0), (Twice(), 1.0)):
        found = assert_ldp(layer, EXAMPLE, draws=100_000)
        assert found.claimed == pytest.approx(claim)
        assert 0.5 < found.found <= claim
    assert assert_ldp(Twice(), EXAMPLE, draws=100_000, epsilon=0.6).claimed == pytest.approx(1.2)
    text = r"a record of 2 uses must cost at most the epsilon claimed, 0\.6, got at least"
    with pytest.raises(AssertionError, match=text):
        assert_ldp(Twice(), EXAMPLE, draws=100_000, epsilon=0.3)


def test_noise_that_is_kept_is_not_counted_as_many_draws() -> None:
    class Memoised(Bare):
        """A record gets the answer again that it got first."""

        kept: dict[bytes, Tensor]

        def encode(self, features: Tensor) -> Tensor:
            self.kept = getattr(self, "kept", {})
            for record in features:
                key = record.numpy().tobytes()
                self.kept[key] = self.kept[key] if key in self.kept else super().encode(record[None])[0]
            return torch.stack([self.kept[record.numpy().tobytes()] for record in features])

    with pytest.raises(AssertionError, match="assert_ldp: layer must draw anew at each call, got the same symbols"):
        assert_ldp(Memoised(), EXAMPLE, draws=10_000)
