"""Small releases of every kind, and the checkers that test_faults.py plants faults under."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from splitpriv import ReleaseFileError
from splitpriv.mechanisms import EndlessCodebook
from splitpriv.release import Claims, Release

START = b'{"__metadata__":{"splitpriv_release":"{\\"sha256\\":\\"'
KINDS = ("bits", "wide", "codebook", "floats", "endless", "picked")
BOOK = EndlessCodebook(EndlessCodebook.key_of(b"a nonce for the tests of releases"), dim=3, size=5, scale=1.5)

LDP = {"labels": "ldp", "label_epsilon": 0.7, "per_record": 12.7, "epsilon": 12.7}


class Lab:
    """Helpers, handed out by a fixture: test modules do not import each other."""

    kinds = KINDS
    start = START

    @staticmethod
    def claims(**changes: Any) -> Claims:
        given = {
            "layers": ("RandomResponseLDP(ε 2 per element × 6 = 12 per record)",),
            "per_use": 2.0,
            "uses": 6,
            "per_record": 12.0,
            "epsilon": 12.0,
            "labels": "none",
            "edge_data": "public",
            "secure": True,
        }
        return Claims(**{**given, **changes})

    @classmethod
    def symbols(cls, kind: str, records: int = 5) -> tuple[Tensor, Tensor | EndlessCodebook | None]:
        """Symbols, and the table that decodes them."""
        generator = torch.Generator().manual_seed(7)

        def draw(high: int, *shape: int) -> Tensor:
            return torch.randint(high, (records, *shape), generator=generator)

        if kind in ("bits", "labelled"):  # padding: 6 of 8 bits
            return draw(2, 2, 3).to(torch.uint8), torch.tensor([-0.5, 1.5])
        if kind == "wide":  # padding: 70 of 72 bits
            return draw(1000, 7).to(torch.int16), torch.arange(1000) / 8.0
        if kind == "codebook":  # one symbol per record
            return draw(5).to(torch.int32), torch.arange(20.0).reshape(5, 4)
        if kind in ("endless", "picked"):  # positions that follow each other, and others
            places = torch.arange(records) + 9 if kind == "endless" else torch.arange(records) ** 2 + 3
            return places * 5 + draw(5), BOOK
        return torch.randn(records, 3, 2, generator=generator), None

    @classmethod
    def make(cls, kind: str, *, records: int = 5, full: bool = False, **changes: Any) -> Release:
        """A release of one kind; ``full``: with labels (released ones for "labelled") and ids."""
        symbols, values = cls.symbols(kind, records)
        labels = torch.arange(records) % 3 if full else None
        if full:
            changes = {**(LDP if kind == "labelled" else {"labels": "public"}), **changes}
        ids = [f"patient-{number}é" for number in range(records)] if full else None
        channel = cls.label_channel() if changes.get("labels") == "ldp" else None
        parts: dict[str, Any] = {"claims": cls.claims(**changes), "ids": ids, "label_channel": channel}
        return Release.from_batches([(symbols, labels)], values=values, **parts)

    @staticmethod
    def label_channel() -> Tensor:
        """Three classes, ln 2 apart."""
        return (torch.eye(3, dtype=torch.float64) + 1) / 4

    @staticmethod
    def decoded(symbols: Tensor, values: Tensor | EndlessCodebook | None) -> Tensor:
        """What the features of these symbols are, written out."""
        if isinstance(values, EndlessCodebook):
            return torch.cat([values.codewords(symbol.reshape(1)) for symbol in symbols])
        return symbols if values is None else values[symbols.long()]

    @staticmethod
    def same(one: Release, other: Release) -> bool:
        """Equal in everything that a file holds."""

        def equal(a: Tensor | None, b: Tensor | None) -> bool:
            if a is None or b is None:
                return a is b
            if isinstance(a, EndlessCodebook):
                return a == b
            return a.dtype == b.dtype and a.shape == b.shape and bool(((a == b) | ((a != a) & (b != b))).all())

        return (
            np.array_equal(one._array(), other._array())
            and one.symbol_shape == other.symbol_shape
            and equal(one.values, other.values)
            and equal(one.labels, other.labels)
            and equal(one.label_channel, other.label_channel)
            and equal(one.positions, other.positions)
            and one.ids == other.ids
            and one.claims == other.claims
        )

    # Files, taken apart and put together by other means than the library's -------------------

    @staticmethod
    def taken_apart(raw: bytes) -> tuple[dict[str, Any], dict[str, Any], bytes]:
        """The header's tensors, its document, and what follows the header."""
        size = int.from_bytes(raw[:8], "little")
        tensors = json.loads(raw[8 : 8 + size])
        document = json.loads(tensors.pop("__metadata__")["splitpriv_release"])
        return tensors, document, raw[8 + size :]

    @classmethod
    def put_together(cls, tensors: Any, document: Any, payload: bytes, **metadata: str) -> bytes:
        """A file of these parts, with the digest that belongs to it."""
        document = {"sha256": "0" * 64, **{name: value for name, value in document.items() if name != "sha256"}}
        inner = {"splitpriv_release": json.dumps(document, separators=(",", ":")), **metadata}
        header = json.dumps({"__metadata__": inner, **tensors}, separators=(",", ":")).encode()
        return cls.sealed(len(header).to_bytes(8, "little") + header + payload)

    @staticmethod
    def sealed(raw: bytes) -> bytes:
        """The same bytes with the digest that belongs to them."""
        at = 8 + len(START)
        blank = raw[:at] + b"0" * 64 + raw[at + 64 :]
        return raw[:at] + hashlib.sha256(blank).hexdigest().encode() + raw[at + 64 :]

    # Checkers ------------------------------------------------------------------------------

    @staticmethod
    def check_refused(path: Path, raw: bytes, match: str = "") -> None:
        """A file of these bytes is refused, cleanly."""
        path.write_bytes(raw)
        try:
            Release.load(path)
        except ReleaseFileError as error:
            text = str(error)
            assert text.startswith("Release.load: path must be an intact release file, got path="), text
            assert match in text, text
        else:
            raise AssertionError("an altered release file was loaded")

    @classmethod
    def check_every_byte_counts(cls, path: Path) -> None:
        """No byte of a release file can change unnoticed, and none can be missing or added."""
        raw = path.read_bytes()
        for position in range(len(raw)):
            # The lowest bit: it leaves text text and numbers numbers, so that only the digest can notice.
            cls.check_refused(path, raw[:position] + bytes([raw[position] ^ 1]) + raw[position + 1 :])
            cls.check_refused(path, raw[:position])
        cls.check_refused(path, raw + b"\0")
        path.write_bytes(raw)

    @staticmethod
    def check_packing(
        pack: Callable[[Tensor, int], Tensor], unpack: Callable[..., Tensor], symbols: Tensor, bits: int
    ) -> None:
        """Packing is exact, as small as stated, equal to its definition, and its padding is zero."""
        elements = math.prod(symbols.shape[1:])
        packed = pack(symbols, bits)
        assert packed.dtype == torch.uint8
        assert packed.shape == (len(symbols), -(-elements * bits // 8)), "size"
        assert torch.equal(unpack(packed, bits, symbols.shape[1:], torch.int64), symbols.long()), "round trip"
        for row, record in zip(packed.tolist(), symbols.reshape(len(symbols), -1).tolist(), strict=True):
            number = int.from_bytes(bytes(row), "little")
            assert number >> (elements * bits) == 0, "padding"
            assert number == sum(int(symbol) << (bits * place) for place, symbol in enumerate(record)), "layout"


@pytest.fixture(scope="session")
def lab() -> Lab:
    return Lab()


@pytest.fixture(params=KINDS, scope="session")
def kind(request: pytest.FixtureRequest) -> str:
    """Every kind of release in turn."""
    return str(request.param)
