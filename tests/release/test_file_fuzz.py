"""Whatever stands in a file, loading it gives a clean error or a release that is what the file says."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from splitpriv import ReleaseFileError
from splitpriv.release import Release

KINDS = ("bits", "wide", "codebook", "floats", "labelled", "endless", "picked")
REFUSED, LOADED = "refused", "loaded"


class Bench:
    """One place to write files to, and the bytes of a good file of each kind."""

    def __init__(self, lab: Any, folder: Path) -> None:
        self.lab = lab
        self.path = folder / "r.splitpriv"
        self.good: dict[str, bytes] = {}
        for kind in KINDS:
            lab.make(kind, full=True).save(self.path)
            self.good[kind] = self.path.read_bytes()
        self.release = {kind: lab.make(kind, full=True) for kind in KINDS}

    def outcome(self, raw: bytes) -> str:
        """Load, and use what was loaded in every way; only ReleaseFileError may come of it."""
        self.path.write_bytes(raw)
        try:
            release = Release.load(self.path)
        except ReleaseFileError as error:
            text = str(error)
        else:
            self.use(release, raw)
            return LOADED
        assert text.startswith("Release.load: path must be an intact release file, got path=")
        return REFUSED

    def use(self, release: Release, raw: bytes) -> None:
        """All of it agrees with the file, and with itself."""
        _, document, _ = self.lab.taken_apart(raw)
        assert len(repr(release)) > 0
        assert release.claims.to_dict() == document["claims"]
        assert len(release) == document["records"]
        features, labels = release.batch(slice(None))
        assert features.shape == (len(release), *release.feature_shape)
        assert bool(torch.isfinite(features).all())
        assert labels is None or len(labels) == len(release)
        assert release.ids is None or len(release.ids) == len(release)
        assert (release.label_channel is None) == (release.claims.labels != "ldp")
        assert len(release.symbols(slice(None))) == len(release)
        release.save(self.path)
        assert self.lab.same(Release.load(self.path), release)

    def unchanged(self, kind: str) -> None:
        assert self.outcome(self.good[kind]) == LOADED
        assert self.lab.same(Release.load(self.path), self.release[kind])


@pytest.fixture(scope="module")
def bench(lab: Any, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(lab, tmp_path_factory.mktemp("fuzz"))


@settings(max_examples=200)
@given(raw=st.binary(max_size=400), beginning=st.sampled_from([b"", b"length", b"start"]))
@example(raw=b"", beginning=b"")
def test_random_bytes(bench: Bench, raw: bytes, beginning: bytes) -> None:
    if beginning:  # as far as the header's length, or into the JSON
        raw = (len(raw) % 300).to_bytes(8, "little") + (bench.lab.start + raw if beginning == b"start" else raw)
    assert bench.outcome(raw) == REFUSED


@settings(max_examples=300)
@given(data=st.data(), kind=st.sampled_from(KINDS))
def test_random_flips(bench: Bench, data: st.DataObject, kind: str) -> None:
    raw = bytearray(bench.good[kind])
    flips = data.draw(st.lists(st.integers(0, 8 * len(raw) - 1), min_size=1, max_size=8, unique=True))
    for bit in flips:
        raw[bit // 8] ^= 1 << bit % 8
    assert bench.outcome(bytes(raw)) == REFUSED


@settings(max_examples=200)
@given(data=st.data(), kind=st.sampled_from(KINDS))
def test_truncations_extensions_and_moved_parts(bench: Bench, data: st.DataObject, kind: str) -> None:
    raw = bench.good[kind]
    start, stop = sorted(data.draw(st.tuples(*[st.integers(0, len(raw))] * 2)))
    inserted = data.draw(st.binary(max_size=64) | st.sampled_from(list(bench.good.values())))
    altered = raw[:start] + inserted + raw[stop:]
    assert bench.outcome(altered) == (LOADED if altered in bench.good.values() else REFUSED)


# Headers under a digest that fits -------------------------------------------------------------

NUMBERS = (
    st.sampled_from([0, 1, 2, 3, 5, 6, 8, 24, 40, 255, 1000, 2**31, 2**32, 2**62, 2**63, 10**30, -1]) | st.integers()
)
SCALARS = st.none() | st.booleans() | NUMBERS | st.floats() | st.text(max_size=5)
JUNK = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
WORDS = st.sampled_from(
    [
        "inf",
        "U8",
        "F32",
        "I64",
        "BOOL",
        "BF16",
        "none",
        "public",
        "private",
        "ldp",
        "F64",
        "packed",
        "labels",
        "ids",
        "label_channel",
    ]
)


def spots(tree: Any, where: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path to everything in a JSON tree."""
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [spot for key, value in pairs for spot in [(*where, key), *spots(value, (*where, key))]]


@st.composite
def edited(draw: st.DrawFn, tree: Any) -> Any:
    """The tree with one to three of its parts replaced, removed, renamed or added."""
    tree = copy.deepcopy(tree)
    for _ in range(draw(st.sampled_from([1, 1, 1, 2, 3]))):
        places = spots(tree)
        if not places:
            break
        *way, last = draw(st.sampled_from(places))
        parent = tree
        for key in way:
            parent = parent[key]
        action = draw(st.sampled_from(["replace", "replace", "nudge", "remove", "rename"]))
        if action == "remove":
            del parent[last]
        elif action == "rename" and isinstance(parent, dict):
            parent[draw(WORDS | st.text(max_size=4))] = parent.pop(last)
        elif action == "nudge" and isinstance(parent[last], (int, float)):
            parent[last] += draw(st.sampled_from([-8, -1, 1, 8]))
        else:
            parent[last] = draw(WORDS | JUNK)
    return tree


@settings(max_examples=700)
@given(data=st.data(), kind=st.sampled_from(KINDS))
def test_altered_headers_under_a_digest_that_fits(bench: Bench, data: st.DataObject, kind: str) -> None:
    tensors, document, payload = bench.lab.taken_apart(bench.good[kind])
    changed = data.draw(edited({"tensors": tensors, "document": document}))
    tensors, document = changed.get("tensors", {}), changed.get("document", {})
    if not isinstance(tensors, dict) or not isinstance(document, dict):
        tensors, document = {}, {}
    event(bench.outcome(bench.lab.put_together(tensors, document, payload)))


@settings(max_examples=200)
@given(data=st.data(), kind=st.sampled_from(KINDS))
def test_altered_payloads_under_a_digest_that_fits(bench: Bench, data: st.DataObject, kind: str) -> None:
    tensors, document, payload = bench.lab.taken_apart(bench.good[kind])
    start = data.draw(st.integers(0, len(payload) - 1))
    content = data.draw(st.binary(min_size=1, max_size=9))
    altered = payload[:start] + content + payload[start + len(content) :]
    event(bench.outcome(bench.lab.put_together(tensors, document, altered)))


@settings(max_examples=100)
@given(text=st.binary(max_size=80), kind=st.sampled_from(KINDS))
def test_other_json_under_a_digest_that_fits(bench: Bench, text: bytes, kind: str) -> None:
    start = bench.lab.start + b"0" * 64 + text
    raw = len(start).to_bytes(8, "little") + start + bench.good[kind]
    assert bench.outcome(bench.lab.sealed(raw)) == REFUSED


def test_the_fuzzer_reaches_both_ends(bench: Bench) -> None:
    """Edits that keep a file consistent are loaded, so the others are refused for what they say."""
    for kind in KINDS:
        bench.unchanged(kind)
        tensors, document, payload = bench.lab.taken_apart(bench.good[kind])
        document["claims"]["epsilon"] = 99.0
        assert bench.outcome(bench.lab.put_together(tensors, document, payload)) == LOADED
        document["claims"]["epsilon"] = "99.0"
        assert bench.outcome(bench.lab.put_together(tensors, document, payload)) == REFUSED
