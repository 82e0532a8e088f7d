"""A ledger as JSON for a reviewer: limit, totals, what was paid by how many, and the charges."""

from __future__ import annotations

import json
import math
import os
import secrets
import time
from contextlib import suppress
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, TextIO

from splitpriv._version import __version__
from splitpriv.accounting.book import Book
from splitpriv.accounting.profile import Profile

if TYPE_CHECKING:
    from splitpriv.accounting.ledger import Ledger

FORMAT, VERSION = "splitpriv-ledger-report", 1
_CHARGE = ("time", "epsilon", "uses", "dataset", "records")


def describe(ledger: Ledger, book: Book) -> dict[str, Any]:
    """The report as JSON values; infinity is ``"inf"``."""
    history = book.history()
    renyi = ledger._filter
    groups = sorted(book.groups(), key=lambda group: (-group[0].pure, group[1]))
    report = {
        "format": FORMAT,
        "version": VERSION,
        "splitpriv": __version__,
        "written": _utc(time.time()),
        "ledger": ledger.uid,
        "limit": ledger.limit,
        "delta": ledger.delta,
        "filter": renyi and {"renyi_order": renyi.order, "renyi_budget": renyi.budget},
        "epsilon": ledger.epsilon,
        "paid_by_every_record": _paid(book.common),
        "paid_under_ids": [{"records": n, "in_named_set": named, **_paid(paid)} for paid, named, n in groups],
        "datasets": [{"name": name, "ids": ids} for name, ids in sorted(book.datasets().items())],
        "charges": [dict(zip(_CHARGE, (_utc(when), *rest), strict=True)) for when, *rest in history],
        "charges_left_out": book.charges - len(history),
    }
    plain: dict[str, Any] = _plain(report)
    return plain


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds")


def _paid(profile: Profile) -> dict[str, Any]:
    uses = [{"epsilon": epsilon, "uses": times} for epsilon, times in profile.uses]
    return {"epsilon": profile.pure, "uses": uses}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_plain(part) for part in value]
    return "inf" if isinstance(value, float) and value == math.inf else value


def write_json(report: dict[str, Any], target: str | os.PathLike[str] | TextIO) -> None:
    """Write to an open file, or to a path, where it appears whole or not at all."""
    text = json.dumps(report, indent=1, allow_nan=False) + "\n"
    if not isinstance(target, (str, os.PathLike)):
        target.write(text)
        return
    path = os.path.realpath(os.fspath(target))
    temporary = os.path.join(os.path.dirname(path), f".splitpriv-{secrets.token_hex(8)}.tmp")
    try:
        with open(temporary, "x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
