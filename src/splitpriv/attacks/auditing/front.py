"""``audit``: the lower bound for a layer, or for the layers at a model's cut."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from splitpriv._errors import NonFiniteError, ShapeError
from splitpriv._modes import modes_kept
from splitpriv.accounting.pricing import chain_shapes, is_bridged
from splitpriv.accounting.simulation import simulation
from splitpriv.accounting.spend import Spend
from splitpriv.attacks.auditing.lower_bound import LowerBoundAudit
from splitpriv.attacks.auditing.result import AuditResult
from splitpriv.attacks.cut_view import CutView, view_of


def audit(
    model: Any,
    example: Tensor,  # shape: (batch, *input) for a model, (batch, *feature) for a layer, (batch,) of labels
    *,
    draws: int = 1 << 20,
    failure_probability: float = 0.05,
    unit: str = "auto",
    extremes: bool = True,
    batch_size: int = 1 << 16,
    seed: int = 0,
    device: str | torch.device | None = None,
    progress: bool = False,
) -> AuditResult:
    """A lower bound on the epsilon of a layer, or of what stands at a model's cut, beside what it claims.

    Nothing is charged: what is released here never leaves. See :class:`LowerBoundAudit` for how it is done, and
    :func:`audit_training` for a server that was trained on releases.

    Args:
        model: a layer, or a ``SplitModel``, of which the cut is audited on the features that its edge makes of the
            example (what was measured is the layers; records tried beyond the example are extreme *features*). Where it
            embeds labels, each record of the example gets a class in turn. A ``LabelLDP`` is audited on labels.
        example: records to start from, at least one; two without ``extremes``. Integers for a ``LabelLDP``.
        draws: as for :class:`LowerBoundAudit`, like the others.
        failure_probability: of a bound above the true epsilon, in (0, 1).
        unit: what a coin decides: ``"auto"``, ``"element"``, ``"use"`` or ``"record"``.
        extremes: also try records far from the example.
        batch_size: records at a time.
        seed: of the coins.
        device: where it runs; None for the example's.
        progress: show a progress bar.

    Returns:
        The bound, the claim, and a verdict.

    Raises:
        InvalidParameterError: an argument is outside its range, or what is given has no ``encode`` and ``decode``,
            takes fewer than two records, or repeats its noise (see :class:`LowerBoundAudit`).
        ShapeError, NonFiniteError: ``example`` is no finite batch, or a model's edge makes none of it.

    Does not prove: that epsilon is as small as the bound; a claim that is not refuted is not confirmed.

    Source: see :class:`LowerBoundAudit`.

    Example:
        >>> from splitpriv import LaplaceLDP
        >>> layer = LaplaceLDP(epsilon=2.0, sensitivity=2.0, outside="clamp", generator=0)
        >>> found = audit(layer, torch.eye(4), draws=100_000)
        >>> found.refuted, found.epsilon > 1.8
        (False, True)
    """
    attack = LowerBoundAudit(
        draws=draws,
        failure_probability=failure_probability,
        unit=unit,
        extremes=extremes,
        batch_size=batch_size,
        seed=seed,
        device=device,
        progress=progress,
    )
    roots = [model] if isinstance(model, nn.Module) else []
    with simulation(), modes_kept(*roots):
        for root in roots:
            root.eval()
        if not hasattr(model, "cut"):
            return attack(model, example)
        features = _at_the_cut(model, view_of(model), example)
        layers = list(model.cut)
        return attack(layers[0] if len(layers) == 1 else _Stack(model), features)


def _at_the_cut(model: Any, view: CutView, example: Any) -> Tensor:
    """What reaches a model's cut of an example; with a label in it, where the model embeds them."""
    if not isinstance(example, Tensor):
        raise ShapeError(f"audit: example must be a torch.Tensor, got example of type {type(example).__name__}.")
    if not bool(torch.isfinite(example).all()):
        raise NonFiniteError(f"audit: example must be finite, got NaN or infinity in shape={tuple(example.shape)}.")
    with torch.no_grad():
        features = view.need("edge")(example).detach()
    if not bool(torch.isfinite(features).all()):
        raise NonFiniteError("audit: example must lead to finite features, got NaN or infinity from the edge.")
    if getattr(model, "labels", None) == "embedded":
        embedded = model._labels.embedded
        features = embedded.embed(features, torch.arange(len(features), device=features.device) % embedded.classes)
    return features


class _Stack:
    """Several layers at a cut, or none, as one that claims what they cost together."""

    def __init__(self, model: Any) -> None:
        self.encode, self.decode, self._cut = model.cut.encode, model.cut.decode, model.cut
        self._shown = ", ".join(map(repr, model.cut)) or "no layer"
        known = view_of(model).log_prob
        if known is not None:
            self.log_prob = known

    def spend(self, shape: tuple[int, ...]) -> Any:
        """What the chain costs; as one use of all of it, unless each symbol is known to be one priced use's own.

        It is where the last layer sets the price, or where each layer reads one symbol of the one before. Else a
        later layer may mix what an earlier one, whose uses were priced, has drawn.
        """
        layers, price = list(self._cut), self._cut.price(shape, edge_records=0).spend
        last = chain_shapes(layers[:-1], shape)[-1]
        own = bool(layers) and layers[-1].spend(last) == price
        if own or all(is_bridged(one, other) for one, other in pairwise(layers)):
            return price
        return Spend.of(price.per_record, 1)

    def __repr__(self) -> str:
        return self._shown
