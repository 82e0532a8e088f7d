"""Release files: written whole or not at all, and believed only after every check."""

from __future__ import annotations

import math
import os
import secrets
import stat
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from reprlib import repr as brief
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from splitpriv._errors import InvalidParameterError, ReleaseFileError, SplitPrivError
from splitpriv._validation import message
from splitpriv.release import numbered
from splitpriv.release.claims import Claims
from splitpriv.release.header import Entry, Header, is_shape, metadata, read_header, seal
from splitpriv.release.mapped import MappedRows
from splitpriv.release.packing import bits_for, bytes_for

if TYPE_CHECKING:
    from splitpriv.release.dataset import Release

Path = str | bytes | os.PathLike[str] | os.PathLike[bytes]
Made = TypeVar("Made")

_FIELDS = ("alphabet", "bits", "bytes_per_record", "claims", "records", "symbol_shape")
# What a file may hold: the dtype and the number of dimensions of each tensor, None for any.
_TENSORS: dict[str, tuple[torch.dtype | None, int | None]] = {
    "packed": (torch.uint8, 2),
    "values": (torch.float32, None),
    "labels": (None, None),
    "ids": (torch.int64, 1),
    "id_text": (torch.uint8, 1),
    "id_ends": (torch.int64, 1),
    "label_channel": (torch.float64, 2),
    "positions": (torch.int64, 1),
}


def save(release: Release, path: Path) -> None:
    """Write ``release`` beside its target, then move it there: see :meth:`Release.save`."""
    _check_byteorder("Release.save")
    path = os.fsdecode(path)
    target = os.path.realpath(path)
    if os.path.exists(target) and not os.path.isfile(target):
        fix = "It is a directory or a device."
        raise InvalidParameterError(message("Release.save", "path", "a file", path, fix))
    temporary = os.path.join(os.path.dirname(target), f".splitpriv-{secrets.token_hex(8)}.tmp")
    try:
        mode = _mode(target, temporary)
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        save_file(_tensors(release), temporary, metadata(_fields(release)))
        with open(temporary, "r+b") as file:
            seal(file)
            file.flush()
            os.chmod(file.fileno() if os.chmod in os.supports_fd else temporary, mode)
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except (SafetensorError, ReleaseFileError) as error:
        fix = f"Nothing was written. {error}"
        constraint = "a place to which the release can be written"
        raise ReleaseFileError(message("Release.save", "path", constraint, path, fix)) from error
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
    _sync(os.path.dirname(target))


def load(path: Path, make: Callable[..., Made]) -> Made:
    """Read a file, check all of it, and make a release of it: see :meth:`Release.load`."""
    _check_byteorder("Release.load")
    path = os.fsdecode(path)
    status = os.stat(path)
    with _explained(path):
        if not stat.S_ISREG(status.st_mode):
            raise ReleaseFileError("It is a directory or a device.")
        with open(path, "rb") as file:
            header = read_header(file, os.fstat(file.fileno()).st_size)
            _check_tensors(header.entries)
            fields = header.fields
            _check_fields(fields, header.entries, header.version)
            offset = header.size + header.entries["packed"].begin
            shape = (fields["records"], fields["bytes_per_record"])
            return make(
                MappedRows(file, os.path.abspath(path), header.digest, offset, shape),
                symbol_shape=fields["symbol_shape"],
                values=numbered.from_header(fields["codebook"])
                if "codebook" in fields
                else _read(file, header, "values"),
                claims=Claims.from_dict(fields["claims"]),
                labels=_read(file, header, "labels"),
                ids=_read_ids(file, header),
                label_channel=_read(file, header, "label_channel"),
                positions=_read_positions(file, header),
            )


@contextmanager
def _explained(path: str) -> Iterator[None]:
    """Say of which file it is that something is wrong."""
    try:
        yield
    except SplitPrivError as error:
        constraint = "an intact release file"
        raise ReleaseFileError(message("Release.load", "path", constraint, path, str(error))) from error


def _check_byteorder(owner: str) -> None:
    """Refuse machines whose tensors are not laid out as those of a file."""
    if sys.byteorder != "little":
        fix = "Release files are for little-endian machines only."
        raise ReleaseFileError(message(owner, "byteorder", '"little"', sys.byteorder, fix))


# Writing ---------------------------------------------------------------------------------------


def _mode(target: str, temporary: str) -> int:
    """The permissions that the target shall have in the end: its own, or those of any new file there."""
    if os.path.exists(target):
        return stat.S_IMODE(os.stat(target).st_mode)
    # Asking for the umask means setting it, for all threads; an empty file that is gone at once shows it.
    descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    try:
        return stat.S_IMODE(os.fstat(descriptor).st_mode)
    finally:
        os.close(descriptor)
        os.unlink(temporary)


def _fields(release: Release) -> dict[str, Any]:
    fields = {
        "records": len(release),
        "symbol_shape": list(release.symbol_shape),
        "alphabet": release.alphabet,
        "bits": release.bits,
        "bytes_per_record": release.bytes_per_record,
        "claims": release.claims.to_dict(),
    }
    if isinstance(release._decoder, numbered.BookDecoder):
        fields |= {"version": 2, "codebook": numbered.to_header(release._decoder)}
    return fields


def _tensors(release: Release) -> dict[str, Tensor]:
    """The release's tensors under the names of the file; the payload is not copied."""
    with warnings.catch_warnings():
        # torch warns that a mapped file must not be written to; safetensors only reads it.
        warnings.filterwarnings("ignore", message=".*not writable", category=UserWarning)
        tensors = {"packed": torch.from_numpy(release._array())}
    if isinstance(release.values, Tensor):
        tensors["values"] = release.values
    if isinstance(release._decoder, numbered.BookDecoder) and isinstance(release._decoder.positions, Tensor):
        tensors["positions"] = release._decoder.positions
    if release.labels is not None:
        tensors["labels"] = release.labels
    if release.label_channel is not None:
        tensors["label_channel"] = release.label_channel
    ids = release.ids
    if ids and isinstance(ids[0], str):
        encoded = [str(name).encode() for name in ids]
        tensors["id_text"] = torch.frombuffer(bytearray(b"".join(encoded)), dtype=torch.uint8)
        tensors["id_ends"] = torch.tensor([len(name) for name in encoded]).cumsum(0)
    elif ids:
        tensors["ids"] = torch.tensor(ids, dtype=torch.int64)
    return tensors


def _sync(directory: str) -> None:
    """Make the new name itself survive a power cut, where the system has a way to."""
    with suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


# Reading ---------------------------------------------------------------------------------------


def _check_tensors(entries: dict[str, Entry]) -> None:
    """Refuse tensors that are missing, unknown, or of another kind than their name says."""
    names = set(entries)
    if "packed" not in names or not names <= set(_TENSORS) or ("id_text" in names) != ("id_ends" in names):
        raise ReleaseFileError(f"Its tensors {brief(sorted(names))} are not those of a release.")
    if {"ids", "id_text"} <= names:
        raise ReleaseFileError("It has ids of two kinds.")
    for name, entry in entries.items():
        dtype, dims = _TENSORS[name]
        if dtype not in (None, entry.dtype) or dims not in (None, len(entry.shape)):
            raise ReleaseFileError(f"Its tensor {name!r} cannot be {entry.dtype} of shape {brief(entry.shape)}.")


def _check_fields(fields: dict[str, Any], entries: dict[str, Entry], version: int) -> None:
    """Refuse header fields that are missing or unknown, or differ from each other or the tensors.

    What is left, such as the number of labels, is checked where a Release is made.
    """
    known = [*_FIELDS, "codebook"] if version == 2 else list(_FIELDS)
    if set(fields) != set(known):
        raise ReleaseFileError(f"Its header fields must be {known}, and are {brief(sorted(fields))}.")
    shape, records, size = fields["symbol_shape"], *entries["packed"].shape
    if not is_shape(shape):
        raise ReleaseFileError(f"Its symbol_shape is {brief(shape)}, not a list of positive integers.")
    alphabet = entries["values"].shape[0] if "values" in entries else None
    first = None
    if version == 2:
        if "values" in entries:
            raise ReleaseFileError("Its symbols stand for values and for codewords of a codebook.")
        alphabet, first = numbered.from_header(fields["codebook"]).size, fields["codebook"]["first"]
    if ("positions" in entries) != (version == 2 and first is None):
        raise ReleaseFileError("Its positions must stand there exactly where its codebook names no first one.")
    if alphabet is not None and not 2 <= alphabet <= 1 << 32:
        raise ReleaseFileError(f"Its values stand for {alphabet} symbols, not for 2 to 2^32.")
    bits = 32 if alphabet is None else bits_for(alphabet)
    needed = bytes_for(math.prod(shape), bits)
    expected = {"alphabet": alphabet, "bits": bits, "bytes_per_record": needed, "records": records}
    for name, value in expected.items():
        if type(fields[name]) is not type(value) or fields[name] != value:
            raise ReleaseFileError(f"Its {name} is {brief(fields[name])}, and the rest of the file says {value}.")
    if size != needed:
        raise ReleaseFileError(f"Its records have {size} bytes each, and their symbols take {needed}.")


def _read(file: BinaryIO, header: Header, name: str) -> Tensor | None:
    """Read one of the small tensors into memory; its size is known to be that of a part of the file."""
    if name not in header.entries:
        return None
    entry = header.entries[name]
    file.seek(header.size + entry.begin)
    content = bytearray(entry.end - entry.begin)
    # Every binary file has readinto; typeshed's BinaryIO does not say so.
    if (count := file.readinto(content)) != len(content):  # type: ignore[attr-defined]
        raise ReleaseFileError(f"Its tensor {name!r} ended after {count} of {len(content)} bytes: it was cut short.")
    if entry.dtype == torch.bool and max(content) > 1:
        raise ReleaseFileError(f"Its tensor {name!r} holds bytes that are no booleans.")
    return torch.frombuffer(content, dtype=entry.dtype).reshape(entry.shape)


def _read_positions(file: BinaryIO, header: Header) -> Any:
    """Read the positions of the records' books: an integer tensor, the first one, or None."""
    first = header.fields.get("codebook", {}).get("first")
    return first if "positions" not in header.entries else _read(file, header, "positions")


def _read_ids(file: BinaryIO, header: Header) -> Any:
    """Read the ids: an integer tensor, a list of strings, or None."""
    text, ends = _read(file, header, "id_text"), _read(file, header, "id_ends")
    if text is None or ends is None:
        return _read(file, header, "ids")
    content, stops = text.numpy().tobytes(), ends.tolist()
    starts = [0, *stops[:-1]]
    if stops[-1] != len(content) or any(start >= stop for start, stop in zip(starts, stops, strict=True)):
        raise ReleaseFileError("Its ids do not follow each other in their text.")
    try:
        return [content[start:stop].decode("utf-8") for start, stop in zip(starts, stops, strict=True)]
    except UnicodeDecodeError:
        raise ReleaseFileError("Its ids are not UTF-8 text.") from None
