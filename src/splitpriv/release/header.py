"""The header of a release file: where its digest stands, strict JSON, and checked offsets.

A release file is a safetensors file with one metadata entry, a JSON document whose first field is
the SHA-256 of the file. So the digest stands at the same place in every release file, and the bytes
before it tell a release from any other file. Later format versions keep this beginning.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from reprlib import repr as brief
from typing import Any, BinaryIO

import torch

from splitpriv._errors import ReleaseFileError

VERSION = 2  # the newest; a file has the oldest that can say what it says
MAX_HEADER = 1 << 20  # bytes; also bounds what parsing a forged header can allocate
_KEY = "splitpriv_release"
_START = f'{{"__metadata__":{{"{_KEY}":"{{\\"sha256\\":\\"'.encode()
_DIGEST_AT = 8 + len(_START)  # the header follows its length, 8 bytes
_BLANK = b"0" * 64
_MAX_DIMS = 32
_BLOCK = 1 << 20

DTYPES: dict[str, torch.dtype] = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
}


@dataclass(frozen=True)
class Entry:
    """Where one tensor lies in the file, counted from the end of the header."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class Header:
    """A parsed header: the release's own fields, and where its tensors lie."""

    digest: str
    fields: dict[str, Any]
    entries: dict[str, Entry]
    size: int  # bytes before the first tensor
    version: int


def metadata(fields: Mapping[str, Any]) -> dict[str, str]:
    """The metadata of a release file whose digest is still to be filled in."""
    document = {"sha256": _BLANK.decode(), "version": 1, **fields}
    return {_KEY: json.dumps(document, separators=(",", ":"), allow_nan=False)}


def seal(file: BinaryIO) -> None:
    """Write the digest into a file that has been written without one.

    Raises:
        ReleaseFileError: the blank digest is not where it must be, or the header is too large.
    """
    if _read_at(file, 8, len(_START) + 64) != _START + _BLANK:
        raise ReleaseFileError("This version of safetensors lays a header out in another way than expected.")
    if (length := _header_length(file)) > MAX_HEADER:
        raise ReleaseFileError(f"Its header takes {length} bytes, more than {MAX_HEADER}; shorten notes and layers.")
    digest = file_digest(file)
    file.seek(_DIGEST_AT)
    file.write(digest.encode())


def file_digest(file: BinaryIO) -> str:
    """SHA-256 over every byte of the file, its digest's own 64 taken as zeros."""
    file.seek(0)
    digest = hashlib.sha256(file.read(_DIGEST_AT))
    digest.update(_BLANK[: len(file.read(64))])
    while block := file.read(_BLOCK):
        digest.update(block)
    return digest.hexdigest()


def read_header(file: BinaryIO, size: int) -> Header:
    """Parse the header of an open file of ``size`` bytes, and verify the digest.

    In this order, so that the first thing that is wrong names itself: is it a release file, is it
    whole, of a version that can be read, undamaged; then every field of the header.

    Raises:
        ReleaseFileError: any of these is not so.
    """
    start = _read_at(file, 8, len(_START))
    if not _START.startswith(start):
        raise ReleaseFileError("It is another kind of file, or its first bytes are damaged.")
    length = _header_length(file) if size >= _DIGEST_AT else 0
    if not len(_START) + 64 <= length <= size - 8:
        raise ReleaseFileError(f"It is cut short, or damaged: {size} bytes do not hold its header.")
    if length > MAX_HEADER:
        raise ReleaseFileError(f"Its header claims {length} bytes, more than {MAX_HEADER}.")
    tensors = _json_object(_read_at(file, 8, length))
    inner = tensors.pop("__metadata__")  # an object whose first key is _KEY: so it starts
    if set(inner) != {_KEY}:
        raise ReleaseFileError(f"Its metadata must be {_KEY!r} alone, and are {brief(sorted(inner))}.")
    document = _json_object(inner[_KEY])
    digest, version = document.pop("sha256"), document.pop("version", None)
    if type(version) is int and version > VERSION:
        raise ReleaseFileError(
            f"It has format version {version}, and this splitpriv reads {VERSION}: a later splitpriv wrote it "
            "(upgrade), or it is damaged."
        )
    if digest != file_digest(file):
        raise ReleaseFileError("Its SHA-256 does not match its content: it was cut short, damaged, or altered.")
    if type(version) is not int or version not in range(1, VERSION + 1):
        raise ReleaseFileError(f"Its format version is {brief(version)}, which never existed.")
    return Header(digest, document, _entries(tensors, size - 8 - length), 8 + length, version)


def _entries(tensors: dict[str, Any], size: int) -> dict[str, Entry]:
    """Check where every tensor lies: in the file, back to back, nothing beside them."""
    entries = {name: _entry(name, value) for name, value in tensors.items()}
    position = 0
    for entry in sorted(entries.values(), key=lambda entry: entry.begin):
        if entry.begin != position:
            raise ReleaseFileError(f"Its tensors overlap or leave a gap at byte {position} after the header.")
        position = entry.end
    if position != size:
        raise ReleaseFileError(f"Its tensors take {position} bytes after the header, the file has {size}.")
    return entries


def _entry(name: str, value: Any) -> Entry:
    """Check one tensor's dtype, shape and offsets against each other."""
    about = f"Its tensor {brief(name)}"
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise ReleaseFileError(f"{about} is not described by dtype, shape and data_offsets.")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ReleaseFileError(f"{about} has dtype {brief(dtype)}, not one of {', '.join(DTYPES)}.")
    if not is_shape(shape) or not shape:
        raise ReleaseFileError(f"{about} has shape {brief(shape)}, not a list of positive integers.")
    if not isinstance(offsets, list) or len(offsets) != 2 or any(type(end) is not int for end in offsets):
        raise ReleaseFileError(f"{about} has data_offsets {brief(offsets)}, not two integers.")
    begin, end = offsets
    if begin < 0 or end - begin != math.prod(shape) * DTYPES[dtype].itemsize:
        raise ReleaseFileError(f"{about} of {dtype} {brief(shape)} does not fit data_offsets {brief(offsets)}.")
    return Entry(DTYPES[dtype], tuple(shape), begin, end)


def is_shape(value: Any) -> bool:
    """True for a list of at most 32 positive ints, as JSON gives them."""
    return (
        isinstance(value, list) and len(value) <= _MAX_DIMS and all(type(d) is int and 0 < d < 1 << 63 for d in value)
    )


def _json_object(text: bytes | str) -> Any:
    """Parse strict JSON: no key twice, no NaN, nothing nested or numbered beyond reason."""
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8")
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ReleaseFileError(f"Its header is damaged: {error}.") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key stands there twice")
    return value


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _header_length(file: BinaryIO) -> int:
    return int.from_bytes(_read_at(file, 0, 8), "little")


def _read_at(file: BinaryIO, position: int, size: int) -> bytes:
    file.seek(position)
    return file.read(size)
