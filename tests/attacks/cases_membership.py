"""Membership attacks for the common table: an overfit network with labels drawn at random, and its shadows."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from table import Case
from torch import Tensor, nn

from splitpriv.attacks.membership_inference import (
    RMIA,
    LiRA,
    MembershipTarget,
    ServerTraining,
    ShadowMembership,
    ShadowPool,
    ThresholdMembership,
    train_shadows,
)

CLASSES, DIM = 5, 20


def records(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Gaussian records with labels that say nothing of them: what a model knows of a label it has memorised."""
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(count, DIM, generator=draw), torch.randint(CLASSES, (count,), generator=draw)


def network() -> nn.Module:
    """A server that can memorise."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(DIM, 32), nn.ReLU(), nn.Linear(32, CLASSES))


def training(**changed: Any) -> ServerTraining:
    """What owner and attacker do."""
    return ServerTraining(server=network(), **{"epochs": 40, "lr": 1e-2, "batch_size": 50, **changed})


@cache
def target(trained_on: str = "members") -> MembershipTarget:
    """100 members and 100 non-members of a model trained on the members, or on ``"others"``."""
    x, y = records(200, 0)
    known = (x[:100], y[:100]) if trained_on == "members" else records(100, 99)
    return MembershipTarget(training()(*known, 123), x, y, torch.arange(200) < 100)


@cache
def pool(shadows: int = 16) -> ShadowPool:
    """Shadow models of these candidates."""
    return train_shadows(training(), *records(200, 0), shadows=shadows)


def run(attack: Any) -> Any:
    """On the members' model."""
    return attack(target(), pool())


# Measured (seed 0): loss .947, modified entropy per class .944, confidence .827, entropy .824, attack models .95,
# LiRA .970 and .956, RMIA .982.
CASES = [
    *(Case(ThresholdMembership(score=score), run, lambda r: r.auc.value, 0.75) for score in ("loss", "entropy")),
    Case(ThresholdMembership(score="modified entropy", per_class=True), run, lambda r: r.auc.value, 0.85),
    Case(ThresholdMembership(score="confidence"), run, lambda r: r.auc.value, 0.75),
    Case(ShadowMembership(), run, lambda r: r.auc.value, 0.85),
    Case(ShadowMembership(model="logistic", per_class=True), run, lambda r: r.balanced_accuracy.value, 0.8),
    Case(LiRA(), run, lambda r: r.auc.value, 0.9),
    Case(LiRA(variance="record"), run, lambda r: r.tpr_1.value, 0.1),
    Case(LiRA(mode="offline"), run, lambda r: r.auc.value, 0.85),
    Case(RMIA(), run, lambda r: r.auc.value, 0.9),
    Case(RMIA(mode="online", gamma=2.0), run, lambda r: r.auc.value, 0.9),
]
