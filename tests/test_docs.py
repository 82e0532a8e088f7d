"""The documentation: it builds without a warning, its examples run, and no public name is missing.

Every ``>>>`` in a docstring of the package and in a page of docs/ is run, each docstring and each
page by itself. Blocks of code in pages that nobody runs are refused.
"""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from sphinx.util.inventory import InventoryFile
from torch import nn

import splitpriv as sp

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(page for page in DOCS.rglob("*.rst") if "_build" not in page.parts)
FLAGS = doctest.ELLIPSIS
MODULES = [info.name for info in pkgutil.walk_packages(sp.__path__, "splitpriv.")]
PACKAGES = ["splitpriv", *(info.name for info in pkgutil.iter_modules(sp.__path__, "splitpriv.") if info.ispkg)]

# A change that stops tests from being found would be green; raise these as examples are added.
DOCSTRINGS_WITH_EXAMPLES = 30
EXAMPLES_IN_PAGES = 106


def public_objects() -> list[tuple[str, Any]]:
    """(name, object) for each name in the ``__all__`` of each package; modules and strings left out."""
    found = {}
    for package in map(importlib.import_module, PACKAGES):
        for name in package.__all__:
            value = getattr(package, name)
            if not isinstance(value, (ModuleType, str)):
                found[f"{package.__name__}.{name}"] = value
    return sorted(found.items())


def docstring_examples() -> Iterator[doctest.DocTest]:
    finder = doctest.DocTestFinder(exclude_empty=True)
    for name in MODULES:
        module = importlib.import_module(name)
        names = {public: getattr(sp, public) for public in sp.__all__}
        globs = {**names, "torch": torch, "nn": nn, "sp": sp, **vars(module)}
        yield from (test for test in finder.find(module, name, extraglobs=globs) if test.examples)


EXAMPLES = list(docstring_examples())


def run(test: doctest.DocTest) -> None:
    report: list[str] = []
    result = doctest.DocTestRunner(optionflags=FLAGS).run(test, out=report.append)
    assert result.failed == 0, "".join(report)


# Building -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages as HTML, built with warnings as errors."""
    out = tmp_path_factory.mktemp("html")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html"]
    done = subprocess.run(
        [*command, "-d", str(out / "trees"), str(DOCS), str(out)], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    return out


def test_the_pages_build_without_a_warning_and_fetch_nothing(built: Path) -> None:
    for page in PAGES:
        html = (built / page.relative_to(DOCS).with_suffix(".html")).read_text(encoding="utf-8")
        assert not re.findall(r'<(?:script|link|img)[^>]*(?:src|href)="(?:https?:)?//', html), page


def documented(inventory: dict[str, dict[str, Any]]) -> set[int]:
    """The identity of every object that the inventory has an entry for, by whichever of its names."""
    found = set()
    for role, entries in inventory.items():
        if role.startswith("py:"):
            for name in entries:
                value: Any = sp
                for part in name.split(".")[1:]:
                    value = getattr(value, part, None)
                found.add(id(value))
    return found


def test_every_public_name_is_in_the_reference(built: Path) -> None:
    inventory = InventoryFile.loads((built / "objects.inv").read_bytes(), uri="").data
    known = documented(inventory)
    assert [name for name, value in public_objects() if id(value) not in known] == []
    modules = set(inventory["py:module"])
    assert set(PACKAGES) <= modules
    assert "splitpriv.__version__" in inventory["py:data"]


def test_a_name_that_is_missing_from_the_reference_is_noticed() -> None:
    inventory: dict[str, dict[str, Any]] = {"py:class": {"splitpriv.accounting.Ledger": 0}, "std:doc": {"fit": 0}}
    assert id(sp.accounting.Ledger) in documented(inventory)
    assert id(sp.fit) not in documented(inventory)


def test_the_front_page_of_the_reference_names_everything_that_the_package_exports() -> None:
    page = (DOCS / "api" / "splitpriv.rst").read_text(encoding="utf-8")
    assert [name for name in sp.__all__ if not re.search(rf"\b{re.escape(name)}\b", page)] == []


# Running --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("test", EXAMPLES, ids=[test.name for test in EXAMPLES])
def test_the_examples_of_docstrings_run(test: doctest.DocTest, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    run(test)


def page_examples(page: Path) -> doctest.DocTest:
    text = page.read_text(encoding="utf-8")
    return doctest.DocTestParser().get_doctest(text, {}, page.stem, str(page), 0)


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(DOCS)) for page in PAGES])
def test_the_examples_of_pages_run(page: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(page.parent))  # as for a reader who has saved the code of the page
    run(page_examples(page))


def test_no_example_is_lost() -> None:
    assert len(EXAMPLES) >= DOCSTRINGS_WITH_EXAMPLES
    assert sum(len(page_examples(page).examples) for page in PAGES) >= EXAMPLES_IN_PAGES


def test_a_wrong_example_is_noticed() -> None:
    planted = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "planted", None, 0)
    with pytest.raises(AssertionError, match="Expected"):
        run(planted)


def unrun_blocks(text: str) -> list[str]:
    """Python that a page shows and no test runs: anything but doctests and included files."""
    return re.findall(r"^ *\.\. (?:code-block|code|sourcecode|highlight)::.*$|^(?! *\.\. ).*::$", text, re.MULTILINE)


def test_pages_show_no_code_that_is_not_run() -> None:
    assert [block for page in PAGES for block in unrun_blocks(page.read_text(encoding="utf-8"))] == []
    planted = "Like so::\n\n  x = 1\n\n.. code-block:: python\n\n  x\n"
    assert unrun_blocks(planted) == ["Like so::", ".. code-block:: python"]


def test_the_readme_example_runs(tmp_path: Path, monkeypatch: Any) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL | re.M)
    if not blocks:
        pytest.skip("README.md has no python example yet")
    monkeypatch.chdir(tmp_path)
    exec(compile(blocks[0], "README.md", "exec"), {"__name__": "__main__"})


# Docstrings -----------------------------------------------------------------------------------------


def missing_parts(value: Any) -> list[str]:
    """What the docstring of a public class or function lacks.

    Modest on purpose: it looks for a sentence, for the name of each parameter under ``Args:`` (for a
    dataclass ``Attributes:``), and for ``Raises:`` where the code of the function or of the
    constructor raises or calls a check. It cannot tell whether what stands there is true. A docstring
    that says "See :meth:`...`" may leave parameters and errors to the one it points to.
    """
    text = inspect.getdoc(value) or ""
    if not text or (inspect.isclass(value) and value.__doc__ is None):
        return ["a docstring"]
    if re.search(r"See :(?:meth|class|func):", text) or (inspect.isclass(value) and issubclass(value, Exception)):
        return []
    code: Callable[..., Any] | None = vars(value).get("__init__") if inspect.isclass(value) else value
    if code is None or getattr(value, "_is_protocol", False):
        return []
    names = [n for n, p in inspect.signature(code).parameters.items() if n != "self" and p.kind is not p.VAR_KEYWORD]
    # What a base of this package documents, its subclasses need not repeat.
    bases = value.__mro__[1:] if inspect.isclass(value) else ()
    entries = "\n".join([text, *(base.__doc__ or "" for base in bases if base.__module__.startswith("splitpriv."))])
    lacking = [f"an entry for {name}" for name in names if not re.search(rf"^ +{name}: ", entries, re.MULTILINE)]
    if raises(inspect.unwrap(code)) and "Raises:" not in text:
        lacking.append("Raises:")
    return lacking


def raises(code: Callable[..., Any]) -> bool:
    """Whether a function's own code has a ``raise``, or a call of a shared check."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(code)))
    except (OSError, TypeError):  # made by dataclasses
        return False
    checks = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and "check." in ast.unparse(node.func)]
    return bool(checks) or any(isinstance(node, ast.Raise) for node in ast.walk(tree))


@pytest.mark.parametrize(("name", "value"), public_objects(), ids=[name for name, _ in public_objects()])
def test_public_docstrings_are_complete(name: str, value: Any) -> None:
    assert missing_parts(value) == []


def undocumented_members(value: type) -> list[str]:
    """Public methods and properties that a class defines and does not document, not even in a base."""
    members = {
        name: getattr(value, name)
        for name, made in vars(value).items()
        if not name.startswith("_") and (callable(made) or isinstance(made, (property, classmethod, staticmethod)))
    }
    return [name for name, member in members.items() if not inspect.getdoc(member)]


@pytest.mark.parametrize("value", sorted({v for _, v in public_objects() if inspect.isclass(v)}, key=str), ids=str)
def test_public_members_are_documented(value: type) -> None:
    assert undocumented_members(value) == []


def test_a_poor_docstring_is_noticed() -> None:
    def bare(x: int) -> None:
        raise ValueError(x)

    def half(x: int) -> None:
        """Does things."""
        raise ValueError(x)

    def whole(x: int) -> None:
        """Does things.

        Args:
            x: any.

        Raises:
            ValueError: always.
        """
        raise ValueError(x)

    class Holder:
        """Holds."""

        def method(self) -> None: ...

    assert missing_parts(bare) == ["a docstring"]
    assert missing_parts(half) == ["an entry for x", "Raises:"]
    assert missing_parts(whole) == []
    assert undocumented_members(Holder) == ["method"]
