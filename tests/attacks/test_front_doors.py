"""Every shipped layer, never used before, through every front door: it works, or is refused in words."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import splitpriv as sp
from splitpriv.attacks import DecoderInversion, LikelihoodInversion, audit, invert, membership, recover_mask
from splitpriv.attacks.auditing import AuditResult
from splitpriv.testing.shipped import SHIPPED, SHIPPED_LABELS, Shipped

RECORDS = 8


def names(shipped: Shipped) -> str:
    return repr(shipped.make())


def records(shipped: Shipped, seed: int) -> Tensor:
    """Records in the unit ball, which every layer takes."""
    drawn = torch.randn(RECORDS, *shipped.shape, generator=torch.Generator().manual_seed(seed))
    return drawn / drawn.flatten(1).abs().sum(1).reshape(-1, *[1] * len(shipped.shape))


class Released(nn.Module):
    """A server of two classes, whatever shape is released."""

    def __init__(self, released: int) -> None:
        super().__init__()
        self.linear = nn.Linear(released, 2)

    def forward(self, decoded: Tensor) -> Tensor:
        found: Tensor = self.linear(decoded.flatten(1))
        return found


def model(shipped: Shipped, **options: Any) -> sp.SplitModel:
    used = shipped.make()
    released = used.decode(used.encode(records(shipped, 0)))[0].numel()  # of another one: the model's stays fresh
    torch.manual_seed(0)
    return sp.SplitModel(
        nn.Identity(), Released(released), cut=shipped.make(), edge_data="public", **{"labels": "public", **options}
    )


@pytest.mark.parametrize("shipped", SHIPPED, ids=names)
@pytest.mark.parametrize("at", ["a cut", "itself"])
def test_audit(shipped: Shipped, at: str) -> None:
    target = model(shipped) if at == "a cut" else shipped.make()
    found = audit(target, records(shipped, 0), draws=2000, failure_probability=1e-6)
    assert not found.refuted
    cost = shipped.make().spend(shipped.shape)
    assert found.claimed == (cost.per_record if found.unit == "one record" else cost.per_use)
    assert sp.accounting.epsilon_total() == 0


@pytest.mark.parametrize("shipped", [kind for kind in SHIPPED if len(kind.shape) == 1], ids=names)
def test_audit_before_what_mixes(shipped: Shipped) -> None:
    nonce = b"a nonce for the tests of front doors"
    cut = [shipped.make(), sp.LocalPretrainedEncoder(shipped.shape, 4, nonce=nonce)]
    target = sp.SplitModel(nn.Identity(), nn.Linear(4, 2), cut=cut, labels="public", edge_data="public")
    found = audit(target, records(shipped, 0), draws=2000, failure_probability=1e-6)
    assert (found.unit, found.refuted) == ("one record", False)
    assert found.claimed == pytest.approx(shipped.make().spend(shipped.shape).per_record)


@pytest.mark.parametrize("make", SHIPPED_LABELS, ids=lambda make: repr(make()))
def test_audit_of_labels(make: Callable[[], sp.LabelLDP]) -> None:
    found = audit(make(), torch.arange(2), draws=2000, failure_probability=1e-6)
    assert isinstance(found, AuditResult)
    assert (found.refuted, found.claimed) == (False, make().epsilon)


@pytest.mark.parametrize("shipped", SHIPPED, ids=names)
def test_invert(shipped: Shipped) -> None:
    quick = [DecoderInversion(epochs=1, width=4, input_range=None), LikelihoodInversion(steps=2, input_range=None)]
    report = invert(model(shipped), records(shipped, 0), public=records(shipped, 1), attacks=quick)
    assert "DecoderInversion" in {result.name for result in report.results}
    noisy = math.isfinite(shipped.make().spend(shipped.shape).per_record)
    assert noisy or "LikelihoodInversion" in report.skipped
    assert all(isinstance(reason, str) and reason for reason in report.skipped.values())
    assert sp.accounting.epsilon_total() == 0


@pytest.mark.parametrize("shipped", SHIPPED, ids=names)
@pytest.mark.parametrize("query", ["clean", "released"])
def test_membership(shipped: Shipped, query: str) -> None:
    labels = torch.arange(RECORDS) % 2
    members, others = (records(shipped, 0), labels), (records(shipped, 1), labels)
    report = membership(model(shipped), members, others, shadows=0, query=query)
    assert report.results
    assert sp.accounting.epsilon_total() == 0


@pytest.mark.parametrize("shipped", SHIPPED, ids=names)
def test_recover_mask(shipped: Shipped) -> None:
    target = model(shipped)
    given: dict[str, Any] = {"public": records(shipped, 1), "pairs": (1, 2)}
    if math.isfinite(shipped.make().spend(shipped.shape).per_record):
        with pytest.raises(sp.InvalidParameterError, match=r"recover_mask: .* must"):
            recover_mask(target, records(shipped, 0), **given)
    else:
        assert recover_mask(target, records(shipped, 0), **given).results
    assert sp.accounting.epsilon_total() == 0
