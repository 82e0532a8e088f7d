"""Tracing a model with torch.fx, no deeper than the cut needs and in both modes.

Only the modules that the cut opens are traced through; all others stay single calls, so that
their hooks, parametrizations and control flow are kept as they are. What a symbolic trace would
lose or freeze without a word is refused here: random draws and no_grad or autocast blocks in
the traced code, attributes that it sets, tensors that it computes from parameters.
"""

from __future__ import annotations

import inspect
import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from splitpriv.cutting.opened import check_openable, parents
from splitpriv.cutting.refusal import Refusal, listing
from splitpriv.cutting.untouched import Attributes, RandomState, devices_of

_IN_PLACE = (
    "iadd", "isub", "imul", "itruediv", "ifloordiv", "imod", "ipow", "iand", "ior", "ixor", "ilshift", "irshift",
)  # fmt: skip
_OWN = ("tracer", "node", "_node", "root", "attr")  # what torch.fx itself sets on proxies
_AUTOCAST_DEVICES = ("cpu", "cuda")


def in_place(name: str, value: Any, other: Any) -> Any:
    """``value += other`` and its kin (``name`` "iadd", ...), as a function."""
    return getattr(operator, name)(value, other)


class _Value(fx.Proxy):
    """A proxy that records in-place operators, which torch.fx would turn into copies."""

    def __getattr__(self, k: str) -> _Attribute:
        return _Attribute(self, k)

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in _OWN:
            raise TypeError(f"forward assigns to an attribute of a tensor ({name!r})")
        super().__setattr__(name, value)

    def __setitem__(self, index: Any, value: Any) -> None:
        self.tracer.create_proxy("call_function", operator.setitem, (self, index, value), {})


class _Attribute(_Value, fx.proxy.Attribute):
    """What reading an attribute of a proxy gives; it records in-place operators as well."""


def _recorder(name: str) -> Callable[[_Value, Any], Any]:
    def record(self: _Value, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", in_place, (name, self, other), {}, name)

    return record


for _name in _IN_PLACE:
    setattr(_Value, f"__{_name}__", _recorder(_name))


class _Tracer(fx.Tracer):
    """Traces through the opened modules only.

    Args:
        opened: ids of the modules to trace through.
        constants: tensors that forward creates, by the name they have in the program; extended.
    """

    proxy_buffer_attributes = True

    def __init__(self, opened: set[int], constants: dict[str, Tensor]) -> None:
        super().__init__(autowrap_modules=(math,))
        self._opened_ids = opened
        self._constants = constants
        self._context = _context()

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return id(m) not in self._opened_ids

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Value(node, self)

    def create_args_for_root(
        self, root_fn: Callable[..., Any], is_module: bool, concrete_args: Any = None
    ) -> tuple[Callable[..., Any], list[Any]]:
        """One placeholder per required argument; arguments with defaults keep them."""
        args: list[Any] = [self.root]
        for parameter in list(inspect.signature(root_fn).parameters.values())[1:]:
            required = parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD
            if required and parameter.kind is parameter.KEYWORD_ONLY:
                raise TypeError(f"forward has a required keyword-only argument {parameter.name!r}")
            variadic = parameter.kind is parameter.VAR_POSITIONAL
            if len(args) == 1 or (required and not variadic):
                args.append(self.create_proxy("placeholder", parameter.name, (), {}))
        return root_fn, args

    def create_node(self, kind: str, *args: Any, **kwargs: Any) -> fx.Node:
        if kind.startswith("call_") and _context() != self._context:
            raise TypeError("forward computes under torch.no_grad, inference_mode or autocast of its own")
        return super().create_node(kind, *args, **kwargs)

    def create_proxy(self, kind: str, target: Any, args: Any, kwargs: Any, *more: Any, **named: Any) -> fx.Proxy:
        if any(isinstance(t, Tensor) for t in _written(target, args, kwargs)):
            # At a TypeError Python takes ``total += value`` for ``total = total + value``, which is recorded.
            raise TypeError("forward writes a traced value into a tensor of its own, which a trace would lose")
        return super().create_proxy(kind, target, args, kwargs, *more, **named)

    def create_arg(self, a: Any) -> Any:
        if isinstance(a, np.generic):
            a = a.item()
        if isinstance(a, Tensor) and not self._is_state(a):
            if a.requires_grad:
                raise TypeError("forward computes with parameters where torch.fx does not see it")
            constant = self.create_node("get_attr", _intern(a, self._constants), (), {})
            # Fresh at each call, as in the model: forward may write into it.
            return self.create_node("call_method", "clone", (constant,), {})
        return super().create_arg(a)

    def _is_state(self, tensor: Tensor) -> bool:
        """Whether ``tensor`` is a parameter, a buffer or an unregistered attribute of some module."""
        registered = isinstance(tensor, nn.Parameter) or tensor in self.tensor_attrs
        return registered or any(tensor is buffer for buffer in self.root.buffers())

    def where(self) -> str:
        """The innermost forward that is being traced."""
        paths = [path for path, _ in self.module_stack.values()]
        opened = [p for p in ["", *paths] if id(self.root.get_submodule(p)) in self._opened_ids]
        kind = type(self.root.get_submodule(opened[-1])).__name__
        return f"{kind}.forward" + (f" ({opened[-1]!r})" if opened[-1] else "")


def _written(target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """What a call of ``target`` writes into."""
    name = target if isinstance(target, str) else getattr(target, "__name__", "")
    inner = name[2:-2]
    in_place = inner in (*_IN_PLACE, "setitem") if name.startswith("__") else name.endswith("_")
    out = kwargs.get("out")
    return [*(args[:1] if in_place else ()), *(out if isinstance(out, (tuple, list)) else [out])]


def _context() -> tuple[Any, ...]:
    """The modes in force that change what a recorded operation means."""
    autocast = [(torch.is_autocast_enabled(d), torch.get_autocast_dtype(d)) for d in _AUTOCAST_DEVICES]
    return torch.is_grad_enabled(), torch.is_inference_mode_enabled(), *autocast


def _intern(tensor: Tensor, constants: dict[str, Tensor]) -> str:
    """The name of ``tensor`` among ``constants``; the same for equal ones, so that both modes agree."""
    for name, old in constants.items():
        alike = (old.dtype, old.device, old.shape) == (tensor.dtype, tensor.device, tensor.shape)
        if alike and torch.equal(old, tensor):
            return name
    constants[f"_constant_{len(constants)}"] = tensor.detach().clone()
    return f"_constant_{len(constants) - 1}"


class Traces:
    """The graphs of one model, made once for each set of opened modules."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.constants: dict[str, Tensor] = {}
        self._made: dict[str, tuple[fx.Graph, fx.Graph] | Refusal] = {}

    def through(self, parent: str) -> tuple[fx.Graph, fx.Graph]:
        """Graphs in evaluation and in training mode, with ``parent`` and the modules above it opened."""
        if parent not in self._made:
            try:
                names = [*parents(parent), parent] if parent else [""]
                check_openable(self.model, names)
                modules = [self.model.get_submodule(name) for name in names]
                self._made[parent] = self._trace(modules, False), self._trace(modules, True)
            except Refusal as refusal:
                self._made[parent] = refusal
        made = self._made[parent]
        if isinstance(made, Refusal):
            raise made
        return made

    def _trace(self, opened: list[nn.Module], training: bool) -> fx.Graph:
        tracer = _Tracer({id(m) for m in opened}, self.constants)
        mode = "training" if training else "evaluation"
        # All of them: forward may go past the call of a child, into its methods and attributes.
        modules = [m for m in self.model.modules() if not isinstance(m, torch.jit.ScriptModule)]
        found, random = Attributes(modules), RandomState(devices_of(self.model.parameters()))
        try:
            for module in modules:
                module.training = training
            before = Attributes(modules)
            graph = tracer.trace(self.model)
            drawn, bound = random.differs(RandomState(random.devices)), before.changed()
        except Exception as error:  # whatever the model's own code may raise on proxies
            first = (str(error).splitlines() or [""])[0]
            raise Refusal(
                "inside modules that torch.fx can trace",
                f"Tracing {tracer.where()} in {mode} mode failed: {type(error).__name__}: {first}.",
                by_hand=True,
            ) from error
        finally:
            found.restore()
            random.restore()
        if drawn or bound:
            what = "draws random numbers outside tensor operations on its input"
            what = what if drawn else f"sets attributes ({listing(sorted(set(bound)))})"
            raise Refusal(
                "inside modules that torch.fx can trace",
                f"A forward that the cut goes through {what}, which the halves would lose.",
                by_hand=True,
            )
        return graph
