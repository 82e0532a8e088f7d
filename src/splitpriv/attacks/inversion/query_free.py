"""Inversion without queries: a stand-in for the edge, learned through the server."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from splitpriv import _validation as check
from splitpriv._errors import InvalidParameterError
from splitpriv.attacks.attack import generator
from splitpriv.attacks.cut_view import CutView
from splitpriv.attacks.inversion.gradient import GradientInversion
from splitpriv.attacks.inversion.inversion import Inversion
from splitpriv.attacks.inversion.problem import Problem
from splitpriv.attacks.inversion.seeded import seeded


@dataclass(frozen=True, kw_only=True)
class QueryFreeInversion(Inversion):
    r"""Knows the server, never the edge: trains a shadow edge so that the server works on it, and inverts that.

    .. math:: \min_{\theta} \; E \, \mathrm{loss}\bigl(\mathrm{server}(f_\theta(x)), y\bigr)

    over public labelled data, the server fixed and the layer by its mean; then gradient inversion through the shadow
    edge. Cross-entropy for integer labels, squared error for others.

    Args:
        shadow: makes an edge of the attacker's guess, with new weights: called without arguments.
        epochs: of the shadow edge over the public data, >= 1.
        learning_rate: of Adam for the shadow edge, > 0.
        minibatch: public records for one step of training, >= 2.
        inversion: how the shadow edge is inverted; its seed, batch size, device and range of inputs are this attack's.

    Raises:
        InvalidParameterError: a parameter is outside its range.

    Does not prove: much when it fails. A shadow edge that serves the server as well may compute other features.

    Source: He, Zhang, Lee 2019 (ACSAC), query-free attack.

    Example:
        >>> from splitpriv.attacks import CutView
        >>> attack = QueryFreeInversion(shadow=lambda: nn.Linear(6, 4), epochs=1, input_range=None,
        ...                             inversion=GradientInversion(steps=2))
        >>> view = CutView(server=nn.Linear(4, 3))
        >>> public, labels = torch.randn(20, 6), torch.arange(20) % 3
        >>> attack(view, torch.randn(2, 4), public=public, public_labels=labels).reconstructions.shape
        torch.Size([2, 6])
    """

    shadow: Callable[[], nn.Module]
    epochs: int = 30
    learning_rate: float = 3e-3
    minibatch: int = 64
    inversion: GradientInversion = field(default_factory=GradientInversion)

    def __post_init__(self) -> None:
        super().__post_init__()
        owner = type(self).__name__
        if not callable(self.shadow):
            raise InvalidParameterError(check.message(owner, "shadow", "a callable that makes an edge", self.shadow))
        if not isinstance(self.inversion, GradientInversion) or isinstance(self.inversion.total_variation, str):
            constraint = "a GradientInversion whose total_variation is a number: there are no queries to choose it by"
            raise InvalidParameterError(check.message(owner, "inversion", constraint, self.inversion))
        check.integer(owner, "epochs", self.epochs, 1)
        check.integer(owner, "minibatch", self.minibatch, 2)
        check.positive(owner, "learning_rate", self.learning_rate)

    def lacks(
        self,
        view: CutView,
        *,
        public: Tensor | None = None,  # shape: (public, *input)
        public_labels: Tensor | None = None,  # shape: (public,)
    ) -> str | None:
        """The server, or public inputs with labels, where they are not given; None where the attack applies."""
        if view.server is None:
            return "it needs the server"
        if view.clean is None:
            return "it needs the mean of what the layer releases (its expected)"
        if public is None or public_labels is None or len(public) < 2:
            return "it needs public inputs with labels, at least 2"
        return None

    def _reconstruct(self, problem: Problem) -> tuple[Tensor, Tensor]:
        device = problem.centre.device
        with seeded(self.seed, "shadow", device):
            edge = self.shadow().to(device)
            self._train(edge, problem)
        shared = {name: getattr(self, name) for name in ("batch_size", "seed", "device", "progress", "input_range")}
        inner = replace(self.inversion, **shared)
        return inner._reconstruct(replace(problem, view=replace(problem.view, edge=edge)))

    @torch.enable_grad()
    def _train(self, edge: nn.Module, problem: Problem) -> None:
        public, labels, device = problem.known_public, problem.public_labels, problem.centre.device
        assert labels is not None
        server = problem.view.need("server")
        # Gradients are asked for by name: the server's own must stay as they are.
        weights = [one for one in edge.parameters() if one.requires_grad]
        optimizer = torch.optim.Adam(weights, lr=self.learning_rate)
        shuffle, size = generator(self.seed, stream="shadow: order"), min(self.minibatch, len(public))
        edge.train()
        for _ in self._steps(self.epochs, "epochs of the shadow edge"):
            for rows in torch.split(torch.randperm(len(public), generator=shuffle), size):
                if len(rows) < size:
                    continue
                inputs = public[rows.to(public.device)].to(device)
                output = server(problem.clean(edge(inputs)))
                loss = _loss(output, labels[rows.to(labels.device)].to(device))
                for one, slope in zip(weights, torch.autograd.grad(loss, weights, allow_unused=True), strict=True):
                    one.grad = slope
                optimizer.step()
        edge.eval()


def _loss(output: Tensor, labels: Tensor) -> Tensor:
    if labels.is_floating_point():
        return F.mse_loss(output.reshape(labels.shape), labels.to(output.dtype))
    return F.cross_entropy(output, labels.long())
