"""Cuts through any other forward: traced, parted, and run as programs over shared modules."""

from __future__ import annotations

from torch import Tensor, fx, nn

from splitpriv.cutting.crossing import partition
from splitpriv.cutting.halves import Halves, TracedEdge, TracedServer
from splitpriv.cutting.opened import parents
from splitpriv.cutting.ownership import Grafting, Usage, check_keys, check_untied
from splitpriv.cutting.program import Program
from splitpriv.cutting.refusal import Refusal
from splitpriv.cutting.tracing import Traces


def cut_traced(at: str, traces: Traces) -> Halves:
    """Part the model's graphs behind the module ``at`` and build the halves from them."""
    model = traces.model
    graphs = traces.through(parents(at)[-1])
    evaluation, training = (partition(graph, _cut_node(graph, model, at)) for graph in graphs)
    edge_use = _usage(traces, evaluation.edge, training.edge)
    server_use = _usage(traces, evaluation.server, training.server)
    check_untied(edge_use, server_use)
    edge = TracedEdge(at, Program.from_graph(evaluation.edge), Program.from_graph(training.edge))
    server = TracedServer(at, Program.from_graph(evaluation.server), Program.from_graph(training.server))
    _fill(edge, at, traces, Grafting(edge_use, server_use, leftovers=False))
    _fill(server, at, traces, Grafting(server_use, edge_use, leftovers=True))
    check_keys(model, edge, server)
    return Halves(edge, server, evaluation.batch or training.batch)


def _cut_node(graph: fx.Graph, model: nn.Module, at: str) -> fx.Node:
    """The one call of the module ``at``."""
    module = model.get_submodule(at)
    calls = [n for n in graph.nodes if n.op == "call_module" and model.get_submodule(str(n.target)) is module]
    if len(calls) > 1:
        raise Refusal(
            "a module that is called once",
            f"It is called {len(calls)} times in forward, so the place behind it is ambiguous.",
        )
    if not calls:
        raise Refusal(
            "a module that forward calls",
            "It is not called by itself in both training and evaluation mode.",
        )
    call: fx.Node = calls[0]
    return call


def _usage(traces: Traces, *graphs: fx.Graph) -> Usage:
    """What the programs of one half use of the model."""
    usage = Usage()
    for node in (n for graph in graphs for n in graph.nodes if n.op in ("call_module", "get_attr")):
        name = str(node.target)
        if name in traces.constants:
            continue
        owner, _, last = name.rpartition(".")
        value = getattr(traces.model.get_submodule(owner), last)
        if isinstance(value, nn.Module):
            usage.add_module(name, value)
        elif isinstance(value, Tensor):
            usage.add_tensor(name, value)
    return usage


def _fill(half: TracedEdge | TracedServer, at: str, traces: Traces, grafting: Grafting) -> None:
    """Give ``half`` its share of the model, and the constants that its programs name."""
    half.training = traces.model.training
    grafting.graft(traces.model, half)
    for name, constant in traces.constants.items():
        if half.names(name):
            setattr(half, name, constant)
    half._opened = [part for name, part in half.named_modules() if name and name in parents(at)]
