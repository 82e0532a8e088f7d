"""Whatever a docstring cites is in docs/references.rst, under its authors and year."""

from __future__ import annotations

import ast
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest

import splitpriv as sp

SRC = Path(sp.__file__).parent
PAGE = Path(__file__).parents[1] / "docs" / "references.rst"
CITED = re.compile(r"([A-Z][\w-]+(?:(?:, | and )[A-Z][\w-]+)*)(?: et al\.)?,? \(?((?:18|19|20)\d\d)\b")
LISTED = re.compile(r"^((?:[A-Z][\w-]+(?:, )?)+) (\d{4})\.", re.MULTILINE)


def sources(text: str) -> Iterator[str]:
    """The paragraphs of a docstring that say where something is from, as one line each."""
    for paragraph in re.split(r"\n\s*\n", text):
        _, mark, source = " ".join(paragraph.split()).partition("Source:")
        if mark:
            yield source


def cited(text: str) -> set[tuple[str, str]]:
    """(first author, year) of each work in the text."""
    return {(re.split(r", | and ", names)[0], year) for names, year in CITED.findall(text)}


def listed() -> set[tuple[str, str]]:
    return {(names.split(", ")[0], year) for names, year in LISTED.findall(PAGE.read_text(encoding="utf-8"))}


def docstrings(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
            yield ast.get_docstring(node) or ""


@pytest.mark.parametrize("path", sorted(SRC.rglob("*.py")), ids=lambda path: str(path.relative_to(SRC)))
def test_what_is_cited_is_listed(path: Path) -> None:
    found = {work for text in docstrings(path) for source in sources(text) for work in cited(source)}
    assert found - listed() == set()


def test_a_citation_is_noticed() -> None:
    text = "Claim.\n\nSource: Zhu, Dong, Wang 2022, theorem 10; the rest as in Dwork and Roth 2014\n(Nir 2018)."
    assert [cited(source) for source in sources(text)] == [{("Zhu", "2022"), ("Dwork", "2014"), ("Nir", "2018")}]
    assert ("Nobody", "2022") not in listed()
    assert len(listed()) > 50


def test_the_list_is_in_order_and_has_nothing_twice() -> None:
    names = [f"{names} {year}" for names, year in LISTED.findall(PAGE.read_text(encoding="utf-8"))]
    assert names == sorted(set(names), key=lambda name: unicodedata.normalize("NFD", name).encode("ascii", "ignore"))
