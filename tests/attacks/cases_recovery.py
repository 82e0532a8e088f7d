"""Recovery attacks in the table of all attacks, and the data that their tests share."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from table import Case
from torch import Tensor

from splitpriv.attacks.recovery import CiphertextOnlyMask, EncoderInversion, KnownPlaintextMask, KnownPlaintextRelu
from splitpriv.attacks.recovery.alphabet import alphabet


@dataclass(frozen=True)
class Digits:
    """Scans of 8 x 8 pixels, less the mean of the public ones; pixels are multiples of 1/16 before that."""

    public: Tensor  # shape: (300, 64)
    private: Tensor  # shape: (400, 64)
    mean: Tensor  # shape: (64,)


@lru_cache(maxsize=1)
def digits() -> Digits:
    """Always the same split."""
    import pytest

    scans = pytest.importorskip("sklearn.datasets").load_digits()
    images = torch.from_numpy(scans.data).float() / 16
    images = images[torch.randperm(len(images), generator=torch.Generator().manual_seed(0))]
    mean = images[:300].mean(0)
    return Digits(images[:300] - mean, images[300:700] - mean, mean)


def pictures(rows: Tensor) -> Tensor:  # shape: (records, 1, 8, 8)
    """The scans as images, of which one is told from others by correlation."""
    return rows.reshape(-1, 1, 8, 8)


def drawn(entries: str, elements: int, seed: int = 0) -> Tensor:  # shape: (elements,), float32
    """A vector with uniform entries of the alphabet."""
    letters = alphabet(entries)
    return letters[torch.randint(len(letters), (elements,), generator=torch.Generator().manual_seed(seed))].float()


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def cut_off(masked: Tensor, threshold: float = 0.0) -> Tensor:
    """What is above the threshold, else 0."""
    return torch.where(masked > threshold, masked, torch.zeros_like(masked))


def _mask(attack: KnownPlaintextMask) -> Any:
    x, v = normal(44, 30), drawn("sign", 30)
    return attack(x[:4], x[:4] * v, x[4:] * v, x[4:], vector=v)


def _relu(attack: KnownPlaintextRelu) -> Any:
    x, v = normal(68, 30), drawn("dyadic", 30)
    s = cut_off(x * v)
    return attack(x[:8], s[:8], s[8:], x[8:], public=normal(50, 30, seed=1), vector=v)


def _alone(attack: CiphertextOnlyMask) -> Any:
    data, v = digits(), drawn("sign", 64)
    return attack(data.private[:64] * v, data.private[:64], data.public, vector=v)


def _encoder(attack: EncoderInversion) -> Any:
    x = normal(240, 12)
    codes = torch.tanh(x @ normal(12, 12, seed=1) / 4)
    return attack(codes[120:], x[120:], normal(40, 12, seed=2), known=x[:120], known_released=codes[:120])


CASES: list[Case] = [
    Case(KnownPlaintextMask(), _mask, lambda found: found.last.recovered.value, 1.0),
    Case(KnownPlaintextRelu(pairs=(1, 8), entries="dyadic"), _relu, lambda found: found.last.recovered.value, 0.9),
    Case(CiphertextOnlyMask(), _alone, lambda found: found.last.recovered.value, 0.9),
    Case(EncoderInversion(pairs=(0, 16, 120)), _encoder, lambda found: 1 - found.last.relative.value, 0.5),
]
