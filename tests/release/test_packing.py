"""Packing: exact, as small as stated, and nothing stray."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor

from splitpriv import InvalidParameterError, NonFiniteError, ShapeError
from splitpriv.release import bits_for, pack, packing, unpack


@st.composite
def batches(draw: st.DrawFn, bits: int) -> Tensor:
    """Any batch of symbols of this width: (batch, *symbol), symbol possibly ()."""
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=3, max_side=11))
    return torch.from_numpy(draw(hnp.arrays(np.int64, shape, elements=st.integers(0, 2**bits - 1))))


@pytest.mark.parametrize("bits", range(1, 33))
@settings(max_examples=20)
@given(data=st.data())
def test_round_trip_at_every_width(lab: Any, bits: int, data: st.DataObject) -> None:
    lab.check_packing(pack, unpack, data.draw(batches(bits)), bits)


@pytest.mark.parametrize("bits", range(1, 33))
@pytest.mark.parametrize("elements", range(1, 18))
def test_extreme_symbols_at_every_place(lab: Any, bits: int, elements: int) -> None:
    ones = torch.full((1, elements), 2**bits - 1)
    single = torch.eye(elements, dtype=torch.int64) * (2**bits - 1)
    lab.check_packing(pack, unpack, torch.cat([ones, single, 0 * ones]), bits)


@pytest.mark.parametrize("bits", [1, 2, 8, 11, 16, 31, 32])
def test_more_records_than_one_chunk(lab: Any, bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "_CHUNK", 50)
    symbols = torch.randint(2**bits, (23, 7), generator=torch.Generator().manual_seed(0))
    lab.check_packing(pack, unpack, symbols, bits)
    packing.check_packed("x", pack(symbols, bits).numpy(), 7, bits, 2**bits)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64])
def test_any_integer_dtype_and_layout(lab: Any, dtype: torch.dtype) -> None:
    symbols = torch.tensor([[1, 0, 1], [0, 0, 1]], dtype=dtype)
    lab.check_packing(pack, unpack, symbols, 1)
    lab.check_packing(pack, unpack, symbols.T, 5)


def test_no_records() -> None:
    for bits in (1, 8, 10):
        packed = pack(torch.zeros(0, 3, dtype=torch.int32), bits)
        assert packed.shape == (0, -(-3 * bits // 8))
        assert unpack(packed, bits, (3,)).shape == (0, 3)


@pytest.mark.parametrize(("bits", "dtype"), [(1, torch.uint8), (8, torch.uint8), (9, torch.int16), (15, torch.int16)])
def test_smallest_dtype(bits: int, dtype: torch.dtype) -> None:
    assert unpack(pack(torch.ones(1, 2, dtype=torch.int64), bits), bits, (2,)).dtype == dtype


@pytest.mark.parametrize(("bits", "dtype"), [(16, torch.int32), (31, torch.int32), (32, torch.int64)])
def test_smallest_wide_dtype(bits: int, dtype: torch.dtype) -> None:
    top = torch.tensor([[2**bits - 1]])
    back = unpack(pack(top, bits), bits, (1,))
    assert back.dtype == dtype
    assert back.item() == top.item()


@pytest.mark.parametrize(
    ("alphabet", "bits"), [(2, 1), (3, 2), (4, 2), (5, 3), (256, 8), (257, 9), (4096, 12), (2**32 - 1, 32), (2**32, 32)]
)
def test_bits_for(alphabet: int, bits: int) -> None:
    assert bits_for(alphabet) == bits


@given(alphabet=st.integers(2, 2**32))
def test_bits_for_is_the_fewest(alphabet: int) -> None:
    assert 2 ** (bits_for(alphabet) - 1) < alphabet <= 2 ** bits_for(alphabet)


@pytest.mark.parametrize("alphabet", [1, 0, -2, 2**32 + 1, 2.0, True, None, "2"])
def test_bits_for_refuses(alphabet: Any) -> None:
    with pytest.raises(InvalidParameterError, match=r"bits_for: alphabet must be an integer in \[2, 4294967296\]"):
        bits_for(alphabet)


@pytest.mark.parametrize("bits", [0, -1, 33, 1.0, True])
def test_width_is_refused(bits: Any) -> None:
    with pytest.raises(InvalidParameterError, match=r"pack: bits must be an integer in \[1, 32\]"):
        pack(torch.zeros(1, 1, dtype=torch.uint8), bits)
    with pytest.raises(InvalidParameterError, match=r"unpack: bits must be an integer in \[1, 32\]"):
        unpack(torch.zeros(1, 1, dtype=torch.uint8), bits, (1,))


@pytest.mark.parametrize("bits", range(1, 33))
@settings(max_examples=5)
@given(data=st.data())
@example(data=None)
def test_values_outside_are_refused(bits: int, data: st.DataObject | None) -> None:
    outside = 2**bits if data is None else data.draw(st.integers(-(2**40), -1) | st.integers(2**bits, 2**40))
    with pytest.raises(ShapeError, match=rf"pack: symbols must be in \[0, {2**bits}\), got values in \["):
        pack(torch.tensor([[0, outside]]), bits)


@pytest.mark.parametrize(
    ("symbols", "match"),
    [
        ([[1]], "symbols must be a torch.Tensor, got list"),
        (torch.zeros(1, 1), "symbols must have an integer dtype, got dtype=float32"),
        (torch.tensor(1), r"at least one symbol per record, got shape=\(\)"),
        (torch.zeros(2, 0, dtype=torch.uint8), r"at least one symbol per record, got shape=\(2, 0\)"),
    ],
)
def test_what_is_no_batch_of_symbols_is_refused(symbols: Any, match: str) -> None:
    with pytest.raises(ShapeError, match=match):
        pack(symbols, 1)


@pytest.mark.parametrize("packed", [[[1]], torch.zeros(1, 2, dtype=torch.uint8), torch.zeros(1, 1), torch.zeros(1)])
def test_unpack_refuses_other_bytes(packed: Any) -> None:
    with pytest.raises(ShapeError, match=r"unpack: packed must be a uint8 tensor of shape \(batch, 1\), got "):
        unpack(packed, 1, (3,))


@pytest.mark.parametrize(("bits", "dtype"), [(8, torch.int8), (9, torch.uint8), (32, torch.int32), (1, torch.float32)])
def test_unpack_refuses_dtypes_that_are_too_small(bits: int, dtype: torch.dtype) -> None:
    with pytest.raises(InvalidParameterError, match="unpack: dtype must be an integer dtype that holds"):
        unpack(torch.zeros(1, 4, dtype=torch.uint8), bits, (1,), dtype)


def test_unpack_refuses_no_shape() -> None:
    with pytest.raises(ShapeError, match="unpack: shape must be a non-empty sequence of positive integers"):
        unpack(torch.zeros(1, 1, dtype=torch.uint8), 1, (0,))


def test_floats_keep_every_bit() -> None:
    rows = np.array([[1e-45, -0.0, 3.4028235e38], [1.0, -1.5, 0.1]], dtype=np.float32)
    packed = packing.pack_floats("x", rows)
    assert packed.shape == (2, 12)
    assert packing.unpack_floats(packed).tobytes() == rows.tobytes() == packed.tobytes()


def test_floats_are_refused() -> None:
    with pytest.raises(ShapeError, match="x: symbols must be float32 where values is None, got dtype=float64"):
        packing.pack_floats("x", np.zeros((1, 1)))
    with pytest.raises(NonFiniteError, match="x: symbols must be finite, got NaN or infinity"):
        packing.pack_floats("x", np.array([[np.nan]], dtype=np.float32))


@pytest.mark.parametrize(("bits", "elements"), [(1, 6), (10, 7), (3, 1)])
def test_stray_padding_bits_are_refused(bits: int, elements: int) -> None:
    packed = pack(torch.zeros(3, elements, dtype=torch.uint8), bits).numpy()
    packing.check_packed("x", packed, elements, bits, 2**bits)
    packed[1, -1] |= 128
    with pytest.raises(InvalidParameterError, match="x: padding bits must be zero, got stray bits in record 1"):
        packing.check_packed("x", packed, elements, bits, 2**bits)


def test_packed_symbols_outside_the_alphabet_are_refused() -> None:
    packed = pack(torch.tensor([[0, 998], [999, 0]]), 10).numpy()
    packing.check_packed("x", packed, 2, 10, 1000)
    with pytest.raises(InvalidParameterError, match=r"x: packed must hold symbols in \[0, 999\), got a larger one"):
        packing.check_packed("x", packed, 2, 10, 999)


def test_packed_floats_that_are_not_finite_are_refused() -> None:
    packed = np.array([[np.inf]], dtype="<f4").view(np.uint8)
    with pytest.raises(NonFiniteError, match="x: packed must hold finite features"):
        packing.check_packed("x", packed, 1, 32, None)


@pytest.mark.parametrize("bits", [1, 7, 10, 12])
def test_temporary_memory_is_bounded(bits: int) -> None:
    symbols = torch.ones(1024, 2048, dtype=torch.uint8)  # 2 MB, of which a copy in uint32 takes 8
    tracemalloc.start()
    packed = pack(symbols, bits)
    back = packing.unpack_array(packed.numpy(), bits, 2048, np.uint8)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak - packed.nbytes - back.nbytes < 6 << 20
