"""Networks made and trained from a seed, with torch's own generator left as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from splitpriv.attacks.attack import generator


@contextmanager
def seeded(seed: int, stream: str, device: torch.device) -> Iterator[None]:
    """Inside, torch's global generators (initial weights, dropout) start from this seed; afterwards as before."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        state = generator(seed, stream=stream).initial_seed()
        torch.default_generator.manual_seed(state)
        if device.type == "cuda":
            torch.cuda.default_generators[device.index or 0].manual_seed(state)
        yield
