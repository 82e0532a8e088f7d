"""Many small networks trained as one: stacked parameters under torch.func.vmap."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state

from splitpriv._errors import InvalidParameterError

# By benchmarks/bench_attacks.py on one CPU core: 2.9 times faster at 2,410 parameters, 1.2 at 68,362, 2.7 times slower
# at two million; convolutions are no faster. The limit is where little is left to gain.
_PLAIN = (
    *(nn.Sequential, nn.Linear, nn.Flatten, nn.Unflatten, nn.Identity, nn.LayerNorm),
    *(nn.ReLU, nn.Tanh, nn.Sigmoid, nn.GELU, nn.SiLU, nn.ELU, nn.LeakyReLU, nn.Softplus),
)
_PARAMETERS = 1 << 16
_ELEMENTS = 1 << 26  # of all training sets that are stacked at one time


def is_faster_stacked(server: nn.Module) -> bool:
    """Whether many copies were measured to train faster at once: small networks of linear layers without state."""
    small = sum(parameter.numel() for parameter in server.parameters()) <= _PARAMETERS
    return small and all(type(module) in _PLAIN for module in server.modules())


def refuse_stateful(owner: str, server: nn.Module) -> None:
    """Raise for networks that draw random numbers, or change their buffers, when they are trained."""
    for name, module in server.named_modules():
        if isinstance(module, nn.modules.dropout._DropoutNd) or next(module.buffers(recurse=False), None) is not None:
            raise InvalidParameterError(
                f"{owner}: server must have neither dropout nor buffers to be trained vectorised, got "
                f"{type(module).__name__} at {name!r}. Use vectorised=False."
            )


def train_stacked(
    servers: Sequence[nn.Module],
    crossed: Sequence[tuple[Tensor, Tensor]],
    orders: Sequence[torch.Generator],
    *,
    epochs: int,
    batch_size: int,
    lr: float,
    weight_decay: float,
) -> None:
    """Train each server, in place, on its own (records, labels), in its own order; all sets of one size."""
    at_once = max(1, _ELEMENTS // max(1, crossed[0][0].numel()))
    for start in range(0, len(servers), at_once):
        part = slice(start, start + at_once)
        _train(servers[part], crossed[part], orders[part], epochs, batch_size, lr, weight_decay)


def _train(
    servers: Sequence[nn.Module],
    crossed: Sequence[tuple[Tensor, Tensor]],
    orders: Sequence[torch.Generator],
    epochs: int,
    batch_size: int,
    lr: float,
    weight_decay: float,
) -> None:
    x, y = torch.stack([x for x, _ in crossed]), torch.stack([y for _, y in crossed])
    parameters, _ = stack_module_state(list(servers))
    skeleton = copy.deepcopy(servers[0]).train()

    def loss(weights: dict[str, Tensor], inputs: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(skeleton, weights, (inputs,)), labels)

    losses = torch.func.vmap(loss)
    optimizer = torch.optim.AdamW(parameters.values(), lr=lr, weight_decay=weight_decay)
    models = torch.arange(len(servers), device=x.device).unsqueeze(1)
    for _ in range(epochs):
        order = torch.stack([torch.randperm(x.shape[1], generator=own) for own in orders]).to(x.device)
        for step in range(math.ceil(x.shape[1] / batch_size)):
            rows = order[:, step * batch_size : (step + 1) * batch_size]
            total = losses(parameters, x[models, rows], y[models, rows]).sum()
            optimizer.zero_grad()
            total.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    with torch.no_grad():
        for number, server in enumerate(servers):
            for name, value in server.named_parameters():
                value.copy_(parameters[name][number])
