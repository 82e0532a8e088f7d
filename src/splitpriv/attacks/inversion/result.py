"""What an inversion attack found, and how near that is to the truth."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from splitpriv import _validation as check
from splitpriv._errors import InvalidParameterError, ShapeError
from splitpriv.attacks import metrics
from splitpriv.attacks.attack import Attack
from splitpriv.attacks.estimate import Estimate, mean, proportion
from splitpriv.attacks.inversion.pictures import pictures

CEILING = 100.0  # dB: what a perfect reconstruction counts as in a mean


@dataclass(frozen=True, eq=False)
class InversionResult:
    """Reconstructions of released records; with their originals, also how near they come.

    Attributes:
        attack: what made them; None for a baseline.
        reconstructions: (batch, \\*input), float32.
        moved: (batch,): whether the release, and not the prior alone, moved the record from where the attack started.
            Where it did not, the attack failed, and its figures say nothing of the cut.
        originals: (batch, \\*input), or None where none were given: then all below is None or empty.
        psnr: (batch,), dB.
        ssim: (batch,), NaN where it is undefined: images below 11 x 11, and inputs that are no images.
        mse: (batch,).
        rank: (batch,): how many of the candidates are nearer to the reconstruction than the original.
        candidates: N, the originals included (each counted once).
        errors: (batch, columns), absolute, for flat inputs only.
        within: (batch, columns), whether that is within the tolerance; None where there is none.
        number: 2 for the second attack of its kind in a report, and so on.
        summary: means over records of ``"psnr"``, ``"ssim"`` and ``"mse"``, the rate of ``"identification"`` (rank
            0), for flat inputs ``"error"`` and ``"within"``; with intervals over records.
    """

    attack: Attack | None
    reconstructions: Tensor
    moved: Tensor
    originals: Tensor | None = None
    psnr: Tensor | None = None
    ssim: Tensor | None = None
    mse: Tensor | None = None
    rank: Tensor | None = None
    candidates: int | None = None
    errors: Tensor | None = None
    within: Tensor | None = None
    summary: dict[str, Estimate] = field(default_factory=dict)
    number: int = 1

    @property
    def name(self) -> str:
        """Of the attack; with a number from the second one of its kind in a report on."""
        kind = "nothing (the mean input)" if self.attack is None else type(self.attack).__name__
        return kind if self.number == 1 else f"{kind} #{self.number}"

    @property
    def chance(self) -> float | None:
        """The identification rate of guessing, 1/N."""
        return None if self.candidates is None else 1 / self.candidates

    @property
    def stuck(self) -> bool:
        """Whether no record moved: the attack failed, and shows nothing."""
        return not bool(self.moved.any())

    def columns(self, confidence: float = 0.95) -> list[dict[str, Estimate]]:
        """Of flat inputs, for each column the mean ``"error"``, and the rate ``"within"`` the tolerance.

        Args:
            confidence: of the intervals, in (0, 1).
        """
        if self.errors is None:
            return []
        found = [{"error": mean(column, confidence=confidence)} for column in self.errors.cpu().numpy().T]
        if self.within is not None:
            for entry, near in zip(found, self.within.T, strict=True):
                entry["within"] = proportion(int(near.sum()), len(near), confidence=confidence)
        return found

    def to_dict(self) -> dict[str, Any]:
        """All but the inputs and the reconstructions, for JSON; None where a figure is undefined."""
        shown: dict[str, Any] = {
            "attack": self.name,
            "configuration": None if self.attack is None else self.attack.to_dict(),
            "records": len(self.reconstructions),
            "moved": self.moved.tolist(),
            "candidates": self.candidates,
            "chance": self.chance,
            "summary": {name: estimate.to_dict() for name, estimate in self.summary.items()},
            "columns": [{key: one.to_dict() for key, one in column.items()} for column in self.columns()],
        }
        for name in ("psnr", "ssim", "mse", "rank"):
            values = getattr(self, name)
            shown[name] = None if values is None else values.tolist()
        found: dict[str, Any] = plain(shown)
        return found

    def plot(self, records: int = 8) -> Any:
        """A matplotlib figure: originals over reconstructions.

        Args:
            records: how many, from the first one, >= 1.
        """
        check.integer("InversionResult.plot", "records", records, 1)
        return pictures(self.originals, [(self.name, self.reconstructions)], records)

    def __str__(self) -> str:
        lines = [f"{self.name}: {len(self.reconstructions)} records"]
        if self.stuck:
            lines.append("no record moved: the attack failed, and shows nothing")
        elif not bool(self.moved.all()):
            lines.append(f"{int((~self.moved).sum())} records did not move")
        lines += [f"{name:<16}{estimate}" for name, estimate in self.summary.items() if estimate.count]
        return "\n".join(lines + ([] if self.chance is None else [f"{'chance':<16}{self.chance:.3g}"]))


def scored(
    attack: Attack | None,
    found: Tensor,
    moved: Tensor,
    *,
    originals: Tensor | None,
    candidates: Tensor | None,
    data_range: float,
    tolerance: float | Tensor | None,
    confidence: float,
) -> InversionResult:
    """The result, with figures where the originals are given.

    Raises:
        InvalidParameterError: a tolerance is given for inputs that are not flat, or is no number > 0.
        ShapeError: originals or candidates have another shape than the reconstructions.
    """
    if originals is None:
        return InversionResult(attack, found, moved)
    truth = check.features("attacks", originals, "originals").detach().to(found.device)
    psnr = metrics.psnr(found, truth, data_range=data_range)
    defined = metrics.ssim_defined(found.shape[1:])
    ssim = metrics.ssim(found, truth, data_range=data_range) if defined else torch.full_like(psnr, math.nan)
    others = truth if candidates is None else torch.cat([truth, _others(candidates, truth)])
    rank = metrics.identification_rank(found, others)
    mse = metrics.mse(found, truth)
    errors = (found - truth).abs().double() if found.ndim == 2 else None
    within = None if tolerance is None else _within(errors, tolerance)
    values = {"psnr": psnr.clamp_max(CEILING), "ssim": ssim, "mse": mse}
    summary = {name: mean(value.cpu().numpy(), confidence=confidence) for name, value in values.items()}
    summary["identification"] = proportion(int((rank == 0).sum()), len(rank), confidence=confidence)
    for name, table in {"error": errors, "within": within}.items():
        if table is not None:
            summary[name] = mean(table.double().mean(1).cpu().numpy(), confidence=confidence)
    return InversionResult(attack, found, moved, truth, psnr, ssim, mse, rank, len(others), errors, within, summary)


def _others(candidates: Tensor, truth: Tensor) -> Tensor:
    """Candidates that are no originals: an original among them would tie with itself."""
    others = check.features("attacks", candidates, "candidates").detach().to(truth)
    if others.shape[1:] != truth.shape[1:]:
        got = tuple(others.shape)
        raise ShapeError(f"attacks: candidates must have shape (others, *{tuple(truth.shape[1:])}), got shape={got}.")
    known = {row.numpy().tobytes() for row in truth.cpu()}
    return others[torch.tensor([row.numpy().tobytes() not in known for row in others.cpu()], dtype=torch.bool)]


def _within(errors: Tensor | None, tolerance: float | Tensor) -> Tensor:  # shape: (batch, columns), bool
    if errors is None:
        fix = "Leave it out for images."
        raise InvalidParameterError(check.message("attacks", "tolerance", "None but for flat inputs", tolerance, fix))
    if not isinstance(tolerance, Tensor):
        return errors <= check.positive("attacks", "tolerance", tolerance)
    if tolerance.shape != errors.shape[1:] or not bool((tolerance > 0).all()):
        constraint = f"a number, or a tensor of shape ({errors.shape[1]},), > 0"
        raise InvalidParameterError(check.message("attacks", "tolerance", constraint, tolerance))
    return errors <= tolerance.to(errors)


def plain(value: Any) -> Any:
    """Nested lists and dicts with None for every number that JSON does not have."""
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
