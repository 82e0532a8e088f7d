"""Which way imports may point: lower rooms never import higher ones.

The rooms, and what each may import, are the table below; nothing else is allowed. It is as strict as
the code is: loosen it on purpose, or not at all.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import splitpriv

SRC = Path(splitpriv.__file__).parent
ROOT = SRC.parents[1]
BASE = ("_errors", "_validation", "_version")

# Room -> modules or packages of splitpriv that it may import, beside those of its own room.
# "accounting.spend" is that module only; "accounting" is the package and all its modules.
ROOMS: dict[str, tuple[str, ...]] = {
    "_version": (),
    "_errors": (),
    "_validation": ("_errors",),
    "_modes": (),
    "_warnings": ("_errors",),
    "mechanisms": (*BASE, "_warnings"),
    "accounting": (*BASE, "mechanisms"),
    "layers": (*BASE, "mechanisms", "accounting.spend"),
    "release": (*BASE, "accounting.spend", "mechanisms.rounding", "mechanisms.endless_codebook"),
    "cache": (*BASE, "accounting", "mechanisms"),
    "cutting": BASE,
    "cut": (*(*BASE, "accounting", "layers.compilation", "layers.straight_through", "mechanisms.endless_codebook"),),
    "independence": BASE,
    "labelling": (*BASE, "mechanisms.rounding", "accounting", "layers.label_ldp", "layers.embedded_labels", "release"),
    "anonymity": (*BASE, "mechanisms.randomness", "accounting", "release"),
    "charges": (*BASE, "_warnings", "accounting", "layers.compilation", "mechanisms.rounding", "release"),
    "memoised": (
        *(*BASE, "accounting", "cache", "charges", "independence", "layers.compilation", "layers.straight_through"),
        *("mechanisms.rounding", "release"),
    ),
    "releasing": (
        *(*BASE, "_modes", "independence", "mechanisms.rounding", "accounting", "anonymity", "cache", "charges"),
        *("memoised", "release"),
    ),
    "split_model": (
        *(*BASE, "_modes", "_warnings", "independence", "mechanisms.rounding", "accounting", "layers.compilation"),
        *("layers.embedded_labels", "layers.label_ldp", "labelling", "cache", "charges", "memoised", "release", "cut"),
        *("cutting", "releasing"),
    ),
    "training": (*BASE, "_modes", "mechanisms", "release"),
    "attacks": (*BASE, "_modes", "_warnings", "mechanisms", "accounting", "cache.fingerprint"),
    "testing": (*BASE, "mechanisms", "accounting", "layers", "release", "cut", "split_model", "attacks"),
}
# Imports for the type checker alone, which never run: (module, what it may name).
FOR_TYPES = {
    *(("accounting.charging", "accounting.ledger"), ("accounting.export", "accounting.ledger")),
    *(("charges", "split_model"), ("memoised", "split_model"), ("releasing", "split_model")),
    *(("release.file", "release.dataset"), ("release.describe", "release.dataset")),
}


def imports(path: Path, package: str) -> Iterator[tuple[str, bool]]:
    """(absolute module, whether for types only) for each import in a file, at any depth.

    ``from splitpriv import accounting`` counts as ``splitpriv.accounting``.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    guarded = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for part in node.body
        for inner in ast.walk(part)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node in guarded) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.rsplit(".", node.level - 1)[0] if node.level else ""
            module = ".".join(filter(None, [base, node.module]))
            names = [alias.name for alias in node.names] if module in ("splitpriv", package) else [""]
            yield from ((f"{module}.{name}".rstrip("."), node in guarded) for name in names)


def modules(src: Path) -> Iterator[tuple[str, Path, str]]:
    """(module without ``splitpriv.``, file, its package) for each module; the root's own __init__ left out."""
    for path in sorted(src.rglob("*.py")):
        parts = path.relative_to(src).with_suffix("").parts
        package = ".".join(("splitpriv", *parts[:-1]))
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if name:
            yield name, path, package


def within(module: str, allowed: str) -> bool:
    return module == allowed or module.startswith(f"{allowed}.")


def violations(src: Path) -> list[str]:
    found = []
    for name, path, package in modules(src):
        room = name.partition(".")[0]
        if room not in ROOMS:
            found.append(f"{name} is in no room")
            continue
        for target, for_types in imports(path, package):
            if target.partition(".")[0] != "splitpriv":
                continue
            module = target.partition(".")[2]
            if for_types and any(name == user and within(module, used) for user, used in FOR_TYPES):
                continue
            if not module or not any(within(module, allowed) for allowed in (room, *ROOMS[room])):
                found.append(f"{name} imports {target}")
    return found


def test_lower_rooms_never_import_higher_ones() -> None:
    assert violations(SRC) == []


def test_the_rooms_are_in_order() -> None:
    order = list(ROOMS)
    for room, allowed in ROOMS.items():
        for other in allowed:
            assert order.index(other.partition(".")[0]) < order.index(room)


def test_exemptions_are_needed() -> None:
    used = {
        (name, target.partition(".")[2])
        for name, path, package in modules(SRC)
        for target, for_types in imports(path, package)
        if for_types
    }
    assert used == FOR_TYPES


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("mechanisms/channel.py", "from splitpriv.accounting import Ledger"),
        ("mechanisms/channel.py", "import splitpriv.layers.protocol"),
        ("mechanisms/channel.py", "import splitpriv"),
        ("mechanisms/channel.py", "from splitpriv import layers"),
        ("mechanisms/channel.py", "from ..layers import protocol"),
        ("mechanisms/channel.py", "from .. import layers"),
        ("mechanisms/channel.py", "def late():\n    from splitpriv import release"),
        ("mechanisms/channel.py", "if TYPE_CHECKING:\n    from splitpriv.split_model import SplitModel"),
        ("layers/protocol.py", "from splitpriv.accounting import Spend"),
        ("layers/protocol.py", "from splitpriv.accounting.ledger import charge"),
        ("release/file.py", "from splitpriv.layers import LaplaceLDP"),
        ("cutting/cut.py", "from splitpriv.mechanisms import Channel"),
        ("releasing.py", "from splitpriv.split_model import SplitModel"),
        ("surprise.py", "x = 1"),
    ],
)
def test_a_planted_violation_is_caught(tmp_path: Path, file: str, line: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(line, encoding="utf-8")
    assert len(violations(tmp_path)) == 1
    path.write_text("from splitpriv._errors import ShapeError\nimport torch", encoding="utf-8")
    if file != "surprise.py":
        assert violations(tmp_path) == []


def foreign(src: Path) -> set[str]:
    """Top-level modules imported from neither splitpriv nor the standard library."""
    found = {top(target) for _, path, package in modules(src) for target, _ in imports(path, package)}
    return found - set(sys.stdlib_module_names) - {"splitpriv"}


def test_only_declared_dependencies_are_imported() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    block = re.search(r"^dependencies = \[(.*?)\]", text, re.DOTALL | re.MULTILINE)
    assert block is not None
    declared = {name.replace("-", "_") for name in re.findall(r'"([\w-]+)', block[1])}
    # The tools of an extra in the one place that is for it.
    for extra, places in {"testing": {"testing"}, "plots": {"attacks.plotting"}}.items():
        block = re.search(rf"^{extra} = \[(.*?)\]", text, re.MULTILINE)
        assert block is not None
        tools = set(re.findall(r'"([\w-]+)', block[1]))
        users = {name for name, path, package in modules(SRC) for t, _ in imports(path, package) if top(t) in tools}
        assert users
        assert all(any(within(name, place) for place in places) for name in users)
        declared |= tools
    assert foreign(SRC) <= declared


def top(target: str) -> str:
    return target.partition(".")[0]


def test_mechanisms_know_of_no_modules_of_a_network() -> None:
    for path in (SRC / "mechanisms").glob("*.py"):
        used = [target for target, _ in imports(path, "splitpriv.mechanisms")]
        assert not [target for target in used if within(target, "torch.nn")], path
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert not [node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr == "nn"], path


def test_no_file_has_over_400_lines() -> None:
    sizes = {str(path): len(path.read_text(encoding="utf-8").splitlines()) for path in SRC.rglob("*.py")}
    assert {path: size for path, size in sizes.items() if size > 400} == {}
