"""Leaves modules in the mode they were found in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def modes_kept(*modules: nn.Module) -> Iterator[None]:
    """Restore train or eval mode of every submodule, one by one: a model may hold both."""
    modes = [(module, module.training) for root in modules for module in root.modules()]
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
