"""Inversion attacks on a small undefended cut."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from table import Case
from torch import Tensor, nn

import splitpriv as sp
from splitpriv.attacks import (
    CutView,
    DecoderInversion,
    GradientInversion,
    LikelihoodInversion,
    PosteriorInversion,
    QueryFreeInversion,
)

RECORDS = 8


def smooth_images(records: int, *, seed: int, size: int = 12) -> Tensor:
    """Random images without detail, in [0, 1]: (records, 1, size, size)."""
    coarse = torch.rand(records, 1, 4, 4, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(coarse, size=(size, size), mode="bilinear", align_corners=True)


def weights_from(seed: int, module: nn.Module) -> nn.Module:
    """The module with weights drawn from a seed, in eval mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for one in module.parameters():
            one.copy_(torch.randn(one.shape, generator=generator) / max(1, one[0].numel()) ** 0.5)
    return module.eval()


@torch.random.fork_rng(devices=[])
def conv_edge(seed: int = 0) -> nn.Module:
    """One convolution and a ReLU: what is easy to invert."""
    return weights_from(seed, nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU()))


PRIVATE, PUBLIC = smooth_images(RECORDS, seed=1), smooth_images(200, seed=2)
LABELS = (PUBLIC[:, 0, :6].mean((1, 2)) > PUBLIC[:, 0, 6:].mean((1, 2))).long()


@torch.random.fork_rng(devices=[])
def open_view() -> CutView:
    """No layer: features cross as they are."""
    edge = conv_edge()
    return CutView(edge=edge, encode=lambda features: features.detach(), layer="no layer")


@torch.random.fork_rng(devices=[])
def noisy_view(epsilon: float = 4.0) -> CutView:
    """Randomized response at an epsilon per element that protects little, always from the same seed."""
    edge = conv_edge()
    layer = sp.RandomResponseLDP(epsilon=epsilon, threshold=0.2, generator=3)
    return CutView(edge=edge, encode=layer.encode, decode=layer.decode, log_prob=layer.log_prob, clean=layer.expected)


@torch.random.fork_rng(devices=[])
def server_view() -> CutView:
    """The server alone, trained with an edge that the attacker does not have."""
    edge, server = conv_edge(), weights_from(1, nn.Sequential(nn.Flatten(), nn.Linear(8 * 144, 2)))
    for _ in range(30):
        server.zero_grad()
        F.cross_entropy(server(edge(PUBLIC).detach()), LABELS).backward()
        with torch.no_grad():
            for one in server.parameters():
                one -= 0.05 * one.grad
    return CutView(edge=None, encode=None, server=server)


def run_open(attack: Any) -> Any:
    view = open_view()
    return attack(view, view.released(PRIVATE), public=PUBLIC, originals=PRIVATE)


def run_noisy(attack: Any) -> Any:
    view = noisy_view()
    return attack(view, view.released(PRIVATE), public=PUBLIC, originals=PRIVATE)


def run_query_free(attack: Any) -> Any:
    released = open_view().released(PRIVATE)
    return attack(server_view(), released, public=PUBLIC, public_labels=LABELS, originals=PRIVATE)


def psnr(result: Any) -> float:
    return float(result.summary["psnr"].value)


def identified(result: Any) -> float:
    return float(result.summary["identification"].value)


CASES = [
    Case(GradientInversion(steps=300, learning_rate=0.1, eps=1e-8, decay=True), run_open, psnr, 35.0),
    Case(LikelihoodInversion(steps=100, tuning_records=4, weights=(0.1, 1.0), prior="gaussian"), run_noisy, psnr, 22.0),
    Case(PosteriorInversion(), run_noisy, identified, 0.6),
    Case(DecoderInversion(epochs=6, width=8, minibatch=16, learning_rate=0.01), run_open, psnr, 20.0),
    Case(
        QueryFreeInversion(
            shadow=lambda: nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU()),
            epochs=5,
            minibatch=20,
            inversion=GradientInversion(steps=60, learning_rate=0.1, eps=1e-8),
        ),
        run_query_free,
        identified,
        0.4,
    ),
]
