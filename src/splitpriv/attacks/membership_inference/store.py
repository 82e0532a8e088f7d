"""One file per finished shadow model: whole or absent, and never another configuration's."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from splitpriv._errors import InvalidParameterError


def digest(*parts: str | Tensor) -> str:
    """SHA-256 of texts, and of tensors bit for bit."""
    found = hashlib.sha256()
    for part in parts:
        if isinstance(part, str):
            _add(found, part.encode("utf-8", "surrogatepass"))
        else:
            values = part.detach().cpu().contiguous()
            _add(found, f"{values.dtype} {tuple(values.shape)}".encode())
            found.update(values.reshape(-1).view(torch.uint8).numpy().data if values.numel() else b"")
    return found.hexdigest()


def _add(found: hashlib._Hash, text: bytes) -> None:
    found.update(len(text).to_bytes(8, "little") + text)


@dataclass(frozen=True)
class Store:
    """A folder of shadow models' outputs; none where ``folder`` is None."""

    folder: Path | None
    fingerprint: str

    def path(self, number: int) -> Path:
        """Of one shadow model."""
        assert self.folder is not None
        return self.folder / f"shadow-{number:05d}.npz"

    def read(self, number: int) -> npt.NDArray[np.float32] | None:  # shape: (records, classes)
        """What was stored; None where nothing was, or what was cannot be read.

        Raises:
            InvalidParameterError: the file is of another configuration or of other data.
        """
        if self.folder is None or not self.path(number).is_file():
            return None
        try:
            # Opened here: where it is damaged, np.load would leave it open.
            with self.path(number).open("rb") as file, np.load(file, allow_pickle=False) as stored:
                fingerprint, outputs = str(stored["fingerprint"]), stored["outputs"]
        except Exception:  # numpy, zipfile and zlib name a damaged file in a dozen ways
            return None
        if fingerprint != self.fingerprint:
            raise InvalidParameterError(
                f"train_shadows: folder must hold shadows of this configuration and these records only, got "
                f"{self.path(number)} of another. Use another folder, or delete what is there."
            )
        whole = isinstance(outputs, np.ndarray) and outputs.dtype == np.float32 and outputs.ndim == 2
        return outputs if whole else None

    def write(self, number: int, outputs: npt.NDArray[np.float32]) -> None:
        """Store one model's outputs: under another name first, so that no half-written file is ever taken for one."""
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        unfinished = self.folder / f".shadow-{number:05d}.{os.getpid()}.tmp"
        try:
            with unfinished.open("wb") as file:
                np.savez(file, outputs=outputs, fingerprint=np.array(self.fingerprint))
                file.flush()
                os.fsync(file.fileno())
            os.replace(unfinished, self.path(number))
        finally:
            unfinished.unlink(missing_ok=True)
