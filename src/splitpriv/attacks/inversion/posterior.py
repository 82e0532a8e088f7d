"""Inversion by Bayes' rule over public inputs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from splitpriv.attacks.cut_view import CutView
from splitpriv.attacks.inversion.inversion import Inversion
from splitpriv.attacks.inversion.likelihood import UNKNOWN
from splitpriv.attacks.inversion.problem import Problem

COLD = 1e-6  # a temperature at which a likelihood with steps is as good as exact


@dataclass(frozen=True, kw_only=True)
class PosteriorInversion(Inversion):
    r"""White box, and knows the noise: answers the mean of public inputs, each by how likely it makes the releases.

    .. math:: \hat x = \sum_j w_j x_j, \qquad w_j \propto \prod_{i=1}^{k} \Pr[s_i \mid f(x_j)]

    over k releases of a record and public inputs :math:`x_j`. If the record were one of these, each as probable, no
    answer would have a smaller expected squared error. Nothing is searched for or trained, so nothing can get stuck.
    It is strong where little crosses (codebooks, small budgets); where much does, it answers the most similar input.

    Does not prove: that nothing better can be had, for records that are not like the public ones.

    Source: Bayes' rule.

    Example:
        >>> from splitpriv.attacks import CutView
        >>> layer, edge = sp.RandomResponseLDP(epsilon=8.0, generator=0), nn.Conv2d(1, 4, 3)
        >>> view = CutView(edge=edge, encode=layer.encode, decode=layer.decode, log_prob=layer.log_prob)
        >>> public = torch.rand(4, 1, 8, 8)
        >>> found = PosteriorInversion()(view, view.released(public[:2]), public=public, originals=public[:2])
        >>> found.summary["identification"].value
        1.0
    """

    def lacks(
        self,
        view: CutView,
        *,
        public: Tensor | None = None,  # shape: (public, *input)
        public_labels: Tensor | None = None,  # shape: (public,)
    ) -> str | None:
        """The likelihood, the edge, or public inputs, where they are not given; None where the attack applies."""
        if view.log_prob is None:
            return UNKNOWN
        if view.edge is None:
            return "it needs the edge (white box)"
        return "it needs public inputs, at least 2" if public is None or len(public) < 2 else None

    @torch.no_grad()
    def _reconstruct(self, problem: Problem) -> tuple[Tensor, Tensor]:
        edge, device = problem.view.need("edge"), problem.centre.device
        count, temperature = len(problem.known_public), COLD if problem.relaxes else None
        levels = torch.empty(problem.records, count, dtype=torch.float64, device=device)
        for part in self._batches(count, "public inputs"):
            features = edge(problem.public_at(torch.arange(part.start, part.stop)))
            for record in range(problem.records):
                same = torch.full((len(features),), record, device=device)
                levels[record, part] = problem.log_prob(same, features, temperature).double()
        weights = levels.softmax(1)
        found = torch.zeros(problem.records, *problem.shape, device=device)
        for part in self._batches(count, "mean of public inputs"):
            inputs = problem.public_at(torch.arange(part.start, part.stop))
            found += torch.tensordot(weights[:, part].to(inputs), inputs, dims=1)
        return self._limited(found), (weights - 1 / count).abs().sum(1) > 1e-3
