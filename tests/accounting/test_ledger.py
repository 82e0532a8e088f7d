"""The ledger: sums per record, nesting, limits that hold before anything is drawn."""

from __future__ import annotations

import asyncio
import contextvars
import math
import multiprocessing
import threading
import warnings
from enum import Enum, IntEnum
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitpriv import BudgetExceeded, InvalidParameterError
from splitpriv.accounting import Ledger, charge, charging, current, epsilon_total, simulation


def test_the_total_is_all_charges_without_ids_plus_the_worst_record() -> None:
    with Ledger() as ledger:
        charge(1.0)
        charge(2.0, ids=["a", "b"])
        charge(4.0, ids=["b"])
        charge(5.0, ids=["c"])
    assert ledger.epsilon == 7.0
    assert [ledger.spent(i) for i in "abcz"] == [3.0, 7.0, 6.0, 1.0]


def test_an_id_given_twice_pays_twice() -> None:
    with Ledger() as ledger:
        charge(1.5, ids=[7, 7, 8])
    assert ledger.spent(7) == 3.0
    assert ledger.epsilon == 3.0


def test_ids_are_told_apart_by_data_set_and_by_type() -> None:
    with Ledger() as ledger:
        charge(1.0, ids=[1], dataset="x")
        charge(1.0, ids=[1], dataset="y")
        charge(1.0, ids=["1"], dataset="x")
    assert ledger.epsilon == 1.0
    assert ledger.spent(1, "x") == 1.0


@given(st.lists(st.tuples(st.floats(0, 100), st.none() | st.lists(st.integers(0, 3), max_size=4)), max_size=12))
def test_the_total_is_never_below_the_exact_one(charges: list[tuple[float, list[int] | None]]) -> None:
    common, by_id = Fraction(0), {i: Fraction(0) for i in range(4)}
    with Ledger() as ledger:
        for epsilon, ids in charges:
            charge(epsilon, ids=ids)
            if ids is None:
                common += Fraction(epsilon)
            else:
                for i in ids:
                    by_id[i] += Fraction(epsilon)
    exact = common + max(by_id.values())
    assert Fraction(ledger.epsilon) >= exact
    assert float(exact) == pytest.approx(ledger.epsilon, rel=1e-12)


def test_one_is_in_force_from_import_and_the_bare_call_is_true() -> None:
    before = epsilon_total()
    charge(0.25)
    assert epsilon_total() == before + 0.25
    assert current().epsilon == before + 0.25


def test_inner_charges_reach_outer_ledgers() -> None:
    with Ledger() as outer:
        charge(1.0)
        with Ledger() as inner:
            charge(2.0)
            assert epsilon_total() == 2.0
        charge(4.0)
    assert (outer.epsilon, inner.epsilon) == (7.0, 2.0)


def test_a_ledger_charged_as_an_object_reaches_those_in_force_once() -> None:
    alone = Ledger()
    with Ledger() as outer:
        alone.charge(1.0)
        outer.charge(1.0)
    assert (alone.epsilon, outer.epsilon) == (1.0, 2.0)


def test_a_limit_refuses_and_nothing_is_charged_anywhere() -> None:
    with Ledger() as outer, Ledger(limit=3.0) as ledger:
        charge(2.0)
        with pytest.raises(
            BudgetExceeded, match=r"limit=3 with 2 spent and 1\.5 asked by the worst record\. Nothing was drawn"
        ):
            charge(1.5)
        assert (outer.epsilon, ledger.epsilon) == (2.0, 2.0)
        charge(1.0)  # exactly at the limit


def test_an_outer_limit_binds_inner_charges() -> None:
    with Ledger(limit=1.0), Ledger() as inner:
        with pytest.raises(BudgetExceeded):
            charge(2.0)
        assert inner.epsilon == 0.0


def test_a_limit_looks_at_each_record() -> None:
    with Ledger(limit=3.0):
        charge(1.0)
        charge(2.0, ids=["a"])
        charge(2.0, ids=["b"])
        with pytest.raises(BudgetExceeded, match="limit=3 with 3 spent and 1 asked"):
            charge(1.0, ids=["b", "c"])
        with pytest.raises(BudgetExceeded, match="1 spent and 4 asked"):
            charge(2.0, ids=["c", "c"])
        charge(2.0, ids=["c"])


def test_a_refusal_says_what_was_asked_and_the_ledger_what_is_left() -> None:
    with Ledger(limit=3.0) as ledger:
        charge(1.0)
        charge(0.5, ids=["a"])
        with pytest.raises(BudgetExceeded) as caught:
            charge(2.5, ids=["a", "b"])
        assert (ledger.remaining("a"), ledger.remaining("b")) == (1.5, 2.0)
        charge(ledger.remaining("a"), ids=["a"])
        assert ledger.remaining("a") == 0.0
    assert (caught.value.limit, caught.value.spent, caught.value.asked) == (3.0, 1.5, 2.5)
    assert Ledger().remaining("a") == math.inf


def test_a_limit_refuses_what_nothing_bounds() -> None:
    with Ledger(limit=1e9), pytest.raises(BudgetExceeded, match="∞ asked"):
        charge(math.inf)


def test_a_limit_holds_for_threads_started_under_it() -> None:
    caught: list[BaseException] = []

    def spend() -> None:
        try:
            charge(2.0)
        except BudgetExceeded as error:
            caught.append(error)

    with Ledger(limit=1.0):
        thread = threading.Thread(target=spend)
        thread.start()
        thread.join()
    assert len(caught) == 1


def test_simulation_charges_nothing_and_is_seen_by_its_own_thread_only() -> None:
    with Ledger(limit=1.0) as ledger:
        with simulation():
            charge(100.0)
            thread = threading.Thread(target=charge, args=(0.5,))
            thread.start()
            thread.join()
        assert ledger.epsilon == 0.5


def test_simulation_ends_with_its_block_for_tasks_started_inside() -> None:
    async def later() -> None:
        await asyncio.sleep(0)
        charge(1.0)

    async def main() -> None:
        with simulation():
            inside = asyncio.create_task(later())
            charge(64.0)
        await inside

    with Ledger() as ledger:
        asyncio.run(main())
    assert ledger.epsilon == 1.0


def test_simulation_is_not_inherited_by_a_context_run_elsewhere() -> None:
    with Ledger() as ledger:
        with simulation():
            context = contextvars.copy_context()
            thread = threading.Thread(target=context.run, args=(charge, 2.0))
            thread.start()
            thread.join()
        context.run(charge, 4.0)
    assert ledger.epsilon == 6.0


def test_ids_of_no_named_set_may_be_records_of_any() -> None:
    with Ledger(limit=5.0) as ledger:
        charge(2.0, ids=[1], dataset="train")
        charge(1.0, ids=[1], dataset="test")
        charge(2.0, ids=[7])
        assert ledger.epsilon == 4.0
        assert ledger.spent(7) == 4.0
        assert ledger.spent(1, "test") == 3.0
        with pytest.raises(BudgetExceeded, match="4 spent and 2 asked"):
            charge(2.0, ids=[7])
        with pytest.raises(BudgetExceeded, match="4 spent and 2 asked"):
            charge(2.0, ids=[1], dataset="train")


def test_a_forked_child_gets_a_lock_of_its_own() -> None:
    context = multiprocessing.get_context("fork")
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with charging._lock:
            held.set()
            done.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(60)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # fork beside threads: what is tested here
        child = context.Process(target=charge, args=(1.0,))
        child.start()
    child.join(timeout=60)
    done.set()
    thread.join()
    assert child.exitcode == 0


def test_many_threads_lose_no_charge() -> None:
    with Ledger() as ledger:
        threads = [threading.Thread(target=lambda: [charge(1.0) for _ in range(100)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert ledger.epsilon == 400.0


def test_bad_input_is_refused_and_nothing_is_charged() -> None:
    with Ledger() as ledger:
        for epsilon in (-1.0, math.nan, True):
            with pytest.raises(InvalidParameterError, match="epsilon must be >= 0"):
                charge(epsilon)
        for ids in ([1.5], [None], [True], [b"x"]):
            with pytest.raises(InvalidParameterError, match="ids must be str or int, got"):
                charge(1.0, ids=ids)  # type: ignore[arg-type]
        for limit in (0, -1.0, math.inf, math.nan):
            with pytest.raises(InvalidParameterError, match="Ledger: limit must be finite and > 0"):
                Ledger(limit=limit)
        with pytest.raises(InvalidParameterError, match="must be entered once"):
            ledger.__enter__()
        with pytest.raises(InvalidParameterError, match="ids must be a list, got one string"):
            charge(1.0, ids="abc")
        for record in (None, 1.5, ["p"]):
            with pytest.raises(InvalidParameterError, match="ids must be str or int"):
                ledger.spent(record)  # type: ignore[arg-type]
        charge(1.0, ids=[])
        assert ledger.epsilon == 0.0


def test_repr() -> None:
    with Ledger(limit=8.0) as ledger:
        charge(2.0, ids=["a"])
    assert repr(ledger) == "Ledger(spent=2 by the worst record, limit=8, ids=1)"
    assert "limit=none" in repr(Ledger())


def test_ids_may_be_an_iterator() -> None:
    with Ledger(limit=1.0) as ledger:
        charge(1.0, ids=iter(["a", "a"][:1]))
        assert ledger.spent("a") == 1.0
        with pytest.raises(BudgetExceeded, match="limit must not be passed"):
            charge(1.0, ids=(record for record in ["a"]))


@pytest.mark.parametrize("uses", [np.uint8(200), np.int16(20_000), np.int64(1 << 62)])
def test_uses_that_are_numpy_integers_do_not_overflow(uses: Any, tmp_path: Path) -> None:
    for ledger in (Ledger(), Ledger(path=tmp_path / "spent.db")):
        ledger.charge(2.0**-8, ids=["a", "a"], uses=uses)
        ledger.charge(2.0**-8, ids=["a"], uses=uses)
        assert ledger.spent("a") == 3 * int(uses) / 256


class _Name(str, Enum):
    A = "a"


class _Number(IntEnum):
    ONE = 1


def test_an_id_that_equals_another_is_that_one_in_memory_and_in_a_file(tmp_path: Path) -> None:
    for ledger in (Ledger(), Ledger(path=tmp_path / "spent.db")):
        for record in ("a", _Name.A, 1, _Number.ONE):
            ledger.charge(1.0, ids=[record])
        assert [ledger.spent("a"), ledger.spent(_Name.A), ledger.spent(1)] == [2.0, 2.0, 2.0]


@pytest.mark.parametrize("dataset", [None, 0, b"x", math.nan])
def test_a_data_set_is_named_by_a_str(dataset: Any) -> None:
    with pytest.raises(InvalidParameterError, match="dataset must be a str, got dataset="):
        Ledger().charge(1.0, ids=["a"], dataset=dataset)
