"""The modules that a cut takes apart, and what they may not carry.

A cut after ``layer1.0.conv1`` opens the model, ``layer1`` and ``layer1.0``: their ``forward`` is
spread over both halves. Everything else moves as a whole, so its hooks, parametrizations
and control flow stay with it. What an opened module carries besides ``forward`` would be lost.
"""

from __future__ import annotations

import torch
from torch import fx, nn

from splitpriv.cutting.refusal import Refusal

_HOOKS = (
    "_forward_pre_hooks",
    "_forward_hooks",
    "_backward_pre_hooks",
    "_backward_hooks",
    "_state_dict_pre_hooks",
    "_state_dict_hooks",
    "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
)


def parents(at: str) -> list[str]:
    """Names of the modules that a cut after ``at`` opens, the model itself ("") first."""
    parts = at.split(".")
    return [".".join(parts[:n]) for n in range(len(parts))]


def check_openable(
    model: nn.Module,
    names: list[str],  # names of the modules to open, "" for the model itself
) -> None:
    """Refuse a cut that would silently drop what an opened module carries."""
    for name in names:
        module = model.get_submodule(name)
        where = f"{name!r} ({type(module).__name__})" if name else f"the model ({type(module).__name__})"
        carried = _carried(module)
        if carried:
            raise Refusal(
                "outside modules that the halves could not reproduce",
                f"This cut goes through {where}, and neither half would keep {carried}.",
                by_hand=True,
            )


def _carried(module: nn.Module) -> str:
    """What ``module`` carries that cannot be spread over two halves; empty if nothing."""
    hooks = [slot for slot in _HOOKS if vars(module).get(slot)]
    if hooks:
        return "its hooks (" + ", ".join(slot.strip("_") for slot in hooks) + ")"
    if isinstance(module, torch.jit.ScriptModule):
        return "its compiled forward"
    if "forward" in vars(module):
        return "the forward that was assigned to this instance"
    # A GraphModule wraps __call__ only to print better tracebacks.
    methods = ("train",) if isinstance(module, fx.GraphModule) else ("train", "__call__")
    overridden = [n for n in methods if getattr(type(module), n) is not getattr(nn.Module, n)]
    return f"its own {overridden[0]}()" if overridden else ""
