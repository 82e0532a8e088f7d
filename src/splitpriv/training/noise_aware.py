"""Training for clean features on what noise has crossed: batches, losses and starts that know the channel."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from splitpriv import _validation as check
from splitpriv._errors import InvalidParameterError
from splitpriv._modes import modes_kept
from splitpriv.mechanisms import EndlessCodebook
from splitpriv.release import Release
from splitpriv.training.discriminant import discriminant
from splitpriv.training.losses import forward_corrected
from splitpriv.training.moments import ClassMoments, class_moments
from splitpriv.training.synthetic import SyntheticFeatures

Public = Tensor | tuple[Tensor, Tensor]  # shapes: (n, dim), (n,)


class NoiseAware:
    """What ``fit(noise_aware=True)`` trains on where one vector per record has crossed.

    Args:
        server: takes vectors; a single ``nn.Linear`` is solved, not trained.
        release: see :func:`class_moments`.
        public: see :func:`splitpriv.fit`.
        prior: see :func:`class_moments`.
        generator: order and noise of the synthetic features.
        through: see :func:`splitpriv.fit`.
    """

    def __init__(
        self,
        server: nn.Module,
        release: Release,
        public: Public | None,
        prior: Tensor | None,
        generator: torch.Generator,
        through: Any = None,
    ) -> None:
        classes = release.claims.classes if embedded(release) else _outputs(server, release)
        self.moments = class_moments(release, classes=classes, prior=prior)
        constants = _second_moment(release)
        dim = self.moments.means.shape[1]
        residuals = _round(self.moments, constants, generator) if public is None else _residuals(public, dim)
        noise = through.second_moment[0] if hasattr(through, "second_moment") else 0.0
        self.found = discriminant(self.moments, residuals, constants, noise)
        self._through = _taking(through, dim)
        self._features = SyntheticFeatures(self.found, self.moments.share, residuals, generator)
        self._records = len(release)

    def solve(self, server: nn.Module) -> bool:
        """Give a linear server the discriminant; False for any other, or where the noise it will see is not known."""
        linear = server[0] if isinstance(server, nn.Sequential) and len(server) == 1 else server
        known = self._through is None or hasattr(self._through, "second_moment")
        if not isinstance(linear, nn.Linear) or linear.bias is None or not known:
            return False
        with torch.no_grad():
            linear.weight.copy_(self.found.weight)
            linear.bias.copy_(self.found.bias)
        return True

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """As many pairs as the release has records."""
        for start in range(0, self._records, size):
            features, labels = self._features.draw(min(size, self._records - start))
            if self._through is not None:
                features = self._through.decode(self._through.encode(features.float()))
            yield features, labels


def of_vectors(release: Release) -> bool:
    """Whether a release is of one vector per record, with classes to tell apart."""
    labels = release.labels
    classes = labels is not None and labels.ndim == 1 and not labels.is_floating_point()
    return len(release.feature_shape) == 1 and (embedded(release) or classes)


def embedded(release: Release) -> bool:
    """Whether the labels are inside the released vectors."""
    return release.claims.labels == "embedded"


def corrected_loss(release: Release) -> Any:
    """Cross-entropy that is right for the true labels; None where labels are not released ones."""
    return None if release.label_channel is None else forward_corrected(release.label_channel)


def _taking(through: Any, dim: int) -> Any:
    """The layer, if it releases vectors of this size as such."""
    if through is None:
        return None
    fits = all(hasattr(through, name) for name in ("encode", "decode"))
    if fits:
        fits = tuple(through.decode(through.encode(torch.zeros(1, dim))).shape) == (1, dim)
    if not fits:
        constraint = f"a privacy layer that releases vectors of {dim} elements as such"
        raise InvalidParameterError(check.message("fit", "through", constraint, type(through).__name__))
    return through


def _second_moment(release: Release) -> tuple[float, float] | None:
    """a and b of E[v vᵀ | x] = a I + b x xᵀ for a released vector v, where they are known.

    Of a random codebook's, whose vectors have one length L and average x, so that d a + b = L². A release does not
    say how many codewords were close, on which b depends; it is near 1 (a test bounds it), and 1 is taken: an
    estimate of covariance hangs on it, no claim.
    """
    book = release.values
    return ((book.scale**2 - 1) / book.dim, 1.0) if isinstance(book, EndlessCodebook) else None


def _outputs(server: nn.Module, release: Release) -> int:
    """How many classes the server tells apart."""
    features, _ = release.batch([0])
    parameter = next(server.parameters())
    with modes_kept(server), torch.no_grad():
        server.eval()
        outputs = server(features.to(parameter))
    if not isinstance(outputs, Tensor) or outputs.ndim != 2 or outputs.shape[1] < 2:
        got = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise InvalidParameterError(check.message("fit", "server", "one with outputs (batch, classes)", got))
    return int(outputs.shape[1])


def _residuals(public: Public, dim: int) -> Tensor:
    """Public features minus the mean of their class, or of all where no labels are given."""
    features, labels = public if isinstance(public, tuple) else (public, None)
    fits = isinstance(features, Tensor) and features.ndim == 2 and features.shape[1] == dim and len(features) > 1
    if not fits or not features.is_floating_point() or not bool(features.isfinite().all()):
        constraint = f"finite features of shape (n, {dim}), or such and their labels"
        fix = "They are what SplitModel.clean gives for public records."
        raise InvalidParameterError(check.message("fit", "public", constraint, _shape(features), fix))
    clean = features.detach().cpu().double()
    if labels is None:
        return clean - clean.mean(0)
    if not isinstance(labels, Tensor) or labels.shape != (len(clean),) or labels.is_floating_point():
        constraint = f"labels of shape ({len(clean)},), integers"
        raise InvalidParameterError(check.message("fit", "public", constraint, _shape(labels)))
    _, classes = torch.unique(labels.cpu(), return_inverse=True)
    one_hot = F.one_hot(classes).double()
    means = one_hot.T @ clean / one_hot.sum(0)[:, None]
    return clean - means[classes]


def _round(moments: ClassMoments, constants: tuple[float, float] | None, generator: torch.Generator) -> Tensor:
    """Residuals without a direction, for want of public ones: of the size that the release shows."""
    a, b = constants if constants is not None else (0.0, 1.0)
    dim = len(moments.second)
    total = (float(moments.second.trace()) - moments.blocks * a * dim) / b
    between = float(moments.share @ moments.means.square().sum(1))
    size = max(total - between, 1e-3 * abs(total)) / dim
    residuals: Tensor = torch.randn(64 * dim, dim, dtype=torch.float64, generator=generator) * size**0.5
    return residuals


def _shape(value: Any) -> Any:
    return tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
