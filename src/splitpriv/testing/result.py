"""What a test of an epsilon found: a frozen record."""

from __future__ import annotations

from dataclasses import dataclass

from splitpriv.mechanisms.rounding import show


@dataclass(frozen=True)
class LDPResult:
    """What :func:`assert_ldp` found; it raises instead where a claim does not hold.

    Attributes:
        method: ``"exact"`` where epsilon was read off a declared table, integer by integer, that bounds the
            whole record's claim; ``"statistical"`` where draws alone speak.
        claimed: epsilon of one use that was tested (natural log); of all uses of a record, where draws alone speak
            and symbols are not one use each.
        found: of the table, rounded outward (exact); else the largest lower bound that draws prove.
        failure_probability: of rejecting a layer that keeps its claim.
        driven: what ``encode`` itself was run with.

    Example:
        >>> LDPResult("exact", 2.0, 2.0, 1e-6, "1,000 draws")
        LDPResult(exact: ε 2 claimed, 2 found; encode driven with 1,000 draws; failure probability 1e-06)
    """

    method: str
    claimed: float
    found: float
    failure_probability: float
    driven: str

    def __repr__(self) -> str:
        found = f"{show(self.found)} found" if self.method == "exact" else f"at least {self.found:.3g} found"
        return (
            f"LDPResult({self.method}: ε {show(self.claimed)} claimed, {found}; encode driven with {self.driven}; "
            f"failure probability {self.failure_probability:g})"
        )
