"""Audits in the table of all attacks, and the layers that their tests share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from table import Case
from torch import Tensor

from splitpriv import InvalidParameterError, RandomResponseLDP
from splitpriv.accounting import Spend
from splitpriv.attacks.auditing import FloatingPointAttack, LowerBoundAudit, OneRunAudit
from splitpriv.mechanisms import Channel, KClosest, SeededSource

SMALLEST = torch.finfo(torch.float32).eps - 1


class Symbols:
    """A bare channel as a layer: a feature is the number of an input symbol, or of a set of m of them in a row."""

    def __init__(self, channel: Channel, *, claims: float | None = None, seed: int = 0) -> None:
        self.channel_, self.source = channel, SeededSource(seed)
        self.claims = channel.epsilon if claims is None else claims
        self.apart = channel.closest if isinstance(channel, KClosest) else 1
        self.inputs = channel.outputs // self.apart if isinstance(channel, KClosest) else channel.inputs

    def read(self, features: Tensor) -> Tensor:
        if not bool(((features >= 0) & (features < self.inputs)).all()):
            raise InvalidParameterError("Symbols: no such symbol")
        numbers = features.long()
        return numbers if self.apart == 1 else numbers.unsqueeze(-1) * self.apart + torch.arange(self.apart)

    def encode(self, features: Tensor) -> Tensor:
        return self.channel_.sample(self.read(features), self.source)

    def decode(self, symbols: Tensor) -> Tensor:
        return symbols.float()

    def log_prob(self, symbols: Tensor, features: Tensor) -> Tensor:
        return self.channel_.log_prob(symbols, self.read(features))

    def spend(self, shape: Sequence[int]) -> Spend:
        return Spend.of(self.claims, 1)

    @property
    def ends(self) -> Tensor:
        """The first and the last input."""
        return torch.tensor([[0.0], [self.inputs - 1.0]])


def float_laplace(scale: float, seed: int = 0) -> Any:
    """Laplace noise as ``torch.distributions.Laplace`` draws it, from a generator of its own."""
    generator = torch.Generator().manual_seed(seed)

    def release(values: Tensor) -> Tensor:
        u = torch.empty(values.shape).uniform_(SMALLEST, 1, generator=generator)
        return values - scale * u.sign() * torch.log1p(-u.abs())

    return release


def _lower_bound(attack: LowerBoundAudit) -> Any:
    return attack(RandomResponseLDP(epsilon=2.0, generator=0), torch.tensor([[1.0] * 40, [-1.0] * 40]))


def _one_run(attack: OneRunAudit) -> Any:
    included = torch.rand(500, generator=torch.Generator().manual_seed(0)) < 0.5
    return attack(included + 0.5 * torch.randn(500, generator=torch.Generator().manual_seed(1)), included)


def _floating_point(attack: FloatingPointAttack) -> Any:
    return attack(float_laplace(1.0))


CASES: list[Case] = [
    # Other batches meet other noise of the layer's, whose stream goes on.
    Case(LowerBoundAudit(draws=20_000), _lower_bound, lambda found: found.epsilon, 1.7, sequential=True),
    Case(OneRunAudit(guesses=(50, 100)), _one_run, lambda found: found.epsilon, 1.5),
    Case(FloatingPointAttack(trials=300), _floating_point, lambda found: found.accuracy.value, 0.84),
]
