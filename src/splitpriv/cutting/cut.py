"""The front door: ``split`` and ``valid_cuts``."""

from __future__ import annotations

import difflib
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy

from splitpriv._errors import CutError, InvalidParameterError
from splitpriv._validation import message
from splitpriv.cutting.candidates import called_names, nearest
from splitpriv.cutting.halves import Halves
from splitpriv.cutting.refusal import Refusal
from splitpriv.cutting.sequential import cut_sequential, is_sliceable
from splitpriv.cutting.traced import cut_traced
from splitpriv.cutting.tracing import Traces
from splitpriv.cutting.verify import Verification, as_inputs

_SEVERAL_OUTPUTS = (nn.RNNBase, nn.LSTMCell, nn.MultiheadAttention, nn.AdaptiveLogSoftmaxWithLoss)


def split(
    model: nn.Module,
    at: str = "layer2",
    example_input: Any = None,  # shape: (batch, *input), or a tuple of such
) -> tuple[nn.Module, nn.Module]:
    """Cut ``model`` behind the module named ``at`` into an edge and a server.

    The halves are the model: ``server(edge(x))`` equals ``model(x)`` bit for bit, in training
    mode (from the same random state) and in evaluation mode. They share the model's modules,
    parameters and buffers, so training or switching the mode of a half does so in the model;
    copy the model first (``copy.deepcopy``) to keep it apart, and move the halves rather than the
    model to other devices. Each key of the model's ``state_dict`` is in exactly one half, under its
    old name. State that forward never uses goes to the server.

    Plain ``nn.Sequential`` containers are sliced. Any other forward on the way to ``at`` is
    traced with torch.fx in both modes; modules off that way are not traced through and keep
    hooks, parametrizations and control flow. The halves pickle, copy and compile. The server works on
    its own copy of the features, so in-place layers behind the cut leave the caller's alone.

    Models with several required inputs can be cut where the edge uses all of them; arguments
    of forward with a default keep it. A batch size read before the cut and used behind it
    (``x.size(0)``) is taken from the features, which must hold one row per record; such a cut needs
    ``example_input`` to confirm it.

    Args:
        model: the module to cut; its mode, state and random generators are left as found.
        at: name of a module as in ``model.named_modules()``; the cut is behind its output, which must be
            one tensor and all that the rest of the model needs. See ``valid_cuts``.
        example_input: a batch, or a tuple of batches for several inputs. When given, the halves are
            run and compared with the model in both modes, outputs, running statistics and random draws;
            and so that no state (a hook, a cache) carries data past the cut, once more on features from
            before the edge has run on other data.
            Recommended: a symbolic trace cannot see everything (``isinstance`` checks on
            the input, for one). It takes memory for a second copy of the model's tensors.

    Returns:
        ``(edge, server)``, in the mode in which the model is.

    Raises:
        CutError: ``at`` is unknown, is no place where one tensor crosses (a residual block, a
            U-Net skip, tied weights, a module called twice, several outputs, nothing left behind it), lies in
            code that cannot be traced, or fails the comparison. The message says what is in the
            way and names the nearest valid cuts.
        InvalidParameterError: ``model`` is no module, ``at`` no string, or ``example_input`` no batch.

    Does not protect anything: the features that leave the edge are raw until a layer stands at the cut.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
        >>> edge, server = split(model, at="1", example_input=torch.ones(5, 4))
        >>> list(edge.state_dict()), list(server.state_dict())
        (['0.weight', '0.bias'], ['2.weight', '2.bias'])
        >>> torch.equal(server(edge(torch.ones(5, 4))), model(torch.ones(5, 4)))
        True
    """
    _check_arguments(model, at)
    traces, confirmed = Traces(model), example_input is not None
    try:
        with _verification(model, example_input) as verification:
            halves = _cut(traces, at, verification, confirmed=confirmed)
    except Refusal as refusal:
        # By structure alone: an error message is no time to run every cut.
        is_valid = partial(_is_valid, traces, verification=None, confirmed=confirmed)
        fix = refusal.advice(nearest(at, list(called_names(traces)), is_valid))
        raise CutError(message("split", "at", refusal.constraint, at, fix)) from refusal.__cause__
    return halves.edge, halves.server


def valid_cuts(
    model: nn.Module,
    example_input: Any = None,  # shape: (batch, *input), or a tuple of such
) -> list[str]:
    """Names after which ``split`` can cut ``model``, in the order in which the outputs are computed.

    Args:
        model: the module to cut; left as found.
        example_input: as for ``split``. When given, every cut is run and compared, and the list holds
            those that hold; without it, those that follow from the structure alone.

    Returns:
        Names of modules; empty if there is no valid cut.

    Raises:
        CutError: the model has uninitialised lazy modules, fails on ``example_input``, or is not
            deterministic.
        InvalidParameterError: ``model`` is no module or ``example_input`` no batch.

    Does not rank the cuts: a late cut costs the edge more time and leaks less about the input.

    Example:
        >>> from torch import nn
        >>> valid_cuts(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)))
        ['0', '1']
    """
    _check_arguments(model)
    traces, confirmed = Traces(model), example_input is not None
    with _verification(model, example_input) as verification:
        names = called_names(traces)
        is_valid = partial(_is_valid, traces, verification=verification, confirmed=confirmed)
        return [name for name in names if is_valid(name)]


def _check_arguments(model: Any, at: Any = "") -> None:
    if not isinstance(model, nn.Module):
        fix = "Pass the model itself, not its state or a function."
        raise InvalidParameterError(message("split", "model", "a torch.nn.Module", type(model).__name__, fix))
    if not isinstance(at, str):
        raise InvalidParameterError(message("split", "at", "the name of a module", at))
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if is_lazy(tensor):
            raise CutError(
                f"split: model must be initialised, got the uninitialised {name!r}. "
                "Run the model once on a batch before cutting it."
            )


def _verification(model: nn.Module, example_input: Any) -> AbstractContextManager[Verification | None]:
    return nullcontext() if example_input is None else Verification(model, as_inputs(example_input))


def _cut(traces: Traces, at: str, verification: Verification | None, *, confirmed: bool) -> Halves:
    """The halves at ``at``, compared with the model if there is a ``verification``.

    ``confirmed`` says that what only an example can confirm is confirmed, here or later.
    """
    model = traces.model
    try:
        module = model.get_submodule(at)
    except AttributeError:
        module = model
    if module is model:
        close = difflib.get_close_matches(at, [name for name, _ in model.named_modules() if name])
        known = " or ".join(repr(name) for name in close)
        hint = f"Did you mean {known}?" if close else "There is no such module."
        raise Refusal("the name of a module in the model", hint)
    if isinstance(module, _SEVERAL_OUTPUTS):
        raise Refusal("a module whose output is a single tensor", f"{type(module).__name__} returns several.")
    halves = cut_sequential(model, at) if is_sliceable(model, at) else cut_traced(at, traces)
    if halves.batch and not confirmed:
        raise Refusal(
            "where one tensor holds all that is needed later",
            f"The server would take {halves.batch} from the features instead: "
            "pass example_input, so that this can be checked.",
        )
    if verification is not None:
        verification.check(halves)
    return halves


def _is_valid(traces: Traces, name: str, *, verification: Verification | None, confirmed: bool) -> bool:
    try:
        _cut(traces, name, verification, confirmed=confirmed)
    except Refusal:
        return False
    return True
