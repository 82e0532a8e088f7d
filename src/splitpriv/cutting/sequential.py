"""Cuts along nn.Sequential: the containers are sliced, nothing is traced."""

from __future__ import annotations

from torch import nn

from splitpriv.cutting.halves import Halves, SlicedServer
from splitpriv.cutting.opened import check_openable, parents
from splitpriv.cutting.ownership import Usage, check_untied
from splitpriv.cutting.refusal import Refusal


def is_plain(module: nn.Module) -> bool:
    """Whether ``module`` runs its children in order and does nothing else."""
    return (
        isinstance(module, nn.Sequential)
        and "forward" not in vars(module)
        and all(
            getattr(type(module), name) is getattr(nn.Sequential, name) for name in ("forward", "__iter__", "__call__")
        )
    )


def is_sliceable(model: nn.Module, at: str) -> bool:
    """Whether the module ``at`` is reached through plain nn.Sequential containers only."""
    return all(is_plain(model.get_submodule(name)) for name in parents(at))


def cut_sequential(model: nn.Module, at: str) -> Halves:
    """Slice the containers on the way to ``at``: up to and with it the edge, the rest the server.

    Names of children are positions, so a module object that stands at several of them is cut
    where the name says. The halves keep the names, hence the state_dict keys.
    """
    check_openable(model, parents(at))
    edge, server = nn.Sequential(), SlicedServer()
    _slice(model, at.split("."), edge, server)
    if not len(server):
        raise Refusal("before the last module", "Nothing would be left for the server.")
    edge_use, server_use = Usage(), Usage()
    edge_use.add_module("", edge)
    server_use.add_module("", server)
    check_untied(edge_use, server_use)
    return Halves(edge, server)


def _slice(source: nn.Module, path: list[str], edge: nn.Sequential, server: nn.Sequential) -> None:
    """Hand the children of ``source`` to the half that runs them; go into the one on the path."""
    edge.training = server.training = source.training
    # nn.Sequential uses no tensors of its own, and what forward never uses goes to the server.
    for name, parameter in source.named_parameters(recurse=False, remove_duplicate=False):
        server.register_parameter(name, parameter)
    for name, buffer in source.named_buffers(recurse=False, remove_duplicate=False):
        server.register_buffer(name, buffer, name not in source._non_persistent_buffers_set)
    half = edge
    for name, child in source._modules.items():
        if name != path[0] or child is None:
            half.add_module(name, child)
            continue
        if len(path) == 1:
            edge.add_module(name, child)
        else:
            inner_edge, inner_server = nn.Sequential(), nn.Sequential()
            _slice(child, path[1:], inner_edge, inner_server)
            edge.add_module(name, inner_edge)
            if any((inner_server._modules, inner_server._parameters, inner_server._buffers)):
                server.add_module(name, inner_server)
        half = server
