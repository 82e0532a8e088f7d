"""The layer of docs/extending.rst, one file, through accounting, packing, testing and a benchmark."""

from __future__ import annotations

import copy
import math
import pickle
import runpy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import splitpriv as sp
from own_layer import LargestElement
from splitpriv.release import pack, unpack
from splitpriv.testing import parametrize_with_checks
from splitpriv.testing.parametrize import Check

ROOT = Path(__file__).parents[1]
EXAMPLE = torch.randn(6, 10, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("epsilon", [0.01, 0.5, 2.0, 8.0, 20.0])
@pytest.mark.parametrize("elements", [2, 3, 10, 200])
def test_the_layer_of_the_guide_meets_the_epsilon_asked(epsilon: float, elements: int) -> None:
    channel = LargestElement(epsilon=epsilon, elements=elements).channel((elements,))
    worst = max(max(column) / min(column) for column in zip(*channel.table(), strict=True))
    assert math.log(worst) <= channel.epsilon * (1 + 1e-12)
    assert epsilon * (1 - 1e-3) <= channel.epsilon <= epsilon


def test_the_layer_of_the_guide_is_a_layer_like_the_others() -> None:
    layer = LargestElement(epsilon=8.0, elements=4, generator=0)
    features = torch.eye(4, dtype=torch.float64).repeat(500, 1).requires_grad_()
    released = layer(features)
    assert (released.dtype, released.shape) == (torch.float64, features.shape)
    # Each of 2,000 draws keeps the position with probability > 0.998: fewer than 1,900 has one below 1e-80.
    assert int((released.argmax(1) == features.argmax(1)).sum()) >= 1900
    model = sp.SplitModel(torch.nn.Identity(), torch.nn.Identity(), layer, joint=True)
    model(features).backward(torch.ones_like(released) * 3)
    assert torch.equal(features.grad, torch.full_like(features, 3.0))
    symbols = layer.eval().encode(features)
    assert torch.equal(layer.decode(symbols).argmax(1), symbols.long())
    exact = layer.channel((4,)).log_prob(symbols, features.detach().argmax(1))
    assert torch.allclose(layer.log_prob(symbols, features, temperature=0.01), exact)
    secure = LargestElement(epsilon=8.0, elements=4)
    assert (layer.secure, secure.secure) == (False, True)
    assert repr(pickle.loads(pickle.dumps(secure))) == repr(copy.deepcopy(secure)) == repr(secure)
    for wrong, error in ((features[:, :3], sp.ShapeError), (features / 0, sp.NonFiniteError)):
        with pytest.raises(error, match="LargestElement: features must be"):
            layer.encode(wrong)
    with pytest.raises(sp.InvalidParameterError, match="LargestElement: epsilon must be finite and > 0"):
        LargestElement(epsilon=0.0, elements=2)


@parametrize_with_checks(
    [LargestElement(epsilon=2.0, elements=10), LargestElement(epsilon=0.5, elements=10)], example=EXAMPLE
)
def test_checks(layer: nn.Module, example: Tensor, check: Check) -> None:
    check(layer, example)


def test_accounting_and_packing() -> None:
    layer = LargestElement(epsilon=2.0, elements=10)
    epsilon = sp.accounting.epsilon_total(layer, shape=(10,))
    assert epsilon == layer.spend().per_record <= 2.0
    model = sp.SplitModel(nn.Linear(8, 10), nn.Linear(10, 3), layer, labels="public")
    with sp.accounting.Ledger(limit=3.0) as ledger:
        release = model.release((torch.randn(100, 8), torch.arange(100) % 3), progress=False)
        assert ledger.epsilon == epsilon == sp.accounting.epsilon_total(release)
        with pytest.raises(sp.BudgetExceeded, match="limit"):
            model.release(torch.randn(5, 8), progress=False)
    assert release.bytes_per_record == 1
    symbols = layer.encode(EXAMPLE)
    assert torch.equal(unpack(pack(symbols, 4), 4, ()), symbols)
    assert torch.equal(torch.stack([release[i][0] for i in range(100)]).sum(1), torch.ones(100))


def test_benchmark(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--option", "epsilon=2.0", "--option", "elements=10", "--shape", "10", "--records", "50", "--runs", "1"]
    runpy.run_path(str(ROOT / "benchmarks" / "bench_layer.py"))["main"](["own_layer:LargestElement", *options])
    printed = capsys.readouterr().out
    assert "LargestElement(ε 2 per record; largest of 10 elements; secure noise)" in printed
    for step in ("encode", "pack", "decode", "records per second"):
        assert step in printed
