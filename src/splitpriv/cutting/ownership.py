"""Who owns what: each parameter, buffer and module goes to the half that uses it."""

from __future__ import annotations

from collections.abc import Hashable

from torch import Tensor, nn

from splitpriv.cutting.refusal import Refusal, listing
from splitpriv.cutting.untouched import held_tensors


def identity(tensor: Tensor) -> Hashable:
    """A key that two tensors share when they are one: the same object, or the same memory."""
    try:
        address = tensor.data_ptr() if tensor.numel() else 0
    except RuntimeError:  # a tensor without memory of its own
        address = 0
    return (tensor.device, address) if address else id(tensor)


class Usage:
    """What the program of one half uses.

    Attributes:
        called: ids of the modules that it calls, and of all inside them.
        tensors: identity of each tensor that it uses -> the name by which it does.
    """

    def __init__(self) -> None:
        self.called: set[int] = set()
        self.tensors: dict[Hashable, str] = {}

    def add_module(self, name: str, module: nn.Module) -> None:
        """Note a call of ``module``: it uses all that the module holds."""
        for inner, part in module.named_modules(prefix=name, remove_duplicate=False):
            self.called.add(id(part))
            own = dict(part.named_parameters(recurse=False, remove_duplicate=False))
            own.update(part.named_buffers(recurse=False, remove_duplicate=False))
            own.update({k: v for k, v in vars(part).items() if isinstance(v, Tensor)})
            for key, tensor in own.items():
                self.add_tensor(f"{inner}.{key}" if inner else key, tensor)

    def add_tensor(self, name: str, tensor: Tensor) -> None:
        """Note a use of ``tensor`` under ``name``."""
        self.tensors.setdefault(identity(tensor), name)

    def touches(self, module: nn.Module) -> bool:
        """Whether the program uses any part of ``module``."""
        return any(
            id(part) in self.called or any(identity(t) in self.tensors for t in held_tensors(part))
            for part in module.modules()
        )


def check_untied(edge: Usage, server: Usage) -> None:
    """Refuse a cut with one tensor on both sides: halves apart could not keep it equal."""
    shared = [
        f"{name!r}" if server.tensors[key] == name else f"{name!r} (on the server {server.tensors[key]!r})"
        for key, name in edge.tensors.items()
        if key in server.tensors
    ]
    if shared:
        raise Refusal(
            "a cut with no parameter or buffer on both sides",
            f"Edge and server would both use {listing(shared)}: what is tied across the cut "
            "cannot stay equal once the halves are apart.",
        )


class Opened(nn.Module):
    """What one half keeps of a module that was taken apart; its forward lies in the half's program."""

    def __init__(self, source: nn.Module) -> None:
        super().__init__()
        self.training = source.training
        self._source = type(source).__name__

    def _get_name(self) -> str:
        return f"{self._source}[part]"


class Grafting:
    """Hands the parts of a model to one half, by reference and under their names.

    Args:
        own: what the program of this half uses.
        other: what the program of the other half uses.
        leftovers: whether this half takes what neither program uses.
    """

    def __init__(self, own: Usage, other: Usage, *, leftovers: bool) -> None:
        self._own, self._other, self._leftovers = own, other, leftovers

    def graft(self, source: nn.Module, into: nn.Module) -> None:
        """Give ``into`` what belongs to this half of ``source``, which itself is taken apart."""
        for name, parameter in source.named_parameters(recurse=False, remove_duplicate=False):
            if self._takes(parameter):
                into.register_parameter(name, parameter)
        for name, buffer in source.named_buffers(recurse=False, remove_duplicate=False):
            if self._takes(buffer):
                into.register_buffer(name, buffer, name not in source._non_persistent_buffers_set)
        for name, value in vars(source).items():
            if isinstance(value, Tensor) and identity(value) in self._own.tensors:
                setattr(into, name, value)  # an unregistered constant, which .to() leaves alone as before
        for name, child in source._modules.items():
            part = None if child is None else self._part(child)
            if part is not None:
                setattr(into, name, part)

    def _part(self, child: nn.Module) -> nn.Module | None:
        """The whole of ``child``, the part of it that belongs to this half, or None."""
        mine, others = self._own.touches(child), self._other.touches(child)
        if id(child) in self._own.called or (not others and (mine or self._leftovers)):
            return child
        if not mine and not self._leftovers:
            return None
        part = Opened(child)
        self.graft(child, part)
        return part if part._modules or part._parameters or part._buffers else None

    def _takes(self, tensor: Tensor) -> bool:
        key = identity(tensor)
        return key in self._own.tensors or (self._leftovers and key not in self._other.tensors)


def check_keys(model: nn.Module, edge: nn.Module, server: nn.Module) -> None:
    """Refuse halves whose state_dict keys are not those of the model, each in one half."""
    wanted, left, right = set(model.state_dict()), set(edge.state_dict()), set(server.state_dict())
    wrong = sorted(wanted ^ (left | right)) + sorted(left & right)
    if wrong:
        raise Refusal(
            "a cut that keeps the state_dict keys",
            f"These keys would be lost, added or doubled: {listing([repr(k) for k in wrong])}. "
            "A module that the cut goes through saves its state in its own way.",
        )
