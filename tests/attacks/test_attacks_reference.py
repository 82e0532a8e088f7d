"""The reference shows how every attack is called, and how its report is read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from splitpriv import attacks

PAGE = (Path(__file__).parents[2] / "docs" / "api" / "attacks.rst").read_text(encoding="utf-8")
SPECIAL = ("__call__", "__getitem__")


def shown(name: str) -> set[str]:
    """The special methods that the page asks for, of that class."""
    block = re.search(rf"^\.\. autoclass:: {name}\n((?: +:.*\n)*)", PAGE, re.MULTILINE)
    found = re.search(r":special-members: (.*)", block.group(1)) if block else None
    return {part.strip() for part in found.group(1).split(",")} if found else set()


@pytest.mark.parametrize("name", sorted(attacks.__all__))
def test_what_is_called_or_subscripted_is_shown(name: str) -> None:
    value = getattr(attacks, name)
    if not isinstance(value, type):
        return
    # Attacks of one kind are called as their base says, which the page shows with the base.
    bases = [base.__name__ for base in value.__mro__[1:] if base.__name__ in attacks.__all__]
    for method in SPECIAL:
        if any(method in vars(base) for base in value.__mro__):
            assert any(method in shown(one) for one in (name, *bases)), method


def test_a_class_that_shows_nothing_is_noticed() -> None:
    assert shown("Estimate") == set()
    assert shown("Inversion") == {"__call__"}
