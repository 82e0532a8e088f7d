"""The modules that ``split`` returns."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx, nn

from splitpriv._errors import CutError
from splitpriv.cutting.program import Program


@dataclass(frozen=True)
class Halves:
    """Two halves, and what about them only an example can confirm.

    Attributes:
        edge: up to and with the named module.
        server: the rest.
        batch: where the server takes the batch size from the features instead of from the input;
            empty if nowhere.
    """

    edge: nn.Module
    server: nn.Module
    batch: str = ""


def own_copy(
    features: Any,  # shape: (batch, *feature)
) -> Any:  # shape: (batch, *feature)
    """A copy that the server may overwrite.

    In-place layers right behind the cut would otherwise corrupt the features that the edge, or
    whoever called the server, still holds, and fail on received features that require a gradient.
    """
    # A proxy: the server itself is being traced, to be cut again.
    if not isinstance(features, (Tensor, fx.Proxy)):
        raise CutError(
            f"server: features must be a single tensor, got type={type(features).__name__}. "
            "Cut after a module that returns one tensor."
        )
    return features.clone()


class SlicedServer(nn.Sequential):
    """The rest of a plain nn.Sequential; it works on its own copy of the features."""

    def forward(
        self,
        features: Tensor,  # shape: (batch, *feature)
    ) -> Any:
        """Run the modules behind the cut."""
        output: Any = own_copy(features)
        for module in self:
            output = module(output)
        return output


class _Traced(nn.Module):
    """A half whose forward is a program for each mode, over modules shared with the model."""

    def __init__(self, at: str, evaluation: Program, training: Program) -> None:
        super().__init__()
        self._at = at
        self._in_eval = evaluation
        self._in_train = evaluation if training == evaluation else training
        self._opened: list[nn.Module] = []

    def names(self, constant: str) -> bool:
        """Whether a program of this half uses the tensor named ``constant``."""
        return any(re.search(rf"\b{constant}\b", p.source) for p in (self._in_eval, self._in_train))

    def _program(self) -> Program:
        if self._in_train is self._in_eval:
            return self._in_eval
        for part in self._opened:
            if part.training != self.training:
                raise CutError(
                    f"{type(self).__name__}: modules that the cut goes through must be in one mode, got "
                    f"training={self.training} here and training={part.training} in a part of it. "
                    "Call .train() or .eval() on the whole half."
                )
        return self._in_train if self.training else self._in_eval


class TracedEdge(_Traced):
    """The model up to and with the named module."""

    def forward(
        self,
        *inputs: Any,  # shape: (batch, *input) each
    ) -> Tensor:  # shape: (batch, *feature)
        """Compute the features that leave the edge."""
        features: Tensor = self._program().run(self, *inputs)
        return features

    def extra_repr(self) -> str:
        return f"up to and with {self._at!r}"


class TracedServer(_Traced):
    """The model behind the named module; it works on its own copy of the features."""

    def forward(
        self,
        features: Tensor,  # shape: (batch, *feature)
    ) -> Any:
        """Compute the model's output from the features."""
        return self._program().run(self, own_copy(features))

    def extra_repr(self) -> str:
        return f"behind {self._at!r}"
