"""Inversion by the channel's own likelihood."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from splitpriv import _validation as check
from splitpriv._errors import InvalidParameterError
from splitpriv.attacks.attack import record_noise
from splitpriv.attacks.cut_view import CutView
from splitpriv.attacks.inversion.descent import Descent, Objective, descend
from splitpriv.attacks.inversion.gradient import checked_weights, not_negative
from splitpriv.attacks.inversion.inversion import Inversion
from splitpriv.attacks.inversion.prior import Gaussian, Prior, Smooth
from splitpriv.attacks.inversion.problem import Problem
from splitpriv.attacks.inversion.tuning import Found, best_temperature, best_weight


@dataclass(frozen=True, kw_only=True)
class LikelihoodInversion(Inversion):
    r"""White box, and knows the noise: looks for the most likely input given the symbols that crossed.

    .. math:: \max_x \; \sum_{i=1}^{k} \ln \Pr[s_i \mid f(x)] + \lambda \ln p(x)

    over k releases of a record, p being what public inputs say of inputs: normal with their mean and covariance
    (``"gaussian"``), or, ``"smooth"``, :math:`-\ln p = \frac{d}{2} (TV(x) + 0.1\, \mathrm{mean}(x^2))` for images
    of d elements in standard deviations from the mean of their channel (flat inputs: the mean square alone). The
    search is by Adam, in coordinates in which p is about standard normal.

    Where the likelihood has steps and takes a temperature, that is lowered on the way. λ and the first
    temperature are chosen on public records, released as often as the private ones; of the restarts each record
    keeps the one that the objective prefers.

    Args:
        weight: λ >= 0, or ``"public"``: the best of ``weights`` on public inputs.
        prior: ``"gaussian"`` (without public inputs: ``"smooth"``), or ``"smooth"``.
        weights: what ``"public"`` chooses from.
        tuning_records: public inputs that the choices rest on, >= 1.
        steps: of Adam, >= 1.
        restarts: starts for each record, >= 1.
        learning_rate: > 0; falls to zero along a half cosine.
        cooling: first temperature over the last one, >= 1.
        temperature: the first one, > 0; None for the choice on public inputs (the layer's own where there are none).
        start: standard deviation of the start, >= 0, in standard deviations of inputs.

    Raises:
        InvalidParameterError: a parameter is outside its range.

    Does not prove: that nothing better can be had. The search is local, and a normal prior knows of no shapes.

    Example:
        >>> from splitpriv.attacks import CutView
        >>> layer, edge = sp.RandomResponseLDP(epsilon=2.0, generator=0), nn.Conv2d(1, 4, 3)
        >>> view = CutView(edge=edge, encode=layer.encode, decode=layer.decode, log_prob=layer.log_prob)
        >>> public, private = torch.rand(4, 1, 8, 8), torch.rand(2, 1, 8, 8)
        >>> result = LikelihoodInversion(steps=3)(view, view.released(private), public=public)
        >>> result.reconstructions.shape
        torch.Size([2, 1, 8, 8])
    """

    weight: float | str = "public"
    prior: str = "gaussian"
    weights: tuple[float, ...] = (0.01, 0.1, 1.0, 10.0, 100.0)
    tuning_records: int = 8
    steps: int = 500
    restarts: int = 1
    learning_rate: float = 0.05
    cooling: float = 10.0
    temperature: float | None = None
    start: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        owner = type(self).__name__
        for name in ("steps", "restarts", "tuning_records"):
            check.integer(owner, name, getattr(self, name), 1)
        check.positive(owner, "learning_rate", self.learning_rate)
        if check.finite(owner, "cooling", self.cooling) < 1:
            raise InvalidParameterError(check.message(owner, "cooling", "a number that is 1 or more", self.cooling))
        if self.temperature is not None:
            check.positive(owner, "temperature", self.temperature)
        if isinstance(self.weight, str):
            check.choice(owner, "weight", self.weight, ("public",), "Or a number >= 0.")
        else:
            not_negative(owner, "weight", self.weight)
        check.choice(owner, "prior", self.prior, ("gaussian", "smooth"))
        not_negative(owner, "start", self.start)
        checked_weights(owner, self.weights)

    def lacks(
        self,
        view: CutView,
        *,
        public: Tensor | None = None,  # shape: (public, *input)
        public_labels: Tensor | None = None,  # shape: (public,)
    ) -> str | None:
        """The likelihood, the edge, or what it takes to choose a weight, where it is not given; None where all is."""
        if view.log_prob is None:
            return "nothing is drawn at this cut, or its likelihood is not known"
        if view.edge is None:
            return "it needs the edge (white box)"
        if self.weight == "public" and (public is None or view.encode is None):
            return "weight='public' needs public inputs, and queries to the layer"
        if self.prior == "gaussian" and public is not None and len(public) < 2:
            return "prior='gaussian' needs public inputs, at least 2"
        return None

    def _reconstruct(self, problem: Problem) -> tuple[Tensor, Tensor]:
        prior = self._prior(problem)
        temperature = self.temperature
        if not problem.relaxes:
            temperature = None
        elif temperature is None and problem.public is not None and problem.view.encode is not None:
            temperature = best_temperature(self, problem, prior, self.tuning_records, lambda one: self._at(prior, one))
        found = self._at(prior, temperature)

        weight = self.weight
        if isinstance(weight, str):
            weight = best_weight(self, problem, self.weights, self.tuning_records, found)
        parts = [
            found(problem, rows, torch.full((rows.stop - rows.start,), weight, device=problem.centre.device))
            for rows in self._batches(problem.records, "records")
        ]
        return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])

    def _at(self, prior: Prior, temperature: float | None) -> Found:
        """The search with that first temperature."""

        def found(problem: Problem, rows: slice, weights: Tensor) -> tuple[Tensor, Tensor]:
            return self._found(problem, prior, rows, weights, temperature)

        return found

    def _found(
        self, problem: Problem, prior: Prior, rows: slice, weights: Tensor, temperature: float | None
    ) -> tuple[Tensor, Tensor]:
        """The best of the restarts for some records, each with a weight of its own."""
        objective = self._objective(problem, prior, rows, weights, temperature)
        descent = Descent(self.learning_rate, 1e-8, decay=True)
        box = self._box(problem) if isinstance(prior, Smooth) else None
        best, moved, least = None, torch.zeros_like(weights, dtype=torch.bool), torch.full_like(weights, torch.inf)
        for attempt in range(self.restarts):
            noise = record_noise(prior.shape, seed=self.seed, records=rows, stream=f"start {attempt}")
            start = self.start * noise.to(problem.centre.device)
            steps = self._steps(self.steps, "steps")
            inputs, pulled = descend(objective, start, descent, steps, self.steps, box)
            with torch.no_grad():
                value = sum(objective(inputs, slice(None), 1.0), torch.zeros_like(least))
            better = (value < least).reshape(-1, *[1] * len(prior.shape))
            best = inputs if best is None else torch.where(better, inputs, best)
            moved, least = moved | pulled, torch.minimum(least, value)
        assert best is not None
        return self._limited(prior.inputs(best).detach()), moved

    def _prior(self, problem: Problem) -> Prior:
        if self.prior == "smooth" or problem.public is None:
            return Smooth(problem)
        return Gaussian(problem, self.seed, self.input_range, self.tuning_records)

    def _objective(
        self, problem: Problem, prior: Prior, rows: slice, weights: Tensor, temperature: float | None
    ) -> Objective:
        edge = problem.view.need("edge")
        first = torch.arange(rows.start, rows.stop, device=problem.centre.device)

        def objective(z: Tensor, alive: slice | Tensor, share: float) -> tuple[Tensor, Tensor]:
            now = None if temperature is None else temperature * self.cooling**-share
            these = rows if isinstance(alive, slice) else first[alive]
            likely = problem.log_prob(these, edge(prior.inputs(z)), now)
            return -likely, weights[alive] * prior.surprise(z)

        return objective
