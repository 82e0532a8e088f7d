"""The front door: all inversion attackers on a model and some records."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from splitpriv import _validation as check
from splitpriv._errors import InvalidParameterError, ShapeError, SplitPrivError
from splitpriv._modes import modes_kept
from splitpriv.accounting.simulation import simulation
from splitpriv.attacks.attack import Attack
from splitpriv.attacks.cut_view import CutView, view_of
from splitpriv.attacks.inversion.decoder import DecoderInversion
from splitpriv.attacks.inversion.gradient import GradientInversion
from splitpriv.attacks.inversion.inversion import Inversion
from splitpriv.attacks.inversion.likelihood import LikelihoodInversion
from splitpriv.attacks.inversion.posterior import PosteriorInversion
from splitpriv.attacks.inversion.report import InversionReport
from splitpriv.attacks.inversion.result import InversionResult, scored
from splitpriv.attacks.inversion.smoothness import is_image


def invert(
    model: Any,
    images: Tensor,  # shape: (batch, *input)
    *,
    public: Tensor | None = None,  # shape: (public, *input)
    public_labels: Tensor | None = None,  # shape: (public,)
    attacks: Inversion | Sequence[Inversion] | None = None,
    releases: int = 1,
    candidates: Tensor | None = None,  # shape: (others, *input)
    data_range: float = 1.0,
    tolerance: float | Tensor | None = None,  # shape: scalar, or (columns,)
    confidence: float = 0.95,
    batch_size: int = 64,
    seed: int = 0,
    device: str | torch.device | None = None,
    progress: bool = False,
) -> InversionReport:
    """What attackers who know the cut can tell of these records from what crosses it.

    The records are released here, in eval mode and inside :func:`~splitpriv.accounting.simulation`: nothing is
    charged. Each attack that applies is run; those that do not are named with the reason.

    Args:
        model: a :class:`~splitpriv.SplitModel`, or a :class:`CutView` of what the attacker knows (in eval mode).
        images: the private records; images (batch, channels, height, width), or flat ones (batch, columns).
        public: records like them that the attackers may learn from. Most attacks need them.
        public_labels: their labels.
        attacks: which ones; None for gradient, posterior, decoder and likelihood inversion with settings that fit
            the inputs (a query-free attack needs a shadow edge of your own).
        releases: how often each record is released, >= 1; the attackers combine them.
        candidates: others among which an original has to be found, beside all of ``images``.
        data_range: largest possible difference of two inputs, for PSNR and SSIM.
        tolerance: of a column of flat inputs: how near counts as known; one number, or one per column.
        confidence: of the intervals, in (0, 1).
        batch_size: of the default attacks, and of the releases: records at a time; bounds memory.
        seed: of the default attacks.
        device: of the default attacks; None for that of ``images``.
        progress: of the default attacks: show a progress bar.

    Returns:
        Each attacker's result, what a mean input reaches, the best of each record, and which attacks do not apply.

    Raises:
        InvalidParameterError: an argument is outside its range, records lie outside the range of inputs that an
            attack assumes, or the model embeds labels.
        ShapeError, NonFiniteError: records or public records do not fit together, or are not finite.

    Does not prove: that a cut is safe. What stronger attackers, or ones with more public data, would get is unknown;
    only the layer's epsilon bounds it.

    Example:
        >>> from splitpriv.attacks import invert
        >>> model = sp.SplitModel(nn.Conv2d(1, 4, 3), nn.Flatten(), cut=sp.RandomResponseLDP(epsilon=1.0))
        >>> quick = [DecoderInversion(epochs=1, width=4), LikelihoodInversion(steps=2)]
        >>> report = invert(model, torch.rand(3, 1, 8, 8), public=torch.rand(20, 1, 8, 8), attacks=quick)
        >>> [result.name for result in report.results]
        ['DecoderInversion', 'LikelihoodInversion']
    """
    owner = "attacks.invert"
    check.integer(owner, "releases", releases, 1)
    shared: dict[str, Any] = {"batch_size": batch_size, "seed": seed, "device": device, "progress": progress}
    Attack(**shared)  # refuses what does not fit, also where it is not used
    images = check.features(owner, images, "images").detach().float()
    public = None if public is None else check.features(owner, public, "public").detach()
    for name, given in (("images", images), ("public", public)):
        if given is not None and not len(given):
            raise InvalidParameterError(check.message(owner, name, "one record or more", given))
    limits = _range(public, tuple(images.shape[1:]))
    tried = _defaults(public, limits, shared) if attacks is None else _listed(owner, attacks)
    _refuse(owner, model, tried, images)
    known: dict[str, Any] = {"public": public, "public_labels": public_labels}
    figures: dict[str, Any] = {
        "candidates": candidates,
        "data_range": data_range,
        "tolerance": tolerance,
        "confidence": confidence,
    }
    baseline = _baseline(images, public, limits, figures)  # first: it refuses figures that cannot be had
    found: list[InversionResult] = []
    skipped: dict[str, str] = {}
    with simulation(), _in_eval_mode(model):
        view = model if isinstance(model, CutView) else view_of(model)
        crossed = _released(owner, view, images, releases, batch_size)
        view = model if isinstance(model, CutView) else view_of(model)  # layers now know what a record pays
        for attack in tried:
            lacking = attack.lacks(view, **known)
            if lacking is not None:
                skipped[type(attack).__name__] = lacking
                continue
            result = attack(view, crossed, originals=images, **known, **figures)
            found.append(replace(result, number=1 + sum(type(one.attack) is type(attack) for one in found)))
    if attacks is None:
        skipped["QueryFreeInversion"] = "it needs a shadow edge of the attacker's own: give it in attacks"
    return InversionReport(view.layer, releases, tuple(found), skipped, baseline, confidence)


def _range(public: Tensor | None, shape: tuple[int, ...]) -> tuple[float, float] | None:
    """Where inputs lie: [0, 1] for images, or a little more than the public ones' range; None for flat inputs."""
    if not is_image(shape):
        return None
    low, high = (0.0, 1.0) if public is None else (float(public.min()), float(public.max()))
    return (0.0, 1.0) if low >= 0 and high <= 1 else (low - 0.1 * (high - low), high + 0.1 * (high - low))


def _defaults(
    public: Tensor | None, limits: tuple[float, float] | None, shared: dict[str, Any]
) -> tuple[Inversion, ...]:
    """Attacks whose range of inputs fits, and whose weights come from public records where there are some."""
    weight = 0.0 if public is None else "public"
    return (
        GradientInversion(steps=1000, learning_rate=0.05, eps=1e-8, relative=True, decay=True, total_variation=weight,
                          input_range=limits, **shared),
        PosteriorInversion(input_range=limits, **shared),
        DecoderInversion(input_range=limits, **shared),
        LikelihoodInversion(weight="public", input_range=limits, **shared),
    )  # fmt: skip


def _listed(owner: str, attacks: Any) -> tuple[Inversion, ...]:
    if isinstance(attacks, Inversion):
        return (attacks,)
    if not isinstance(attacks, Sequence) or isinstance(attacks, str):
        constraint = "None or a list of inversion attacks"
        raise InvalidParameterError(check.message(owner, "attacks", constraint, attacks))
    for attack in attacks:
        if not isinstance(attack, Inversion):
            kind = attack.__name__ if isinstance(attack, type) else f"one of type {type(attack).__name__}"
            raise InvalidParameterError(f"{owner}: attacks must be inversion attacks, got {kind}.")
    return tuple(attacks)


def _refuse(owner: str, model: Any, attacks: Sequence[Inversion], images: Tensor) -> None:
    if getattr(model, "labels", None) == "embedded":
        fix = "Give a CutView whose edge joins the features with the labels that the attacker knows."
        text = f"{owner}: model must not send labels inside the features (EmbeddedLabels), got labels='embedded'."
        raise InvalidParameterError(f"{text} {fix}")
    for attack in attacks:
        limits = attack.input_range
        if limits is not None and not (limits[0] <= float(images.min()) and float(images.max()) <= limits[1]):
            # The ends of the records' own range would say something of them: they are not shown.
            fix = "An attack that cannot reach the records would look like a defence. Give it another, or None."
            text = f"{owner}: input_range of {type(attack).__name__} must hold all records, got input_range={limits}."
            raise InvalidParameterError(f"{text} {fix}")


@contextmanager
def _in_eval_mode(model: Any) -> Iterator[None]:
    if not isinstance(model, nn.Module):
        yield
        return
    with modes_kept(model):
        model.eval()
        yield


def _released(owner: str, view: CutView, images: Tensor, releases: int, batch_size: int) -> list[Tensor]:
    text = f"{owner}: images must be inputs of the edge, with a batch dimension, got shape={tuple(images.shape)}"
    try:
        with torch.no_grad():
            first = view.need("edge")(images[:1])
    except SplitPrivError:
        raise
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        raise ShapeError(f"{text}: {error}") from error
    if len(first) != 1:
        raise ShapeError(f"{text}: of one record the edge makes {len(first)}.")
    parts = torch.split(images, batch_size)
    return [torch.cat([view.released(part) for part in parts]) for _ in range(releases)]


def _baseline(
    images: Tensor, public: Tensor | None, limits: tuple[float, float] | None, figures: dict[str, Any]
) -> InversionResult:
    """What is reached by one who sees nothing: the mean of the public records, or the middle of the range."""
    level = 0.0 if limits is None else sum(limits) / 2
    middle = torch.full_like(images[:1], level) if public is None else public.mean(0, keepdim=True)
    if middle.shape[1:] != images.shape[1:]:
        wanted, got = tuple(images.shape[1:]), tuple(middle.shape[1:])
        raise ShapeError(f"attacks.invert: public must have the shape of images, (records, *{wanted}), got {got}.")
    same = middle.to(images).expand_as(images).clone()
    return scored(None, same, torch.zeros(len(images), dtype=torch.bool), originals=images, **figures)
