"""Every field of a release file is checked, under a digest that fits."""

from __future__ import annotations

import math
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from splitpriv.release import Release


@pytest.fixture
def path(lab: Any, tmp_path: Path) -> Path:
    lab.make("wide", full=True).save(tmp_path / "r.splitpriv")
    return tmp_path / "r.splitpriv"


Edit = Callable[[dict[str, Any], dict[str, Any]], Any]


def put(name: str, value: Any) -> Edit:
    return lambda tensors, document: document.update({name: value})


def claim(name: str, value: Any) -> Edit:
    return lambda tensors, document: document["claims"].update({name: value})


def describe(tensor: str, name: str, value: Any) -> Edit:
    return lambda tensors, document: tensors[tensor].update({name: value})


def drop(tensor: str) -> Edit:
    return lambda tensors, document: tensors.pop(tensor)


# The file of ``path``: id_ends I64 [5], labels I64 [5], values F32 [1000], id_text, packed U8 [5, 9].
EDITS: list[tuple[Edit, str]] = [
    (put("version", 3), "It has format version 3, and this splitpriv reads 2"),
    (put("version", 2), "Its header fields must be ['alphabet', 'bits', 'bytes_per_record', 'claims', 'records', "),
    (put("version", 0), "Its format version is 0, which never existed"),
    (put("version", True), "Its format version is True, which never existed"),
    (put("version", "1"), "Its format version is '1', which never existed"),
    (lambda tensors, document: document.pop("version"), "Its format version is None, which never existed"),
    (put("codebook", {}), "Its header fields must be ['alphabet', "),
    (put("extra", 1), "Its header fields must be ['alphabet', "),
    (lambda tensors, document: document.pop("bits"), "Its header fields must be ['alphabet', "),
    (put("symbol_shape", [0]), "Its symbol_shape is [0], not a list of positive integers"),
    (put("symbol_shape", [True]), "Its symbol_shape is [True], not a list"),
    (put("symbol_shape", 7), "Its symbol_shape is 7, not a list"),
    (put("symbol_shape", [1] * 33), "Its symbol_shape is [1, 1, 1, 1, 1, 1, ...], not a list"),
    (put("symbol_shape", [8]), "Its bytes_per_record is 9, and the rest of the file says 10"),
    (put("symbol_shape", [2**62, 2**62]), "Its bytes_per_record is 9, and the rest of the file says"),
    (put("alphabet", 999), "Its alphabet is 999, and the rest of the file says 1000"),
    (put("alphabet", None), "Its alphabet is None, and the rest of the file says 1000"),
    (put("alphabet", 1000.0), "Its alphabet is 1000.0, and the rest of the file says 1000"),
    (put("bits", 9), "Its bits is 9, and the rest of the file says 10"),
    (put("records", 4), "Its records is 4, and the rest of the file says 5"),
    (put("bytes_per_record", 10), "Its bytes_per_record is 10, and the rest of the file says 9"),
    (claim("epsilon", 1.0), "Claims: epsilon must be >= per_record=12.0, got epsilon=1.0"),
    (claim("epsilon", math.inf), "Its header is damaged: Infinity is not JSON"),
    (claim("uses", 6.0), "Claims: uses must be a JSON int, got uses=6.0"),
    (claim("labels", "none"), 'claims.labels must be "none" or "embedded" exactly where no labels'),
    (put("claims", []), "Claims: fields must be exactly"),
    (describe("packed", "dtype", "I8"), "Its tensor 'packed' cannot be torch.int8 of shape (5, 9)"),
    (describe("packed", "shape", [45]), "Its tensor 'packed' cannot be torch.uint8 of shape (45,)"),
    (describe("packed", "shape", [9, 5]), "Its records is 5, and the rest of the file says 9"),
    (describe("packed", "dtype", "C64"), "Its tensor 'packed' has dtype 'C64', not one of BOOL, U8,"),
    (describe("packed", "dtype", []), "Its tensor 'packed' has dtype [], not one of"),
    (describe("packed", "shape", []), "Its tensor 'packed' has shape [], not a list of positive integers"),
    (describe("packed", "shape", [5, -9]), "Its tensor 'packed' has shape [5, -9], not a list"),
    (describe("packed", "shape", [2**63, 1]), "Its tensor 'packed' has shape [9223372036854775808, 1], not a list"),
    (describe("packed", "shape", [2**62, 9]), "does not fit data_offsets"),
    (describe("packed", "data_offsets", [0]), "Its tensor 'packed' has data_offsets [0], not two integers"),
    (describe("packed", "data_offsets", [0.0, 45.0]), "has data_offsets [0.0, 45.0], not two integers"),
    (describe("packed", "data_offsets", [-45, 0]), "does not fit data_offsets [-45, 0]"),
    (describe("packed", "data_offsets", [0, 45]), "Its tensors overlap or leave a gap at byte "),
    (describe("packed", "extra", 1), "Its tensor 'packed' is not described by dtype, shape and data_offsets"),
    (lambda tensors, document: tensors.update(packed=None), "Its tensor 'packed' is not described by"),
    (drop("packed"), "bytes after the header, the file has"),
    (drop("values"), "Its tensors overlap or leave a gap at byte 80"),
    (describe("values", "dtype", "I32"), "Its tensor 'values' cannot be torch.int32 of shape (1000,)"),
    (describe("labels", "shape", [1, 5]), r"Release: labels must have shape (5, *label), got torch.int64 (1, 5)"),
    (describe("id_ends", "shape", [5, 1]), "Its tensor 'id_ends' cannot be torch.int64 of shape (5, 1)"),
    (lambda tensors, document: tensors.update(other=tensors.pop("labels")), "are not those of a release"),
    (lambda tensors, document: tensors.update(ids=tensors.pop("id_ends")), "are not those of a release"),
    (lambda tensors, document: tensors.update(ids=tensors.pop("labels")), "It has ids of two kinds"),
]


@pytest.mark.parametrize(("edit", "match"), EDITS, ids=[match for _, match in EDITS])
def test_header_fields_are_checked_under_a_digest_that_fits(lab: Any, path: Path, edit: Edit, match: str) -> None:
    tensors, document, payload = lab.taken_apart(path.read_bytes())
    lab.check_refused(path, lab.put_together(tensors, document, payload)[:-1], "Its SHA-256 does not match")
    path.write_bytes(lab.put_together(tensors, document, payload))
    assert lab.same(Release.load(path), lab.make("wide", full=True))
    edit(tensors, document)
    lab.check_refused(path, lab.put_together(tensors, document, payload), match)


def book(name: str, value: Any) -> Edit:
    return lambda tensors, document: document["codebook"].update({name: value})


# An endless codebook, positions I64 [5]; with ``first`` they follow each other and are not in the file.
BOOK_EDITS: list[tuple[Edit, str]] = [
    (put("version", 1), "Its header fields must be ['alphabet', "),
    (lambda tensors, document: document.pop("codebook"), "Its header fields must be ['alphabet', "),
    (put("codebook", []), "Its codebook is not described by dim, first, key, scale, size"),
    (book("extra", 1), "Its codebook is not described by dim, first, key, scale, size"),
    (book("key", 7), "Its codebook is not described by dim, first, key, scale, size"),
    (book("key", "xy"), "Its codebook's key is not written in hexadecimal digits"),
    (book("key", "AB" * 32), "Its codebook's key is not written in hexadecimal digits"),
    (book("key", "ab" * 31), "EndlessCodebook: key must be 32 bytes, got 31 bytes"),
    (book("scale", 2), "Its codebook's scale is not a float"),
    (book("scale", -1.0), "EndlessCodebook: scale must be finite and > 0"),
    (book("scale", 1e31), "EndlessCodebook: scale must be in (0, 1e30]"),
    (book("dim", 1), "EndlessCodebook: dim must be an integer in [2, 65536]"),
    (book("dim", 2**40), "EndlessCodebook: dim must be an integer in [2, 65536]"),
    (book("size", 5.0), "EndlessCodebook: size must be an integer in [2, 65536]"),
    (book("size", 6), "Its alphabet is 5, and the rest of the file says 6"),
    (book("first", 3), "Its positions must stand there exactly where its codebook names no first one"),
    (put("symbol_shape", [1]), "Release: symbol_shape must be () where values is an EndlessCodebook"),
    (describe("positions", "dtype", "F64"), "Its tensor 'positions' cannot be torch.float64 of shape (5,)"),
    (lambda tensors, document: tensors.update(values=tensors.pop("positions")), "Its tensor 'values' cannot be"),
]


@pytest.mark.parametrize(("edit", "match"), BOOK_EDITS, ids=[match for _, match in BOOK_EDITS])
def test_fields_of_an_endless_codebook_are_checked(lab: Any, path: Path, edit: Edit, match: str) -> None:
    lab.make("picked").save(path)
    tensors, document, payload = lab.taken_apart(path.read_bytes())
    edit(tensors, document)
    lab.check_refused(path, lab.put_together(tensors, document, payload), match)


def test_positions_of_an_endless_codebook_are_checked(lab: Any, path: Path) -> None:
    lab.make("picked").save(path)
    tensors, document, payload = lab.taken_apart(path.read_bytes())
    at = tensors["positions"]["data_offsets"][0]
    for place in (-1, 2**62):
        altered = payload[:at] + place.to_bytes(8, "little", signed=True) + payload[at + 8 :]
        lab.check_refused(path, lab.put_together(tensors, document, altered), "Release: positions must be in [0, ")
    lab.make("endless").save(path)
    tensors, document, payload = lab.taken_apart(path.read_bytes())
    for first, match in ((-1, "Release: positions must be in [0, "), (True, "Release: positions must be an int or")):
        document["codebook"]["first"] = first
        lab.check_refused(path, lab.put_together(tensors, document, payload), match)
    document["codebook"]["first"] = None
    lab.check_refused(path, lab.put_together(tensors, document, payload), "Its positions must stand there exactly")
    tensors["values"] = {"dtype": "F32", "shape": [2], "data_offsets": [len(payload), len(payload) + 8]}
    altered = lab.put_together(tensors, document, payload + bytes(8))
    lab.check_refused(path, altered, "Its symbols stand for values and for codewords of a codebook")


def test_a_file_has_the_oldest_version_that_can_say_what_it_says(lab: Any, path: Path) -> None:
    for kind in lab.kinds:
        lab.make(kind).save(path)
        assert lab.taken_apart(path.read_bytes())[1]["version"] == (2 if kind in ("endless", "picked") else 1)


def test_tensors_are_checked_under_a_digest_that_fits(lab: Any, path: Path) -> None:
    tensors, document, payload = lab.taken_apart(path.read_bytes())

    def check(name: str, offset: int, content: bytes, match: str) -> None:
        at = tensors[name]["data_offsets"][0] + offset
        altered = payload[:at] + content + payload[at + len(content) :]
        lab.check_refused(path, lab.put_together(tensors, document, altered), match)

    nan = b"\0\0\xc0\x7f"
    check("values", 8, nan, "Release: values must be finite")
    check("packed", 8, b"\xff", "Release: padding bits must be zero, got stray bits in record 0")
    check("packed", 9, b"\xff\xff", "Release: packed must hold symbols in [0, 1000), got a larger one")
    check("id_text", 9, b"\xff", "Its ids are not UTF-8 text")
    check("id_ends", 0, (99).to_bytes(8, "little"), "Its ids do not follow each other in their text")
    check("id_ends", 0, (0).to_bytes(8, "little"), "Its ids do not follow each other in their text")
    check("id_ends", 32, (54).to_bytes(8, "little"), "Its ids do not follow each other in their text")
    check("id_ends", 0, b"\xff" * 8, "Its ids do not follow each other in their text")


def test_more_tensors_are_checked_under_a_digest_that_fits(lab: Any, path: Path) -> None:
    symbols, values = lab.symbols("bits")
    labels = torch.ones(5, dtype=torch.bool)
    Release.from_batches([(symbols, labels)], values=values, claims=lab.claims(labels="public")).save(path)
    tensors, document, payload = lab.taken_apart(path.read_bytes())
    at = tensors["labels"]["data_offsets"][0]
    altered = lab.put_together(tensors, document, payload[:at] + b"\2" + payload[at + 1 :])
    lab.check_refused(path, altered, "Its tensor 'labels' holds bytes that are no booleans")
    lab.make("floats").save(path)
    tensors, document, payload = lab.taken_apart(path.read_bytes())
    altered = lab.put_together(tensors, document, payload[:-4] + b"\0\0\x80\xff")
    lab.check_refused(path, altered, "Release: packed must hold finite features")
    lab.make("codebook").save(path)
    tensors, document, payload = lab.taken_apart(path.read_bytes())
    tensors["values"]["shape"] = [1, 20]
    lab.check_refused(path, lab.put_together(tensors, document, payload), "Its values stand for 1 symbols, not for 2")
    tensors["values"]["shape"] = [5, 4]
    tensors["packed"]["shape"] = [1, 5]
    document["records"] = 1
    altered = lab.put_together(tensors, document, payload)
    lab.check_refused(path, altered, "Its records have 5 bytes each, and their symbols take 1")


def test_json_is_strict(lab: Any, path: Path) -> None:
    raw = path.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    text, payload = raw[8 : 8 + size].rstrip(), raw[8 + size :]

    def check(old: bytes, new: bytes, match: str) -> None:
        assert text.count(old) == 1
        altered = text.replace(old, new)
        lab.check_refused(path, lab.sealed(len(altered).to_bytes(8, "little") + altered + payload), match)

    check(rb"\"bits\":10", rb"\"bits\":10,\"bits\":10", "a key stands there twice")
    check(b'"packed":{', b'"packed":{},"packed":{', "a key stands there twice")
    check(rb"\"bits\":10", rb"\"bits\":NaN", "NaN is not JSON")
    check(rb"\"bits\":10", rb"\"bits\":010", "Its header is damaged: Expecting")
    check(rb"\"bits\":10", rb"\"bits\":" + b"[" * 100_000, "Its header is damaged: ")
    check(rb"\"bits\":10", rb"\"bits\":" + b"9" * 5000, "Its ")
    check(b'"packed":{', b'"\xff":{', "Its header is damaged: 'utf-8' codec")
    check(rb"\"uses\":6", rb"\"uses\":1e999", "Claims: uses must be a JSON int, got uses=inf")
    check(rb"\"epsilon\":12.0", rb"\"epsilon\":1e999", "Claims: epsilon must be a JSON float")
    check(b'"}', b'","more":"x"}', "Its metadata must be 'splitpriv_release' alone, and are ['more', ")


def test_a_header_that_claims_to_be_long(lab: Any, path: Path) -> None:
    raw = path.read_bytes()
    lab.check_refused(path, b"\xff" * 8 + raw[8:], "It is cut short, or damaged")
    lab.check_refused(path, (10).to_bytes(8, "little") + raw[8:], "It is cut short, or damaged")
    long = (2 << 20).to_bytes(8, "little") + raw[8:] + b" " * (2 << 20)
    lab.check_refused(path, lab.sealed(long), "Its header claims 2097152 bytes, more than 1048576")


@pytest.mark.parametrize("length", [0, 1, 8, 20, 60, 100, 150])
def test_what_is_left_of_a_file(lab: Any, path: Path, length: int) -> None:
    lab.check_refused(path, path.read_bytes()[:length], "It is cut short")


def test_forged_headers_allocate_nothing(lab: Any, path: Path) -> None:
    tensors, document, payload = lab.taken_apart(path.read_bytes())
    forged = []
    for name in tensors:
        huge = {**tensors, name: {**tensors[name], "shape": [2**40, 2**20], "data_offsets": [0, 2**60]}}
        forged.append(lab.put_together(huge, document, payload))
    for change in ({"symbol_shape": [2**62]}, {"records": 2**62}, {"alphabet": 2**32}, {"bits": 2**40}):
        forged.append(lab.put_together(tensors, {**document, **change}, payload))
    forged.append(b"\xff\xff\xff\xff\xff\xff\xff\x7f" + path.read_bytes()[8:])
    tracemalloc.start()
    for raw in forged:
        lab.check_refused(path, raw)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20
