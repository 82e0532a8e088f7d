"""Where noise comes from: a secure keystream, or a seeded one for experiments.

Both sources are AES-256 in counter mode over zeros, read as uniform words. They differ in the
key alone: :class:`SecureSource` takes it from the operating system and shows it to nobody,
:class:`SeededSource` derives it from a seed, so that an experiment can be repeated.

Not protected: whoever reads this process's memory reads its keys; a virtual machine that is
snapshotted and resumed twice repeats its stream; timing is not constant.
"""

from __future__ import annotations

import hashlib
import itertools
import multiprocessing
import os
import threading
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes
from torch.utils.data import get_worker_info

from splitpriv._errors import InvalidParameterError
from splitpriv._validation import message
from splitpriv._warnings import warn

_ZEROS = bytes(1 << 20)
SPARE = 15
"""Bytes of room that a cipher wants behind its output."""

Room = Callable[[str, int, npt.DTypeLike], npt.NDArray[Any]]
_fork_count = 0
_guard = threading.Lock()


def _count_fork() -> None:
    global _fork_count, _guard
    _fork_count += 1
    _guard = threading.Lock()  # another thread may have held it when the fork happened


if hasattr(os, "register_at_fork"):  # absent on Windows, which does not fork
    os.register_at_fork(after_in_child=_count_fork)


class Source(Protocol):
    """A stream of independent uniform bytes."""

    @property
    def secure(self) -> bool:
        """Whether the stream is unpredictable to everyone else."""
        ...

    def read(self, count: int) -> npt.NDArray[np.uint8]:
        """The next ``count`` bytes of the stream; no byte is ever returned twice."""
        ...


def words(source: Source, count: int, bits: int, room: Room | None = None) -> npt.NDArray[Any]:
    """``count`` uniform words of 8, 16, 32 or 64 bits.

    Words are read little-endian on every machine, so a seed means the same everywhere.

    Args:
        source: where they come from.
        count: how many.
        bits: width of one.
        room: gives memory to write them to, where the source can; they are there until it is asked again.
    """
    size = count * (bits // 8)
    read_into = _read_into(source)
    if room is None or read_into is None:
        return source.read(size).view(f"<u{bits // 8}")
    buffer = room("words", size + SPARE, np.uint8)
    read_into(buffer)
    found: npt.NDArray[Any] = buffer[:size].view(f"<u{bits // 8}")
    return found


def _read_into(source: Any) -> Callable[[npt.NDArray[np.uint8]], None] | None:
    """How to have a source write to given memory; None where ``read`` is not ours, and so the one to ask."""
    kept = isinstance(source, (SecureSource, SeededSource, _Branch)) and type(source).read in _READS
    return source.read_into if kept and "read" not in vars(source) else None


class _Keystream:
    """AES-256-CTR over zeros under one key."""

    def __init__(self, key: bytes) -> None:
        self._context: CipherContext = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()

    def read(self, count: int) -> npt.NDArray[np.uint8]:
        buffer = np.empty(count + SPARE, dtype=np.uint8)
        self.read_into(buffer)
        return buffer[:count]

    def read_into(self, buffer: npt.NDArray[np.uint8]) -> None:
        view, count = memoryview(buffer.data), buffer.size - SPARE
        for start in range(0, count, len(_ZEROS)):
            size = min(len(_ZEROS), count - start)
            self._context.update_into(memoryview(_ZEROS)[:size], view[start : start + size + SPARE])


class _Branch(_Keystream):
    """One of the streams that a seeded source divides into."""

    secure = False


class SecureSource:
    """Uniform bytes that nobody else can predict: AES-256-CTR, keyed by the operating system.

    Every thread and every process has a key of its own, drawn from ``os.urandom`` at first
    use. A forked child, a DataLoader worker, a copy and an unpickled object therefore never
    continue a stream that another one also reads. The guarantee is computational: it holds
    as long as AES is a pseudorandom permutation.

    Example:
        >>> source = SecureSource()
        >>> source.read(4).shape, source.secure
        ((4,), True)
    """

    secure = True

    def __init__(self) -> None:
        self._local = threading.local()

    def read(self, count: int) -> npt.NDArray[np.uint8]:
        """The next ``count`` bytes of this thread's stream."""
        return self._stream().read(count)

    def read_into(self, buffer: npt.NDArray[np.uint8]) -> None:
        """Fill an array of the caller's with the next bytes, but for its last 15, which stay free."""
        self._stream().read_into(buffer)

    def branches(self, count: int) -> list[Source]:
        """One source for each of ``count`` blocks: this one, whose threads have streams of their own."""
        return [self] * count

    def _stream(self) -> _Keystream:
        here = (os.getpid(), _fork_count)
        if getattr(self._local, "owner", None) != here:
            self._local.stream = _Keystream(os.urandom(32))
            self._local.owner = here
        stream: _Keystream = self._local.stream
        return stream

    def __reduce__(self) -> tuple[type[SecureSource], tuple[()]]:
        return SecureSource, ()

    def __repr__(self) -> str:
        return "secure"


class SeededSource:
    """Repeatable bytes for experiments. *Not secure*: who knows the seed can remove the noise.

    An ``int`` seeds one stream (AES-256-CTR under a hash of the seed; the same bytes on every
    machine). A ``torch.Generator`` is asked for a fresh key at each read, so the noise follows
    the generator's state.

    Copies, unpickled objects, child processes and DataLoader workers read streams of their own,
    derived from the seed and from which copy, process or worker they are; those of other child
    processes than DataLoader workers are not repeatable. Two sources of one seed in one process
    read the same stream. A warning is given once per
    process, since epsilon holds only against someone who does not know the seed.

    Args:
        seed: an int in [0, 2**63), or a CPU ``torch.Generator``.

    Raises:
        InvalidParameterError: ``seed`` is neither.
    """

    secure = False
    _warned = False
    _copies = itertools.count(1)

    def __init__(self, seed: int | torch.Generator) -> None:
        self._generator: torch.Generator | None = None
        if isinstance(seed, torch.Generator):
            if seed.device.type != "cpu":
                fix = "Noise is drawn on the CPU: pass torch.Generator('cpu')."
                raise InvalidParameterError(message("SeededSource", "generator", "on the cpu", seed, fix))
            self._generator, self._label, self._key = seed, "a torch.Generator", b""
        elif isinstance(seed, int) and not isinstance(seed, bool) and 0 <= seed < 2**63:
            self._label = "a seed"  # never the number: reprs travel in releases
            self._key = hashlib.sha256(b"splitpriv seed" + seed.to_bytes(8, "big")).digest()
        else:
            constraint = "an int in [0, 2**63) or a torch.Generator"
            raise InvalidParameterError(message("SeededSource", "generator", constraint, seed))
        self._start()
        self._warn()

    def _start(self) -> None:
        self._home = os.getpid()
        self._place: bytes | None = None
        self._stream: _Keystream | None = None
        self._forks, self._lock = _fork_count, threading.Lock()

    @classmethod
    def _warn(cls) -> None:
        if not cls._warned:
            cls._warned = True
            warn(
                "Noise from a seed or a torch.Generator is for experiments: whoever knows or guesses the "
                "seed can remove it. Leave generator=None to release real data."
            )

    def read(self, count: int) -> npt.NDArray[np.uint8]:
        """The next ``count`` bytes."""
        buffer = np.empty(count + SPARE, dtype=np.uint8)
        self.read_into(buffer)
        return buffer[:count]

    def branches(self, count: int) -> list[Source]:
        """One source for each of ``count`` blocks: the same ones, whichever threads read them.

        Their keys are derived from the next bytes of this source and the number of the block.
        """
        key = self.read(32).tobytes()
        return [_Branch(_derive(key, b"block %d" % number)) for number in range(count)]

    def read_into(self, buffer: npt.NDArray[np.uint8]) -> None:
        """Fill an array of the caller's with the next bytes, but for its last 15, which stay free."""
        with _guard:
            if self._forks != _fork_count:  # its lock may have been held when the fork happened
                self._forks, self._lock = _fork_count, threading.Lock()
        place = _place(self._home)
        with self._lock:
            if self._generator is not None:
                drawn = torch.randint(2**62, (5,), generator=self._generator)
                _Keystream(_derive(drawn.numpy().tobytes(), place)).read_into(buffer)
                return
            if self._stream is None or place != self._place:
                self._place = place
                self._stream = _Keystream(_derive(self._key, place))
            self._stream.read_into(buffer)

    def __getstate__(self) -> dict[str, Any]:
        label = self._label if self._label.endswith("(copy)") else f"{self._label} (copy)"
        if self._generator is None:
            return {"key": self._key, "label": label}
        drawn = torch.randint(2**62, (5,), generator=self._generator)
        return {"key": _derive(drawn.numpy().tobytes(), b"copy"), "label": label}

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Which copy it is goes into the key: one pickle loaded twice in a process is two streams.
        self._generator = None
        self._label = state["label"]
        self._key = _derive(state["key"], b"copy %d" % next(self._copies))
        self._start()

    def __repr__(self) -> str:
        return f"{self._label}: NOT SECURE"


_READS = (SecureSource.read, SeededSource.read, _Branch.read)


def _derive(key: bytes, purpose: bytes) -> bytes:
    return hashlib.sha256(len(key).to_bytes(8, "big") + key + purpose).digest()


def _place(home: int) -> bytes:
    """What sets this process's stream apart; empty in the process where the source was made."""
    worker = get_worker_info()
    if worker is not None:
        return b"worker %d %d" % (worker.id, worker.seed)
    child = os.getpid() != home or multiprocessing.parent_process() is not None
    return b"process %d" % os.getpid() if child else b"home"


def make_source(generator: int | torch.Generator | None) -> Source:
    """The secure source for ``None``, a seeded one for an int or a ``torch.Generator``.

    Args:
        generator: None to release data; an int in [0, 2**63) or a CPU ``torch.Generator`` for experiments.

    Raises:
        InvalidParameterError: ``generator`` is none of these.
    """
    return SecureSource() if generator is None else SeededSource(generator)


def permutation(source: Source, count: int) -> npt.NDArray[np.int64]:  # shape: (count,)
    """A uniformly random order of ``count`` things, exact for ideal bits.

    Different random words sorted: all orders of them are equally likely. Words that are not all
    different (once in 2**65 / count**2 times) are drawn again, since a tie would have to be broken.
    """
    while True:
        drawn = words(source, count, 64)
        order = np.argsort(drawn, kind="stable").astype(np.int64, copy=False)
        if not (np.diff(drawn[order]) == 0).any():
            return order
