"""kill -9 between charge, draw, store, commit and sending: paid once, drawn anew only if it was never sent."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from splitpriv import RandomResponseLDP, ReleaseCache, SplitModel
from splitpriv.accounting import Ledger, database
from splitpriv.cache import Memo
from splitpriv.cut import Cut

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")

ELEMENTS = 64  # so that two draws are equal with probability far below 2**-64
COST = 64.0
IDS = ["a", "b", "c"]


def make() -> SplitModel:
    return SplitModel(nn.Identity(), nn.Identity(), RandomResponseLDP(epsilon=1.0), labels="public")


def x(rows: int = len(IDS)) -> Tensor:
    return torch.zeros(rows, ELEMENTS)


def started(work: Callable[..., Any], *arguments: Any) -> Any:
    child = multiprocessing.get_context("fork").Process(target=work, args=arguments)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # where other threads run
        child.start()
    return child


def die(*_: Any, **__: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def before(owner: Any, name: str) -> None:
    setattr(owner, name, die)


def after(owner: Any, name: str) -> None:
    function = getattr(owner, name)

    def then_die(*arguments: Any, **options: Any) -> None:
        function(*arguments, **options)
        die()

    setattr(owner, name, then_die)


def at_second(owner: Any, name: str) -> None:
    """Dies instead of the second call."""
    function, calls = getattr(owner, name), []

    def counted(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        return die() if len(calls) == 2 else function(*arguments, **options)

    setattr(owner, name, counted)


# Where the process dies: how, and whether the charge and the symbols are there afterwards.
POINTS = {
    "before the charge": (before, Memo, "charge", False, False),
    "charge written, not committed": (before, database.Database, "commit", False, False),
    "after the charge": (after, Memo, "charge", True, False),
    "during the draw": (after, Cut, "encode", True, False),
    "before the store": (before, Memo, "store", True, False),
    "symbols written, not committed": (at_second, database.Database, "commit", True, False),
    "after the commit": (after, Memo, "store", True, True),
    "before sending": (before, Memo, "load", True, True),
}


def release_and_die(path: Path, sent: Path, point: str) -> None:
    how, owner, name, _, _ = POINTS[point]
    cache = ReleaseCache(path)
    how(owner, name)
    release = make().release(x(), ids=IDS, cache=cache, progress=False)
    sent.write_bytes(release.symbols(slice(None)).numpy().tobytes())


def stored(cache: ReleaseCache) -> list[bytes]:
    rows = cache.ledger._book.database.all("SELECT symbols FROM releases WHERE symbols IS NOT NULL")  # type: ignore[attr-defined]
    return sorted(row[0] for row in rows)


@pytest.mark.parametrize("point", POINTS)
def test_killed_at_each_step(tmp_path: Path, point: str) -> None:
    path, sent = tmp_path / "spent.db", tmp_path / "sent"
    Ledger(path=path).close()
    child = started(release_and_die, path, sent, point)
    child.join(timeout=60)
    assert child.exitcode == -signal.SIGKILL
    assert not sent.exists()  # nothing was sent
    cache = ReleaseCache(path)
    _, _, _, charged, kept = POINTS[point]
    assert cache.ledger.epsilon == (COST if charged else 0.0)
    found = stored(cache)
    assert len(found) == (len(IDS) if kept else 0)
    first = make().release(x(), ids=IDS, cache=cache, progress=False)
    assert cache.ledger.epsilon == COST  # never twice
    assert not kept or stored(cache) == found
    again = make().release(x(), ids=IDS, cache=cache, progress=False)
    assert torch.equal(first.symbols(slice(None)), again.symbols(slice(None)))


def serve(path: Path, log: Path) -> None:
    """Send one record after the other, and note what was sent."""
    cache, model = ReleaseCache(path), make()
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for step in range(1_000_000):
        record = step % 40
        output = model(x(1), ids=[record], cache=cache)
        bits = "".join(str(int(bit)) for bit in output[0])
        os.write(descriptor, f"{record} {bits}\n".encode())


def check(path: Path, log: Path) -> None:
    """Each record was sent as one and the same, is stored as that, and has paid once."""
    cache, model = ReleaseCache(path), make()
    noted = [line.split() for line in log.read_text(encoding="ascii").splitlines()]
    assert noted
    for record, bits in noted:
        output = model(x(1), ids=[int(record)], cache=cache)
        assert "".join(str(int(bit)) for bit in output[0]) == bits
    assert {cache.ledger.spent(int(record)) for record, _ in noted} == {COST}
    assert cache.ledger.epsilon == COST


def killed_at_random(path: Path, log: Path, kills: int) -> None:
    rng = random.Random(1)
    for kill in range(kills):
        child = started(serve, path, log)
        while kill == 0 and (not log.exists() or not log.stat().st_size):
            time.sleep(0.001)
        time.sleep(rng.uniform(0.005, 0.05))
        os.kill(child.pid, signal.SIGKILL)
        child.join(timeout=60)
        assert child.exitcode == -signal.SIGKILL


def test_killed_at_random_instants(tmp_path: Path) -> None:
    path, log = tmp_path / "spent.db", tmp_path / "log"
    Ledger(path=path).close()
    killed_at_random(path, log, kills=25)
    check(path, log)


def test_a_cache_that_sends_before_it_stores_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, log = tmp_path / "spent.db", tmp_path / "log"
    Ledger(path=path).close()
    drawn: list[Tensor] = []
    monkeypatch.setattr(Memo, "store", lambda self, ids, symbols: drawn.append(symbols))
    monkeypatch.setattr(Memo, "load", lambda self, ids: drawn[-1])
    killed_at_random(path, log, kills=2)
    monkeypatch.undo()
    with pytest.raises(AssertionError):
        check(path, log)


def test_processes_that_draw_one_record_at_once_send_the_same(tmp_path: Path) -> None:
    path, logs = tmp_path / "spent.db", [tmp_path / f"log{k}" for k in range(3)]
    Ledger(path=path).close()
    children = [started(serve, path, log) for log in logs]
    time.sleep(0.5)
    for child in children:
        os.kill(child.pid, signal.SIGKILL)
        child.join(timeout=60)
    for log in logs:
        check(path, log)
