"""Keeps what draws noise or checks values out of compiled graphs."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch

F = TypeVar("F", bound=Callable[..., Any])

_disabled = functools.cache(torch.compiler.disable)


def eager(function: F) -> F:
    """Run ``function`` eagerly inside a compiled model: a graph break there, and no other effect.

    ``torch.compiler.disable`` alone would do, but loads the compiler, which doubles the time that
    importing takes; so it is asked for only where something is being compiled.
    """

    @functools.wraps(function)
    def outside_graphs(*args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling():
            return _disabled(function)(*args, **kwargs)
        return function(*args, **kwargs)

    return cast(F, outside_graphs)
