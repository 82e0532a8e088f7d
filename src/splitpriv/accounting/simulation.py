"""Where charging is suspended: attacks and evaluations on records that never leave."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

# Per context, so that one thread's simulation never lets another thread release for free.
_simulating: ContextVar[_Simulation | None] = ContextVar("splitpriv_simulating", default=None)


@contextmanager
def simulation() -> Iterator[None]:
    """Suspend charging, for attacks and evaluations on records that never leave.

    What is released inside is marked as simulated. Only the calling thread (and task) is
    affected. Do not ``yield`` inside: whoever consumes the generator would then simulate too.

    Example:
        >>> from splitpriv.accounting import charge
        >>> with simulation():
        ...     charge(1e6)
    """
    token = _simulating.set(block := _Simulation())
    try:
        yield
    finally:
        block.over = True  # for a task that was started inside and copied the context
        _simulating.reset(token)


def simulating() -> bool:
    """Whether charging is suspended here."""
    block = _simulating.get()
    return block is not None and not block.over and block.owner == _owner()


class _Simulation:
    """One ``with simulation()``: whose it is, and whether it has ended."""

    def __init__(self) -> None:
        self.owner, self.over = _owner(), False


def _owner() -> tuple[int, int]:
    try:
        task = asyncio.current_task()
    except RuntimeError:  # no event loop runs here
        task = None
    return threading.get_ident(), id(task)
