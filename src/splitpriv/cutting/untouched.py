"""Run a model and leave no trace: modules, tensors and random generators are put back."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_SLOTS = ("_parameters", "_buffers", "_modules")


class RandomState:
    """The state of every global random generator that a forward pass may draw from.

    Args:
        devices: accelerators whose generators count, besides the CPU's, Python's and NumPy's.
    """

    def __init__(self, devices: Iterable[torch.device] = ()) -> None:
        self.devices = tuple(devices)
        self._python = random.getstate()
        self._numpy = np.random.get_state()  # noqa: NPY002  (some models draw from it)
        self._torch = [torch.get_rng_state(), *(_accelerator_state(d) for d in self.devices)]

    def restore(self) -> None:
        """Put every generator back into this state."""
        random.setstate(self._python)
        np.random.set_state(self._numpy)  # noqa: NPY002
        torch.set_rng_state(self._torch[0])
        for device, state in zip(self.devices, self._torch[1:], strict=True):
            module = torch.get_device_module(device)
            module.set_rng_state(state) if device.type == "mps" else module.set_rng_state(state, device)

    def differs(self, other: RandomState) -> bool:
        """Whether anything was drawn between this state and ``other``."""
        same_numpy = all(np.array_equal(a, b) for a, b in zip(self._numpy, other._numpy, strict=True))
        same_torch = all(torch.equal(a, b) for a, b in zip(self._torch, other._torch, strict=True))
        return not (same_numpy and same_torch and self._python == other._python)


def _accelerator_state(device: torch.device) -> Tensor:
    module = torch.get_device_module(device)
    state: Tensor = module.get_rng_state() if device.type == "mps" else module.get_rng_state(device)
    return state


def devices_of(tensors: Iterable[Tensor]) -> list[torch.device]:
    """The accelerators that hold ``tensors``."""
    return sorted({t.device for t in tensors if t.device.type not in ("cpu", "meta")}, key=str)


class Attributes:
    """The attributes of some modules, as bound now: training flags, caches, counters, buffers."""

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        # A ScriptModule keeps its attributes outside __dict__.
        self._saved = [
            (m, dict(vars(m)), {slot: dict(vars(m)[slot]) for slot in _SLOTS})
            for m in modules
            if not isinstance(m, torch.jit.ScriptModule)
        ]
        self._containers = [
            (f"{type(m).__name__}.{key}", value, dict(value) if isinstance(value, dict) else list(value))
            for m, attributes, _ in self._saved
            for key, value in attributes.items()
            if isinstance(value, (list, dict)) and key not in _SLOTS
        ]

    def changed(self) -> list[str]:
        """Names of the attributes that have been bound anew since, as ``Class.attribute``."""
        names = []
        for module, attributes, slots in self._saved:
            pairs = [(attributes, vars(module)), *((slots[s], vars(module)[s]) for s in _SLOTS)]
            for before, after in pairs:
                for key in {**before, **after}:
                    if key not in before or key not in after or before[key] is not after[key]:
                        names.append(f"{type(module).__name__}.{key}")
        return names + [name for name, now, before in self._containers if not _alike(now, before)]

    def restore(self) -> None:
        """Bind every attribute as it was."""
        for module, attributes, slots in self._saved:
            for slot, content in slots.items():
                _put_back(attributes[slot], content)
            _put_back(vars(module), attributes)
        for _, now, before in self._containers:
            if not _alike(now, before):
                now.clear()
                now.extend(before) if isinstance(now, list) else now.update(before)


def _alike(now: Any, before: Any) -> bool:
    """Whether two lists or two dicts hold the very same objects."""
    if isinstance(now, dict):
        return list(now) == list(before) and _alike(list(now.values()), list(before.values()))
    return len(now) == len(before) and all(a is b for a, b in zip(now, before, strict=True))


def _put_back(target: dict[str, Any], content: dict[str, Any]) -> None:
    for key in [k for k in target if k not in content]:
        del target[key]
    target.update(content)


class Contents:
    """The values of every tensor that some modules hold, so that running statistics can be put back."""

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        tensors = {id(t): t for m in modules for t in held_tensors(m)}
        self._saved = [(t, t.detach().clone()) for t in tensors.values()]

    def restore(self) -> None:
        """Write every value back, in place and unseen by autograd."""
        for tensor, value in self._saved:
            if not torch.equal(tensor.detach(), value):  # overlapping memory cannot be written at all
                tensor.data.copy_(value)


def held_tensors(module: nn.Module) -> list[Tensor]:
    """The tensors that ``module`` itself holds: parameters, buffers and unregistered attributes."""
    own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
    return own + [v for v in vars(module).values() if isinstance(v, Tensor)]
