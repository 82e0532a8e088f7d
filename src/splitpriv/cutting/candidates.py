"""The modules that forward calls, in the order in which their outputs are ready."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from splitpriv.cutting.opened import parents
from splitpriv.cutting.refusal import Refusal, listing
from splitpriv.cutting.sequential import is_plain
from splitpriv.cutting.tracing import Traces


def called_names(traces: Traces, within: str = "") -> Iterator[str]:
    """Names of the modules called inside ``within``, each behind those called inside it."""
    for name in _called_directly(traces, within):
        if any(True for _ in traces.model.get_submodule(name).children()):
            yield from called_names(traces, name)
        yield name


def _called_directly(traces: Traces, within: str) -> list[str]:
    """Names of the modules that the forward of ``within`` itself calls; none if it cannot be traced."""
    module = traces.model.get_submodule(within)
    prefix = f"{within}." if within else ""
    containers = [*parents(within), within] if within else [""]
    if all(is_plain(traces.model.get_submodule(name)) for name in containers):
        return [prefix + name for name, child in module._modules.items() if child is not None]
    try:
        graph = traces.through(within)[1]
    except Refusal:
        return []
    calls = [str(node.target) for node in graph.nodes if node.op == "call_module"]
    return list(dict.fromkeys(name for name in calls if name.startswith(prefix)))


def nearest(at: str, order: list[str], is_valid: Callable[[str], bool]) -> str:
    """The valid cuts next to ``at`` in words; all of them where ``at`` has no place in the order.

    What lies in code that cannot be traced has the place of the module around it.
    """
    around = [name for name in [*parents(at)[1:], at] if name in order]
    if not around:
        inside_first = sorted(order, key=lambda name: not name.startswith(f"{at}."))
        valid = [repr(name) for name in inside_first if is_valid(name)]
        return f"Valid cuts: {listing(valid, 20)}." if valid else "No cut of the model is valid."
    place = order.index(around[-1])
    before = next((name for name in reversed(order[:place]) if is_valid(name)), None)
    after = next((name for name in order[place:] if name != at and is_valid(name)), None)
    sides = [f"{name!r} {side} it" for name, side in ((before, "before"), (after, "after")) if name]
    if not sides:
        return "No other cut of the model is valid."
    return f"Nearest valid cut{'s' if len(sides) > 1 else ''}: {', '.join(sides)}."
