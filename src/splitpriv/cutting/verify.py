"""Checking on an example that two halves are the model, bit for bit, in both modes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from splitpriv._errors import CutError, InvalidParameterError
from splitpriv.cutting.halves import Halves
from splitpriv.cutting.refusal import Refusal
from splitpriv.cutting.untouched import Attributes, Contents, RandomState, devices_of


@dataclass(frozen=True)
class _Run:
    """What a run leaves behind: output, values of the buffers, random state."""

    output: Any
    buffers: list[Tensor]
    random: RandomState


def as_inputs(example_input: Any) -> tuple[Tensor, ...]:
    """``example_input`` as the tuple of tensors that forward is called with."""
    inputs = tuple(example_input) if isinstance(example_input, (tuple, list)) else (example_input,)
    if not inputs or not all(isinstance(i, Tensor) and i.ndim > 0 for i in inputs):
        raise InvalidParameterError(
            "split: example_input must be a batch or a tuple of batches, "
            f"got example_input={type(example_input).__name__}. Pass a tensor of shape (batch, *input)."
        )
    return inputs


class Verification:
    """Compares halves with their model; as a context manager it puts everything back at the end.

    Running statistics, training flags, caches and random generators are as before once it is left.

    Args:
        model: the whole.
        inputs: what its forward is called with.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: tuple[Tensor, ...],  # shape: (batch, *input) each
    ) -> None:
        self._model, self._inputs = model, inputs
        self._references: dict[tuple[bool, bool], tuple[tuple[Tensor, ...], _Run]] = {}

    def __enter__(self) -> Verification:
        modules = list(self._model.modules())
        self._attributes, self._contents = Attributes(modules), Contents(modules)
        tensors = [*self._model.parameters(), *self._model.buffers(), *self._inputs]
        self._random = RandomState(devices_of(tensors))
        return self

    def __exit__(self, *error: object) -> None:
        self._reset()

    def check(self, halves: Halves) -> None:
        """Raise a Refusal unless ``server(edge(x))`` is ``model(x)`` in evaluation and training mode."""
        found = Attributes([*halves.edge.modules(), *halves.server.modules()])
        try:
            for training in (False, True):
                self._check(halves, training)
                if halves.batch:
                    self._check(halves, training, more=True)
        finally:
            found.restore()

    def _check(self, halves: Halves, training: bool, *, more: bool = False) -> None:
        """``check`` in one mode; with one row ``more`` than the example has, where sizes are in doubt."""
        rows = " with one row more" if more else ""
        for apart in (False, True):
            difference = self._difference(halves, training, more=more, apart=apart)
            if not difference:
                continue
            detail = f"On example_input{rows} in {_mode(training)} mode, {difference}."
            if not apart:
                wanted = "where the halves compute what the model does"
                raise Refusal(wanted, detail, by_hand=True, by_run=True)
            raise Refusal(
                "where nothing but the features reaches the server",
                "State outside the cut (a hook, a cache or a shared tensor) carries data from the edge to the "
                f"server: once the edge has run on other data, the same features give another output. {detail}",
                by_run=True,
            )

    def _difference(self, halves: Halves, training: bool, *, more: bool, apart: bool) -> str:
        """How the halves differ from the model; empty if they do not.

        With ``apart``, the edge runs on other data before the server gets its features.
        """
        inputs, reference = self._reference(training, more=more)

        def composed(*args: Tensor) -> Any:
            features = halves.edge(*args)
            _check_features(features, args[0])
            return self._apart(halves, features, args) if apart else halves.server(features)

        try:
            run = self._run(composed, (halves.edge, halves.server), inputs, training)
        except Refusal:
            raise
        except Exception as error:  # whatever the model's own operations may raise
            return f"server(edge(x)) fails: {type(error).__name__}: {error}"
        difference = _compare(run, reference)
        if difference and _compare(self._run(self._model, (self._model,), inputs, training), reference):
            raise CutError(
                "split: model must give one output for one input and one random state, "
                f"got two in {_mode(training)} mode. Make it deterministic."
            )
        return f"server(edge(x)) and model(x) differ: {difference}" if difference else ""

    def _apart(self, halves: Halves, features: Tensor, inputs: tuple[Tensor, ...]) -> Any:
        """The server's output on ``features``, whatever the edge has left behind on ``inputs``."""
        features = features.clone()
        modules = list(halves.edge.modules())
        attributes, random = Attributes(modules), RandomState(self._random.devices)
        buffers = [(b, b.detach().clone()) for b in halves.edge.buffers()]
        _run_on_other_data(halves.edge, inputs)
        random.restore()
        output = halves.server(features)
        attributes.restore()
        for buffer, value in buffers:
            if not torch.equal(buffer, value):
                buffer.data.copy_(value)
        return output

    def _reference(self, training: bool, *, more: bool = False) -> tuple[tuple[Tensor, ...], _Run]:
        """The inputs and the model's own run on them."""
        if (training, more) not in self._references:
            attempts = [tuple(torch.cat([i, i[:1]]) for i in self._inputs) if more else self._inputs]
            if training and all(len(i) == 1 for i in attempts[0]):
                # Batch normalisation may refuse to train on a single record: give it two.
                attempts.append(tuple(torch.cat([i, i]) for i in self._inputs))
            errors: list[Exception] = []
            for inputs in attempts:
                try:
                    run = self._run(self._model, (self._model,), inputs, training)
                except Exception as error:  # whatever the model may raise
                    errors.append(error)
                    continue
                self._references[training, more] = inputs, run
                return inputs, run
            if more:
                raise Refusal(
                    "a cut that can be checked with another number of rows",
                    f"With one row more than example_input has, the model fails: {errors[0]}.",
                    by_run=True,
                ) from errors[0]
            raise CutError(
                f"split: example_input must be accepted by the model in {_mode(training)} mode, "
                f"got {type(errors[0]).__name__}: {errors[0]}"
            ) from errors[0]
        return self._references[training, more]

    def _run(
        self,
        function: Callable[..., Any],
        modules: tuple[nn.Module, ...],
        inputs: tuple[Tensor, ...],
        training: bool,
    ) -> _Run:
        self._reset()
        for module in modules:
            module.train(training)
        with torch.no_grad():
            output = function(*(i.clone() for i in inputs))
        buffers = [b.detach().clone() for b in self._model.buffers()]
        return _Run(output, buffers, RandomState(self._random.devices))

    def _reset(self) -> None:
        self._attributes.restore()
        self._contents.restore()
        self._random.restore()


def _mode(training: bool) -> str:
    return "training" if training else "evaluation"


def _run_on_other_data(edge: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """Run ``edge`` on inputs of the same kind with other values."""
    try:
        edge(*map(_other, inputs))
    except Exception:  # not every value may be an input: these at least are
        edge(*(i.roll(1, 0) for i in inputs))


def _other(x: Tensor) -> Tensor:
    rolled = x.roll(1, 0)
    if x.is_floating_point() or x.is_complex():
        return rolled + torch.randn_like(x)
    return torch.zeros_like(x) if x.any() else torch.ones_like(x)


def _check_features(features: Any, inputs: Tensor) -> None:
    """Refuse what cannot be released record by record."""
    wanted = "a module whose output is a single tensor with one row per record"
    if not isinstance(features, Tensor):
        raise Refusal(wanted, f"It returns type={type(features).__name__}.", by_run=True)
    if features.ndim == 0 or features.shape[0] != inputs.shape[0]:
        shapes = f"shape={tuple(features.shape)} for an input of shape={tuple(inputs.shape)}"
        raise Refusal(wanted, f"It returns {shapes}.", by_run=True)


def _compare(run: _Run, reference: _Run) -> str:
    """How ``run`` differs from ``reference``; empty if it does not."""
    values, structure = tree_flatten(run.output)
    expected, wanted = tree_flatten(reference.output)
    if structure != wanted:
        return "outputs of another structure"
    for a, b in zip(values, expected, strict=True):
        if not _same(a, b):
            return _summary(a, b)
    if not all(_same(a, b) for a, b in zip(run.buffers, reference.buffers, strict=True)):
        return "other running statistics"
    return "other random draws" if run.random.differs(reference.random) else ""


def _same(a: Any, b: Any) -> bool:
    if not isinstance(a, Tensor) or not isinstance(b, Tensor):
        return a is b or (type(a) is type(b) and _equal(a, b))
    alike = a.dtype == b.dtype and a.shape == b.shape
    return alike and (torch.equal(a, b) or bool(((a == b) | (a.isnan() & b.isnan())).all()))


def _equal(a: Any, b: Any) -> bool:
    """Whether two objects of one type, which are no tensors, are equal; dataclasses field by field."""
    if is_dataclass(a):
        pairs = [(tree_flatten(getattr(a, f.name)), tree_flatten(getattr(b, f.name))) for f in fields(a)]
        return all(s == t and all(map(_same, v, w)) for (v, s), (w, t) in pairs)
    try:
        return bool(a == b)
    except Exception as error:  # whatever their own == may raise
        raise CutError(
            f"split: model must return outputs that can be compared, got type={type(a).__name__}. "
            "Return tensors, or a tuple, list or dict of them."
        ) from error


def _summary(a: Any, b: Any) -> str:
    if not isinstance(a, Tensor) or not isinstance(b, Tensor):
        return f"{a!r} instead of {b!r}"
    if a.dtype != b.dtype or a.shape != b.shape:
        return f"{a.dtype} {tuple(a.shape)} instead of {b.dtype} {tuple(b.shape)}"
    return f"by up to {float((a.double() - b.double()).abs().max()):.3g}"
