"""Encoding block by block: the same symbols as step by step, and nothing for a batch that is not finite."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from splitpriv import LaplaceLDP, NonFiniteError, RandomResponseLDP, ShapeError
from splitpriv.layers import fused
from splitpriv.layers.elementwise import ElementwiseLDP
from splitpriv.layers.fused import all_finite, grid_points
from splitpriv.mechanisms import SecureSource, SeededSource
from splitpriv.mechanisms.blocks import Scratch
from splitpriv.release import pack, unpack

LAYERS: dict[str, Callable[..., ElementwiseLDP]] = {
    "response": lambda **options: RandomResponseLDP(epsilon=2.0, **options),
    "laplace": lambda **options: LaplaceLDP(epsilon=2.0, sensitivity=4.0, **options),
}
every = pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "_BLOCK", 1 << 9)
    monkeypatch.setattr(fused, "_BITS", 1 << 11)


@pytest.fixture(params=[1, 3], ids=["one thread", "three threads"])
def _threads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: request.param)


class Quiet:
    """Random words for which no bit flips, and the noise is 0."""

    secure = False

    def __init__(self, byte: int) -> None:
        self.byte = byte

    def read(self, count: int) -> np.ndarray:
        return np.full(count, self.byte, dtype=np.uint8)


def silent(layer: ElementwiseLDP) -> ElementwiseLDP:
    """The layer with noise that changes nothing, so that its own quantising shows."""
    # Slices of zeros are numbers of ones, the largest there are; words of 0x8080... are in the middle.
    layer._source = Quiet(0 if isinstance(layer, RandomResponseLDP) else 0x80)
    return layer


SHAPES = [(1, 8), (3, 7), (5, 3, 4, 4), (700, 9), (40, 512), (2, 5000), (1, 4097), (0, 16), (9, 3, 5, 7)]
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.usefixtures("_threads")
def test_bits_are_packed_as_release_packs_them(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    for threshold in (0.0, 0.25, torch.linspace(-1, 1, shape[1])):
        layer = silent(RandomResponseLDP(epsilon=2.0, threshold=threshold))
        packed = layer.encode_packed(x)
        assert torch.equal(packed, pack(layer.quantize(x), bits=1))
        assert torch.equal(layer.encode(x), unpack(packed, 1, shape[1:]))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("outside", ["zero", "clamp"])
@pytest.mark.parametrize("width", [4.0, 0.3, 1e-30, 1e30, math.pi])
def test_grid_points_are_those_of_quantize(width: float, outside: str, dtype: torch.dtype) -> None:
    # Every exponent, both signs, the ends of the interval and the middles between grid points.
    draw = torch.Generator().manual_seed(1)
    layer = LaplaceLDP(epsilon=2.0, sensitivity=width, outside=outside, levels=33)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    spread = torch.exp2(torch.randint(-60, 60, (4096,), generator=draw)) * torch.randn(4096, generator=draw)
    middles = (torch.arange(-40, 41) / 32 + 1 / 64) * width
    ends = torch.tensor([-width / 2, width / 2, 0.0, -0.0], dtype=torch.float64)
    near = torch.cat([ends, torch.nextafter(ends, ends + width), torch.nextafter(ends, ends - width)])
    values = torch.cat([spread.to(torch.float64), spread * width, middles.to(torch.float64), near])
    x = values.to(dtype)[None]
    x = x[torch.isfinite(x)][None]
    found = grid_points(x[0].to(wide).numpy(), width, outside, 32, Scratch())
    assert found.tolist() == layer.quantize(x)[0].tolist()


@pytest.mark.slow
@pytest.mark.parametrize("outside", ["zero", "clamp"])
def test_grid_points_of_every_float32_about_as_large_as_the_interval(outside: str) -> None:
    # From a 300th of a grid step to beyond the ends; what is smaller is at the middle, as 0 is.
    layer, scratch = LaplaceLDP(epsilon=2.0, sensitivity=3.7, outside=outside), Scratch()
    low, high = (int(np.float32(v).view(np.uint32)) for v in (3.7 / 256 / 300, 4.0))
    for sign in (0, 1 << 31):
        for start in range(low, high, 1 << 24):
            values = np.arange(sign + start, sign + min(start + (1 << 24), high), dtype=np.uint32).view(np.float32)
            expected = layer.quantize(torch.from_numpy(values)[None])[0].numpy()
            assert np.array_equal(grid_points(values, 3.7, outside, 256, scratch), expected)


NOT_FINITE = {
    np.float32: [0x7F800000, 0xFF800000, 0x7FC00000, 0xFFC00000, 0x7F800001, 0xFF800001, 0x7FFFFFFF, 0xFFFFFFFF],
    np.float64: [0x7FF << 52, 0xFFF << 52, 0x7FF8 << 48, 0xFFF8 << 48, (0x7FF << 52) + 1, (1 << 64) - 1],
}


@pytest.mark.parametrize("kind", NOT_FINITE)
def test_nan_and_infinity_are_seen_at_every_place(kind: type[np.floating]) -> None:
    bits = np.dtype(f"u{np.dtype(kind).itemsize}")
    largest = np.finfo(kind).max
    for count in (1, 2, 15, 16, 17, 67):
        for fill in (0.0, -0.0, -1.0, 1.0, largest, -largest, np.finfo(kind).smallest_subnormal):
            values = np.full(count, fill, dtype=kind)
            assert all_finite(values)
            for place in range(count):
                for pattern in NOT_FINITE[kind]:
                    values.view(bits)[place] = pattern
                    assert not all_finite(values), (count, fill, place, hex(pattern))
                    values[place] = fill


@every
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("place", [0, 511, 512, 2047, 2048, 4999, 9998, 9999])
@pytest.mark.usefixtures("_threads")
def test_a_batch_that_is_not_finite_is_refused_whole(
    make: Callable[..., ElementwiseLDP], dtype: torch.dtype, place: int
) -> None:
    for value in (math.nan, math.inf, -math.inf):
        for columns in (5000, 4999):
            x = torch.randn(2, columns).to(dtype)
            x.view(-1)[min(place, x.numel() - 1)] = value
            layer = make()
            for encode in (layer.encode, getattr(layer, "encode_packed", layer.encode)):
                with pytest.raises(NonFiniteError, match="features must be finite, got NaN or infinity in shape"):
                    encode(x)
            assert layer.feature_shape is None


@every
def test_a_seed_means_the_same_for_any_number_of_threads(
    make: Callable[..., ElementwiseLDP], monkeypatch: pytest.MonkeyPatch
) -> None:
    x, drawn = torch.randn(3, 4000), []
    for threads in (1, 2, 5):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        layer = make(generator=7)
        drawn.append(torch.stack([layer.encode(x), layer.encode(x)]))
        assert not torch.equal(drawn[-1][0], drawn[-1][1])
    assert torch.equal(drawn[0], drawn[1])
    assert torch.equal(drawn[0], drawn[2])


def test_padding_bits_are_zero_whatever_is_drawn() -> None:
    layer = RandomResponseLDP(epsilon=1e-3, generator=4)  # flips half of all bits
    for elements in (1, 7, 9, 4099):
        packed = layer.encode_packed(torch.randn(50, elements))
        assert int(packed[:, -1].max()) < 1 << elements % 8
        assert torch.equal(packed, pack(unpack(packed, 1, (elements,)), bits=1))


def test_packed_and_unpacked_are_the_same_draw() -> None:
    x = torch.randn(7, 1001)
    packed = RandomResponseLDP(epsilon=1.0, generator=3).encode_packed(x)
    symbols = RandomResponseLDP(epsilon=1.0, generator=3).encode(x)
    assert torch.equal(unpack(packed, 1, (1001,)), symbols)


@every
@pytest.mark.usefixtures("_threads")
def test_no_two_blocks_share_noise(make: Callable[..., ElementwiseLDP]) -> None:
    # Blocks of 2,048 symbols of equal input: two alike have probability below 2**-400.
    for source in (SecureSource(), SeededSource(9)):
        layer = make()
        layer._source = source
        blocks = layer.encode(torch.zeros(4, 4096)).reshape(-1, 2048)
        assert len({block.numpy().tobytes() for block in blocks}) == len(blocks)


@every
def test_a_subclass_with_another_quantize_is_asked(make: Callable[..., ElementwiseLDP]) -> None:
    layer = silent(make())
    kind = type("Other", (type(layer),), {"quantize": lambda self, features: torch.ones_like(features).int()})
    layer.__class__ = kind
    x = torch.full((2, 9), -1.0)
    same = silent(make()).encode(torch.full((2, 9), 1.0))
    if isinstance(layer, RandomResponseLDP):
        assert torch.equal(layer.encode(x), same)
        assert torch.equal(layer.encode_packed(x), pack(same, bits=1))
    else:
        assert len(layer.encode(x).unique()) == 1
        assert not torch.equal(layer.encode(x), silent(make()).encode(x))


def test_wrong_input_is_refused_when_packed() -> None:
    layer = RandomResponseLDP(epsilon=1.0, threshold=torch.zeros(3))
    with pytest.raises(ShapeError, match="features must have 3 channels in dimension 1"):
        layer.encode_packed(torch.zeros(2, 4))
    with pytest.raises(ShapeError, match="features must have a floating-point dtype"):
        layer.encode_packed(torch.zeros(2, 3, dtype=torch.int64))


def test_strided_and_negated_features() -> None:
    x = torch.randn(6, 4, 5, 8)
    layer = silent(RandomResponseLDP(epsilon=1.0))
    turned = x.permute(0, 3, 1, 2)
    assert torch.equal(layer.encode(turned), layer.encode(turned.contiguous()))
    negated = torch.view_as_complex(torch.randn(3, 4, 2)).conj().imag
    assert negated.is_neg()
    assert torch.equal(layer.encode(negated), layer.encode(negated.resolve_neg().clone()))
