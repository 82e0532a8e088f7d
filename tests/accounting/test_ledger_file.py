"""A ledger in a file: kept, shared, refused where it is not intact, and never charged in part."""

from __future__ import annotations

import copy
import io
import json
import math
import multiprocessing
import os
import pickle
import sqlite3
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import pytest

from splitpriv import BudgetExceeded, InvalidParameterError, LedgerFileError
from splitpriv.accounting import Ledger, charge, database, simulation
from splitpriv.accounting.file_book import FileBook, encoded


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spent.db"


def book_of(ledger: Ledger) -> FileBook:
    assert isinstance(ledger._book, FileBook)
    return ledger._book


def elsewhere(path: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Run code in another process, with the ledger of the file as ``ledger``."""
    start = f"from splitpriv.accounting import Ledger\nledger = Ledger(path={str(path)!r})\n"
    return subprocess.run([sys.executable, "-c", start + code], capture_output=True, text=True, check=False)


def test_what_was_spent_is_there_again(path: Path) -> None:
    ledger = Ledger(limit=8.0, path=path)
    ledger.charge(0.1, ids=["a", 1, "a"], dataset="x", uses=3)
    ledger.charge(0.5)
    seen = ledger.epsilon, ledger.spent("a", "x"), ledger.spent(1, "x"), ledger.spent("1", "x"), ledger.epsilon_at(1e-3)
    ledger.close()
    again = Ledger(path=path)
    assert again.limit == 8.0
    assert again.uid == ledger.uid
    assert seen == (again.epsilon, *(again.spent(i, "x") for i in ("a", 1, "1")), again.epsilon_at(1e-3))
    assert repr(again) == f"Ledger(spent=1.1 by the worst record, limit=8, ids=2, path={str(path)!r})"
    other = elsewhere(path, "print(ledger.epsilon, ledger.remaining('a', 'x'))")
    assert other.stdout.split() == [repr(again.epsilon), repr(again.remaining("a", "x"))]


def test_two_ledgers_of_one_file_are_one(path: Path) -> None:
    with Ledger(limit=3.0, path=path), Ledger(path=path):
        charge(1.0)
    assert Ledger(path=path).epsilon == 1.0
    for twin in (copy.deepcopy(Ledger(path=path)), pickle.loads(pickle.dumps(Ledger(path=path)))):
        twin.charge(1.0)
    assert Ledger(path=path).epsilon == 3.0


def test_a_file_keeps_its_limit(path: Path) -> None:
    Ledger(limit=3.0, delta=1e-6, path=path)
    for limit, delta in ((4.0, 1e-6), (3.0, 0.0), (3.0, 1e-5)):
        with pytest.raises(
            InvalidParameterError, match=r"limit must be 3.0 with delta=1e-06.*limit=None takes it over"
        ):
            Ledger(limit=limit, delta=delta, path=path)
    again = Ledger(path=path)
    assert (again.limit, again.delta) == (3.0, 1e-6)
    assert again._filter == Ledger(limit=3.0, delta=1e-6)._filter
    with pytest.raises(BudgetExceeded):
        again.charge(4.0)


def test_ids_of_all_kinds_are_told_apart(path: Path) -> None:
    kinds = ["1", 1, -1, 1 << 63, -(1 << 63), -(1 << 63) - 1, 1 << 200, -(1 << 200), "\ud800", "", "a\0b", "a"]
    ledger = Ledger(path=path)
    for power, record in enumerate(kinds):
        ledger.charge(2.0**power, ids=[record], dataset="\udfff")
    assert [ledger.spent(record, "\udfff") for record in kinds] == [2.0**power for power in range(len(kinds))]
    assert len({(type(encoded(i)), encoded(i)) for i in kinds}) == len(kinds)
    many = list(range(1200))  # more than one statement asks for
    ledger.charge(1.0, ids=many)
    ledger.charge(1.0, ids=many[:700])
    assert (ledger.spent(0), ledger.spent(1199)) == (2.0 + 2048.0, 1.0 + 2048.0)


def test_infinite_and_simulated_charges(path: Path) -> None:
    ledger = Ledger(path=path)
    with simulation():
        ledger.charge(5.0)
    assert ledger.epsilon == 0.0
    ledger.charge(math.inf, ids=["a"])
    assert (ledger.spent("a"), ledger.spent("b", "named"), ledger.epsilon_at(0.1)) == (math.inf, math.inf, math.inf)


def test_a_refused_charge_reaches_no_ledger(path: Path, tmp_path: Path) -> None:
    files = [Ledger(path=path), Ledger(limit=1.0, path=tmp_path / "small.db")]
    with Ledger() as memory, files[0], files[1]:
        with pytest.raises(BudgetExceeded):
            charge(2.0, ids=["a"])
        assert [ledger.epsilon for ledger in (memory, *files)] == [0.0, 0.0, 0.0]
        charge(0.5, ids=["a"])
        assert [ledger.epsilon for ledger in (memory, *files)] == [0.5, 0.5, 0.5]


def test_profiles_that_nobody_has_are_dropped(path: Path) -> None:
    ledger = Ledger(path=path)
    for _ in range(20):
        ledger.charge(0.1, ids=range(10))
        ledger.charge(0.1)
    assert len(book_of(ledger).database.all("SELECT * FROM profiles")) <= 3
    assert book_of(ledger).groups()[0][2] == 10


def test_a_commit_is_synced_to_the_disk(path: Path) -> None:
    ledger = Ledger(path=path)
    connection = book_of(ledger).database._connect()
    assert connection.execute("PRAGMA synchronous").fetchone() == (3,)  # EXTRA
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


# Others at the same time -----------------------------------------------------------------------


def test_racing_processes_never_pass_the_limit(path: Path) -> None:
    Ledger(limit=20.0, path=path)
    code = """
from splitpriv import BudgetExceeded
accepted = 0
for _ in range(40):
    try:
        ledger.charge(1.0, ids=["a", "b"])
        accepted += 1
    except BudgetExceeded:
        pass
print(accepted)
"""
    start = f"from splitpriv.accounting import Ledger\nledger = Ledger(path={str(path)!r})\n"
    command = [sys.executable, "-c", start + code]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    accepted = [int(process.communicate(timeout=120)[0]) for process in running]
    assert sum(accepted) == 20
    assert Ledger(path=path).epsilon == 20.0


def test_threads_lose_no_charge_and_pass_no_limit(path: Path) -> None:
    ledger, refused = Ledger(limit=30.0, path=path), []

    def spend() -> None:
        for _ in range(20):
            try:
                ledger.charge(1.0)
            except BudgetExceeded as error:
                refused.append(error)

    threads = [threading.Thread(target=spend) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (ledger.epsilon, len(refused)) == (30.0, 50)


def test_a_fork_opens_the_file_for_itself(path: Path) -> None:
    context = multiprocessing.get_context("fork")
    ledger = Ledger(path=path)
    ledger.charge(1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # where other threads run
        children = [context.Process(target=ledger.charge, args=(1.0,)) for _ in range(3)]
        for child in children:
            child.start()
    for child in children:
        child.join(timeout=60)
        assert child.exitcode == 0
    ledger.charge(1.0)
    assert ledger.epsilon == 5.0
    assert elsewhere(path, "print(ledger.epsilon)").stdout.strip() == "5.0"


def test_a_file_held_by_another_process_is_waited_for_and_then_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "PATIENCE", 0.2)
    with Ledger(path=path) as ledger, Ledger() as memory:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(LedgerFileError, match=r"Another process has held it for 0\.2 s\. Nothing was drawn"):
            charge(1.0)
        assert memory.epsilon == 0.0
        other.execute("ROLLBACK")
        other.close()
        charge(1.0)
        assert (memory.epsilon, ledger.epsilon) == (1.0, 1.0)


def test_a_charge_without_the_write_lock_is_caught(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: a transaction that only locks when it writes decides on sums that another process changes."""
    ledger = Ledger(limit=1.0, path=path)
    begin = database.Database.begin
    monkeypatch.setattr(database.Database, "begin", lambda self, write: begin(self, False))
    refuse = Ledger._refuse_beyond_limit

    def interrupted(self: Ledger, made: Any) -> None:
        refuse(self, made)
        monkeypatch.setattr(Ledger, "_refuse_beyond_limit", refuse)
        assert elsewhere(path, "ledger.charge(1.0)").returncode == 0

    monkeypatch.setattr(Ledger, "_refuse_beyond_limit", interrupted)
    with pytest.raises(LedgerFileError, match=r"locked|held"):  # SQLite notices the stale snapshot
        ledger.charge(1.0)
    assert ledger.epsilon == 1.0


# Files that are no ledgers, or cannot be written ------------------------------------------------


def test_foreign_and_damaged_files_are_refused(tmp_path: Path) -> None:
    whole = tmp_path / "whole.db"
    ledger = Ledger(path=whole)
    ledger.charge(1.0, ids=range(2000), dataset="x")
    ledger.close()
    content = whole.read_bytes()
    assert not Path(f"{whole}-wal").exists()
    other = sqlite3.connect(tmp_path / "other.db")
    other.execute("CREATE TABLE t (x)")
    other.close()
    middle = len(content) // 2
    faults = {
        "empty": (b"", "another program's file, or empty"),
        "text": (b"not a database, but long enough to be one " * 40, "file is not a database"),
        "cut": (content[: middle // 4096 * 4096], "malformed|It is damaged: "),
        "scrambled": (content[:4096] + bytes(len(content) - 4096), "malformed|damaged"),
        "other": ((tmp_path / "other.db").read_bytes(), "another program's file"),
    }
    for name, (bad, reason) in faults.items():
        path = tmp_path / f"{name}.bad"
        path.write_bytes(bad)
        with pytest.raises(LedgerFileError, match=reason):
            Ledger(path=path)
        assert path.read_bytes() == bad
    with pytest.raises(LedgerFileError, match=r"path must be a ledger file that can be read and written, got path="):
        Ledger(path=tmp_path)
    with pytest.raises(LedgerFileError, match=r"No such file or directory|unable to open"):
        Ledger(path=tmp_path / "nowhere" / "spent.db")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("PRAGMA user_version = 2", "Its format is version 2, and this splitpriv reads version 1"),
        ("PRAGMA application_id = 7", "another program's file"),
        ("DROP TABLE records", "its tables are not those of a ledger"),
        ("DELETE FROM ledger", "its tables are not those of a ledger"),
        ("UPDATE profiles SET pure = 7 WHERE named > 0", "its sums contradict each other"),
        ("UPDATE records SET profile = profile + 1 WHERE record = 'a'", "its sums contradict each other"),
        ("UPDATE ledger SET common = 99", "its sums contradict each other"),
        ("DELETE FROM records WHERE record = 'a'", "its sums contradict each other"),
    ],
)
def test_changed_files_are_refused(path: Path, change: str, reason: str) -> None:
    ledger = Ledger(path=path)
    ledger.charge(1.0, ids=["a", "b"], dataset="x")
    ledger.close()
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(change)
    connection.close()
    twin = path.with_name("twin.db")
    twin.write_bytes(path.read_bytes())
    with pytest.raises(LedgerFileError, match=reason):
        Ledger(path=twin)


def test_a_ledger_that_is_gone_is_not_begun_anew(path: Path) -> None:
    ledger = Ledger(path=path)
    ledger.charge(1.0)
    path.rename(path.with_name("moved.db"))
    with pytest.raises(LedgerFileError, match=r"It was removed or replaced while it was in use"):
        ledger.charge(1.0)
    with pytest.raises(LedgerFileError, match=r"It is missing, but 'spent.db-wal' beside it is a part of it"):
        Ledger(path=path)


def test_a_full_disk_charges_nothing(path: Path) -> None:
    ledger = Ledger(path=path)
    ledger.charge(1.0, ids=["a"])
    connection = book_of(ledger).database._connect()
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages}")
    with Ledger() as memory:
        with pytest.raises(LedgerFileError, match=r"database or disk is full\. Nothing was drawn"):
            ledger.charge(1.0, ids=range(5000))
        assert (memory.epsilon, ledger.epsilon) == (0.0, 1.0)
        connection.execute(f"PRAGMA max_page_count = {pages + 1000}")
        ledger.charge(1.0, ids=range(5000))
        assert (memory.epsilon, ledger.spent(7)) == (1.0, 1.0)


def test_a_file_that_may_not_be_written_charges_nothing(path: Path) -> None:
    ledger = Ledger(path=path)
    book_of(ledger).database._connect().execute("PRAGMA query_only = ON")
    with Ledger() as memory:
        with pytest.raises(LedgerFileError, match="attempt to write a readonly database"):
            ledger.charge(1.0)
        assert memory.epsilon == 0.0


@pytest.mark.skipif(os.name == "nt", reason="no such limit there")
def test_a_write_that_the_system_refuses_charges_nothing(path: Path) -> None:
    Ledger(path=path).charge(1.0)
    code = """
import resource, signal
from splitpriv import LedgerFileError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
ledger.charge(1.0)
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try:
    for _ in range(100):
        ledger.charge(1.0, ids=range(2000))
except LedgerFileError as error:
    print(error)
"""
    done = elsewhere(path, code)
    assert "Nothing was drawn" in done.stdout, done.stderr
    assert Ledger(path=path).epsilon == 2.0


# Reports ----------------------------------------------------------------------------------------


def strict(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize("kept", ["memory", "file"])
def test_the_report(kept: str, path: Path, tmp_path: Path) -> None:
    ledger = Ledger(limit=50.0, delta=1e-6, path=path if kept == "file" else None)
    ledger.charge(0.25, ids=["a", "b", "b"], dataset="x", uses=4)
    ledger.charge(1.0)
    ledger.charge(1.0, ids=["a"])
    target = tmp_path / "report.json"
    ledger.export(target)
    report = strict(target.read_text(encoding="utf-8"))
    assert (report["format"], report["version"]) == ("splitpriv-ledger-report", 1)
    assert (report["limit"], report["delta"], report["epsilon"]) == (50.0, 1e-6, ledger.epsilon)
    assert report["filter"]["renyi_order"] == ledger._filter.order
    assert report["paid_by_every_record"] == {"epsilon": 1.0, "uses": [{"epsilon": 1.0, "uses": 1}]}
    assert report["paid_under_ids"] == [
        {"records": 1, "in_named_set": True, "epsilon": 2.0, "uses": [{"epsilon": 0.25, "uses": 8}]},
        {"records": 1, "in_named_set": False, "epsilon": 1.0, "uses": [{"epsilon": 1.0, "uses": 1}]},
        {"records": 1, "in_named_set": True, "epsilon": 1.0, "uses": [{"epsilon": 0.25, "uses": 4}]},
    ]
    assert report["datasets"] == [{"name": "", "ids": 1}, {"name": "x", "ids": 2}]
    told = [[charge[name] for name in ("epsilon", "uses", "dataset", "records")] for charge in report["charges"]]
    assert told == [[0.25, 4, "x", 2], [1.0, 1, "", None], [1.0, 1, "", 1]]
    assert all(charge["time"].endswith("+00:00") for charge in report["charges"])
    assert report["charges_left_out"] == 0
    assert list(tmp_path.glob(".splitpriv-*")) == []


def test_infinity_in_a_report_is_text(path: Path) -> None:
    for ledger in (Ledger(), Ledger(path=path)):
        ledger.charge(math.inf, ids=["a"])
        written = io.StringIO()
        ledger.export(written)
        report = strict(written.getvalue())
        assert report["epsilon"] == report["charges"][0]["epsilon"] == "inf"
        assert report["paid_under_ids"][0]["uses"] == [{"epsilon": "inf", "uses": 1}]
        assert report["limit"] is None


def test_a_ledger_in_memory_remembers_its_last_charges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("splitpriv.accounting.book.HISTORY", 3)
    ledger, written = Ledger(), io.StringIO()
    for _ in range(5):
        ledger.charge(1.0)
    ledger.export(written)
    report = strict(written.getvalue())
    assert (len(report["charges"]), report["charges_left_out"], report["epsilon"]) == (3, 2, 5.0)


@pytest.mark.parametrize("step", ["charge", "read"])
def test_an_interrupt_just_after_a_transaction_began_leaves_nothing_open(
    step: str, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(path=path)
    original = database.Database.begin

    def interrupted(self: database.Database, write: bool) -> None:
        original(self, write)
        raise KeyboardInterrupt

    monkeypatch.setattr(database.Database, "begin", interrupted)
    with pytest.raises(KeyboardInterrupt):
        _ = ledger.epsilon if step == "read" else ledger.charge(1.0)
    monkeypatch.undo()
    assert elsewhere(path, "ledger.charge(4.0)").returncode == 0  # not locked
    assert ledger.epsilon == 4.0  # not a snapshot from before
    ledger.charge(2.0)
    assert ledger.epsilon == 6.0
