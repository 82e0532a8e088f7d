"""Inversion by gradients through the edge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from splitpriv import _validation as check
from splitpriv._errors import InvalidParameterError
from splitpriv.attacks.cut_view import CutView
from splitpriv.attacks.inversion.descent import Descent, Objective, descend
from splitpriv.attacks.inversion.inversion import Inversion
from splitpriv.attacks.inversion.problem import Problem
from splitpriv.attacks.inversion.smoothness import energy, is_image, roughness
from splitpriv.attacks.inversion.tuning import best_weight

PRESETS = {"he2019-conv1": 0.0, "he2019-relu22": 10.0, "he2019-relu32": 1000.0}


@dataclass(frozen=True, kw_only=True)
class GradientInversion(Inversion):
    r"""White box: looks for the input whose features are nearest to what was released.

    .. math:: \min_x \; \mathrm{mean}\bigl((f(x) - v)^2\bigr) + \lambda_{TV}\, TV(x) + \lambda_2\, \mathrm{mean}(x^2)

    with f the edge followed by the layer without its noise, v what was released (the mean over releases), TV the mean
    squared difference of vertical neighbours plus that of horizontal ones, and x in standard deviations from the mean
    of public inputs. Adam with amsgrad; the start is random, near the mean. The loss is summed over records, so a
    record's result does not depend on its batch. With ``relative`` the first term is divided by the variance of the
    elements of v (the record's own): the weights and ``eps`` then mean the same whatever units features have.

    Args:
        steps: of Adam, >= 1.
        learning_rate: > 0.
        eps: of Adam, > 0.
        total_variation: λ_TV >= 0, or ``"public"``: the best of ``weights`` on public inputs, released as often as
            the private ones. For flat inputs, which have no neighbours, that chooses λ_2.
        l2: λ_2 >= 0.
        weights: what ``"public"`` chooses from.
        tuning_records: public inputs that the choice rests on, >= 1.
        relative: see above; False for the loss of the paper.
        decay: lower the learning rate to zero along a half cosine.
        stop: leave a record alone once its loss falls by less than this share in 100 steps; None: never.
        start: standard deviation of the start, >= 0, in standard deviations of inputs.

    Raises:
        InvalidParameterError: a parameter is outside its range.

    Does not prove: that a cut is safe. A noisy release is inverted better by an attack that knows the noise.

    Source: He, Zhang, Lee 2019 (ACSAC), white-box attack.

    Example:
        >>> from splitpriv.attacks import CutView
        >>> view, inputs = CutView(edge=nn.Conv2d(1, 4, 3), encode=lambda v: v), torch.rand(2, 1, 8, 8)
        >>> result = GradientInversion(steps=5)(view, view.released(inputs), input_shape=(1, 8, 8))
        >>> result.reconstructions.shape, result.moved.tolist()
        (torch.Size([2, 1, 8, 8]), [True, True])
    """

    steps: int = 5000
    learning_rate: float = 1e-2
    eps: float = 1e-3
    total_variation: float | str = 0.0
    l2: float = 0.0
    weights: tuple[float, ...] = (0.0, 0.01, 0.1, 1.0, 10.0, 100.0)
    tuning_records: int = 8
    relative: bool = False
    decay: bool = False
    stop: float | None = None
    start: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        owner = type(self).__name__
        check.integer(owner, "steps", self.steps, 1)
        check.integer(owner, "tuning_records", self.tuning_records, 1)
        check.positive(owner, "learning_rate", self.learning_rate)
        check.positive(owner, "eps", self.eps)
        for name in ("relative", "decay"):
            check.choice(owner, name, getattr(self, name), (True, False))
        if self.stop is not None:
            check.positive(owner, "stop", self.stop)
        if isinstance(self.total_variation, str):
            check.choice(owner, "total_variation", self.total_variation, ("public",), "Or a number >= 0.")
        else:
            not_negative(owner, "total_variation", self.total_variation)
        for name in ("l2", "start"):
            not_negative(owner, name, getattr(self, name))
        checked_weights(owner, self.weights)

    @classmethod
    def preset(cls, name: str, **changes: Any) -> GradientInversion:
        """The settings of the paper for one of its cuts.

        Args:
            name: ``"he2019-conv1"``, ``"he2019-relu22"`` or ``"he2019-relu32"``: λ_TV 0, 10 and 1000.
            changes: other arguments.

        Raises:
            InvalidParameterError: there is no preset of that name.
        """
        check.choice("GradientInversion.preset", "name", name, tuple(PRESETS))
        return cls(**{"total_variation": PRESETS[name], **changes})

    def lacks(
        self,
        view: CutView,
        *,
        public: Tensor | None = None,  # shape: (public, *input)
        public_labels: Tensor | None = None,  # shape: (public,)
    ) -> str | None:
        """The edge, or what it takes to choose a weight, where it is not given; None where the attack applies."""
        if view.edge is None:
            return "it needs the edge (white box)"
        if view.clean is None:
            return "it needs the mean of what the layer releases (its expected)"
        if self.total_variation == "public" and (public is None or view.encode is None):
            return "total_variation='public' needs public inputs, and queries to the layer"
        return None

    def _reconstruct(self, problem: Problem) -> tuple[Tensor, Tensor]:
        weight = self.total_variation
        if isinstance(weight, str):
            weight = best_weight(self, problem, self.weights, self._found)
        found, moved = [], []
        for rows in self._batches(problem.records, "records"):
            weights = torch.full((rows.stop - rows.start,), weight, device=problem.centre.device)
            inputs, pulled = self._found(problem, rows, weights)
            found.append(inputs)
            moved.append(pulled)
        return torch.cat(found), torch.cat(moved)

    def _found(self, problem: Problem, rows: slice, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Reconstructions of some records, each with a weight of its own."""
        start = self._start(problem, rows, self.start, "start")
        descent = Descent(self.learning_rate, self.eps, self.decay, self.stop)
        objective = self._objective(problem, problem.decoded(rows), weights)
        steps = self._steps(self.steps, "steps")
        inputs, pulled = descend(objective, start, descent, steps, self.steps, self._box(problem))
        return self._limited(problem.centre + problem.scale * inputs), pulled

    def _objective(self, problem: Problem, released: Tensor, weights: Tensor) -> Objective:
        edge, image = problem.view.need("edge"), is_image(problem.shape)
        chosen = isinstance(self.total_variation, str) and not image
        unit = released.flatten(1).var(1, correction=0) if self.relative else released.new_ones(len(released))
        unit = torch.where(unit > 0, unit, torch.ones_like(unit))

        def objective(inputs: Tensor, alive: slice | Tensor, share: float) -> tuple[Tensor, Tensor]:
            clean = problem.clean(edge(problem.centre + problem.scale * inputs))
            data = (clean - released[alive]).square().flatten(1).mean(1) / unit[alive]
            smooth = weights[alive] * (energy(inputs) if chosen else roughness(inputs))
            return data, smooth + self.l2 * energy(inputs)

        return objective


def not_negative(owner: str, name: str, value: Any) -> float:
    """Return ``value`` if it is a finite number >= 0."""
    if check.finite(owner, name, value) < 0:
        raise InvalidParameterError(check.message(owner, name, "a number that is not negative", value))
    return float(value)


def checked_weights(owner: str, weights: Any) -> None:
    """Refuse a grid of weights that is no tuple of numbers >= 0."""
    if not isinstance(weights, tuple) or not weights:
        raise InvalidParameterError(check.message(owner, "weights", "a non-empty tuple of numbers", weights))
    for weight in weights:
        not_negative(owner, "weights", weight)
