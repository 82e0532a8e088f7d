"""kill -9 at any instant: no spend is forgotten."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from splitpriv.accounting import Ledger, charging, database

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")

RECORDS = 5


def started(work: Callable[..., Any], *arguments: Any) -> Any:
    """A forked child that runs ``work``."""
    child = multiprocessing.get_context("fork").Process(target=work, args=arguments)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # where other threads run
        child.start()
    return child


def spend(path: Path, log: Path) -> None:
    """Charge one record after the other, and note it when the charge has returned: now it could be drawn."""
    ledger = Ledger(path=path)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for step in range(1_000_000):
        ledger.charge(1.0, ids=[step % RECORDS, "all"])
        os.write(descriptor, b"%d\n" % (step % RECORDS))


def check(path: Path, log: Path, kills: int) -> None:
    """Everything that was noted is charged; and at most one charge for each kill was not noted."""
    ledger = Ledger(path=path)
    noted = log.read_text(encoding="ascii").split()
    for record in range(RECORDS):
        assert ledger.spent(record) >= noted.count(str(record))
    assert len(noted) <= ledger.spent("all") <= len(noted) + kills
    assert sum(ledger.spent(record) for record in range(RECORDS)) == ledger.spent("all")
    assert sum(records for _, _, records in ledger._book.groups()) == RECORDS + 1


def killed_at_random(path: Path, log: Path, kills: int) -> None:
    rng = random.Random(0)
    for _ in range(kills):
        child = started(spend, path, log)
        time.sleep(rng.uniform(0.002, 0.06))
        os.kill(child.pid, signal.SIGKILL)
        child.join(timeout=60)
        assert child.exitcode == -signal.SIGKILL


def test_killed_at_random_instants(tmp_path: Path) -> None:
    path, log = tmp_path / "spent.db", tmp_path / "log"
    log.touch()
    Ledger(path=path).close()
    killed_at_random(path, log, kills=40)
    assert log.stat().st_size > 0
    check(path, log, kills=40)


def test_a_ledger_that_commits_later_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, log = tmp_path / "spent.db", tmp_path / "log"
    log.touch()
    Ledger(path=path).close()
    commit = database.Database.commit
    calls = 0

    def lazily(self: database.Database) -> None:
        nonlocal calls
        calls += 1
        if calls % 50 == 0:
            commit(self)

    monkeypatch.setattr(database.Database, "commit", lazily)
    monkeypatch.setattr(database.Database, "rollback", lambda self: None)
    begin = database.Database.begin
    monkeypatch.setattr(
        database.Database, "begin", lambda self, write: None if self.in_transaction else begin(self, write)
    )
    killed_at_random(path, log, kills=10)
    monkeypatch.undo()
    with pytest.raises(AssertionError):
        check(path, log, kills=10)


@pytest.mark.parametrize("point", ["_fill", "_publish", "_sync"])
def test_killed_while_the_file_is_made(tmp_path: Path, point: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "spent.db"
    monkeypatch.setattr(database, point, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    child = started(partial(Ledger, 4.0, path=path))
    child.join(timeout=60)
    assert child.exitcode == -signal.SIGKILL
    monkeypatch.undo()
    ledger = Ledger(limit=4.0, path=path)
    ledger.charge(1.0)
    assert ledger.epsilon == 1.0


def test_a_crash_between_two_files_may_charge_too_much_never_too_little(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [tmp_path / "a.db", tmp_path / "b.db"]
    ledgers = [Ledger(path=path) for path in paths]
    commit, done = database.Database.commit, []

    def dies_at_the_second(self: database.Database) -> None:
        if done:
            os.kill(os.getpid(), signal.SIGKILL)
        done.append(commit(self))

    def both() -> None:
        with ledgers[0], ledgers[1]:
            charging.charge(1.0)
            (tmp_path / "drawn").touch()

    monkeypatch.setattr(database.Database, "commit", dies_at_the_second)
    child = started(both)
    child.join(timeout=60)
    assert child.exitcode == -signal.SIGKILL
    assert sorted(ledger.epsilon for ledger in ledgers) == [0.0, 1.0]
    assert not (tmp_path / "drawn").exists()
