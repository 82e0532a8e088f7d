"""Each checker of this folder catches the fault that it is there for."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from splitpriv.release import Claims, Release, dataset, file, header, pack, packing, unpack
from splitpriv.release.mapped import MappedRows


@pytest.fixture
def path(lab: Any, tmp_path: Path) -> Path:
    lab.make("wide", full=True).save(tmp_path / "r")
    return tmp_path / "r"


# Packing -----------------------------------------------------------------------------------


def padding_of_ones(symbols: Tensor, bits: int) -> Tensor:
    packed = pack(symbols, bits)
    packed[:, -1] |= 128
    return packed


def records_run_together(symbols: Tensor, bits: int) -> Tensor:
    return pack(symbols.reshape(1, -1), bits)


def big_endian_bits(symbols: Tensor, bits: int) -> Tensor:
    return torch.from_numpy(np.packbits(symbols.flatten(1).numpy().astype(bool), axis=1, bitorder="big"))


def one_bit_too_many(symbols: Tensor, bits: int) -> Tensor:
    return pack(symbols, bits + 8)


@pytest.mark.parametrize(
    ("fault", "caught"),
    [
        (padding_of_ones, "padding"),
        (records_run_together, "size"),
        (big_endian_bits, "round trip"),
        (one_bit_too_many, "size"),
    ],
)
def test_packing_faults(lab: Any, fault: Callable[[Tensor, int], Tensor], caught: str) -> None:
    symbols = torch.tensor([[1, 0, 1], [0, 0, 1]])
    lab.check_packing(pack, unpack, symbols, 1)
    with pytest.raises(AssertionError, match=caught):
        lab.check_packing(fault, unpack, symbols, 1)


def test_a_layout_that_both_sides_get_wrong(lab: Any) -> None:
    def mirrored(symbols: Tensor, bits: int) -> Tensor:
        return pack(symbols, bits).flip(1)

    def back(packed: Tensor, *rest: Any) -> Tensor:
        return unpack(packed.flip(1), *rest)

    with pytest.raises(AssertionError, match="layout"):
        lab.check_packing(mirrored, back, torch.randint(2, (1, 16), generator=torch.Generator().manual_seed(0)), 1)


# Files -------------------------------------------------------------------------------------


def digest_check_off(file: Any) -> str:
    file.seek(8 + len(header._START))
    return str(file.read(64).decode("latin-1"))


def digest_without_the_header(file: Any) -> str:
    file.seek(0)
    size = int.from_bytes(file.read(8), "little")
    file.seek(8 + size)
    return hashlib.sha256(file.read()).hexdigest()


def digest_without_the_payload(file: Any) -> str:
    file.seek(0)
    size = int.from_bytes(file.read(8), "little")
    content = bytearray(size.to_bytes(8, "little") + file.read(size))
    content[8 + len(header._START) : 8 + len(header._START) + 64] = b"0" * 64
    return hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("fault", [digest_check_off, digest_without_the_header, digest_without_the_payload])
def test_digest_faults(lab: Any, path: Path, fault: Callable[[Any], str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(header, "file_digest", fault)
    lab.make("bits", full=True).save(path)
    assert lab.same(Release.load(path), lab.make("bits", full=True))
    with pytest.raises(AssertionError, match="an altered release file was loaded"):
        lab.check_every_byte_counts(path)


def check_bits_field(lab: Any, path: Path) -> None:
    tensors, document, payload = lab.taken_apart(path.read_bytes())
    lab.check_refused(path, lab.put_together(tensors, {**document, "bits": 9}, payload))


def check_unknown_tensor(lab: Any, path: Path) -> None:
    tensors, document, payload = lab.taken_apart(path.read_bytes())
    size = len(payload)
    extra = {"dtype": "U8", "shape": [1], "data_offsets": [size, size + 1]}
    lab.check_refused(path, lab.put_together({**tensors, "extra": extra}, document, payload + b"x"))


def check_unknown_symbol(lab: Any, path: Path) -> None:
    tensors, document, payload = lab.taken_apart(path.read_bytes())
    at = tensors["packed"]["data_offsets"][0]
    lab.check_refused(path, lab.put_together(tensors, document, payload[:at] + b"\xff\xff" + payload[at + 2 :]))


def nothing(*args: Any) -> None:
    pass


@pytest.mark.parametrize(
    ("check", "place", "name"),
    [
        (check_bits_field, file, "_check_fields"),
        (check_unknown_tensor, file, "_check_tensors"),
        (check_unknown_symbol, dataset.checks, "check_packed"),
    ],
)
def test_checks_left_out(
    lab: Any, path: Path, check: Callable[..., None], place: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = path.read_bytes()
    check(lab, path)
    path.write_bytes(before)
    monkeypatch.setattr(place, name, nothing)
    with pytest.raises(AssertionError, match="an altered release file was loaded"):
        check(lab, path)


def test_epsilon_written_with_few_digits(lab: Any, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def check() -> None:
        release = lab.make("bits", per_use=1 / 3)
        release.save(path)
        assert lab.same(Release.load(path), release), "claims differ"

    check()
    exact = Claims.to_dict
    monkeypatch.setattr(Claims, "to_dict", lambda self: {**exact(self), "per_use": round(self.per_use, 6)})
    with pytest.raises(AssertionError, match="claims differ"):
        check()


def saved_in_place(release: Release, path: Path) -> None:
    file.save_file(file._tensors(release), path, header.metadata(file._fields(release)))
    with open(path, "r+b") as opened:
        file.seal(opened)


def test_a_save_that_is_not_atomic(lab: Any, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(opened: Any) -> None:
        raise OSError("power cut")

    def check() -> None:
        before = path.read_bytes()
        with monkeypatch.context() as patch:
            patch.setattr(file, "seal", fail)
            with pytest.raises(OSError, match="power cut"):
                lab.make("bits").save(path)
        assert path.read_bytes() == before, "the old file is gone"

    check()
    monkeypatch.setattr(file, "save", saved_in_place)
    lab.make("wide").save(path)
    assert lab.same(Release.load(path), lab.make("wide"))
    with pytest.raises(AssertionError, match="the old file is gone"):
        check()


def test_a_payload_that_is_pickled(lab: Any, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.make("bits", records=50_000).save(path)
    release = Release.load(path)

    def check() -> None:
        assert len(pickle.dumps(release)) < release.nbytes, "the payload travels"

    check()
    monkeypatch.setattr(MappedRows, "__getstate__", lambda self: dict(self.__dict__, rows=np.array(self.rows)))
    with pytest.raises(AssertionError, match="the payload travels"):
        check()


def test_chunks_that_skip_records(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    symbols = torch.randint(1000, (9, 3), generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(packing, "_chunks", lambda records, elements: iter([slice(0, records - 1)]))
    with pytest.raises(AssertionError, match="round trip"):
        lab.check_packing(pack, unpack, symbols, 10)
