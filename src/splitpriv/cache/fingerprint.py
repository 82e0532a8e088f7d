"""What tells one edge or layer from another: structure, settings, parameters and buffers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from splitpriv.mechanisms import Channel

_PLAIN = (bool, int, float, complex, str, bytes, type(None))
_PASSING = {"training"}  # the mode that a module is in says nothing of what it releases


def fingerprint(parts: Iterable[nn.Module | str]) -> bytes:
    """32 bytes that change when a part of the chain is changed.

    For each module in it: its class, its public attributes of plain types (settings such as a stride or an
    epsilon), those that are channels (by their ``repr`` and exact epsilon), whether its noise is secure, the
    code of a traced graph; and every parameter and buffer, bit for bit. Devices do not count.

    Does not see: code and private attributes of a module that were changed under the same class name. The stored
    symbols are then returned as before, which costs nothing, but they are those of the old module.
    """
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, str):
            _add(digest, "text", part)
            continue
        for name, module in part.named_modules():
            kind = type(module)
            _add(digest, "module", name, kind.__module__, kind.__qualname__, *_settings(module))
        tensors = [*part.named_parameters(remove_duplicate=False), *part.named_buffers(remove_duplicate=False)]
        for name, tensor in tensors:
            values = tensor.detach().cpu().contiguous()
            _add(digest, "tensor", name, str(values.dtype), str(tuple(values.shape)))
            digest.update(values.reshape(-1).view(torch.uint8).numpy().data)
    return digest.digest()


def _settings(module: nn.Module) -> list[str]:
    found = {name: value for name, value in vars(module).items() if name[0] != "_" and name not in _PASSING}
    if hasattr(module, "secure"):
        found["secure"] = module.secure
    if isinstance(module, torch.fx.GraphModule):
        found["code"] = module.code
    found |= {name: (repr(value), value.epsilon) for name, value in found.items() if isinstance(value, Channel)}
    return [f"{name}={value!r}" for name, value in sorted(found.items()) if _is_plain(value)]


def _is_plain(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return all(map(_is_plain, value))
    return isinstance(value, (*_PLAIN, torch.dtype))


def _add(digest: Any, *texts: str) -> None:
    for text in texts:
        encoded = text.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "little") + encoded)
