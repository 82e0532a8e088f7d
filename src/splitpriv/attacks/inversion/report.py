"""What all inversion attackers found in one release."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from splitpriv import _validation as check
from splitpriv.attacks.estimate import Estimate, mean, proportion
from splitpriv.attacks.inversion.pictures import pictures
from splitpriv.attacks.inversion.result import CEILING, InversionResult, plain

COLUMNS = ("ssim", "psnr", "identification", "error", "within")


@dataclass(frozen=True, eq=False)
class InversionReport:
    """Each attacker's result on the same records, and the best of all of them record by record.

    Attributes:
        layer: what stands at the cut, in words.
        releases: how often each record was released.
        results: one per attack that applies.
        skipped: name of an attack that does not apply, to the reason.
        baseline: the result of an attacker who sees nothing, and answers the mean public input.
        confidence: of the intervals.

    A low number does not prove that a cut is safe: it says what these attackers got.
    """

    layer: str
    releases: int
    results: tuple[InversionResult, ...]
    skipped: dict[str, str]
    baseline: InversionResult
    confidence: float

    @property
    def best_psnr(self) -> Tensor:  # shape: (batch,)
        """The largest PSNR of each record over the attackers."""
        return torch.stack([self._figure(one, "psnr") for one in self.results or (self.baseline,)]).amax(0)

    @property
    def best_ssim(self) -> Tensor:  # shape: (batch,)
        """The largest SSIM of each record over the attackers; NaN where it is undefined."""
        return torch.stack([self._figure(one, "ssim") for one in self.results or (self.baseline,)]).amax(0)

    @property
    def identified(self) -> Tensor:  # shape: (batch,), bool
        """Whether at least one attacker's reconstruction is nearest to its own original."""
        return torch.stack([self._figure(one, "rank") == 0 for one in self.results or (self.baseline,)]).any(0)

    @property
    def chance(self) -> float:
        """The most that as many guesses as there are attackers would reach in ``best["identification"]``."""
        return min(1.0, max(1, len(self.results)) * (self.baseline.chance or 1.0))

    @property
    def best(self) -> dict[str, Estimate]:
        """The best attacker of each record, figure by figure: chosen with the truth, so more than any one of them.

        ``"identification"`` is the rate of records that at least one attacker identifies; compare with ``chance``.
        """
        hits = self.identified
        values = {"ssim": self.best_ssim, "psnr": self.best_psnr.clamp_max(CEILING)}
        found = {name: mean(one.cpu().numpy(), confidence=self.confidence) for name, one in values.items()}
        found["identification"] = proportion(int(hits.sum()), len(hits), confidence=self.confidence)
        return found

    def __getitem__(self, name: str) -> InversionResult:
        """The result of the attack of that name; a second one of its kind has ``" #2"`` behind it.

        Raises:
            KeyError: no attack of that name was run.
        """
        for result in self.results:
            if result.name == name:
                return result
        raise KeyError(f"InversionReport: no attack {name!r} was run: {self.skipped.get(name, 'it was not asked for')}")

    def to_dict(self) -> dict[str, Any]:
        """All but the inputs and the reconstructions, for JSON."""
        found: dict[str, Any] = plain(
            {
                "layer": self.layer,
                "releases": self.releases,
                "results": [result.to_dict() for result in self.results],
                "skipped": dict(self.skipped),
                "baseline": self.baseline.to_dict(),
                "best": {name: estimate.to_dict() for name, estimate in self.best.items()},
                "best_psnr": self.best_psnr.tolist(),
                "best_ssim": self.best_ssim.tolist(),
                "identified": self.identified.tolist(),
                "chance": self.chance,
                "confidence": self.confidence,
            }
        )
        return found

    def plot(self, records: int = 8) -> Any:
        """A matplotlib figure: originals over each attacker's reconstructions.

        Args:
            records: how many, from the first one, >= 1.
        """
        check.integer("InversionReport.plot", "records", records, 1)
        rows = [(result.name, result.reconstructions) for result in self.results or (self.baseline,)]
        return pictures(self.baseline.originals, rows, records)

    def __str__(self) -> str:
        count, times = len(self.baseline.reconstructions), "once" if self.releases == 1 else f"{self.releases} times"
        summary = self.baseline.summary
        shown = [name for name in COLUMNS if name in summary and summary[name].count]
        layer = self.layer if len(self.layer) <= 120 else self.layer[:117] + "..."
        lines = [f"{count} records released {times} through {layer}"]
        lines.append(f"{'attacker':<26}" + "".join(f"{name:<26}" for name in shown))
        for result in (*self.results, self.baseline):
            stuck = "  did not move: failed" if result.stuck and result.attack is not None else ""
            lines.append(f"{result.name:<26}" + _cells(result.summary, shown) + stuck)
        lines.append(f"{'best of each record':<26}" + _cells(self.best, shown))
        chance = self.baseline.chance or 1.0
        lines.append(f"identification by chance: {chance:.3g}, of the best: at most {self.chance:.3g}")
        if "ssim" in summary and "ssim" not in shown:
            lines.append("SSIM is undefined here: it needs images of 11 x 11 pixels or more")
        lines += [f"not run: {name}: {reason}" for name, reason in self.skipped.items()]
        return "\n".join(lines)

    @staticmethod
    def _figure(result: InversionResult, name: str) -> Tensor:
        found: Tensor = getattr(result, name)
        return found


def _cells(summary: dict[str, Estimate], names: list[str]) -> str:
    return "".join(f"{summary.get(name, '')!s:<26}" for name in names).rstrip()
