"""One Hypothesis profile for all: the same examples on every run, no time limits."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest
import torch
from hypothesis import HealthCheck, settings

from splitpriv import PrivacyWarning, accounting
from splitpriv.mechanisms import SeededSource

settings.register_profile("splitpriv", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("splitpriv")
torch.set_num_threads(1)

# Given once per process; tests that look for it reset it themselves.
with warnings.catch_warnings():
    warnings.simplefilter("ignore", PrivacyWarning)
    SeededSource(0)


@pytest.fixture(autouse=True)
def _ledger() -> Iterator[accounting.Ledger]:
    """No test sees what another one has spent."""
    with accounting.Ledger() as ledger:
        yield ledger


@pytest.fixture
def generator() -> torch.Generator:
    """Seeded test data."""
    return torch.Generator().manual_seed(0)
