"""What the tests of the local encoder share."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor


@pytest.fixture
def data() -> tuple[Tensor, Tensor]:
    """64 records of two classes that a linear rule tells apart."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(64, 1, 4, 4, generator=generator)
    return features, (features.sum((1, 2, 3)) > 0).long()
