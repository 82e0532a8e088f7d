"""Layers that each break one promise, and the checks that must notice: no more and no fewer."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from splitpriv import LaplaceLDP, RandomResponseLDP
from splitpriv.accounting import Spend
from splitpriv.mechanisms import Channel, RandomizedResponse, SecureSource

ELSEWHERE = SecureSource()
Make = Callable[[], nn.Module]
BROKEN: dict[str, tuple[Make, tuple[str, ...]]] = {}


def caught_by(*checks: str, **options: Any) -> Callable[[type[nn.Module]], type[nn.Module]]:
    """Register a layer with the checks that must fail, the one that it is here for first."""

    def register(kind: type[nn.Module]) -> type[nn.Module]:
        BROKEN[kind.__name__] = (lambda: kind(**options), tuple(f"check_{name}" for name in checks))
        return kind

    return register


def response(*checks: str, **options: Any) -> Callable[[type[nn.Module]], type[nn.Module]]:
    """The same for a kind of randomized response."""
    return caught_by(*checks, **{"epsilon": 1.0, **options})


# Noise ---------------------------------------------------------------------------------------------


@response("noise_in_eval")
class QuietInEval(RandomResponseLDP):
    def encode(self, features: Tensor) -> Tensor:
        return super().encode(features) if self.training else self.quantize(features)


@response("noise_in_eval")
class WeakerInEval(RandomResponseLDP):
    def encode(self, features: Tensor) -> Tensor:
        symbols = super().encode(features)
        return (
            symbols if self.training else torch.where(torch.rand(symbols.shape) < 0.5, self.quantize(features), symbols)
        )


@response("fresh_noise", "seed", "pickle")
class DrawnOnce(RandomResponseLDP):
    """One flip per place in the batch, drawn at first use and kept."""

    flips: Tensor | None = None

    def encode(self, features: Tensor) -> Tensor:
        bits = super().encode(features) * 0 + self.quantize(features)
        if self.flips is None:
            self.flips = self.channel((1,)).sample(torch.zeros(1 << 20, dtype=torch.uint8), ELSEWHERE)
        return bits ^ self.flips[: bits.numel()].reshape(bits.shape)


class Shared(RandomResponseLDP):
    """Neighbours along one dimension of the batch get one flip, two by two."""

    dimension: int

    def encode(self, features: Tensor) -> Tensor:
        bits = super().encode(features) * 0 + self.quantize(features)
        flips = self.channel((1,)).sample(torch.zeros_like(bits), self._source)
        whose = torch.arange(bits.shape[self.dimension]) // 2 * 2
        return bits ^ flips.index_select(self.dimension, whose)


@response("independent_noise")
class SharedByRecords(Shared):
    dimension = 0


@response("independent_noise")
class SharedByElements(Shared):
    """Whether neighbouring bits agree is then released without noise."""

    dimension = -1


@response("independent_noise", "batch_independence", "decode", "ldp", "noise_in_eval", "packing")
class SharedByTheBatch(RandomResponseLDP):
    """Every record gets the same flips; tests of a law, which count on many draws, notice too."""

    def encode(self, features: Tensor) -> Tensor:
        bits = super().encode(features) * 0 + self.quantize(features)
        return bits ^ self.channel((1,)).sample(torch.zeros_like(bits[:1]), self._source)


@response("seed")
class SeedIgnored(RandomResponseLDP):
    def encode(self, features: Tensor) -> Tensor:
        super().encode(features)
        return self.channel((1,)).sample(self.quantize(features), ELSEWHERE)


@response("seed")
class FollowsTorchSeed(RandomResponseLDP):
    """Says that it is secure, and draws from torch's global generator."""

    def encode(self, features: Tensor) -> Tensor:
        super().encode(features)
        flips = torch.rand(features.shape) < 1 / (1 + math.e)
        return self.quantize(features) ^ flips.to(torch.uint8)


class _Stateful:
    """Bytes whose stream is copied along with it."""

    secure = True

    def __init__(self) -> None:
        self.generator = np.random.default_rng()

    def read(self, count: int) -> Any:
        return self.generator.integers(0, 256, count, dtype=np.uint8)


@response("pickle")
class CopiesRepeat(RandomResponseLDP):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._source = _Stateful()


# Epsilon -------------------------------------------------------------------------------------------


@response("ldp")
class ClaimsHalf(RandomResponseLDP):
    @property
    def epsilon(self) -> float:
        return super().epsilon / 2

    def spend(self, shape: Sequence[int] | None = None) -> Spend:
        full = super().spend(shape)
        return Spend.of(full.per_use / 2, full.uses)

    def extra_repr(self) -> str:
        return f"ε {self.epsilon:g}"


@response("spend")
class RecordPaysForOne(RandomResponseLDP):
    def spend(self, shape: Sequence[int] | None = None) -> Spend:
        full = super().spend(shape)
        return Spend(full.per_use, full.uses, full.per_use)


@response("ldp")
class ClaimsOneUse(RandomResponseLDP):
    """One use in the books, 48 in the release."""

    def spend(self, shape: Sequence[int] | None = None) -> Spend:
        return Spend.of(super().spend(shape).per_use, 1)


@response("ldp")
class OtherTable(RandomResponseLDP):
    """Draws with a weaker channel than the one that it declares: 1.05 for 1."""

    def encode(self, features: Tensor) -> Tensor:
        super().encode(features)
        return RandomizedResponse(epsilon=1.05).sample(self.quantize(features), self._source)


@caught_by("ldp", epsilon=2.0, sensitivity=4.0, levels=9)
class TailCut(LaplaceLDP):
    """Noise beyond half the range is drawn again, as far as it is seen: some outputs become impossible."""

    def encode(self, features: Tensor) -> Tensor:
        symbols = super().encode(features)
        far = (symbols.int() - self.decode_table((1,)).numel() // 2).abs() > 24
        return torch.where(far, super().encode(features).clamp(5, 59).to(symbols.dtype), symbols)


class NoTable(nn.Module):
    """Says what it costs, not why."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.inner = RandomResponseLDP(**options)

    @property
    def epsilon(self) -> float:
        return self.inner.epsilon

    def encode(self, features: Tensor) -> Tensor:
        return self.inner.encode(features)

    def decode(self, symbols: Tensor) -> Tensor:
        return self.inner.decode(symbols)

    def log_prob(self, symbols: Tensor, features: Tensor) -> Tensor:
        return self.inner.log_prob(symbols, features)

    def decode_table(self, shape: Sequence[int]) -> Tensor:
        return self.inner.decode_table(shape)

    def spend(self, shape: Sequence[int]) -> Spend:
        return self.inner.spend(shape)

    def forward(self, features: Tensor) -> Tensor:
        return self.decode(self.encode(features)).to(features.dtype)

    def extra_repr(self) -> str:
        return f"ε {self.epsilon:g} per element"


@response("ldp")
class ClaimsHalfWithoutTable(NoTable):
    @property
    def epsilon(self) -> float:
        return self.inner.epsilon / 2

    def spend(self, shape: Sequence[int] | None = None) -> Spend:
        full = super().spend(shape)
        return Spend.of(full.per_use / 2, full.uses)


@caught_by("ldp")
class FloatLaplace(nn.Module):
    """Textbook noise in float32: what is possible for one input is impossible for another."""

    secure = False
    epsilon = 2.0

    def encode(self, features: Tensor) -> Tensor:
        if not bool(torch.isfinite(features).all()):
            raise ValueError("FloatLaplace: features must be finite.")
        limited = features.detach().float().clamp(-1, 1)
        noise = torch.distributions.Laplace(0.0, 2 / self.epsilon).sample(limited.shape)
        return (limited + noise).view(torch.int32)

    def decode(self, symbols: Tensor) -> Tensor:
        return symbols.view(torch.float32)

    def log_prob(self, symbols: Tensor, features: Tensor) -> Tensor:
        return -(symbols.view(torch.float32) - features.clamp(-1, 1)).abs() * self.epsilon / 2

    def spend(self, shape: Sequence[int]) -> Spend:
        return Spend.of(self.epsilon, math.prod(shape))

    def forward(self, features: Tensor) -> Tensor:
        return self.decode(self.encode(features)).to(features.dtype)

    def extra_repr(self) -> str:
        return "ε 2 per element, NOT SECURE"


# What comes out ------------------------------------------------------------------------------------


@response("finite")
class TakesNaN(RandomResponseLDP):
    def encode(self, features: Tensor) -> Tensor:
        return super().encode(features.nan_to_num())


@response("finite")
class ShowsFeatures(RandomResponseLDP):
    def encode(self, features: Tensor) -> Tensor:
        if not bool(torch.isfinite(features).all()):
            raise ValueError(f"ShowsFeatures: features must be finite, got {features.tolist()}.")
        return super().encode(features)


@response("symbols")
class OutsideAlphabet(NoTable):
    def encode(self, features: Tensor) -> Tensor:
        return super().encode(features) + 1

    def decode(self, symbols: Tensor) -> Tensor:
        return super().decode(symbols - 1)

    def log_prob(self, symbols: Tensor, features: Tensor) -> Tensor:
        return super().log_prob(symbols - 1, features)


@response("decode", "gradient", "packing")
class DecodeLooksBack(RandomResponseLDP):
    seen = 0.0

    def encode(self, features: Tensor) -> Tensor:
        symbols = super().encode(features)
        self.seen = float(features.detach().double().mean())
        return symbols

    def decode(self, symbols: Tensor) -> Tensor:
        return super().decode(symbols) + 1e-3 * self.seen


@response("decode")
class ForwardSkipsNoise(RandomResponseLDP):
    def forward(self, features: Tensor) -> Tensor:
        self.encode(features)
        return self.decode(self.quantize(features)).to(features.dtype)


@response("shape")
class Flattens(RandomResponseLDP):
    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features).flatten(1)


@response("dtype")
class AlwaysFloat(RandomResponseLDP):
    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features).float()


@response("gradient")
class NaNSlope(RandomResponseLDP):
    def passes(self, features: Tensor) -> Tensor:
        return features * math.nan


@response("gradient", debias=True)
class LeaksLowBits(RandomResponseLDP):
    def forward(self, features: Tensor) -> Tensor:
        released = super().forward(features.detach())
        return features + (released - features).detach() if features.requires_grad else released


@response("state_dict", threshold=0.3)
class RoundsItsState(RandomResponseLDP):
    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[f"{prefix}threshold"] = self.threshold.round()


@response("packing")
class OtherDecodeTable(RandomResponseLDP):
    def decode(self, symbols: Tensor) -> Tensor:
        return symbols.float()

    def decode_table(self, shape: Sequence[int]) -> Tensor:
        return torch.tensor([1.0, 0.0])


@response("log_prob")
class CountsTwice(RandomResponseLDP):
    def log_prob(self, symbols: Tensor, features: Tensor, **options: Any) -> Tensor:
        return super().log_prob(symbols, features, **options) + 0.1


@response("repr")
class SaysNothing(RandomResponseLDP):
    def extra_repr(self) -> str:
        return "private"


@response("repr", generator=3)
class HidesItsSeed(RandomResponseLDP):
    def extra_repr(self) -> str:
        return super().extra_repr().split(";")[0]


class OnAnotherDevice(nn.Module):
    """Its symbols cannot be read, so that every check fails; used with ``check_device`` alone."""

    def encode(self, features: Tensor) -> Tensor:
        return torch.empty(features.shape, dtype=torch.uint8, device="meta")


def tilted(channel: Channel, row: int, column: int, share: float) -> Channel:
    """A table with some of one entry moved to the next one."""
    table = channel.table()
    moved = int(table[row][column] * share)
    table[row][column] -= moved
    table[row][column + 1] += moved
    return Channel(table)
