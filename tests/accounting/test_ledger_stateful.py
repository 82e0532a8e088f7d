"""A ledger in a file does what one in memory does, whatever is charged in whatever order."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from splitpriv import BudgetExceeded
from splitpriv.accounting import Ledger
from splitpriv.accounting.file_book import FileBook

RECORDS = ["a", "b", 1, "1", 1 << 70]
SETS = ["", "x", "y"]
EPSILONS = st.sampled_from([0.0, 0.1, 0.25, 1 / 3, 2.0]) | st.floats(0, 3)


class Twins(RuleBasedStateMachine):
    """The same charges to two ledgers."""

    @initialize(limit=st.sampled_from([None, 2.0, 8.0]), delta=st.sampled_from([0.0, 1e-3]))
    def start(self, limit: float | None, delta: float) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "spent.db"
        options: dict[str, Any] = {"limit": limit, "delta": delta if limit else 0.0}
        self.memory, self.file = Ledger(**options), Ledger(path=self.path, **options)

    @rule(
        epsilon=EPSILONS,
        ids=st.none() | st.lists(st.sampled_from(RECORDS), max_size=6),
        dataset=st.sampled_from(SETS),
        uses=st.sampled_from([1, 1, 3, 40]),
    )
    def charge(self, epsilon: float, ids: list[Any] | None, dataset: str, uses: int) -> None:
        told = []
        for ledger in (self.memory, self.file):
            try:
                ledger.charge(epsilon, ids=ids, dataset=dataset, uses=uses)
                told.append(None)
            except BudgetExceeded as error:
                told.append(str(error))
        assert told[0] == told[1]

    @rule()
    def reopen(self) -> None:
        self.file.close()
        self.file = Ledger(path=self.path)

    @invariant()
    def same(self) -> None:
        memory, file = self.memory, self.file
        assert memory.epsilon == file.epsilon
        assert memory.epsilon_at(1e-3) == file.epsilon_at(1e-3)
        for dataset in SETS:
            for record in RECORDS:
                assert memory.spent(record, dataset) == file.spent(record, dataset)
                assert memory.remaining(record, dataset) == file.remaining(record, dataset)
        groups = [sorted((p.pure, p.uses, *rest) for p, *rest in ledger._book.groups()) for ledger in (memory, file)]
        assert groups[0] == groups[1]
        assert memory._book.datasets() == file._book.datasets()

    def teardown(self) -> None:
        if hasattr(self, "file"):
            self.file.close()
            self.folder.cleanup()


FEW = settings(max_examples=40, stateful_step_count=12)
ONE = settings(FEW, report_multiple_bugs=False, phases=[Phase.generate])  # found is enough: not made small


def test_a_file_and_memory_agree() -> None:
    run_state_machine_as_test(Twins, settings=FEW)


def test_a_file_that_forgets_who_had_which_profile_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FileBook, "_count", lambda *_: None)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(Twins, settings=ONE)
