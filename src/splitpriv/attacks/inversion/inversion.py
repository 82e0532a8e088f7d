"""What all inversion attacks have in common: how they are called, and what they give back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from splitpriv import _validation as check
from splitpriv._errors import InvalidParameterError
from splitpriv.attacks.attack import Attack, record_noise
from splitpriv.attacks.cut_view import CutView
from splitpriv.attacks.inversion.problem import Problem, problem_of
from splitpriv.attacks.inversion.result import InversionResult, scored


@dataclass(frozen=True, kw_only=True)
class Inversion(Attack):
    """Base of the attacks that ask: what was the input?

    It is named here because results name it; its subclasses are those of this package. Each says what it needs to know
    (:meth:`lacks`).

    Args:
        input_range: smallest and largest value of an input, (low, high); reconstructions stay inside. None: no
            limits, for inputs that are standardised, or columns of a table.
    """

    input_range: tuple[float, float] | None = (0.0, 1.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        limits = self.input_range
        if limits is None:
            return
        fits = isinstance(limits, tuple) and len(limits) == 2 and all(isinstance(end, (int, float)) for end in limits)
        if not fits or not all(math.isfinite(end) for end in limits) or not limits[0] < limits[1]:
            constraint = "None or a tuple (low, high) of finite numbers, low < high"
            raise InvalidParameterError(check.message(type(self).__name__, "input_range", constraint, limits))

    def __call__(
        self,
        view: CutView,
        symbols: Tensor | Sequence[Tensor],  # shape: (batch, *symbol); k of them for k releases
        *,
        public: Tensor | None = None,  # shape: (public, *input)
        public_labels: Tensor | None = None,  # shape: (public,)
        input_shape: Sequence[int] | None = None,
        originals: Tensor | None = None,  # shape: (batch, *input)
        candidates: Tensor | None = None,  # shape: (others, *input)
        data_range: float = 1.0,
        tolerance: float | Tensor | None = None,  # shape: scalar, or (columns,)
        confidence: float = 0.95,
    ) -> InversionResult:
        """Reconstructs the inputs of what crossed the cut.

        Args:
            view: what the attacker knows of the cut.
            symbols: what crossed; a list of k tensors for k releases of the same records.
            public: inputs like the private ones, that the attacker may learn from.
            public_labels: their labels.
            input_shape: shape of an input, without batch; None for that of the public inputs, or of the originals.
            originals: the truth, for the figures only: no reconstruction depends on it.
            candidates: others among which an original has to be found, beside all the originals.
            data_range: largest possible difference of two inputs, for PSNR and SSIM.
            tolerance: of a column of flat inputs: how near counts as known; None to leave that out.
            confidence: of the intervals.

        Raises:
            InvalidParameterError: the attacker lacks something that this attack needs.
            ShapeError: two parts do not fit together.
        """
        owner = type(self).__name__
        device = None if self.device is None else self._on()
        problem = problem_of(
            owner,
            view,
            symbols,
            public=public,
            public_labels=public_labels,
            input_shape=input_shape,
            originals=originals,
            input_range=self.input_range,
            device=device,
        )
        lacking = self.lacks(view, public=public, public_labels=public_labels)
        if lacking is not None:
            raise InvalidParameterError(f"{owner}: this attack does not apply: {lacking}.")
        found, moved = self._reconstruct(problem)
        return scored(
            self,
            found,
            moved,
            originals=originals,
            candidates=candidates,
            data_range=data_range,
            tolerance=tolerance,
            confidence=confidence,
        )

    def lacks(
        self,
        view: CutView,
        *,
        public: Tensor | None = None,  # shape: (public, *input)
        public_labels: Tensor | None = None,  # shape: (public,)
    ) -> str | None:
        """What the attack would need to know and is not given, in words; None where it applies.

        Args:
            view: what the attacker knows of the cut.
            public: public inputs, or None.
            public_labels: their labels, or None.
        """
        raise NotImplementedError

    def _reconstruct(self, problem: Problem) -> tuple[Tensor, Tensor]:  # shapes: (batch, *input), (batch,) bool
        raise NotImplementedError

    def _box(self, problem: Problem) -> tuple[Tensor, Tensor] | None:
        """The range of inputs, in standard deviations from their mean."""
        if self.input_range is None:
            return None
        low, high = self.input_range
        return (low - problem.centre) / problem.scale, (high - problem.centre) / problem.scale

    def _start(self, problem: Problem, rows: slice, spread: float, stream: str) -> Tensor:
        """A start near the mean input, at random: at exactly zero many networks have no slope at all."""
        noise = record_noise(problem.shape, seed=self.seed, records=rows, stream=stream)
        start = spread * noise.to(problem.centre.device)
        box = self._box(problem)
        return start if box is None else torch.minimum(torch.maximum(start, box[0]), box[1])

    def _limited(self, inputs: Tensor) -> Tensor:
        return inputs if self.input_range is None else inputs.clamp(*self.input_range)
