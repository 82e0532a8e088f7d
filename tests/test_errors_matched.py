"""Every message that the package raises is matched by a test.

A message is taken apart at its holes (f-string fields and values that are not literals); what is left
are its literal fragments. It counts as matched where a string of a test holds WIDTH characters in a row
of one of them that no other message of the package has, so that a test of one error cannot vouch for
another. Where a message has no such piece of its own, any WIDTH characters of it do; where it has no
fragment that long, its longest one.

This finds messages that nobody looks at. It does not prove that the string of the test is compared with
that error; and it does not see messages whose every word comes from elsewhere.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import splitpriv

SRC = Path(splitpriv.__file__).parent
TESTS = Path(__file__).parent
WIDTH = 12
HOLE = "\0"

# Raised and caught inside the package, so that no user sees the text: file -> start of the message.
INTERNAL = {"release/dataset.py": ("a mask is not a list of positions",)}


@dataclass(frozen=True)
class Message:
    """One ``raise`` with a message, as text in which holes are marked."""

    place: str
    text: str

    @property
    def fragments(self) -> list[str]:
        return [part for part in self.text.split(HOLE) if part.strip(" .,:'\"()=")]

    def pieces(self, size: int = WIDTH) -> Iterator[tuple[str, int]]:
        """(fragment, start) of each ``size`` characters in a row.

        Those within the owner in front are left out: tests are full of its name.
        """
        owner = re.match(r"[\w.]+: ", self.text)
        for part in self.fragments:
            named = owner.end() if owner and self.text.startswith(part) else 0
            yield from ((part, i) for i in range(len(part) - size + 1) if i + size > named)


# What the package raises --------------------------------------------------------------------------


def literal(node: ast.expr, names: dict[str, list[ast.expr]], depth: int = 0) -> str:
    """The text that an expression makes, with a hole for each part that is not literal."""
    if depth > 8:
        return HOLE
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else HOLE
    if isinstance(node, ast.JoinedStr):
        return "".join(literal(part, names, depth + 1) for part in node.values)
    if isinstance(node, ast.FormattedValue):
        return literal(node.value, names, depth + 1) if isinstance(node.value, (ast.Name, ast.Call)) else HOLE
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return literal(node.left, names, depth + 1) + literal(node.right, names, depth + 1)
    if isinstance(node, ast.IfExp):
        return HOLE.join(literal(part, names, depth + 1) for part in (node.body, node.orelse))
    if isinstance(node, ast.Name) or (isinstance(node, ast.Call) and called(node) in names):
        # A variable, a parameter or a function of this file: any of the values that it gets or gives.
        values = names.get(node.id if isinstance(node, ast.Name) else called(node), [])
        return HOLE.join([HOLE, *(literal(value, names, depth + 1) for value in values), HOLE])
    if isinstance(node, ast.Call) and called(node) == "message()":
        arguments = [*node.args, *(word.value for word in node.keywords)]
        owner, name, constraint, value, *fix = (literal(part, names, depth + 1) for part in arguments)
        return f"{owner}: {name} must be {constraint}, got {name}={value}. {''.join(fix)}"
    return HOLE


def called(node: ast.Call) -> str:
    """The last name of what is called, with brackets to tell it from a variable."""
    return ast.unparse(node.func).split(".")[-1] + "()"


def returned(tree: ast.Module) -> dict[str, list[ast.expr]]:
    """What the functions of a file return, under their names with brackets."""
    return {
        f"{function.name}()": [n.value for n in ast.walk(function) if isinstance(n, ast.Return) and n.value]
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef) and function.name != "message"
    }


def assigned(function: ast.FunctionDef, before: int, calls: list[ast.Call]) -> dict[str, list[ast.expr]]:
    """What a function gives to its local names ``before`` a line, and its callers to its parameters."""
    found: dict[str, list[ast.expr]] = {}
    for node in ast.walk(function):
        if not isinstance(node, ast.Assign) or len(node.targets) != 1 or node.lineno > before:
            continue
        target, value = node.targets[0], node.value
        pairs = [(target, value)]
        if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
            pairs = list(zip(target.elts, value.elts, strict=False))
        for name, part in pairs:
            if isinstance(name, ast.Name):
                found.setdefault(name.id, []).append(part)
    parameters = [parameter.arg for parameter in function.args.args if parameter.arg not in ("self", "cls")]
    for call in calls:
        if called(call) == f"{function.name}()":
            given = [*zip(parameters, call.args, strict=False), *((word.arg, word.value) for word in call.keywords)]
            for parameter, part in given:
                if parameter in parameters:
                    found.setdefault(str(parameter), []).append(part)
    return found


def raised(src: Path) -> Iterator[Message]:
    """Each ``raise`` of a call that has some literal text in it."""
    for path in sorted(src.rglob("*.py")):
        file = path.relative_to(src).as_posix()
        tree = ast.parse(path.read_text(encoding="utf-8"))
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        home: dict[ast.AST, ast.FunctionDef] = {}
        for function in ast.walk(tree):  # outer functions first, so that the innermost one wins
            if isinstance(function, ast.FunctionDef):
                home.update((node, function) for node in ast.walk(function))
        raises = [node for node in ast.walk(tree) if isinstance(node, ast.Raise)]
        for node in sorted(raises, key=lambda node: node.lineno):
            if isinstance(node.exc, ast.Call):
                names = assigned(home[node], node.lineno, calls) if node in home else {}
                text = HOLE.join(literal(part, returned(tree) | names) for part in node.exc.args)
                message = Message(f"{file}:{node.lineno}", re.sub(f"{HOLE}+", HOLE, text))
                internal = INTERNAL.get(file, ())
                if message.fragments and not text.startswith(tuple(internal) or "\1"):
                    yield message


# What the tests look for --------------------------------------------------------------------------


def sought(tests: Path) -> Iterator[str]:
    """Each string of a test file that matches messages, docstrings left out, as if it were no pattern."""
    for path in sorted(tests.rglob("test_*.py")):
        source = path.read_text(encoding="utf-8")
        if path.name == Path(__file__).name or not re.search(r"match|str\(", source):
            continue
        tree = ast.parse(source)
        docstrings = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
            and node.body
            and isinstance(node.body[0], ast.Expr)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
                yield re.sub(r"\\(\W)", r"\1", node.value)


def unmatched(src: Path, tests: Path) -> list[str]:
    messages, strings = list(raised(src)), list(sought(tests))
    texts = {message.text for message in messages}
    # Most strings have nothing in common with any message: the others are searched closely.
    grams = {part[i : i + WIDTH] for message in messages for part, i in message.pieces()}
    close = "\n".join(s for s in strings if any(s[i : i + WIDTH] in grams for i in range(len(s))))
    found = []
    for message in messages:
        others = texts - {message.text}
        if not is_matched(message, others, close) and not is_matched_across(message, others, "\n".join(strings)):
            found.append(f"{message.place}: {message.text.replace(HOLE, '{}')}")
    return found


def is_matched(message: Message, others: set[str], wanted: str) -> bool:
    """Whether ``wanted`` holds a piece of the message that is in none of the others."""
    long = [part for part in message.fragments if len(part) >= WIDTH]
    shared = all(any(part in other for other in others) for part in long)  # nothing of its own
    long_enough = False
    for part, start in message.pieces():
        long_enough, size = True, WIDTH
        if part[start : start + size] not in wanted:
            continue
        while start + size < len(part) and part[start : start + size + 1] in wanted:
            size += 1
        if shared or not any(part[start : start + size] in other for other in others):
            return True
    return not long_enough and max(message.fragments, key=len) in wanted


def is_matched_across(message: Message, others: set[str], wanted: str) -> bool:
    """The same for a piece with holes in it, as in "got loss={} in epoch {}", of 2 * WIDTH characters."""
    for start in range(len(message.text)):
        characters, end = 0, start
        while end < len(message.text) and characters < 2 * WIDTH:
            characters += message.text[end] != HOLE
            end += 1
        parts = message.text[start:end].strip(HOLE).split(HOLE)
        if len(parts) == 1 or characters < 2 * WIDTH:
            continue
        pattern = re.compile(".{0,40}?".join(map(re.escape, parts)))
        if pattern.search(wanted) and not any(map(pattern.search, others)):
            return True
    return False


def test_every_message_is_matched_by_a_test() -> None:
    found = unmatched(SRC, TESTS)
    assert not found, "No test matches:\n" + "\n".join(found)


def test_there_are_messages_to_match() -> None:
    assert len(list(raised(SRC))) >= 100
    assert len(list(sought(TESTS))) >= 500


def test_internal_messages_still_exist() -> None:
    for file, starts in INTERNAL.items():
        source = (SRC / file).read_text(encoding="utf-8")
        assert [start for start in starts if start not in source] == []


SOURCE = """
def plain(x):
    raise ValueError(f"plain: x must be rather small, got x={x}.")

def built(x):
    fix = "Use a smaller one." if x else "Use another one."
    constraint = "of a known colour"
    raise ValueError(check.message("built", "x", constraint, x, fix))

def twin(x):
    raise ValueError(f"twin: x must be rather small, got x={x}. Twins are told apart by this.")

def an_owner_with_a_long_name(x):
    def refuse(constraint):
        raise ValueError(check.message("an_owner_with_a_long_name", "x", constraint, x))
    refuse("of an agreeable size")

def scattered(x):
    raise ValueError(f"scattered: got x={x!r} in turn {x}. {x} Stop it.")

def silent():
    raise NotImplementedError
"""


def write(folder: Path, test: str) -> list[str]:
    for name, text in (("src/module.py", SOURCE), ("tests/test_module.py", test)):
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return [line.partition(" ")[2].partition(":")[0] for line in unmatched(folder / "src", folder / "tests")]


def test_planted_messages_without_a_test_are_listed(tmp_path: Path) -> None:
    every = ["plain", "built", "twin", "an_owner_with_a_long_name", "scattered"]

    def left(pattern: str) -> list[str]:
        """Which messages no test matches, where one test matches this pattern."""
        return write(tmp_path, f'pytest.raises(ValueError, match="{pattern}")')

    assert left("") == every
    assert left("plain: x must be") == ["built", "twin", *every[3:]]
    assert left("an_owner_with_a_long_name: ") == every
    # What two messages share vouches for neither.
    assert left("must be rather small, got x") == every
    assert left("Twins are told apart") == ["plain", "built", *every[3:]]
    # By the constraint, by one of two fixes, by what a caller says, and with escapes.
    assert left("must be of a known colour") == ["plain", "twin", *every[3:]]
    assert left("Use another one\\\\.") == ["plain", "twin", *every[3:]]
    assert left("an agreeable size") == ["plain", "built", "twin", "scattered"]
    # Across holes, where no fragment is long enough.
    assert left("got x=nan in turn 0. 1 Stop it") == every[:4]
    # A docstring, or a string in a file that matches nothing, is no test of a message.
    assert write(tmp_path, 'pytest.raises(E, match="")\ndef f():\n    "plain: x must be rather"') == every
    assert write(tmp_path, 'text = "plain: x must be rather small"') == every
