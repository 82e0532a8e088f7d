"""Release files: whole or not there; believed only after every check."""

from __future__ import annotations

import io
import math
import os
import pickle
import stat
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError, safe_open

from splitpriv import InvalidParameterError, ReleaseFileError
from splitpriv.release import Release, file


@pytest.fixture
def path(lab: Any, tmp_path: Path) -> Path:
    lab.make("wide", full=True).save(tmp_path / "r.splitpriv")
    return tmp_path / "r.splitpriv"


@pytest.mark.parametrize("full", [False, True])
def test_round_trip(lab: Any, kind: str, full: bool, tmp_path: Path) -> None:
    release = lab.make(kind, full=full, notes=("why ∞",))
    release.save(tmp_path / "r")
    loaded = Release.load(tmp_path / "r")
    assert lab.same(loaded, release)
    assert torch.equal(loaded.batch([4, 0])[0], release.batch([4, 0])[0])
    assert loaded.path == str(tmp_path / "r")
    assert repr(tmp_path / "r").split("'")[1] in repr(loaded)


@pytest.mark.parametrize("epsilon", [0.1, 1 / 3, 5e-324, 1e308, math.nextafter(2, 3), math.inf])
def test_epsilon_keeps_every_bit(lab: Any, epsilon: float, tmp_path: Path) -> None:
    lab.make("bits", per_use=epsilon, per_record=epsilon, epsilon=epsilon).save(tmp_path / "r")
    assert Release.load(tmp_path / "r").claims.per_use == epsilon


@pytest.mark.parametrize("ids", [[3, -(2**63), 3, 2**63 - 1, 0], ["a", "a", "é", "日本", "\x00 \n"]])
def test_ids_round_trip(lab: Any, ids: Any, tmp_path: Path) -> None:
    symbols, values = lab.symbols("bits")
    Release.from_batches([(symbols, None)], values=values, claims=lab.claims(), ids=ids).save(tmp_path / "r")
    assert Release.load(str(tmp_path / "r")).ids == ids


def test_labels_that_are_not_numbers_keep_their_bits(lab: Any, tmp_path: Path) -> None:
    symbols, values = lab.symbols("bits")
    labels = torch.tensor([math.nan, math.inf, -math.inf, -0.0, 1.0])
    release = Release.from_batches([(symbols, labels)], values=values, claims=lab.claims(labels="public"))
    release.save(tmp_path / "r")
    assert lab.same(Release.load(tmp_path / "r"), release)


def test_it_is_a_safetensors_file(lab: Any, path: Path) -> None:
    release = lab.make("wide", full=True)
    with safe_open(path, "pt") as opened:
        assert set(opened.keys()) == {"packed", "values", "labels", "id_text", "id_ends"}
        assert list(opened.metadata()) == ["splitpriv_release"]
        assert torch.equal(opened.get_tensor("packed"), torch.from_numpy(release._array()))
        assert torch.equal(opened.get_tensor("labels"), release.labels)
    assert b"pickle" not in path.read_bytes()


def test_the_same_release_makes_the_same_bytes(lab: Any, path: Path, tmp_path: Path) -> None:
    lab.make("wide", full=True).save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == path.read_bytes()
    Release.load(path).save(tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == path.read_bytes()


def test_every_byte_counts(lab: Any, kind: str, tmp_path: Path) -> None:
    if kind != "wide":  # whose table of 1,000 values is long
        lab.make(kind, full=True).save(tmp_path / "r")
        lab.check_every_byte_counts(tmp_path / "r")


# Writing -----------------------------------------------------------------------------------


def test_saving_onto_the_file_it_is_mapped_from(lab: Any, path: Path) -> None:
    release = Release.load(path)
    before = path.read_bytes()
    release.save(path)
    assert path.read_bytes() == before
    assert lab.same(release, lab.make("wide", full=True))
    assert lab.same(Release.load(path), release)
    assert lab.same(pickle.loads(pickle.dumps(release)), release)


def test_saving_another_release_onto_it_leaves_the_mapped_one_intact(lab: Any, path: Path) -> None:
    release = Release.load(path)
    lab.make("codebook", records=500).save(path)
    assert lab.same(release, lab.make("wide", full=True))
    assert lab.same(Release.load(path), lab.make("codebook", records=500))


@pytest.mark.parametrize("step", ["save_file", "seal", "os.fsync", "os.chmod", "os.replace"])
@pytest.mark.parametrize("there", [True, False])
def test_a_failed_save_leaves_no_trace(
    lab: Any, path: Path, step: str, there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **keywords: Any) -> None:
        raise OSError("the disk is full")

    before = path.read_bytes()
    target = path if there else path.parent / "new"
    with monkeypatch.context() as patch:
        patch.setattr(f"splitpriv.release.file.{step}", fail)
        with pytest.raises(OSError, match="the disk is full"):
            lab.make("bits").save(target)
    assert os.listdir(path.parent) == [path.name]
    assert path.read_bytes() == before


def test_an_error_of_safetensors_is_named(lab: Any, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any) -> None:
        raise SafetensorError("No space left on device")

    monkeypatch.setattr(file, "save_file", fail)
    match = r"Release.save: path must be a place .*got path=.*Nothing was written. No space left on device"
    with pytest.raises(ReleaseFileError, match=match):
        lab.make("bits").save(path)
    assert os.listdir(path.parent) == [path.name]


def test_another_layout_of_headers_is_noticed(lab: Any, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def indented(tensors: Any, target: str, metadata: dict[str, str]) -> None:
        write(tensors, target, metadata)
        raw = Path(target).read_bytes()
        size = int.from_bytes(raw[:8], "little")
        Path(target).write_bytes((size + 1).to_bytes(8, "little") + b" " + raw[8:])

    write = file.save_file
    monkeypatch.setattr(file, "save_file", indented)
    with pytest.raises(ReleaseFileError, match="This version of safetensors lays a header out in another way"):
        lab.make("bits").save(path)


def test_a_header_that_could_not_be_loaded_is_not_written(lab: Any, tmp_path: Path) -> None:
    with pytest.raises(ReleaseFileError, match=r"Its header takes [0-9]+ bytes, more than 1048576; shorten notes"):
        lab.make("bits", notes=("x" * (1 << 20),)).save(tmp_path / "r")
    assert os.listdir(tmp_path) == []


def test_permissions(lab: Any, tmp_path: Path) -> None:
    def mode(path: Path) -> str:
        return oct(stat.S_IMODE(path.stat().st_mode))

    before = os.umask(0o027)
    try:
        lab.make("bits").save(tmp_path / "r")
        assert mode(tmp_path / "r") == "0o640"
        (tmp_path / "r").chmod(0o604)
        lab.make("bits").save(tmp_path / "r")
        assert mode(tmp_path / "r") == "0o604"
    finally:
        os.umask(before)


def test_nobody_else_can_read_it_while_it_is_written(lab: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def watched(tensors: Any, target: str, metadata: dict[str, str]) -> None:
        write(tensors, target, metadata)
        seen.append(oct(stat.S_IMODE(os.stat(target).st_mode)))

    write, seen = file.save_file, list[str]()
    monkeypatch.setattr(file, "save_file", watched)
    for _ in range(2):  # a new file, and one that is there
        lab.make("bits").save(tmp_path / "r")
        (tmp_path / "r").chmod(0o644)
    assert seen == ["0o600", "0o600"]
    assert os.listdir(tmp_path) == ["r"]


def test_labels_and_payload_of_one_memory(lab: Any, tmp_path: Path) -> None:
    memory = torch.zeros(3, 1, dtype=torch.uint8)
    claims = lab.claims(labels="public")
    release = Release(memory, symbol_shape=(8,), values=torch.zeros(2), claims=claims, labels=memory)
    release.save(tmp_path / "r")
    assert lab.same(Release.load(tmp_path / "r"), release)


def test_a_path_of_bytes(lab: Any, tmp_path: Path) -> None:
    lab.make("bits").save(os.fsencode(tmp_path / "r"))
    loaded = Release.load(os.fsencode(tmp_path / "r"))
    assert loaded.path == str(tmp_path / "r")
    assert lab.same(pickle.loads(pickle.dumps(loaded)), lab.make("bits"))


def test_big_endian_machines_are_refused(lab: Any, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release = lab.make("bits")
    monkeypatch.setattr(sys, "byteorder", "big")
    with pytest.raises(ReleaseFileError, match=r'Release.save: byteorder must be "little", got byteorder=.big'):
        release.save(path)
    with pytest.raises(ReleaseFileError, match=r"Release.load: byteorder .* for little-endian machines only"):
        Release.load(path)


def test_symbolic_links_stay(lab: Any, path: Path) -> None:
    link, dangling = path.parent / "link", path.parent / "dangling"
    link.symlink_to(path.name)
    dangling.symlink_to("nowhere.splitpriv")
    for place in (link, dangling):
        lab.make("bits").save(place)
        assert place.is_symlink()
        assert lab.same(Release.load(place), lab.make("bits"))
    assert lab.same(Release.load(path), lab.make("bits"))


def test_a_relative_path(lab: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lab.make("bits").save("r")
    loaded = Release.load("r")
    monkeypatch.chdir("/")
    assert lab.same(Release.load(loaded.path or ""), loaded)


@pytest.mark.parametrize("place", [".", "/dev/null"])
def test_saving_onto_what_is_no_file(lab: Any, tmp_path: Path, place: str) -> None:
    with pytest.raises(
        InvalidParameterError, match=r"Release.save: path must be a file, got .*a directory or a device"
    ):
        lab.make("bits").save(tmp_path / place)


def test_saving_into_a_missing_directory(lab: Any, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        lab.make("bits").save(tmp_path / "missing" / "r")


# Reading -----------------------------------------------------------------------------------


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Release.load(tmp_path / "missing")


@pytest.mark.parametrize("place", [".", "/dev/zero"])
def test_what_is_no_file(tmp_path: Path, place: str) -> None:
    with pytest.raises(ReleaseFileError, match="It is a directory or a device"):
        Release.load(tmp_path / place)


def test_a_tensor_that_ends_early(path: Path) -> None:
    with open(path, "rb") as opened:
        header = file.read_header(opened, path.stat().st_size)
    short = io.BytesIO(path.read_bytes()[: header.size + header.entries["labels"].begin + 9])
    with pytest.raises(ReleaseFileError, match="Its tensor 'labels' ended after 9 of 40 bytes: it was cut short"):
        file._read(short, header, "labels")


FOREIGN = [b"PK\3\4" + b"\0" * 200, b"\x80\x02}q\0.", b"{}", b"\x89PNG\r\n\x1a\n" * 9, b"\x02\0\0\0\0\0\0\0{}"]


@pytest.mark.parametrize("raw", FOREIGN)
def test_foreign_files(lab: Any, tmp_path: Path, raw: bytes) -> None:
    lab.check_refused(tmp_path / "r", raw, "cut short" if len(raw) <= 8 else "It is another kind of file")


def test_a_safetensors_file_of_others(tmp_path: Path) -> None:
    file.save_file({"weight": torch.zeros(3)}, tmp_path / "r", {"format": "pt"})
    with pytest.raises(ReleaseFileError, match="It is another kind of file"):
        Release.load(tmp_path / "r")


def test_no_symbols_are_read_into_memory(lab: Any, tmp_path: Path) -> None:
    values = torch.tensor([0.0, 1.0])
    packed = torch.zeros(128, 1 << 18, dtype=torch.uint8)  # 32 MB
    Release(packed, symbol_shape=(1 << 21,), values=values, claims=lab.claims()).save(tmp_path / "r")
    tracemalloc.start()
    release = Release.load(tmp_path / "r")
    release.batch([1])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert release.nbytes == 32 << 20
    assert peak < 24 << 20  # one record decoded: 8 MB of features, and as much on the way
