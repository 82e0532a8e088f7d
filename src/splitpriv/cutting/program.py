"""The runnable form of a graph: Python source, which pickles, copies and compiles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import fx

# What every generated source may name: torch, inf, nan and a few more.
_COMMON: dict[str, Any] = fx.Graph().python_code("self").globals


class Program:
    """One half's forward in one mode.

    It is kept as source and as the functions that the source names, which pickle by reference:
    graphs do not pickle across versions of torch.

    Args:
        source: a definition of ``forward(self, ...)``.
        names: what the source names besides torch and Python's builtins.
    """

    run: Callable[..., Any]

    def __init__(self, source: str, names: dict[str, Any]) -> None:
        self.source = source
        self.names = names
        scope = {**_COMMON, **names}
        exec(compile(source, "<splitpriv half>", "exec"), scope)
        self.run = scope["forward"]

    @classmethod
    def from_graph(cls, graph: fx.Graph) -> Program:
        """Generate the source of ``graph``."""
        graph.lint()
        code = graph.python_code("self")
        return cls(code.src, {k: v for k, v in code.globals.items() if k not in _COMMON})

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Program):
            return NotImplemented
        return self.source == other.source and self.names == other.names

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        return Program, (self.source, self.names)
