"""The words in which a release shows every claim."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from splitpriv.mechanisms.endless_codebook import EndlessCodebook
from splitpriv.mechanisms.rounding import show
from splitpriv.release.claims import Claims

if TYPE_CHECKING:
    from splitpriv.release.dataset import Release

_LABELS = {
    "none": "none",
    "public": "public, not covered by ε",
    "private": "private and unprotected: ε ∞",
    "ldp": "private, released through randomized response",
    "embedded": "inside the features, covered by ε",
}


def describe(release: Release) -> str:
    """The ``repr`` of a release: its size on the wire, its cost, and what qualifies it."""
    claims = release.claims
    width = "float32" if release.alphabet is None else f"{release.bits} bit" + "s" * (release.bits > 1)
    size = f"{len(release):,} records × {release.bytes_per_record:,} bytes = {release.nbytes:,} bytes"
    if isinstance(release.values, EndlessCodebook):
        width += ", numbers of an endless codebook"
    lines = [
        f"{size} " + ("in memory" if release.path is None else f"in {release.path!r}"),
        f"symbols {release.symbol_shape} of {width}, features {release.feature_shape}",
        str(claims),
        f"layers: {', '.join(_one_line(layer) for layer in claims.layers) or 'none'}",
        f"labels: {_LABELS[claims.labels]}" + (f", ε {show(claims.label_epsilon)}" if claims.label_epsilon else ""),
        "edge: trained jointly on the records" if claims.joint else f"edge: {claims.edge_data} data, frozen",
        f"noise: {_noise(claims)}",
    ]
    if claims.anonymous:
        lines.append("order: secret and random")
    if claims.simulated:
        lines.append("simulated: charged to no ledger")
    lines += [f"note: {_one_line(note)}" for note in claims.notes]
    return "Release(\n  " + "\n  ".join(lines) + "\n)"


def _noise(claims: Claims) -> str:
    if math.isinf(claims.per_use) and claims.labels != "ldp":
        return "none"
    return ("secure" if claims.secure else "not secure") + (", on labels only" if math.isinf(claims.per_use) else "")


def _one_line(text: str) -> str:
    """Text without line breaks, and without characters that steer a terminal or reverse its words."""
    line = " ".join(text.split())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
