"""Which input floating-point noise was added to, read off which outputs are possible at all."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from splitpriv import _validation as check
from splitpriv._errors import InvalidParameterError, NonFiniteError, ShapeError
from splitpriv.attacks.attack import Attack
from splitpriv.attacks.auditing.bayes import bayes_accuracy
from splitpriv.attacks.auditing.float_samplers import SAMPLERS, ways
from splitpriv.attacks.auditing.lower_bound import check_probability
from splitpriv.attacks.auditing.one_run import one_run_epsilon
from splitpriv.attacks.estimate import Estimate, proportion
from splitpriv.attacks.plotting import new_figure

Array = npt.NDArray[Any]

_IMPOSSIBLE = 1e6  # log-odds of one output that only one of the inputs can give
_MISFIT = 0.1  # share of outputs impossible for both inputs, above which another sampler made them


@dataclass(frozen=True)
class FloatingPointResult:
    """How often the input was told from what was released of it.

    Attributes:
        accuracy: share of right decisions, with its Clopper-Pearson interval.
        epsilon: a lower bound on the loss about one trial, except with ``failure_probability``.
        claimed: what the noise would cost if it were real-valued.
        bound: the highest accuracy that the claim allows, :math:`e^\\epsilon / (1 + e^\\epsilon)`.
        impossible: share of output elements that the other input cannot give; NaN where they are not the sampler's.
        fits: whether the outputs are those of the sampler that was assumed; else densities decided.
        elements: outputs in one trial.
        failure_probability: of ``epsilon`` above the true one.
        log_odds: of the second input, per trial.  # shape: (trials,)
        second: where the second input was the true one.  # shape: (trials,)
    """

    accuracy: Estimate
    epsilon: float
    claimed: float
    bound: float
    impossible: float
    fits: bool
    elements: int
    failure_probability: float
    log_odds: Array = field(repr=False, compare=False)
    second: Array = field(repr=False, compare=False)

    @property
    def refuted(self) -> bool:
        """Whether the claim is refuted."""
        return self.epsilon > self.claimed

    @property
    def most(self) -> float:
        """The largest epsilon that as many trials can show, all of them decided rightly; no larger claim is refuted."""
        trials = len(self.second)
        return one_run_epsilon(trials, trials, trials, 0.0, self.failure_probability)

    @property
    def verdict(self) -> str:
        """What that says of the claim; never that the claim is true."""
        if self.refuted:
            return "claim REFUTED"
        if self.claimed < self.most:
            return "claim not refuted"
        beyond = f"claim not refuted: {len(self.second):,} trials show {self.most:.3g} at most"
        if self.fits and self.impossible > 0:
            return f"{beyond}; if this is the sampler's noise, impossible outputs leave no finite ε"
        return beyond

    def to_dict(self) -> dict[str, Any]:
        """The figures, for JSON; None for what is undefined."""
        names = ("epsilon", "claimed", "bound", "fits", "elements", "failure_probability", "most", "refuted", "verdict")
        impossible = None if math.isnan(self.impossible) else self.impossible
        shown = {name: getattr(self, name) for name in names}
        return {"accuracy": self.accuracy.to_dict(), "impossible": impossible, **shown}

    def plot(self) -> Any:
        """Log-odds of the second input, by which input was the true one.

        Raises:
            ImportError: matplotlib is not installed.
        """
        figure, axes = new_figure(1, 1, width=6, height=4)
        shown = np.clip(self.log_odds, -20, 20)
        parts = [shown[~self.second], shown[self.second]]
        axes[0, 0].hist(parts, bins=41, range=(-20, 20), label=["first input", "second input"])
        axes[0, 0].set(xlabel="log-odds of the second input (cut at ±20)", ylabel="trials", title=str(self.accuracy))
        axes[0, 0].legend(frameon=False)
        return figure

    def __str__(self) -> str:
        made = (
            f"{100 * self.impossible:.0f} % of outputs impossible for the other input" if self.fits else "other noise"
        )
        return (
            f"accuracy {self.accuracy} from {self.elements} elements; a claim of ε {self.claimed:.3g} allows "
            f"{self.bound:.3g} ({made})\nε ≥ {self.epsilon:.3g}: {self.verdict}"
        )


@dataclass(frozen=True, kw_only=True)
class FloatingPointAttack(Attack):
    r"""Decides between two inputs of a Laplace mechanism in float32 by which outputs each of them can give.

    A float sampler has finitely many noise values, and adding them to an input reaches finitely many
    floats, other ones for another input. An output that only one input can give decides; where both can, the number of
    ways does (the exact likelihood). Real-valued noise would allow :math:`e^\epsilon / (1 + e^\epsilon)` right at most,
    :math:`\epsilon` = distance of the inputs over the scale, per element. Outputs that mostly fit neither
    input come from another mechanism: then the density of real-valued noise decides, which is the best test of that.

    See :class:`Attack` for batch_size, seed, device and progress; it runs on the CPU, whose arithmetic it imitates.

    Args:
        inputs: the two, each the value of all elements of a trial.
        scale: of the noise, > 0: sensitivity over epsilon.
        elements: outputs released of each trial, >= 1.
        trials: >= 16; a fair coin picks the input of each.
        sampler: ``"torch"`` for ``torch.distributions.Laplace`` in float32 on a CPU, ``"textbook"`` for the inverse
            distribution function in NumPy's float32.
        failure_probability: of the lower bound on epsilon, in (0, 1).

    Raises:
        InvalidParameterError: an argument is outside its range.

    Does not prove: that noise which resists it is private; it knows two samplers.

    Source: Mironov 2012, for outputs that betray their input; Jin, McMurtry, Rubinstein, Ohrimenko 2022.

    Example:
        >>> attack = FloatingPointAttack(trials=200)
        >>> found = attack(lambda x: torch.distributions.Laplace(x, 1.0).sample())
        >>> found.accuracy.value > found.bound
        True
    """

    inputs: tuple[float, float] = (0.0, 1.0)
    scale: float = 1.0
    elements: int = 1
    trials: int = 4096
    sampler: str = "torch"
    failure_probability: float = 0.05
    batch_size: int = 1 << 14

    def __post_init__(self) -> None:
        super().__post_init__()
        owner = "FloatingPointAttack"
        pair = isinstance(self.inputs, (tuple, list)) and len(self.inputs) == 2
        if not pair or self.inputs[0] == self.inputs[1]:
            raise InvalidParameterError(check.message(owner, "inputs", "two different numbers", self.inputs))
        for value in self.inputs:
            check.finite(owner, "inputs", value)
        check.positive(owner, "scale", self.scale)
        check.integer(owner, "elements", self.elements, 1)
        check.integer(owner, "trials", self.trials, 16)
        check.choice(owner, "sampler", self.sampler, tuple(SAMPLERS))
        check_probability(owner, self.failure_probability)

    def __call__(self, release: Callable[[Tensor], Tensor]) -> FloatingPointResult:
        """Release trials, and decide each.

        Args:
            release: values (trials, elements), float32, to what is released of them, in the same shape.

        Raises:
            InvalidParameterError: ``release`` is no callable.
            ShapeError: what is released is no float32 tensor of the values' shape.
            NonFiniteError: what is released holds NaN or infinity. Those say more of the input than any law that is
                assumed here: no verdict is given.
        """
        if not callable(release):
            raise InvalidParameterError(check.message("FloatingPointAttack", "release", "a callable", release))
        second = np.random.default_rng(self.seed).integers(0, 2, self.trials).astype(bool)
        values = torch.tensor(self.inputs, dtype=torch.float32)[torch.from_numpy(second).long()]
        outputs = release(values[:, None].expand(-1, self.elements).contiguous())
        self._check(outputs, second)
        first_ways, second_ways = self._ways(outputs.detach().cpu())
        odds, fits = self._odds(outputs.detach().cpu(), first_ways, second_ways)
        right = int(((odds > 0) == second).sum())
        other = np.where(second[:, None], first_ways, second_ways)
        claimed = abs(self.inputs[1] - self.inputs[0]) / self.scale * self.elements
        return FloatingPointResult(
            accuracy=proportion(right, self.trials, confidence=0.95),
            epsilon=one_run_epsilon(self.trials, self.trials, right, 0.0, self.failure_probability),
            claimed=claimed,
            bound=bayes_accuracy(claimed, candidates=2),
            impossible=float((other == 0).mean()) if fits else math.nan,
            fits=fits,
            elements=self.elements,
            failure_probability=self.failure_probability,
            log_odds=odds,
            second=second,
        )

    def _check(self, outputs: Any, second: Array) -> None:
        owner, wanted = "FloatingPointAttack", (self.trials, self.elements)
        if not isinstance(outputs, Tensor) or outputs.shape != wanted or outputs.dtype != torch.float32:
            tensor = isinstance(outputs, Tensor)
            got = f"{outputs.dtype} of shape {tuple(outputs.shape)}" if tensor else type(outputs).__name__
            raise ShapeError(f"{owner}: release must return float32 of shape {wanted}, got {got}.")
        wrong = ~torch.isfinite(outputs).all(1).cpu().numpy()
        if wrong.any():
            first, last = int((wrong & ~second).sum()), int((wrong & second).sum())
            raise NonFiniteError(
                f"{owner}: release must return finite numbers, got NaN or infinity in {first:,} trials of the first "
                f"input and {last:,} of the second. What is not finite may betray the input by itself."
            )

    def _ways(self, outputs: Tensor) -> tuple[Array, Array]:
        flat, sampler = outputs.reshape(-1), SAMPLERS[self.sampler]
        found = np.empty((2, flat.numel()), dtype=np.int64)
        for part in self._batches(flat.numel(), "possible outputs"):
            for side, value in enumerate(self.inputs):
                found[side, part] = ways(sampler, flat[part], float(np.float32(value)), self.scale).numpy()
        first, second = found.reshape(2, *outputs.shape)
        return first, second

    def _odds(self, outputs: Tensor, first: Array, second: Array) -> tuple[Array, bool]:
        """Log-odds of the second input for each trial, and whether the outputs are the sampler's."""
        exact = outputs.double().numpy()
        density = (np.abs(exact - self.inputs[0]) - np.abs(exact - self.inputs[1])) / self.scale
        neither = (first == 0) & (second == 0)
        if neither.mean() > _MISFIT:
            return density.sum(1), False
        counted = np.log(np.maximum(second, 0.5)) - np.log(np.maximum(first, 0.5))
        decided = np.where((first == 0) != (second == 0), np.sign(counted) * _IMPOSSIBLE, counted)
        odds: Array = np.where(neither, density, decided).sum(1)
        return odds, True
