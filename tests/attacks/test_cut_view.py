"""What an attacker is given: read off a model, and refused where it is not known."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import splitpriv as sp
from splitpriv import InvalidParameterError
from splitpriv.attacks import CutView, view_of


def test_a_view_of_a_model_knows_what_there_is_to_know() -> None:
    torch.manual_seed(0)
    edge, server = nn.Linear(4, 8), nn.Linear(8, 2)
    model = sp.SplitModel(edge, server, cut=sp.RandomResponseLDP(epsilon=2.0)).eval()
    view, x = view_of(model), torch.randn(5, 4)
    symbols = view.released(x)
    assert symbols.shape == (5, 8)
    assert not symbols.requires_grad
    assert view.need("decode")(symbols).shape == (5, 8)
    assert view.need("log_prob")(symbols, edge(x)).shape == (5, 8)
    assert torch.allclose(view.need("clean")(edge(x)), model.cut[0].expected(edge(x)))
    assert "RandomResponseLDP" in view.layer
    assert sp.accounting.epsilon_total() == 0


def test_no_layer_and_defences_have_no_likelihood() -> None:
    def of(*cut: nn.Module) -> CutView:
        return view_of(sp.SplitModel(nn.Identity(), nn.Identity(), cut=list(cut)))

    mask, response = sp.RandomVectorMask(b"sixteen bytes at least"), sp.RandomResponseLDP(epsilon=1.0)
    assert of().log_prob is None
    assert of().layer == "no layer"
    assert of(mask).log_prob is None
    assert of(response, response).log_prob is None  # the cascade's likelihood is not that of its last layer
    assert of(response, mask).log_prob is None
    behind = of(mask, response)
    features, symbols = torch.randn(3, 6), torch.ones(3, 6, dtype=torch.uint8)
    assert behind.log_prob is not None
    assert torch.equal(behind.log_prob(symbols, features), response.log_prob(symbols, mask(features)))


def test_what_is_not_known_is_refused() -> None:
    with pytest.raises(InvalidParameterError, match="edge must be known to this attack, got edge=None"):
        CutView().need("edge")
    with pytest.raises(InvalidParameterError, match="encode must be known to this attack, got encode=None"):
        CutView(edge=lambda x: x).released(torch.ones(1, 2))
    with pytest.raises(InvalidParameterError, match=r"must be a SplitModel .with edge, cut and server., got Linear"):
        view_of(nn.Linear(2, 2))


def test_parts_are_callables_with_names() -> None:
    with pytest.raises(InvalidParameterError, match="edge must be None or a callable, got edge=3"):
        CutView(edge=3)  # type: ignore[arg-type]
    with pytest.raises(InvalidParameterError, match="name must be one of edge, encode"):
        CutView().need("nope")
