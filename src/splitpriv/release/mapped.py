"""The packed symbols of a release that stay in its file, and are read page by page."""

from __future__ import annotations

import os
from typing import Any, BinaryIO

import numpy as np

from splitpriv._errors import ReleaseFileError
from splitpriv._validation import message
from splitpriv.release.header import file_digest
from splitpriv.release.packing import Bytes


class MappedRows:
    """Packed records in a file, memory-mapped read-only.

    Pickling carries the path, not the bytes: whoever unpickles it, such as a DataLoader's worker,
    maps the file again, after making sure that it still holds what it held.

    Args:
        file: an open release file whose digest has been verified.
        path: its absolute path.
        digest: its SHA-256, as hexadecimal digits.
        offset: where the records begin, in bytes.
        shape: (records, bytes per record).
    """

    rows: Bytes  # shape: (records, bytes_per_record), read-only

    def __init__(self, file: BinaryIO, path: str, digest: str, offset: int, shape: tuple[int, int]) -> None:
        self.path = path
        self._digest = digest
        self._offset = offset
        self._shape = shape
        self._map(file)

    def _map(self, file: BinaryIO) -> None:
        self._seen = _fingerprint(file)
        self.rows = np.memmap(file, dtype=np.uint8, mode="r", offset=self._offset, shape=self._shape)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "rows"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        constraint = "the file that this Release was loaded from, unchanged"
        try:
            with open(self.path, "rb") as file:
                # The digest is read in full only where the file looks touched.
                same = _fingerprint(file) == self._seen or file_digest(file) == self._digest
                if same:
                    self._map(file)
        except (OSError, ValueError) as error:
            fix = f"It cannot be read again: {error}."
            raise ReleaseFileError(message("Release", "path", constraint, self.path, fix)) from error
        if not same:
            fix = "Its content has changed. Load it again."
            raise ReleaseFileError(message("Release", "path", constraint, self.path, fix))


def _fingerprint(file: BinaryIO) -> tuple[int, ...]:
    """What changes when a file is written to or replaced."""
    status = os.fstat(file.fileno())
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
