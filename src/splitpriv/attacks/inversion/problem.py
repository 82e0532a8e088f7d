"""What an inversion attack is given, checked once and in one form."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from splitpriv import _validation as check
from splitpriv._errors import InvalidParameterError, ShapeError
from splitpriv.attacks.attack import generator
from splitpriv.attacks.cut_view import CutView
from splitpriv.attacks.inversion.smoothness import is_image

Rows = slice | Tensor


@dataclass(frozen=True, eq=False)
class Problem:
    """What crossed the cut, and what the attacker knows beside it.

    Attributes:
        view: the attacker's knowledge of the cut.
        releases: the symbols of the same records, once for each time that they were released.
        shape: of one input, without batch.
        public: public inputs, or None.
        public_labels: their labels, or None.
        centre: mean of public inputs, per channel or column; the middle of the range without them.
        scale: their standard deviation; a quarter of the range without them.
    """

    view: CutView
    releases: tuple[Tensor, ...]
    shape: tuple[int, ...]
    public: Tensor | None
    public_labels: Tensor | None
    centre: Tensor
    scale: Tensor

    @property
    def records(self) -> int:
        """How many records were released."""
        return len(self.releases[0])

    def decoded(self, rows: Rows) -> Tensor:  # shape: (rows, *released)
        """What the server reads of these records, averaged over the releases."""
        return averaged(self.view, [symbols[rows] for symbols in self.releases])

    def clean(self, features: Tensor) -> Tensor:
        """What would be decoded from features without noise."""
        return self.view.need("clean")(features)

    def log_prob(self, rows: Rows, features: Tensor, temperature: float | None) -> Tensor:  # shape: (rows,)
        """ln Pr[all releases | features] of each record."""
        likelihood = self.view.need("log_prob")
        options = {} if temperature is None else {"temperature": temperature}
        found = [likelihood(symbols[rows], features, **options) for symbols in self.releases]
        total = torch.stack([one.reshape(len(one), -1).sum(1) for one in found]).sum(0)
        return total

    @property
    def relaxes(self) -> bool:
        """Whether the likelihood takes a temperature."""
        return self.view.log_prob is not None and "temperature" in inspect.signature(self.view.log_prob).parameters

    @property
    def temperature(self) -> float | None:
        """The likelihood's own temperature, if it has one."""
        own = inspect.signature(self.view.need("log_prob")).parameters["temperature"].default
        return own if isinstance(own, float) else None

    def simulated(self, rows: Tensor, batch: int) -> Problem:
        """The same attack on public records, as many releases of each, with fresh noise, ``batch`` at a time."""
        parts = torch.split(self.public_at(rows), batch)
        return replace(self, releases=tuple(torch.cat([self.view.released(x) for x in parts]) for _ in self.releases))

    def public_at(self, rows: Tensor) -> Tensor:  # shape: (rows, *input)
        """Some public inputs, on the device of the attack."""
        return self.known_public[rows.to(self.known_public.device)].to(self.centre.device)

    def shuffled(self, seed: int) -> Tensor:  # shape: (public,)
        """One order of the public inputs for all: choices rest on the first ones, what is fitted on the last."""
        return torch.randperm(len(self.known_public), generator=generator(seed, stream="public"))

    @property
    def known_public(self) -> Tensor:
        """Public inputs, which are known to be there."""
        if self.public is None:
            raise InvalidParameterError("attacks: public must be inputs like the private ones, got public=None.")
        return self.public


def averaged(view: CutView, releases: Sequence[Tensor]) -> Tensor:  # shape: (batch, *released)
    """Releases of the same records, decoded and averaged."""
    decode = view.decode
    with torch.no_grad():
        values = [(symbols if decode is None else decode(symbols)).float() for symbols in releases]
    return values[0] if len(values) == 1 else torch.stack(values).mean(0)


def problem_of(
    owner: str,
    view: CutView,
    symbols: Tensor | Sequence[Tensor],
    *,
    public: Tensor | None,
    public_labels: Tensor | None,
    input_shape: Sequence[int] | None,
    originals: Tensor | None,
    input_range: tuple[float, float] | None,
    device: torch.device | None,
) -> Problem:
    """The problem, if its parts fit together.

    Raises:
        InvalidParameterError: nothing was released, or no argument says what shape inputs have.
        ShapeError: two parts do not have as many records, public inputs have another shape than inputs, or symbols
            another one than what crosses the cut.
        NonFiniteError: public inputs or symbols hold NaN or infinity.
    """
    if torch.is_inference_mode_enabled():
        fix = "torch.no_grad() is fine: they turn gradients on where they need them."
        raise InvalidParameterError(f"{owner}: attacks must run outside torch.inference_mode(), got it enabled. {fix}")
    if not isinstance(view, CutView):
        fix = "attacks.view_of(model) makes one."
        raise InvalidParameterError(check.message(owner, "view", "a CutView", type(view).__name__, fix))
    releases = (symbols,) if isinstance(symbols, Tensor) else tuple(symbols)
    if not releases or not all(isinstance(one, Tensor) and one.ndim >= 1 and len(one) for one in releases):
        fix = "A tensor is one release; a list of k tensors is k releases of the same records."
        raise InvalidParameterError(f"{owner}: symbols must be one or more non-empty tensors, got others. {fix}")
    if len({len(one) for one in releases}) > 1 or (originals is not None and len(originals) != len(releases[0])):
        sizes = [len(one) for one in releases] + ([] if originals is None else [len(originals)])
        raise ShapeError(f"{owner}: symbols and originals must have the same records, got {sizes} of them.")
    known = next((given for given in (originals, public) if given is not None), None)
    if input_shape is None and known is None:
        raise InvalidParameterError(check.message(owner, "input_shape", "given where no public inputs are", None))
    shape = tuple(known.shape[1:]) if input_shape is None and known is not None else tuple(input_shape or ())
    shape = check.feature_shape(owner, shape)
    where = releases[0].device if device is None else device
    if public is not None:
        public = _public(owner, public, shape, public_labels)
    centre, scale = _normal(public, shape, input_range)
    moved = tuple(one.to(where) for one in releases)
    for one in moved:
        if one.is_floating_point() and not bool(torch.isfinite(one).all()):
            raise check.not_finite(owner, one, "symbols")
    _refuse_misfits(owner, view, moved[0], centre.to(where).expand(1, *shape))
    return Problem(view, moved, shape, public, public_labels, centre.to(where), scale.to(where))


def _refuse_misfits(owner: str, view: CutView, symbols: Tensor, inputs: Tensor) -> None:
    """One query: symbols of another shape than the edge and the layer make would be broadcast, and fit nothing."""
    if view.edge is None:
        return
    with torch.no_grad():
        try:
            features = view.edge(inputs)
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            text = f"{owner}: input_shape must be one that the edge takes, got {tuple(inputs.shape[1:])}: {error}"
            raise ShapeError(text) from error
        made = features if view.encode is None else view.encode(features)
        if view.encode is None:  # white box without queries: what is decoded is compared with features
            symbols = symbols[:1] if view.decode is None else view.decode(symbols[:1])
            made = features if view.clean is None else view.clean(features)
    if made.shape[1:] != symbols.shape[1:]:
        got, wanted = tuple(symbols.shape[1:]), tuple(made.shape[1:])
        raise ShapeError(f"{owner}: symbols must have the shape that crosses the cut, {wanted} a record, got {got}.")


def _public(owner: str, public: Tensor, shape: tuple[int, ...], labels: Tensor | None) -> Tensor:
    found = check.features(owner, public, "public").detach()
    if tuple(found.shape[1:]) != shape or not len(found):
        raise ShapeError(f"{owner}: public must have shape (records, *{shape}), got shape={tuple(found.shape)}.")
    if labels is not None and len(labels) != len(found):
        raise ShapeError(f"{owner}: public_labels must be one per public input, got {len(labels)} for {len(found)}.")
    return found.float()


def _normal(
    public: Tensor | None, shape: tuple[int, ...], input_range: tuple[float, float] | None
) -> tuple[Tensor, Tensor]:  # shapes: broadcast with (*shape)
    """Where inputs lie, and how widely: per channel of images, per element of flat inputs."""
    if public is None:
        low, high = input_range or (-2.0, 2.0)
        return torch.tensor((low + high) / 2), torch.tensor((high - low) / 4)
    dims = (0, 2, 3) if is_image(shape) else (0,)
    centre = public.mean(dims, keepdim=True)[0]
    scale = public.std(dims, keepdim=True, correction=0)[0]
    floor = 1e-3 * float(scale.max()) or 1.0  # a column that never changes
    return centre, scale.clamp_min(floor)
