"""Inversion by the channel's own likelihood."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from splitpriv import _validation as check
from splitpriv._errors import InvalidParameterError
from splitpriv.attacks.attack import record_noise
from splitpriv.attacks.cut_view import CutView
from splitpriv.attacks.inversion.decoder import DecoderInversion
from splitpriv.attacks.inversion.descent import Descent, Objective, descend
from splitpriv.attacks.inversion.gradient import checked_weights, not_negative
from splitpriv.attacks.inversion.inversion import Inversion
from splitpriv.attacks.inversion.prior import Prior, Smooth, about_answers, about_mean
from splitpriv.attacks.inversion.problem import Problem
from splitpriv.attacks.inversion.tuning import FIRST, Found, best_search, best_weight

UNKNOWN = "nothing is drawn at this cut, or its likelihood is not known (a single mechanism, as the last layer)"


@dataclass(frozen=True, kw_only=True)
class LikelihoodInversion(Inversion):
    r"""White box, and knows the noise: looks for the most likely input given the symbols that crossed.

    .. math:: \max_x \; \sum_{i=1}^{k} \ln \Pr[s_i \mid f(x)] + \lambda \ln p(x)

    over k releases of a record, p being what public inputs say of inputs:

    * ``"decoder"``: normal about what an inverse network (:class:`DecoderInversion`) answers to the releases, with the
      covariance of its errors on public inputs. It uses the releases twice, which λ makes up for.
    * ``"gaussian"``: normal with the mean and covariance of public inputs.
    * ``"smooth"``: :math:`-\ln p = \frac{d}{2} (TV(x) + 0.1\, \mathrm{mean}(x^2))` for images of d elements in standard
      deviations from the mean of their channel (flat inputs: the mean square alone).

    The search is by Adam, in coordinates in which p is about standard normal. Where the likelihood has steps and
    takes a temperature, that is lowered on the way. Which p, λ and the first temperature are chosen on public records
    that p was not fitted to (as far as there are enough), released as often as the private ones; of the restarts
    each record keeps the one that the objective prefers.

    Args:
        weight: λ >= 0, or ``"public"``: the best of ``weights`` on public inputs.
        prior: ``"decoder"``, ``"gaussian"``, ``"smooth"``, or ``"public"``: the better of the first two on public
            inputs. Where there are no queries or fewer than 4 public inputs ``"gaussian"``, without these ``"smooth"``.
        decoder: the inverse network of ``"decoder"``; None for the default one. Its seed, device, range of
            inputs and batch size, and so its largest minibatch, are those of this attack.
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
    prior: str = "public"
    decoder: DecoderInversion | None = None
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
        check.choice(owner, "prior", self.prior, ("public", "decoder", "gaussian", "smooth"))
        if not isinstance(self.decoder, DecoderInversion | None):
            raise InvalidParameterError(check.message(owner, "decoder", "None or a DecoderInversion", self.decoder))
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
            return UNKNOWN
        if view.edge is None:
            return "it needs the edge (white box)"
        if self.weight == "public" and (public is None or view.encode is None):
            return "weight='public' needs public inputs, and queries to the layer"
        return None

    def _reconstruct(self, problem: Problem) -> tuple[Tensor, Tensor]:
        prior, temperature = self._searched(problem)
        found = self._by(prior, temperature)
        weight = self.weight
        if isinstance(weight, str):
            weight = best_weight(self, problem, self.weights, found)
        parts = [
            found(problem, rows, torch.full((rows.stop - rows.start,), weight, device=problem.centre.device))
            for rows in self._batches(problem.records, "records")
        ]
        return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])

    def _searched(self, problem: Problem) -> tuple[Prior, float | None]:
        """The prior and the first temperature; the layer's own where there is nothing to choose it by."""
        priors = self._priors(problem)
        if problem.public is None or problem.view.encode is None:
            return priors[0], self.temperature if problem.relaxes else None
        weights = FIRST if isinstance(self.weight, str) else (self.weight,)
        return best_search(self, problem, priors, weights, self._by)

    def _by(self, prior: Prior, temperature: float | None) -> Found:
        """The search with that prior and first temperature."""

        def found(problem: Problem, rows: slice, weights: Tensor) -> tuple[Tensor, Tensor]:
            return self._found(problem, prior, rows, weights, temperature)

        return found

    def _found(
        self, problem: Problem, prior: Prior, rows: slice, weights: Tensor, temperature: float | None
    ) -> tuple[Tensor, Tensor]:
        """The best of the restarts for some records, each with a weight of its own."""
        prior = prior.of(problem, rows)
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

    def _priors(self, problem: Problem) -> list[Prior]:
        """Those to choose from."""
        known = 0 if problem.public is None else len(problem.public)
        how: dict[str, Any] = {"seed": self.seed, "choosing": self.tuning_records}
        found: list[Prior] = []
        decoder = self._decoder(known)
        if self.prior in ("public", "decoder") and decoder.lacks(problem.view, public=problem.public) is None:
            answer = decoder._fitted(problem)
            found.append(about_answers(problem, self.input_range, answer=answer, batch=self.batch_size, **how))
        if known >= 2 and (self.prior in ("public", "gaussian") or (self.prior == "decoder" and not found)):
            found.append(about_mean(problem, self.input_range, **how))
        return found or [Smooth(problem)]

    def _decoder(self, public: int) -> DecoderInversion:
        """The inverse network, which is not fitted to the records that choices rest on, if there are twice as many."""
        made = self.decoder or DecoderInversion()
        held = min(max(made.held_out, self.tuning_records / max(1, public)), max(0.5, made.held_out))
        shared = {name: getattr(self, name) for name in ("batch_size", "seed", "device", "progress", "input_range")}
        return replace(made, held_out=held, minibatch=min(made.minibatch, max(2, self.batch_size)), **shared)

    def _objective(
        self, problem: Problem, prior: Prior, rows: slice, weights: Tensor, temperature: float | None
    ) -> Objective:
        edge = problem.view.need("edge")

        def objective(z: Tensor, alive: slice | Tensor, share: float) -> tuple[Tensor, Tensor]:
            now = None if temperature is None else temperature * self.cooling**-share
            likely = problem.log_prob(rows, edge(prior.inputs(z)), now)  # no record is left alone on the way: all rows
            return -likely, weights * prior.surprise(z)

        return objective
