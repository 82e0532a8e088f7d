"""What every attack has in common: a frozen configuration, seeds, devices, batches with progress."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from splitpriv import _validation as check
from splitpriv._errors import InvalidParameterError

_SEEDS = 1 << 63


@dataclass(frozen=True, kw_only=True)
class Attack:
    """Base of the configurations; an attack is a frozen dataclass whose ``repr`` shows all of it.

    An attack of your own need not inherit from this; the front doors run those of this package.

    Args:
        batch_size: records at a time, >= 1; bounds memory, and changes no result beyond rounding (and the noise of an
            attack's own queries).
        seed: of everything that the attack draws, in [0, 2**63). The same seed gives the same result.
        device: where it runs; None for the device of what it is given.
        progress: show a progress bar.
    """

    batch_size: int = 64
    seed: int = 0
    device: str | torch.device | None = None
    progress: bool = False

    def __post_init__(self) -> None:
        owner = type(self).__name__
        check.integer(owner, "batch_size", self.batch_size, 1)
        check.integer(owner, "seed", self.seed, 0, _SEEDS - 1)
        check.choice(owner, "progress", self.progress, (True, False))
        if self.device is not None:
            try:
                torch.device(self.device)
            except (RuntimeError, TypeError) as error:
                constraint = "a device that torch knows, or None"
                raise InvalidParameterError(check.message(owner, "device", constraint, self.device)) from error

    def to_dict(self) -> dict[str, Any]:
        """The configuration, for JSON: an attack inside it as a dictionary, what is called by its name."""
        return {field.name: _plain(getattr(self, field.name)) for field in fields(self)}

    def _on(self, *tensors: Tensor) -> torch.device:
        """The device to run on."""
        return tensors[0].device if self.device is None else existing(type(self).__name__, self.device)

    def _batches(self, records: int, what: str) -> Iterator[slice]:
        """Slices of at most ``batch_size`` records."""
        starts = range(0, records, self.batch_size)
        for start in tqdm(starts, desc=f"{type(self).__name__}: {what}", disable=not self.progress, leave=False):
            yield slice(start, min(start + self.batch_size, records))

    def _steps(self, steps: int, what: str) -> Iterator[int]:
        """Numbers below ``steps``, with a progress bar."""
        yield from tqdm(range(steps), desc=f"{type(self).__name__}: {what}", disable=not self.progress, leave=False)


def _plain(value: Any) -> Any:
    """A setting as JSON has it."""
    if isinstance(value, Attack):
        return {"attack": type(value).__name__, **value.to_dict()}
    if isinstance(value, (tuple, list)):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, (bool, int, str, type(None))) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if callable(value):  # what it shows of itself may hold an address, which is another in each run
        named: Any = value if hasattr(value, "__qualname__") else type(value)
        return f"{named.__module__}.{named.__qualname__}"
    return str(value)


def existing(owner: str, device: Any) -> torch.device:
    """The device, if this machine has it.

    Raises:
        InvalidParameterError: it has not, or that is no device.
    """
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, TypeError, AssertionError) as error:  # a build without CUDA asserts
        constraint = "a device that this machine has, or None"
        raise InvalidParameterError(check.message(owner, "device", constraint, device)) from error


def record_noise(
    shape: tuple[int, ...], *, seed: int, records: slice, stream: str = ""
) -> Tensor:  # shape: (records, *shape)
    """Standard normal numbers, on the CPU, that depend on (seed, stream, record number) alone.

    So that what an attack finds for a record depends neither on the batch it is in nor on its neighbours.
    """
    size = math.prod(shape)
    rows = [
        np.random.default_rng([seed, int.from_bytes(stream.encode(), "little"), number]).standard_normal(
            size, dtype=np.float32
        )
        for number in range(records.start, records.stop)
    ]
    return torch.from_numpy(np.stack(rows) if rows else np.empty((0, size), np.float32)).reshape(-1, *shape)


def generator(seed: int, *, stream: str, device: torch.device | str = "cpu") -> torch.Generator:
    """A torch generator for one purpose: streams of other names, or seeds, are independent of it."""
    state = np.random.SeedSequence([seed, int.from_bytes(stream.encode(), "little")]).generate_state(1, np.uint64)
    return torch.Generator(device=device).manual_seed(int(state[0]) >> 1)
