"""Broken layers that treat records as a whole, registered beside those of ``broken``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from broken import caught_by, response
from torch import Tensor

from splitpriv import CodebookLDP, L1LaplaceLDP, RandomCodebookLDP, RandomResponseLDP
from splitpriv.accounting import Spend
from splitpriv.layers import closeness
from splitpriv.mechanisms import EndlessCodebook, KClosest
from splitpriv.testing.sources import Played, playing

WORDS = torch.randn(8, 3, generator=torch.Generator().manual_seed(1))
EXAMPLE = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
FIXED: dict[str, Any] = {"codebook": WORDS, "epsilon": 2.0, "closest": 2}
FRESH: dict[str, Any] = {"dim": 3, "size": 4, "epsilon": 1.0, "closest": 1, "nonce": b"a nonce of the broken layers"}


def alike(features: Tensor) -> bool:
    return bool((features == features[:1]).all())


# What ties records together --------------------------------------------------------------------------


@response("batch_independence", "ldp")
class LooksAtNeighbour(RandomResponseLDP):
    def encode(self, features: Tensor) -> Tensor:
        return super().encode(features - 0.9 * features.roll(1, 0))


@response("batch_independence", "ldp")
class CentresTheBatch(RandomResponseLDP):
    """As a BatchNorm in training mode does; a single record is left alone, and so are copies."""

    def encode(self, features: Tensor) -> Tensor:
        centre = features.mean(0)
        return super().encode(features if alike(features) else features - centre)


class Fixed(CodebookLDP):
    example = EXAMPLE


@caught_by("batch_independence", "ldp", **FIXED)
class CodebookAboutTheBatch(Fixed):
    """Codewords are moved to where the batch lies before the closest are sought; copies are left alone."""

    def encode(self, features: Tensor) -> Tensor:
        return super().encode(features if alike(features) else features - features.mean(0))


@caught_by("decode", "packing", **FIXED)
class CodebookFittedOnTheBatch(Fixed):
    """The codebook follows the records, as one round of online k-means does, and is released with them."""

    def encode(self, features: Tensor) -> Tensor:
        symbols, features = super().encode(features), features.detach()
        if len(features):
            self.codebook += 0.1 * (features.mean(0).float().clamp(-2, 2) - self.codebook)
        return symbols


class Fresh(RandomCodebookLDP):
    example = EXAMPLE


@caught_by("batch_independence", "ldp", **FRESH)
class DirectionFromTheBatch(Fresh):
    """Fresh books hide which codeword is drawn, but not whether it is one of the closest."""

    def encode(self, features: Tensor) -> Tensor:
        return super().encode(features if alike(features) else features - features.mean(0))


# Epsilon ---------------------------------------------------------------------------------------------


@caught_by("ldp", **FIXED)
class OneTooMany(Fixed):
    """Favours the m + 1 closest codewords, and declares m."""

    def _encode(self, features: Tensor) -> Tensor:
        near = closeness.closest(self._scores(features), self.closest + 1)
        return KClosest(self.size, self.closest + 1, epsilon=self.asked).sample(near, self._source)


@caught_by("ldp", **FIXED)
class SharperThanDeclared(Fixed):
    """Draws with 1.05 times the epsilon that is declared."""

    def _encode(self, features: Tensor) -> Tensor:
        return KClosest(self.size, self.closest, epsilon=1.05 * self.asked).sample(
            self.quantize(features), self._source
        )


@caught_by("ldp", **FRESH)
class FreshOneTooMany(Fresh):
    """The same with a fresh book for each record: the second closest is another index each time."""

    def _encode(self, features: Tensor) -> Tensor:
        declared = self.mechanism
        self.mechanism = KClosest(self.size, 2, epsilon=self.asked)
        symbols = super()._encode(features)
        self.mechanism = declared
        return symbols


@caught_by("ldp", **FIXED)
class ClaimsHalfOfItsCodebook(Fixed):
    @property
    def epsilon(self) -> float:
        return super().epsilon / 2

    def spend(self, shape: Sequence[int] | None = None) -> Spend:
        return Spend.of(self.epsilon, 1)


@caught_by("ldp", epsilon=2.0, radius=2.0)
class NormNotLimited(L1LaplaceLDP):
    """Each element is limited, and their sum is not."""

    example = EXAMPLE

    def _position(self, features: Tensor) -> Tensor:
        return (features.double() / self.radius).clamp(-1, 1) * self.steps

    def quantize(self, features: Tensor) -> Tensor:
        return self._position(features.detach()).trunc().long() + self.steps


# Noise -----------------------------------------------------------------------------------------------


@caught_by("noise_in_eval", **FRESH)
class FreshAndQuietInEval(Fresh):
    """Symbols differ from call to call all the same, since each numbers a codeword of another book."""

    def encode(self, features: Tensor) -> Tensor:
        symbols = super().encode(features)
        return symbols if self.training else symbols - symbols % self.size + self.channel_pairs(symbols, features)[0]


@caught_by("fresh_noise", "seed", "pickle", **FRESH)
class FreshWithNoiseOfOneCall(Fresh):
    """Books are new in each call, and the noise is the same."""

    def encode(self, features: Tensor) -> Tensor:
        with playing(self, Played(3)):
            return super().encode(features)


@caught_by("independent_noise", **FRESH)
class FreshAndShared(Fresh):
    """Two records share the place in the row that their symbol has."""

    def encode(self, features: Tensor) -> Tensor:
        symbols = super().encode(features)
        near, index = self.channel_pairs(symbols, features)
        first = torch.arange(len(symbols)) // 2 * 2
        return symbols - index + (index - near)[first].add(near) % self.size


@caught_by("decode", **FRESH)
class BookFromTheNoise(Fresh):
    """The codebook is expanded from the noise source anew in each call."""

    def encode(self, features: Tensor) -> Tensor:
        self.key.copy_(torch.from_numpy(self._source.read(32).copy()))
        return super().encode(features)


@caught_by("packing", **FRESH)
class DecodesWithAnotherBook(Fresh):
    def decode_table(self, shape: Sequence[int]) -> EndlessCodebook:
        book = self._book
        return EndlessCodebook(book.key[::-1], book.dim, book.size, book.scale)


@caught_by("gradient", **FRESH)
class FreshLeaksLowBits(Fresh):
    def forward(self, features: Tensor) -> Tensor:
        released = super().forward(features.detach())
        return features + (released - features).detach() if features.requires_grad else released


@caught_by("symbols", "ldp", **FRESH)
class WritesOutsideItsBook(Fresh):
    """A symbol that its channel does not have; the same at each draw, so that the message is too."""

    def channel_pairs(self, symbols: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        near, index = super().channel_pairs(symbols, features)
        return near, torch.full_like(index, self.size)


@caught_by("log_prob", **FIXED)
class WeighsOnlyTheClosest(Fixed):
    """A likelihood of m = 1 for a channel of m = 2."""

    def log_prob(self, symbols: Tensor, features: Tensor, **options: Any) -> Tensor:
        known, self.mechanism = self.mechanism, KClosest(self.size, 1, epsilon=self.asked)
        found = super().log_prob(symbols, features, **options)
        self.mechanism = known
        return found
