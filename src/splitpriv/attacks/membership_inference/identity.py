"""What tells one module from another where stored shadow models are concerned."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

from torch import Tensor, nn

from splitpriv.attacks.membership_inference.store import digest
from splitpriv.cache.fingerprint import fingerprint


def identity(module: nn.Module) -> str:
    """Text that changes when what a module computes, or what of it is trained, may have.

    For each module in it: classes and their source where there is one; public attributes that are plain, tensors or
    callables; every parameter and buffer, bit for bit, and whether it is trained. See
    :func:`splitpriv.cache.fingerprint.fingerprint`, which this adds to.

    Does not see: what functions and private attributes refer to.
    """
    found: list[str | Tensor] = [fingerprint([module]).hex()]
    for name, part in module.named_modules():
        found += [name, *(_described(kind) for kind in type(part).__mro__ if kind not in (nn.Module, object))]
        for key, value in sorted(vars(part).items()):
            if key[0] != "_" and (isinstance(value, Tensor) or callable(value)):
                found += [key, value if isinstance(value, Tensor) else _described(value)]
    found += [f"{name} {parameter.requires_grad}" for name, parameter in module.named_parameters()]
    return digest(*found)


def _described(function: Callable[..., Any]) -> str:
    """A class or function by its name and its source; one that is wrapped, by what is inside."""
    return "\n".join(_names(function))


def _names(function: Any) -> Iterator[str]:
    named: Any = getattr(function, "__func__", function)  # of a bound method
    named = named if hasattr(named, "__qualname__") else type(named)
    yield f"{getattr(named, '__module__', None)} {named.__qualname__}"
    yield _source(named)
    if hasattr(function, "func"):  # functools.partial
        yield f"{function.args!r} {function.keywords!r}"
        yield from _names(function.func)


@cache
def _source(named: Any) -> str:
    try:
        return inspect.getsource(named)
    except (OSError, TypeError):  # written in C, or in a session that keeps no source
        return ""
