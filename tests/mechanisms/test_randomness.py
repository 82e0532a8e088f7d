"""Noise sources: never the same stream twice, never in two places."""

from __future__ import annotations

import copy
import multiprocessing
import os
import pickle
import threading
import warnings

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from torch.utils.data import DataLoader, Dataset

from splitpriv import InvalidParameterError, PrivacyWarning, RandomResponseLDP
from splitpriv.mechanisms import SecureSource, SeededSource, make_source
from splitpriv.mechanisms.blocks import Scratch
from splitpriv.mechanisms.randomness import Source, _Keystream, words


def head(source: Source) -> bytes:
    return source.read(32).tobytes()


def make(kind: str) -> Source:
    return SecureSource() if kind == "secure" else SeededSource(11)


kinds = pytest.mark.parametrize("kind", ["secure", "seeded"])


def test_keystream_is_aes_ctr_over_zeros() -> None:
    encryptor = Cipher(algorithms.AES(bytes(range(32))), modes.CTR(bytes(16))).encryptor()
    expected = encryptor.update(bytes(3_000_000))
    stream = _Keystream(bytes(range(32)))
    parts = [stream.read(n).tobytes() for n in (1, 15, 2_500_000, 0, 17)]
    assert b"".join(parts) == expected[: sum(map(len, parts))]


@kinds
def test_reading_goes_on_where_it_stopped(kind: str) -> None:
    source = make(kind)
    assert head(source) != head(source)


@kinds
def test_copies_and_pickles_read_streams_of_their_own(kind: str) -> None:
    source = make(kind)
    data = pickle.dumps(source)
    streams = [source, copy.copy(source), copy.deepcopy(source), pickle.loads(data), pickle.loads(data)]
    assert len({head(s) for s in streams}) == len(streams)
    assert all(s.secure == source.secure for s in streams)


def _child(source: Source, queue: multiprocessing.Queue[bytes]) -> None:
    queue.put(head(source))


@kinds
def test_forked_children_never_share_a_stream(kind: str) -> None:
    source = make(kind)
    head(source)  # the stream is running when the fork happens
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    children = [context.Process(target=_child, args=(source, queue)) for _ in range(3)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # fork beside threads: what is tested here
        for child in children:
            child.start()
    streams = {queue.get(timeout=60) for _ in children} | {head(source)}
    for child in children:
        child.join()
    assert len(streams) == 4


class Noisy(Dataset[torch.Tensor]):
    """A data set that draws noise in the worker."""

    def __init__(self, kind: str) -> None:
        self.source = make(kind)
        self.source.read(1)

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.from_numpy(self.source.read(16).astype(np.int64))


@kinds
@pytest.mark.parametrize("start", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_dataloader_workers_never_share_a_stream(kind: str, start: str) -> None:
    loader = DataLoader(Noisy(kind), batch_size=1, num_workers=2, multiprocessing_context=start)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        drawn = [tuple(row.flatten().tolist()) for _ in range(2) for row in loader]  # two epochs
    assert len(set(drawn)) == 16


def test_threads_have_streams_of_their_own() -> None:
    source, found = SecureSource(), []
    threads = [threading.Thread(target=lambda: found.append(head(source))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found) | {head(source)}) == 5


def test_a_seed_is_repeatable_and_the_same_on_every_machine() -> None:
    assert head(SeededSource(3)) == head(SeededSource(3)) != head(SeededSource(4))
    assert SeededSource(0).read(8).tobytes().hex() == "4574bc51b9c107b1"


def test_a_generator_sets_the_noise_by_its_state() -> None:
    generator = torch.Generator().manual_seed(1)
    source = SeededSource(generator)
    first = [head(source), head(source)]
    generator.manual_seed(1)
    assert [head(source), head(source)] == first
    assert first[0] != first[1]


def test_planted_fault_a_reused_stream_is_caught() -> None:
    class Reused(SeededSource):
        """Starts its stream anew at every read."""

        def read(self, count: int) -> np.ndarray:
            self._start()
            return super().read(count)

    with pytest.raises(AssertionError):
        _assert_fresh(Reused(1))
    _assert_fresh(SeededSource(1))
    _assert_fresh(SecureSource())


def _assert_fresh(source: Source) -> None:
    seen = {head(source) for _ in range(8)}
    assert len(seen) == 8


@kinds
def test_reading_into_given_memory_goes_on_in_the_same_stream(kind: str) -> None:
    scratch, source, twin = Scratch(), make(kind), make(kind)
    first = words(source, 100, 16, scratch).copy()
    second = words(source, 100, 16, scratch)
    assert not np.array_equal(first, second)
    if kind == "seeded":
        assert np.array_equal(np.concatenate([first, second]), words(twin, 200, 16))
    else:
        assert not np.array_equal(first, words(twin, 100, 16, scratch))


def test_another_read_in_the_place_of_ours_is_the_one_that_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def zeros(count: int) -> np.ndarray:
        return np.zeros(count, dtype=np.uint8)

    class Zeros(SecureSource):
        def read(self, count: int) -> np.ndarray:
            return zeros(count)

    patched = SeededSource(1)
    monkeypatch.setattr(patched, "read", zeros)
    for source in (Zeros(), patched):
        assert not words(source, 64, 8, Scratch()).any()


@kinds
def test_branches_never_share_a_stream(kind: str) -> None:
    source = make(kind)
    branches = source.branches(3) + source.branches(3)
    streams = {head(branch) for branch in branches} | {head(source)}
    assert len(streams) == 7
    assert all(branch.secure == source.secure for branch in branches)
    if kind == "seeded":
        assert head(make(kind).branches(5)[2]) == head(make(kind).branches(3)[2])


def test_words_are_little_endian() -> None:
    class Counting:
        secure = False

        def read(self, count: int) -> np.ndarray:
            return np.arange(count, dtype=np.uint8)

    assert words(Counting(), 2, 16).tolist() == [0x0100, 0x0302]
    assert words(Counting(), 1, 64).tolist() == [0x0706050403020100]


def test_bytes_are_uniform() -> None:
    # Chi-square over 256 values of 2**20 bytes; 255 degrees of freedom, threshold 255 + 7 * sqrt(510)
    # (failure probability below 1e-8 for a uniform source); fixed seed.
    counts = np.bincount(SeededSource(8).read(1 << 20), minlength=256)
    statistic = float(((counts - 4096) ** 2 / 4096).sum())
    assert abs(statistic - 255) < 7 * np.sqrt(510)


def test_seeded_noise_warns_once_per_process_and_says_so_in_repr(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SeededSource, "_warned", False)
    with pytest.warns(PrivacyWarning, match="Noise from a seed or a torch.Generator is for experiments"):
        layer = RandomResponseLDP(epsilon=1.0, generator=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        RandomResponseLDP(epsilon=1.0, generator=torch.Generator())
    assert "noise from a seed: NOT SECURE" in repr(layer)
    assert not layer.secure
    assert "a seed (copy): NOT SECURE" in repr(copy.deepcopy(copy.deepcopy(layer)))
    assert "secure noise" in repr(RandomResponseLDP(epsilon=1.0))


def test_seeded_and_secure_noise_cost_the_same() -> None:
    assert RandomResponseLDP(epsilon=1.0, generator=0).epsilon == RandomResponseLDP(epsilon=1.0).epsilon


def test_a_generator_source_survives_a_copy_without_its_generator() -> None:
    source = SeededSource(torch.Generator().manual_seed(2))
    twin = copy.deepcopy(source)
    assert head(twin) != head(source)


@pytest.mark.parametrize("seed", [-1, 2**63, True, 1.5, "0"])
def test_bad_seeds_are_refused(seed: object) -> None:
    with pytest.raises(InvalidParameterError, match="generator must be an int in"):
        make_source(seed)  # type: ignore[arg-type]


def test_generators_elsewhere_than_on_the_cpu_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Elsewhere(torch.Generator):
        device = torch.device("cuda")

    with pytest.raises(InvalidParameterError, match=r"generator must be on the cpu.*torch.Generator\('cpu'\)"):
        make_source(Elsewhere())


def test_a_process_that_forks_outside_python_is_noticed_by_its_pid(monkeypatch: pytest.MonkeyPatch) -> None:
    source = SecureSource()
    before = source._local
    head(source)
    stream = before.stream
    monkeypatch.setattr(os, "getpid", lambda: -1)
    head(source)
    assert before.stream is not stream
