"""Parting a graph at one node, and finding what else would have to cross.

The edge is the program up to the cut and the server the program behind it, each in its old
order, so that random draws and in-place writes fall as they did. A value that is computed
before the cut and used behind it crosses, unless the server can make it again from its own
parameters and from the batch size of the features.
"""

from __future__ import annotations

import builtins
import math
import operator
from dataclasses import dataclass, field
from typing import Any

from torch import fx

from splitpriv.cutting.refusal import Refusal, listing

# What these return may be a view of their first argument ...
_VIEW_FUNCTIONS = {builtins.getattr, operator.getitem}
_VIEW_METHODS = {
    "view", "reshape", "flatten", "expand", "expand_as", "squeeze", "unsqueeze", "transpose", "permute", "t",
    "to", "float", "contiguous",
}  # fmt: skip
# ... and what these return is new.
_NEW_FUNCTIONS = {
    operator.add, operator.sub, operator.mul, operator.truediv, operator.floordiv, operator.mod, operator.neg,
    operator.pow, operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge,
    *(f for f in vars(math).values() if callable(f)),
}  # fmt: skip
_NEW_METHODS = {"size", "dim", "ndimension", "numel", "repeat", "clone"}


@dataclass
class Parts:
    """The two graphs of one mode."""

    edge: fx.Graph
    server: fx.Graph = field(default_factory=fx.Graph)
    batch: str = ""


def is_pure(node: fx.Node) -> bool:
    """Whether ``node`` may be dropped when unused, and computed again elsewhere."""
    if node.op == "get_attr":
        return True
    if node.op == "call_function":
        return node.target in _VIEW_FUNCTIONS or node.target in _NEW_FUNCTIONS
    return node.op == "call_method" and (node.target in _VIEW_METHODS or node.target in _NEW_METHODS)


def _is_view(node: fx.Node, source: fx.Node) -> bool:
    """Whether writing into ``node`` may write into ``source``."""
    functions: Any = _VIEW_FUNCTIONS if node.op == "call_function" else _VIEW_METHODS
    return node.op in ("call_function", "call_method") and node.args[0] is source and node.target in functions


def drop_unused(graph: fx.Graph) -> None:
    """Erase pure nodes that nothing uses, such as the sizes that unpacking a shape leaves behind."""
    for node in reversed(list(graph.nodes)):
        if is_pure(node) and not node.users:
            graph.erase_node(node)


def partition(graph: fx.Graph, cut: fx.Node) -> Parts:
    """Part ``graph`` behind ``cut``, the only value that may cross.

    Raises:
        Refusal: other values would cross, or nothing is left behind the cut.
    """
    drop_unused(graph)
    nodes = list(graph.nodes)
    place = nodes.index(cut)
    parts = Parts(_edge(nodes[: place + 1], cut))
    server = _Server(parts, set(nodes[:place]), cut)
    server.build(nodes[place + 1 :])
    if server.crossing:
        raise Refusal(
            "where one tensor holds all that is needed later",
            f"These would cross as well: {listing([_needed(n, place, nodes) for n in server.crossing])}.",
        )
    if not server.features.users:
        raise Refusal("a module that the output depends on", "Nothing behind it uses its output.")
    if all(n.op in ("placeholder", "get_attr", "output") for n in parts.server.nodes):
        raise Refusal("before the last module", "Nothing would be left for the server.")
    return parts


def _edge(nodes: list[fx.Node], cut: fx.Node) -> fx.Graph:
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in nodes:
        copies[node] = graph.node_copy(node, copies.__getitem__)
    graph.output(copies[cut])
    drop_unused(graph)
    return graph


class _Server:
    """Builds the server's graph; collects in ``crossing`` what it cannot make itself."""

    def __init__(self, parts: Parts, early: set[fx.Node], cut: fx.Node) -> None:
        self._parts, self._graph, self._early, self._cut = parts, parts.server, early, cut
        self.features = self._graph.placeholder("features")
        self._copies: dict[fx.Node, fx.Node] = {cut: self.features}
        self._batch: fx.Node | None = None
        self.crossing: dict[fx.Node, None] = {}

    def build(self, nodes: list[fx.Node]) -> None:
        """Copy ``nodes``, those behind the cut, after all that they need from before it."""
        late = []
        for node in nodes:
            # The shape or dtype of an early tensor is early wherever it is read: only its users count.
            if _described_by(node) in self._early:
                self._early.add(node)
            else:
                late.append(node)
        for node in late:
            for needed in node.all_input_nodes:
                if needed in self._early and not self._bring(needed):
                    self.crossing[needed] = None
        if not self.crossing:
            for node in late:
                self._copies[node] = self._graph.node_copy(node, self._copies.__getitem__)
                self._copies[node].type = None

    def _bring(self, node: fx.Node) -> bool:
        """Make the early ``node`` again on the server; False if that takes a value that crosses."""
        if node in self._copies:
            return True
        if self._is_batch_size(node):
            self._parts.batch = _describe(node)
            if self._batch is None:
                self._batch = self._graph.call_method("size", (self.features, 0))
            self._copies[node] = self._batch
            return True
        # A parameter or buffer that the edge uses too is found, and named, among the tied ones.
        made_alike = node.op == "get_attr" or (is_pure(node) and not self._written(node))
        if not made_alike or not all(self._bring(n) for n in node.all_input_nodes):
            return False
        self._copies[node] = self._graph.node_copy(node, self._copies.__getitem__)
        return True

    def _written(self, node: fx.Node) -> bool:
        """Whether something before the cut may write into ``node`` after it is made."""
        users = [user for user in node.users if user in self._early or user is self._cut]
        return any(not is_pure(u) or (_is_view(u, node) and self._written(u)) for u in users)

    def _is_batch_size(self, node: fx.Node) -> bool:
        """Whether ``node`` is the first size of an early tensor: the number of rows, as of the features."""
        source = _described_by(node)
        if source not in self._early or not _from_input(source):
            return False
        if node.target == "size":
            return node.args[1:] == (0,) or node.kwargs == {"dim": 0}
        whole = node.args[0]
        of_shape = isinstance(whole, fx.Node) and (whole.args[1:] == ("shape",) or whole.target == "size")
        return of_shape and node.target is operator.getitem and node.args[1:] == (0,)


def _described_by(node: fx.Node) -> fx.Node | None:
    """The tensor whose shape, one of whose sizes, or whose dtype or device ``node`` is, if it is one."""
    source = node.args[0] if node.args else None
    if not isinstance(source, fx.Node):
        return None
    if node.op == "call_method" and node.target == "size":
        return source
    if node.target is builtins.getattr and node.args[1] in ("shape", "dtype", "device"):
        return source
    return _described_by(source) if node.target is operator.getitem else None


def _from_input(node: fx.Node) -> bool:
    """Whether ``node`` is computed from the model's input, and not from parameters and constants alone."""
    seen, todo = {node}, [node]
    for n in todo:
        new = [m for m in n.all_input_nodes if m not in seen]
        seen.update(new)
        todo.extend(new)
    return any(n.op == "placeholder" for n in seen)


def _needed(node: fx.Node, place: int, nodes: list[fx.Node]) -> str:
    """``node`` in words, with the first that needs it behind the cut."""
    users = [n for n in nodes[place + 1 :] if node in n.all_input_nodes and _described_by(n) is not node]
    return _describe(node) + (f" (needed by {_describe(users[0])})" if users else "")


def _describe(node: fx.Node) -> str:
    """``node`` in the words of the model."""
    words = {"placeholder": "the model input {!r}", "call_module": "the output of {!r}", "get_attr": "{!r}"}
    if node.op in words:
        return words[node.op].format(node.target)
    if node.op == "output":
        return "the model output"
    source = node.args[0] if node.args else None
    if isinstance(source, fx.Node):
        if node.target == "size" and node.op == "call_method":
            which = ", ".join(map(repr, [*node.args[1:], *node.kwargs.values()]))
            return f"size({which}) of {_describe(source)}"
        if node.target is builtins.getattr:
            return f"the {node.args[1]} of {_describe(source)}"
        if node.target is operator.getitem and _described_by(source) is not None:
            return f"item {node.args[1]!r} of {_describe(source)}"
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    return f"{node.name!r}" + (f" in {stack[-1][0]!r}" if stack else "")
