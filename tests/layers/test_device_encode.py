"""Noise drawn where the features are, here on the CPU by the same operations; the fused kernel where it can run."""

from __future__ import annotations

import copy
import importlib.util
import math
import os
import pickle
import subprocess
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from splitpriv import LaplaceLDP, NonFiniteError, PrivacyError, RandomResponseLDP
from splitpriv.layers import device_encode
from splitpriv.layers.elementwise import ElementwiseLDP
from splitpriv.mechanisms import device_draw
from splitpriv.mechanisms.device_draw import TILE, DeviceDraw
from splitpriv.release import pack
from splitpriv.testing import assert_ldp

CPU, CUDA = torch.device("cpu"), torch.device("cuda:0")
Make = Callable[..., ElementwiseLDP]
LAYERS: dict[str, Make] = {
    "response": lambda **options: RandomResponseLDP(epsilon=1.0, noise="device", **options),
    "channels": lambda **options: RandomResponseLDP(
        epsilon=1.0, threshold=torch.tensor([0.5, -0.5, 0.0]), noise="device", **options
    ),
    "laplace": lambda **options: LaplaceLDP(epsilon=2.0, sensitivity=4.0, noise="device", **options),
    "few outputs": lambda **options: LaplaceLDP(
        epsilon=8.0, sensitivity=3.0, outside="clamp", levels=9, per="record", noise="device", **options
    ),
}
every = pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
SHAPE = (3, 5, 7)
gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(device_encode, "_given_up", set())
    yield
    device_encode._tried_kernel.cache_clear()
    device_encode._computes_chacha.cache_clear()


@pytest.fixture
def _on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_encode, "DEVICES", ("cpu", "cuda"))


on_the_cpu = pytest.mark.usefixtures("_on_the_cpu")


def batch(records: int = 50, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(records, *SHAPE, generator=torch.Generator().manual_seed(0)).to(dtype)


def refused(*_: Any, **__: Any) -> Any:
    raise AssertionError("not to be called")


@every
def test_features_on_the_cpu_are_not_concerned(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_encode, "_draw", refused)
    layer = make()
    layer.encode(batch())
    assert repr(layer).endswith("secure noise, drawn where the features are)")


@on_the_cpu
def test_it_is_not_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_encode, "_draw", refused)
    RandomResponseLDP(epsilon=1.0).encode(batch())
    LaplaceLDP(epsilon=1.0, sensitivity=1.0).encode(batch())
    with pytest.raises(ValueError, match="LaplaceLDP: noise must be 'cpu' or 'device', got noise='cuda'"):
        LaplaceLDP(epsilon=1.0, sensitivity=1.0, noise="cuda")


@every
@on_the_cpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_symbols_are_those_of_the_channel(make: Make, dtype: torch.dtype) -> None:
    layer, twin, x = make(generator=1), make(generator=1), batch(dtype=dtype)
    symbols = layer.encode(x)
    channel = layer.channel(SHAPE)
    assert symbols.shape == x.shape
    assert symbols.dtype == channel.symbol_dtype
    assert layer.feature_shape == SHAPE
    assert 0 <= int(symbols.min()) <= int(symbols.max()) < channel.outputs
    # The same key, and the input symbols of quantize, drawn directly.
    draw = device_draw.device_draw(channel, CPU)  # type: ignore[arg-type]
    key = device_encode.draw_key(twin._source, CPU)
    marked = device_encode._by_operations(layer.quantize(x).reshape(-1), draw, key)
    assert symbols.reshape(-1).tolist() == marked.tolist()
    assert layer(x).dtype == dtype
    assert layer.encode(x[:0]).shape == x[:0].shape


@pytest.mark.parametrize("outside", ["zero", "clamp"])
@pytest.mark.parametrize("width", [4.0, 0.3, 1e-30, 1e30, math.pi])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_grid_points_are_those_of_quantize(width: float, outside: str, dtype: torch.dtype) -> None:
    draw = torch.Generator().manual_seed(1)
    spread = torch.exp2(torch.randint(-60, 60, (4096,), generator=draw)) * torch.randn(4096, generator=draw)
    middles = (torch.arange(-40, 41) / 32 + 1 / 64) * width
    ends = torch.tensor([-width / 2, width / 2, 0.0, -0.0], dtype=torch.float64)
    x = torch.cat([spread.double(), spread * width, middles.double(), ends, torch.nextafter(ends, ends * 0)])
    x = x.to(dtype)[torch.isfinite(x.to(dtype))][None]
    layer = LaplaceLDP(epsilon=2.0, sensitivity=width, outside=outside, levels=33)
    assert torch.equal(device_encode.grid_points(x, width, outside, 32).int(), layer.quantize(x))


@on_the_cpu
@pytest.mark.parametrize("shape", [(1,), (8,), (9,), (3, 5, 7), (3, 8, 8)])
def test_packed_bits_are_the_same_draw(shape: tuple[int, ...]) -> None:
    x = torch.randn(11, *shape, generator=torch.Generator().manual_seed(0))
    packed = RandomResponseLDP(epsilon=1.0, generator=2, noise="device").encode_packed(x)
    symbols = RandomResponseLDP(epsilon=1.0, generator=2, noise="device").encode(x)
    assert torch.equal(packed, pack(symbols, bits=1))
    assert packed.device == CPU


@every
@on_the_cpu
def test_parts_and_layouts_do_not_matter(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    x = batch(200)
    whole = make(generator=1).encode(x)
    monkeypatch.setattr(device_encode, "_STEP", 1)
    assert torch.equal(make(generator=1).encode(x), whole)
    turned = x.permute(0, 1, 3, 2).contiguous().permute(0, 1, 3, 2)
    assert not turned.is_contiguous()
    assert torch.equal(make(generator=1).encode(turned), whole)


@every
@on_the_cpu
def test_noise_is_fresh_for_each_call_copy_and_pickle(make: Make) -> None:
    layer, x = make(), torch.zeros(60, *SHAPE)
    layer.eval()
    drawn = [layer.encode(x) for _ in range(3)]
    drawn += [copy.deepcopy(layer).encode(x), pickle.loads(pickle.dumps(layer)).encode(x)]
    assert len({symbols.numpy().tobytes() for symbols in drawn}) == 5
    # Elements of a call: no tile is like another (two alike have probability below 2**-1000).
    tiles = make().encode(torch.zeros(4 * TILE // 105 + 1, *SHAPE)).reshape(-1)[: 4 * TILE].reshape(4, TILE)
    assert len({tile.numpy().tobytes() for tile in tiles}) == 4


@every
@on_the_cpu
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_batch_that_is_not_finite_is_refused_whole(make: Make, value: float) -> None:
    for place in (0, 1000, -1):
        layer, x = make(), batch()
        x.view(-1)[place] = value
        for encode in (layer.encode, getattr(layer, "encode_packed", layer.encode)):
            with pytest.raises(NonFiniteError, match="features must be finite, got NaN or infinity in shape"):
                encode(x)
        assert layer.feature_shape is None


def assert_law(layer: ElementwiseLDP, value: float, draws: int) -> None:
    """Chi-square of one input's row; fails with probability 1e-6 for a right layer."""
    x = torch.full((draws // 105, *SHAPE), value)
    channel = layer.channel(SHAPE)
    row = channel.table()[int(layer.quantize(x[:1])[0, 2, 0, 0])]
    observed = np.bincount(layer.encode(x)[:, 2].reshape(-1).cpu().numpy(), minlength=channel.outputs).astype(float)
    expected = np.array([entry / channel.total for entry in row]) * observed.sum()
    rare = expected < 10
    expected, observed = (np.append(part[~rare], part[rare].sum()) for part in (expected, observed))
    keep = expected > 0
    assert stats.chisquare(observed[keep], expected[keep]).pvalue > 1e-6


@every
@on_the_cpu
def test_the_law_is_the_table(make: Make) -> None:
    for value in (-1.1, 0.2):
        assert_law(make(generator=5), value, 1_000_000)


@on_the_cpu
def test_planted_faults_in_the_law_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    mark, settle = DeviceDraw.mark, DeviceDraw.settle

    def narrow(self: DeviceDraw, inputs: Tensor, leading: Tensor) -> Tensor:
        return mark(self, inputs, leading & 0xFFF0)

    def again(self: DeviceDraw, marked: Tensor, key: Tensor) -> None:
        settle(self, marked, key)
        marked[TILE:] = marked[:TILE].repeat(-(-marked.numel() // TILE))[: marked.numel() - TILE]

    for name, fault in (("mark", narrow), ("settle", again)):
        with monkeypatch.context() as patch:
            patch.setattr(DeviceDraw, name, fault)
            with pytest.raises(AssertionError):
                assert_law(LAYERS["laplace"](generator=5), 0.2, 1_000_000)


@every
@on_the_cpu
def test_assert_ldp_holds(make: Make) -> None:
    assert_ldp(make(), batch(6))


# Refusals and fallbacks -----------------------------------------------------------------------------------


@every
@on_the_cpu
def test_a_cuda_graph_is_refused(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_encode, "_is_captured", lambda device: True)
    with pytest.raises(PrivacyError, match="features must not be encoded into a CUDA graph"):
        make().encode(batch())


@every
@on_the_cpu
def test_a_device_that_computes_chacha_wrong_is_refused(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    from splitpriv.mechanisms import chacha

    device_encode._computes_chacha.cache_clear()
    monkeypatch.setattr(chacha, "ROUNDS", 18)
    with pytest.raises(PrivacyError, match="noise must come from ChaCha20, got other words on cpu"):
        make().encode(batch())


class Kernel:
    """In the place of the module with the fused kernel: the operations, with or without a fault."""

    triton = True

    def __init__(self, fault: str = "") -> None:
        self.fault, self.calls = fault, 0

    def launch(
        self,
        features: Tensor,
        draw: DeviceDraw,
        key: Tensor,
        *,
        threshold: Tensor | None = None,
        grid: tuple[float, str] | None = None,
    ) -> Tensor | None:
        self.calls += 1
        if self.fault == "raises":
            raise RuntimeError("no such compiler")
        if not torch.isfinite(features).all():
            return features[:0] if self.fault == "accepts NaN" else None
        bits = features.float() > threshold if grid is None else None
        inputs = device_encode.grid_points(features, *grid, draw.steps) if bits is None else bits
        marked = draw.mark(inputs, device_encode.leading_words(key, 0, inputs.numel()))
        if self.fault == "last tile":
            marked[-1] ^= 1
        return marked

    def settle(self, marked: Tensor, draw: DeviceDraw, key: Tensor) -> None:
        if self.fault == "settles late":
            raise RuntimeError("no such compiler")
        draw.settle(marked, key)
        if self.fault == "ties":
            marked[:] = torch.where(marked == marked.max(), marked - 1, marked)


@every
@on_the_cpu
def test_what_the_kernel_gives_is_what_the_operations_give(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    x, expected = batch(), make(generator=1).encode(batch())
    kernel = Kernel()
    monkeypatch.setattr(device_encode, "fused_kernel", lambda *_: kernel)
    layer = make(generator=1)
    assert torch.equal(layer.encode(x), expected)
    assert kernel.calls == (getattr(layer, "threshold", torch.zeros(())).ndim == 0)
    layer.encode(x.double())
    assert kernel.calls <= 1  # float64 is not its affair
    x[3, 2, 1, 0] = math.nan
    with pytest.raises(NonFiniteError, match="features must be finite"):
        layer.encode(x)


@on_the_cpu
@pytest.mark.parametrize("fault", ["raises", "settles late"])
@pytest.mark.parametrize("name", ["response", "laplace"])
def test_a_kernel_that_fails_is_left_for_good_with_the_same_result(
    name: str, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = LAYERS[name]
    expected, kernel = make(generator=1).encode(batch()), Kernel(fault)
    monkeypatch.setattr(device_encode, "fused_kernel", lambda device, *_: kernel)
    with pytest.warns(RuntimeWarning, match="no fused kernel on cpu .*no such compiler.*operations of torch, slower"):
        found = make(generator=1).encode(batch())
    assert torch.equal(found, expected)
    assert {CPU} == device_encode._given_up


KINDS = ["bits", "zero", "clamp"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_kernel_is_tried_before_it_is_used(kind: str) -> None:
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        assert device_encode.agrees(Kernel(), CPU, dtype, kind)
        for fault in ("last tile", "accepts NaN", "ties"):
            assert not device_encode.agrees(Kernel(fault), CPU, dtype, kind)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [("", ""), ("last tile", "it gives other symbols"), ("raises", "no such compiler"), ("none", "is not installed")],
)
def test_only_a_kernel_that_agrees_is_used(fault: str, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = types.ModuleType("device_kernel")
    kernel = Kernel(fault)
    module.launch, module.settle, module.triton = kernel.launch, kernel.settle, None if fault == "none" else True
    import splitpriv.layers

    monkeypatch.setitem(sys.modules, "splitpriv.layers.device_kernel", module)
    monkeypatch.setattr(splitpriv.layers, "device_kernel", module, raising=False)
    agrees = device_encode.agrees
    monkeypatch.setattr(device_encode, "agrees", lambda kernel, device, *rest: agrees(kernel, CPU, *rest))
    tried = (CUDA, torch.float32, "bits")
    if not fault:
        assert device_encode.fused_kernel(*tried) is module
        return
    with pytest.warns(RuntimeWarning, match=f"no fused kernel on cuda:0 .*{reason}"):
        assert device_encode.fused_kernel(*tried) is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # once is enough
        assert device_encode.fused_kernel(CUDA, torch.float16, "zero") is None
    assert device_encode.fused_kernel(CPU, torch.float32, "bits") is None


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
@pytest.mark.parametrize("kind", KINDS)
def test_the_kernel_in_tritons_interpreter(kind: str) -> None:
    code = (
        "import torch; from splitpriv.layers import device_encode, device_kernel; "
        f"print(device_encode.agrees(device_kernel, torch.device('cpu'), torch.float32, {kind!r}))"
    )
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == "True", done.stderr


# On a GPU -------------------------------------------------------------------------------------------------


@gpu
@every
def test_on_a_gpu_nothing_is_moved_to_the_cpu(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    from splitpriv.mechanisms import Channel

    monkeypatch.setattr(Channel, "sample", refused)
    layer = make().to("cuda")
    symbols = layer.encode(batch().cuda())
    assert symbols.device.type == "cuda"
    assert layer(batch().cuda()).device.type == "cuda"


@gpu
@every
def test_on_a_gpu_symbols_are_those_of_the_cpu(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    # Of the fused kernel, where it is one's affair, and of the operations.
    x = batch(4000)
    with monkeypatch.context() as patch:
        patch.setattr(device_encode, "DEVICES", ("cpu", "cuda"))
        expected = make(generator=1).encode(x)
    assert torch.equal(make(generator=1).to("cuda").encode(x.cuda()).cpu(), expected)
    monkeypatch.setattr(device_encode, "fused_kernel", lambda *_: None)
    assert torch.equal(make(generator=1).to("cuda").encode(x.cuda()).cpu(), expected)


@gpu
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_on_a_gpu_the_fused_kernel_serves(kind: str, dtype: torch.dtype) -> None:
    pytest.importorskip("triton")
    assert device_encode.fused_kernel(torch.device("cuda:0"), dtype, kind) is not None


@gpu
@every
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_on_a_gpu_what_is_not_finite_is_refused(make: Make, value: float) -> None:
    x = batch(400).cuda()
    x.view(-1)[TILE + 1] = value
    with pytest.raises(NonFiniteError, match="features must be finite"):
        make().to("cuda").encode(x)


@gpu
@every
def test_on_a_gpu_the_law_is_the_table(make: Make) -> None:
    class OnTheGpu:
        def __init__(self, layer: ElementwiseLDP) -> None:
            self.channel, self.quantize = layer.channel, layer.quantize
            self.encode = lambda x: layer.encode(x.cuda())

    assert_law(OnTheGpu(make(generator=5)), 0.2, 4_000_000)  # type: ignore[arg-type]


@gpu
@pytest.mark.filterwarnings("ignore:The CUDA Graph is empty")
def test_on_a_gpu_a_cuda_graph_is_refused() -> None:
    layer, x = RandomResponseLDP(epsilon=1.0, noise="device").to("cuda"), batch().cuda()
    layer.encode(x)
    with pytest.raises(PrivacyError, match="CUDA graph"), torch.cuda.graph(torch.cuda.CUDAGraph()):
        layer.encode(x)
