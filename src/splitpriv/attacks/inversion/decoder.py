"""Inversion by an inverse network."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from splitpriv import _validation as check
from splitpriv._errors import InvalidParameterError
from splitpriv.attacks.attack import generator
from splitpriv.attacks.cut_view import CutView
from splitpriv.attacks.inversion.inversion import Inversion
from splitpriv.attacks.inversion.networks import Network, inverse_network
from splitpriv.attacks.inversion.problem import Problem, Rows, averaged
from splitpriv.attacks.inversion.seeded import seeded
from splitpriv.attacks.inversion.smoothness import is_image

STATISTICS = 1024  # public records that say how large released values are


@dataclass(frozen=True, kw_only=True)
class DecoderInversion(Inversion):
    r"""Black box: a network trained on public pairs of (what is released, input) answers for the private ones.

    .. math:: \min_\theta \; E \, \bigl\| g_\theta(\bar v) - x \bigr\|^2, \qquad
              \bar v = \frac{1}{k} \sum_{i=1}^{k} \mathrm{decode}(s_i)

    over public x and k fresh releases of it in each epoch, as many as there are of the private records: the network
    learns the noise as well as the edge. It needs queries only. A tenth of the public inputs is held out, and the
    epoch with the least error on these is taken, the mean public input (epoch 0) included.

    Args:
        epochs: over the public inputs, >= 1.
        learning_rate: of AdamW, > 0; falls to zero along a half cosine.
        minibatch: public inputs for one step of training, >= 2.
        width: channels of the network; four times as many hidden units (at least 256) for flat inputs, >= 1.
        held_out: share of the public inputs, in (0, 1), that choose the epoch.
        network: another network: called with the shape of what is released and that of an input (without batch);
            from and to values that are standardised. None for a small one of convolutions.

    Raises:
        InvalidParameterError: a parameter is outside its range.

    Does not prove: that nothing better can be had: another network, or more public data, may find more.

    Source: He, Zhang, Lee 2019 (ACSAC), black-box attack; trained here on privatised features.

    Example:
        >>> from splitpriv.attacks import CutView
        >>> view, public = CutView(edge=nn.Conv2d(1, 4, 3), encode=lambda v: v), torch.rand(20, 1, 8, 8)
        >>> result = DecoderInversion(epochs=2, width=4)(view, view.released(torch.rand(2, 1, 8, 8)), public=public)
        >>> result.reconstructions.shape
        torch.Size([2, 1, 8, 8])
    """

    epochs: int = 40
    learning_rate: float = 3e-3
    minibatch: int = 64
    width: int = 32
    held_out: float = 0.1
    network: Network | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        owner = type(self).__name__
        check.integer(owner, "epochs", self.epochs, 1)
        check.integer(owner, "width", self.width, 1)
        check.integer(owner, "minibatch", self.minibatch, 2)
        check.positive(owner, "learning_rate", self.learning_rate)
        if check.positive(owner, "held_out", self.held_out) >= 1:
            raise InvalidParameterError(check.message(owner, "held_out", "a share below 1", self.held_out))
        if self.network is not None and not callable(self.network):
            constraint = "None or a callable that makes a module"
            raise InvalidParameterError(check.message(owner, "network", constraint, self.network))

    def lacks(
        self,
        view: CutView,
        *,
        public: Tensor | None = None,  # shape: (public, *input)
        public_labels: Tensor | None = None,  # shape: (public,)
    ) -> str | None:
        """Queries and public inputs, where they are not given; None where the attack applies."""
        if view.edge is None or view.encode is None:
            return "it needs queries to the edge and the layer"
        if public is None or len(public) < 4:
            return "it needs public inputs, at least 4"
        return None

    def _reconstruct(self, problem: Problem) -> tuple[Tensor, Tensor]:
        inverse = self._fitted(problem)
        found = [inverse(problem, rows) for rows in self._batches(problem.records, "records")]
        inputs, nothing = torch.cat(found), self._limited(inverse.pairs.mean)
        return inputs, (inputs - nothing).abs().flatten(1).amax(1) > 1e-3 * inverse.pairs.spread

    def _fitted(self, problem: Problem) -> Inverse:
        """The trained network."""
        public, order = problem.known_public, problem.shuffled(self.seed)
        held = min(max(1, round(self.held_out * len(public))), len(public) - 2)
        pairs = _Pairs(problem, public, STATISTICS, self)
        with seeded(self.seed, "decoder", problem.centre.device):
            make = self.network or (lambda released, shape: inverse_network(released, shape, self.width))
            network = make(pairs.released, problem.shape).to(problem.centre.device)
            self._train(network, pairs, order[held:], order[:held])
        return Inverse(network, pairs, self.input_range)

    @torch.enable_grad()
    def _train(self, network: nn.Module, pairs: _Pairs, rows: Tensor, held: Tensor) -> None:
        """Leaves the weights of the best epoch in the network, in eval mode."""
        optimizer = torch.optim.AdamW(network.parameters(), lr=self.learning_rate, weight_decay=1e-4)
        size = min(self.minibatch, len(rows))
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.epochs * (len(rows) // size))
        shuffle = generator(self.seed, stream="decoder: order")
        best, least = copy.deepcopy(network.state_dict()), self._error(network, pairs, held)
        for _ in self._steps(self.epochs, "epochs"):
            network.train()
            order = rows[torch.randperm(len(rows), generator=shuffle)]
            for part in torch.split(order, size):
                if len(part) < size:  # statistics of a batch of one or two say nothing
                    continue
                released, target = pairs.drawn(part)
                loss = (network(released) - target).square().mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
            error = self._error(network, pairs, held)
            if error < least:
                best, least = copy.deepcopy(network.state_dict()), error
        network.load_state_dict(best)
        network.eval()

    def _error(self, network: nn.Module, pairs: _Pairs, held: Tensor) -> float:
        """Mean squared error on public inputs that it is not trained on, in eval mode."""
        network.eval()
        total = 0.0
        with torch.no_grad():
            for part in torch.split(held, self.minibatch):
                released, target = pairs.drawn(part)
                total += float((network(released) - target).double().square().flatten(1).mean(1).sum())
        return total / len(held)


@dataclass(frozen=True, eq=False)
class Inverse:
    """A trained inverse network: (problem, which of its records) to the inputs that it answers."""

    network: nn.Module
    pairs: _Pairs
    limits: tuple[float, float] | None

    @torch.no_grad()
    def __call__(self, problem: Problem, rows: Rows) -> Tensor:  # shape: (rows, *input)
        found = self.pairs.inputs(self.network(self.pairs.normal(problem.decoded(rows))))
        return found if self.limits is None else found.clamp(*self.limits)


class _Pairs:
    """Public pairs of what is released and input, both standardised, drawn afresh each time."""

    def __init__(self, problem: Problem, public: Tensor, statistics: int, attack: DecoderInversion) -> None:
        self.problem, self.public = problem, public
        self.device = problem.centre.device
        self.mean = public.mean(0).to(self.device)
        self.spread = float((public - public.mean(0)).square().mean().sqrt()) or 1.0
        total, squares, count = None, None, 0
        for rows in torch.split(torch.arange(min(statistics, len(public))), attack.batch_size):
            values = self._released(rows)[1].double()
            over = (0, 2, 3) if is_image(values.shape[1:]) else (0,)
            shift, spread = values.sum(over, keepdim=True), values.square().sum(over, keepdim=True)
            total = shift if total is None else total + shift
            squares = spread if squares is None else squares + spread
            count += values.numel() // shift.numel()
            self.released = tuple(values.shape[1:])
        assert total is not None
        assert squares is not None
        middle = total / count
        deviation = (squares / count - middle.square()).clamp_min(0).sqrt()
        floor = 1e-3 * float(deviation.max()) or 1.0  # an element that never changes
        self.middle, self.deviation = middle.float(), deviation.clamp_min(floor).float()

    def _released(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        inputs = self.problem.public_at(rows)
        view = self.problem.view
        return inputs, averaged(view, [view.released(inputs) for _ in self.problem.releases])

    def drawn(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Released and input of some public records, with fresh noise."""
        inputs, values = self._released(rows)
        return self.normal(values), (inputs - self.mean) / self.spread

    def normal(self, values: Tensor) -> Tensor:
        """Released values, standardised."""
        return (values - self.middle) / self.deviation

    def inputs(self, found: Tensor) -> Tensor:
        """What a network says, in units of inputs."""
        return self.mean + self.spread * found
