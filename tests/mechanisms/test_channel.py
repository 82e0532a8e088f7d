"""The channel: what follows from a table of integers."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from exact import exceeds, worst_ratio
from hypothesis import given
from hypothesis import strategies as st

from splitpriv import InvalidParameterError, ShapeError
from splitpriv.mechanisms import Channel, DiscreteLaplace, RandomizedResponse, SecureSource, SeededSource


@st.composite
def tables(draw: st.DrawFn, inputs: int | None = None) -> list[list[int]]:
    """Small random tables with zeros, any total."""
    rows = draw(st.integers(1, 4)) if inputs is None else inputs
    columns = draw(st.integers(1, 5))
    total = draw(st.integers(1, 300))
    table = []
    for _ in range(rows):
        cuts = sorted(draw(st.lists(st.integers(0, total), min_size=columns - 1, max_size=columns - 1)))
        table.append([b - a for a, b in zip([0, *cuts], [*cuts, total], strict=True)])
    return table


@given(tables())
def test_epsilon_is_the_worst_column_ratio(table: list[list[int]]) -> None:
    channel, truth = Channel(table), worst_ratio(table)
    if isinstance(truth, float):
        assert channel.epsilon_ratio is None
        assert math.isinf(channel.epsilon)
    else:
        assert channel.epsilon_ratio == truth
        assert not exceeds(truth, channel.epsilon)  # outward
        assert truth == 1 or exceeds(truth, math.nextafter(channel.epsilon, 0))  # and no further


@given(tables())
def test_kernel_reproduces_the_table(table: list[list[int]]) -> None:
    channel = Channel(table)
    words = np.arange(channel.total, dtype=np.uint64)
    for x, row in enumerate(table):
        drawn = channel.decide(np.full(channel.total, x), words)
        assert np.bincount(drawn, minlength=channel.outputs).tolist() == row


@given(st.data())
def test_cascade_is_the_exact_product(data: st.DataObject) -> None:
    first = data.draw(tables())
    second = data.draw(tables(inputs=len(first[0])))
    joined = Channel(first).cascade(Channel(second))
    product = (np.array(first, dtype=object) @ np.array(second, dtype=object)).tolist()
    assert joined.table() == product
    assert joined.total == sum(product[0])
    truth = worst_ratio(product)
    assert joined.epsilon_ratio == (None if isinstance(truth, float) else truth)
    assert joined.epsilon <= min(Channel(first).epsilon, Channel(second).epsilon)


def test_a_product_too_large_to_write_costs_the_smaller_of_the_two() -> None:
    laplace = DiscreteLaplace(epsilon=1.0, levels=257)
    fold = Channel([[int(y == x % 300) for y in range(300)] for x in range(laplace.outputs)])
    joined = laplace.cascade(fold)
    assert joined.epsilon_ratio == laplace.epsilon_ratio
    with pytest.raises(InvalidParameterError, match=r"2\*\*24 products"):
        joined.table()
    drawn = joined.sample(torch.zeros(10, dtype=torch.int16), SeededSource(0))
    assert int(drawn.max()) < 300


def test_totals_that_are_no_power_of_two_are_drawn_by_rejection() -> None:
    # 60,000 draws of a fair three-sided die; each count is within 6 standard deviations
    # (failure probability below 1e-8 for a correct sampler; the seed is fixed).
    die = Channel([[1, 1, 1]])
    drawn = die.sample(torch.zeros(60_000, dtype=torch.uint8), SeededSource(1))
    counts = torch.bincount(drawn.long())
    assert (counts - 20_000).abs().max() < 6 * math.sqrt(60_000 * 2 / 9)


def test_rejection_never_returns_a_word_beyond_the_total() -> None:
    class Bytes:
        """All-ones words first, zeros afterwards."""

        secure = False
        reads = 0

        def read(self, count: int) -> np.ndarray:
            self.reads += 1
            return np.full(count, 255 if self.reads == 1 else 0, dtype=np.uint8)

    source = Bytes()
    assert Channel([[1, 1, 1]]).sample(torch.zeros(5, dtype=torch.uint8), source).tolist() == [0] * 5
    assert source.reads == 2


def test_a_total_of_two_to_the_64_is_drawn_in_one_word() -> None:
    half = 1 << 63
    drawn = Channel([[half, half]]).sample(torch.zeros(1000, dtype=torch.long), SeededSource(2))
    assert 400 < int(drawn.sum()) < 600  # 6 standard deviations: 95; failure probability below 1e-8


@given(tables())
def test_log_prob_is_the_log_of_the_table(table: list[list[int]]) -> None:
    channel = Channel(table)
    outputs, inputs = torch.arange(channel.outputs)[None], torch.arange(channel.inputs)[:, None]
    expected = (torch.tensor(table, dtype=torch.float64) / channel.total).log()
    torch.testing.assert_close(channel.log_prob(outputs, inputs), expected)


def test_log_prob_keeps_its_digits_near_one() -> None:
    channel = RandomizedResponse(epsilon=20.0)
    kept = float(channel.log_prob(torch.tensor(1), torch.tensor(1)))
    assert kept == pytest.approx(-float(channel.flip_probability), rel=1e-8)


def test_unsigned_symbols_are_fine() -> None:
    for dtype in (torch.uint16, torch.uint32, torch.uint64, torch.int8, torch.bool):
        drawn = RandomizedResponse(epsilon=30.0).sample(torch.ones(4).to(dtype), SeededSource(0))
        assert drawn.tolist() == [1, 1, 1, 1]


def test_a_cascade_gives_its_table_away_as_a_copy() -> None:
    joined = Channel([[3, 1], [1, 3]]).cascade(Channel([[3, 1], [1, 3]]))
    joined.table()[0][0] = 0
    assert joined.table()[0] == [10, 6]


def test_shapes_dtypes_and_noncontiguous_symbols() -> None:
    channel = RandomizedResponse(epsilon=1.0)
    symbols = torch.zeros(3, 4, 5, dtype=torch.int64).transpose(0, 2)
    drawn = channel.sample(symbols, SecureSource())
    assert drawn.shape == symbols.shape
    assert drawn.dtype == torch.uint8
    assert channel.sample(torch.empty(0, 3, dtype=torch.uint8), SecureSource()).shape == (0, 3)
    assert DiscreteLaplace(epsilon=1.0).symbol_dtype == torch.int16


def test_a_sample_larger_than_a_block_is_whole() -> None:
    symbols = torch.ones(600_000, dtype=torch.uint8)
    drawn = RandomizedResponse(epsilon=30.0).sample(symbols, SeededSource(3))
    assert int((drawn != 1).sum()) == 0  # a flip has probability 6e5 * 1e-13


@pytest.mark.parametrize(
    ("table", "text"),
    [
        ([], "table must be non-empty"),
        ([[]], "table must be non-empty"),
        ([[1, 2], [3]], "table must be rectangular"),
        ([[1, -1]], "table must be of non-negative ints"),
        ([[1.0, 1.0]], "table must be of non-negative ints"),
        ([[1, 2], [2, 2]], "one common sum"),
        ([[0, 0]], r"one common sum in \[1, 2\*\*64\]"),
        ([[1 << 64, 1]], "one common sum"),
        ([[1] * (1 << 16)], r"2\*\*15 columns"),
    ],
)
def test_bad_tables_are_refused(table: list[list[int]], text: str) -> None:
    with pytest.raises(InvalidParameterError, match=text):
        Channel(table)


def test_bad_symbols_are_refused() -> None:
    channel = Channel([[1, 1], [1, 1]])
    with pytest.raises(ShapeError, match=r"symbols must have an integer dtype, got dtype=torch\.float32"):
        channel.sample(torch.zeros(2), SecureSource())
    with pytest.raises(ShapeError, match=r"symbols must be in \[0, 2\), got values in \[0, 2\]"):
        channel.sample(torch.tensor([0, 2]), SecureSource())
    with pytest.raises(ShapeError, match=r"outputs must be in \[0, 2\)"):
        channel.log_prob(torch.tensor([-1]), torch.tensor([0]))
    with pytest.raises(InvalidParameterError, match="other must be a channel with inputs=2"):
        channel.cascade(Channel([[1]]))


def test_tables_too_large_are_not_written_out() -> None:
    channel = DiscreteLaplace(epsilon=1.0)
    channel.outputs = 1 << 20  # pretend
    with pytest.raises(InvalidParameterError, match=r"table must be <= 2\*\*20 entries"):
        channel.table()


def test_repr_and_ratio() -> None:
    channel = Channel([[3, 1], [1, 3]])
    assert repr(channel) == "Channel(inputs=2, outputs=2, epsilon=1.09862)"  # outward
    assert channel.epsilon_ratio == Fraction(3)
