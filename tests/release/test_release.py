"""Release: packed symbols, a table, and claims, as a data set."""

from __future__ import annotations

import copy
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from splitpriv import InvalidParameterError, NonFiniteError, ReleaseFileError, ShapeError
from splitpriv.release import Release, pack

SIZES = {"bits": (1, 1), "wide": (10, 9), "codebook": (3, 1), "floats": (32, 24)}  # bits, bytes per record
SIZES |= {"endless": (3, 1), "picked": (3, 1)}
SHAPES = {"bits": ((2, 3), (2, 3)), "wide": ((7,), (7,)), "codebook": ((), (4,)), "floats": ((3, 2), (3, 2))}
SHAPES |= {"endless": ((), (3,)), "picked": ((), (3,))}
DTYPES = {"bits": torch.uint8, "wide": torch.int16, "codebook": torch.uint8, "floats": torch.float32}
DTYPES |= {"endless": torch.int64, "picked": torch.int64}


def test_size_and_shapes(lab: Any, kind: str) -> None:
    release = lab.make(kind, full=True)
    assert (release.bits, release.bytes_per_record) == SIZES[kind]
    assert (release.symbol_shape, release.feature_shape) == SHAPES[kind]
    assert len(release) == 5
    assert release.nbytes == 5 * release.bytes_per_record == release._array().nbytes
    assert release.alphabet == {"bits": 2, "wide": 1000, "floats": None}.get(kind, 5)
    assert release.path is None
    assert release.epsilon == release.claims.epsilon == 12.0


def test_decodes_to_what_the_table_says(lab: Any, kind: str) -> None:
    symbols, values = lab.symbols(kind)
    release = lab.make(kind, full=True)
    features, labels = release.batch(slice(None))
    assert features.dtype == torch.float32
    assert torch.equal(features, lab.decoded(symbols, values))
    assert torch.equal(labels, torch.arange(5) % 3)
    back = release.symbols(range(5))
    assert back.dtype == DTYPES[kind]
    assert torch.equal(back, symbols.to(back.dtype))


def test_all_ways_in_agree(lab: Any, kind: str) -> None:
    symbols, values = lab.symbols(kind)
    expected = lab.decoded(symbols, values)
    release = lab.make(kind, full=True)
    order = [3, -5, 3, -1, 0]
    ways = [order, tuple(order), np.array(order), torch.tensor(order), [torch.tensor(i) for i in order]]
    for indices in ways:
        features, labels = release.batch(indices)
        assert torch.equal(features, expected[order])
        assert torch.equal(labels, (torch.arange(5) % 3)[order])
        assert torch.equal(release.symbols(indices).long(), symbols[order].long())
        for (feature, label), index in zip(release.__getitems__(indices), order, strict=True):
            assert torch.equal(feature, expected[index])
            assert label == index % 5 % 3
    for index in range(-5, 5):
        feature, label = release[index]
        assert torch.equal(feature, expected[index])
        assert label == index % 5 % 3
    assert torch.equal(release.batch(slice(4, 0, -2))[0], expected[[4, 2]])
    assert release.batch([])[0].shape == (0, *release.feature_shape)


def test_items_without_labels_are_features(lab: Any, kind: str) -> None:
    release = lab.make(kind)
    assert isinstance(release[0], Tensor)
    assert all(isinstance(item, Tensor) for item in release.__getitems__([0, 1]))
    assert release.batch([0])[1] is None
    assert release.labels is None
    assert release.ids is None


def test_iterates_over_each_record_once(lab: Any, kind: str) -> None:
    assert len(list(lab.make(kind))) == 5


@pytest.mark.parametrize("index", [5, -6, 2**62])
def test_index_out_of_range(lab: Any, index: int) -> None:
    release = lab.make("bits")
    match = rf"Release: index must be in \[-5, 5\), got index={index}"
    for read in (release.__getitem__, lambda i: release.batch([0, i]), lambda i: release.symbols([i])):
        with pytest.raises(IndexError, match=match):
            read(index)


@pytest.mark.parametrize("index", [None, 1.0, "0", True, [0], slice(0, 1), 2**64])
def test_index_of_another_kind(lab: Any, index: Any) -> None:
    with pytest.raises(InvalidParameterError, match="Release: index must be an integer, got index="):
        lab.make("bits")[index]


@pytest.mark.parametrize("indices", [None, 3, [0.5], "ab", torch.ones(5, dtype=torch.bool), torch.zeros(1, 1), [[0]]])
def test_indices_of_another_kind(lab: Any, indices: Any) -> None:
    with pytest.raises(InvalidParameterError, match="Release: index must be an integer, got index="):
        lab.make("bits").batch(indices)


@pytest.mark.parametrize("elements", [1, 7, 8, 9, 16, 17])
def test_bytes_decoded_at_once_match_bits_decoded_one_by_one(lab: Any, elements: int) -> None:
    symbols = torch.randint(2, (300, elements), generator=torch.Generator().manual_seed(elements))
    values = torch.tensor([0.25, -3.0])
    release = Release.from_batches([(symbols, None)], values=values, claims=lab.claims())
    features, _ = release.batch(slice(None))
    assert torch.equal(features, values[symbols])
    assert features.is_contiguous()


@pytest.mark.parametrize("element", [(1,), (3,), (2, 2)])
def test_values_of_any_shape(lab: Any, element: tuple[int, ...]) -> None:
    values = torch.randn(2, *element, generator=torch.Generator().manual_seed(0))
    symbols = torch.tensor([[0, 1, 1], [1, 0, 0]])
    release = Release.from_batches([(symbols, None)], values=values, claims=lab.claims())
    assert release.feature_shape == (3, *element)
    assert torch.equal(release.batch([0, 1])[0], values[symbols])


def test_features_are_the_callers_own(lab: Any, kind: str) -> None:
    release = lab.make(kind)
    before = release[0].clone()
    release[0].add_(1.0)
    assert torch.equal(release[0], before)


LABELS = [torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64]
LABELS += [torch.float16, torch.bfloat16, torch.float32, torch.float64]


@pytest.mark.parametrize("dtype", LABELS, ids=str)
@pytest.mark.parametrize("shape", [(), (2,), (2, 3)])
def test_labels_of_any_dtype(lab: Any, dtype: torch.dtype, shape: tuple[int, ...], tmp_path: Any) -> None:
    labels = torch.randint(2, (5, *shape), generator=torch.Generator().manual_seed(0)).to(dtype)
    symbols, values = lab.symbols("bits")
    batches = [(symbols[:2], labels[:2]), (symbols[2:], labels[2:])]
    release = Release.from_batches(batches, values=values, claims=lab.claims(labels="public"))
    assert release.labels.dtype == dtype
    assert torch.equal(release.labels, labels)
    assert torch.equal(release.batch([4, 1])[1], labels[[4, 1]])
    release.save(tmp_path / "r")
    assert lab.same(Release.load(tmp_path / "r"), release)


@pytest.mark.parametrize("ids", [["a", "b", "é", "d", "e"], [5, -1, 2**63 - 1, -(2**63), 5], torch.arange(5)])
def test_ids(lab: Any, ids: Any) -> None:
    symbols, values = lab.symbols("bits")
    release = Release.from_batches([(symbols, None)], values=values, claims=lab.claims(), ids=ids)
    assert release.ids == (ids.tolist() if isinstance(ids, Tensor) else ids)


# What does not fit is refused ----------------------------------------------------------------


def parts(**changes: Any) -> dict[str, Any]:
    packed = pack(torch.tensor([[0, 1], [1, 1]]), 1)
    return {"packed": packed, "symbol_shape": (2,), "values": torch.zeros(2), **changes}


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"packed": None}, ShapeError, r"packed must be uint8 of shape \(records, 1\), records >= 1, got NoneType"),
        ({"packed": torch.zeros(2, 1)}, ShapeError, r"packed must be uint8 .* got torch.float32 \(2, 1\)"),
        ({"packed": torch.zeros(2, 2, dtype=torch.uint8)}, ShapeError, r"packed must be uint8 .*\(2, 2\)"),
        ({"packed": torch.zeros(2, dtype=torch.uint8)}, ShapeError, r"packed must be uint8 .*\(2,\)"),
        ({"packed": torch.zeros(0, 1, dtype=torch.uint8)}, ShapeError, r"packed must be uint8 .*\(0, 1\)"),
        ({"packed": torch.full((2, 1), 4, dtype=torch.uint8)}, InvalidParameterError, "padding bits must be zero"),
        ({"symbol_shape": (0,)}, ShapeError, "shape must be a non-empty sequence of positive integers"),
        ({"values": [0.0, 1.0]}, ShapeError, r"values must be float32 of shape \(alphabet, \*element\).*got list"),
        ({"values": torch.zeros(2).double()}, ShapeError, r"values must be float32 .*torch.float64 \(2,\)"),
        ({"values": torch.tensor(0.0)}, ShapeError, r"values must be float32 .*torch.float32 \(\)"),
        ({"values": torch.zeros(2, 0)}, ShapeError, r"values must be float32 .*torch.float32 \(2, 0\)"),
        ({"values": torch.zeros(1)}, ShapeError, "values must have one row for each of 2 or more symbols, got 1"),
        ({"values": torch.tensor([0.0, math.nan])}, NonFiniteError, "values must be finite"),
        ({"labels": [0, 1]}, ShapeError, "labels must be a tensor of one of torch.bool.*, got list"),
        (
            {"labels": torch.zeros(2).cfloat()},
            ShapeError,
            r"labels must be a tensor of one of .*torch.complex64 \(2,\)",
        ),
        ({"labels": torch.zeros(3)}, ShapeError, r"labels must have shape \(2, \*label\), got torch.float32 \(3,\)"),
        ({"labels": torch.tensor(1)}, ShapeError, r"labels must have shape \(2, \*label\), got torch.int64 \(\)"),
        ({"ids": ["a"]}, InvalidParameterError, "ids must be 2, one per record, got 1"),
        ({"ids": ["a", 1]}, InvalidParameterError, "ids must be all non-empty strings"),
        ({"ids": ["a", ""]}, InvalidParameterError, "ids must be all non-empty strings"),
        ({"ids": ["a", "\udc00"]}, InvalidParameterError, "ids must be all non-empty strings"),
        ({"ids": [1, True]}, InvalidParameterError, "ids must be all non-empty strings"),
        ({"ids": [1, 2**63]}, InvalidParameterError, "ids must be all non-empty strings"),
        ({"ids": torch.zeros(2)}, InvalidParameterError, "ids must be all non-empty strings"),
        ({"claims": None}, InvalidParameterError, "claims must be a Claims, got claims=None"),
        (
            {"labels": torch.zeros(2)},
            InvalidParameterError,
            'claims.labels must be "none" or "embedded" exactly',
        ),
    ],
)
def test_parts_are_refused(lab: Any, changes: dict[str, Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=f"Release: {match}"):
        Release(**parts(**{"claims": lab.claims(), **changes}))


def test_a_table_that_decodes_few_bytes_to_much_memory_is_refused(lab: Any) -> None:
    shape, values = (1 << 15,), torch.zeros(2, (1 << 13) + 1)
    packed = torch.zeros(1, 1 << 12, dtype=torch.uint8)
    with pytest.raises(ShapeError, match="Release: feature_shape must be at most 268435456 elements per record"):
        Release(packed, symbol_shape=shape, values=values, claims=lab.claims())


def test_claims_of_labels_that_are_not_there_are_refused(lab: Any) -> None:
    with pytest.raises(InvalidParameterError, match=r'claims\.labels must be "none" or "embedded" exactly'):
        Release(**parts(claims=lab.claims(labels="public")))


def test_a_symbol_that_left_the_alphabet_later_does_not_end_a_loop_silently(lab: Any) -> None:
    release = lab.make("wide")
    release._array()[3] = 255
    with pytest.raises(InvalidParameterError, match=r"got a larger one. Their memory was written to after the check"):
        list(release)


def test_a_symbol_that_left_the_alphabet_in_a_file(lab: Any, tmp_path: Path) -> None:
    lab.make("wide").save(tmp_path / "r")
    release = Release.load(tmp_path / "r")
    with open(tmp_path / "r", "r+b") as file:
        file.seek(-release.nbytes, 2)
        file.write(b"\xff" * release.nbytes)
    if int(release._array().max()) == 255:  # whether a map sees it is up to the system
        with pytest.raises(ReleaseFileError, match="The file was written to while it was in use; load it again"):
            list(release)


def test_what_happens_to_the_given_tensors_later_does_not_reach_the_release(lab: Any) -> None:
    packed, values, labels = pack(torch.tensor([[0, 1], [1, 1]]), 1), torch.tensor([0.5, 2.0]), torch.zeros(2)
    claims = lab.claims(labels="public")
    release = Release(packed, symbol_shape=(2,), values=values, claims=claims, labels=labels)
    for tensor in (packed, values, labels, release.values):
        tensor.fill_(7)
    assert torch.equal(release.batch([0, 1])[0], torch.tensor([[0.5, 2.0], [2.0, 2.0]]))
    assert torch.equal(release.symbols([0, 1]), torch.tensor([[0, 1], [1, 1]], dtype=torch.uint8))
    assert torch.equal(release.values, torch.tensor([0.5, 2.0]))
    assert torch.equal(release.labels, torch.zeros(2))


def test_a_subset_reads_integer_ids_once(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    release = Release(**parts(claims=lab.claims(), ids=[7, 9]))
    calls: list[int] = []
    ids = Release.ids.fget
    monkeypatch.setattr(Release, "ids", property(lambda self: calls.append(1) or ids(self)))
    part = release.subset([1, 0, 1])
    assert len(calls) == 1
    assert part.ids == [9, 7, 9]


@pytest.mark.parametrize("batches", [False, True])
def test_labels_of_odd_layouts(lab: Any, batches: bool) -> None:
    def make(labels: Tensor) -> Release:
        claims = lab.claims(labels="public")
        if batches:
            symbols = torch.tensor([[0, 1], [1, 1]])
            return Release.from_batches([(symbols, labels)], values=torch.zeros(2), claims=claims)
        return Release(**parts(claims=claims, labels=labels))

    negative = torch.tensor([1 + 2j, 3 + 4j]).conj().imag
    assert negative.is_neg()
    assert torch.equal(make(negative).labels, torch.tensor([-2.0, -4.0]))
    assert torch.equal(make(torch.arange(4.0)[::2]).labels, torch.tensor([0.0, 2.0]))
    for labels in (torch.ones(2).to_sparse(), torch.ones(2, device="meta")):
        with pytest.raises(ShapeError, match=r"labels must be dense and have data, got torch.*. Convert with to_dense"):
            make(labels)


# Copies and words ----------------------------------------------------------------------------


def test_pickle_and_deep_copy(lab: Any, kind: str) -> None:
    release = lab.make(kind, full=True)
    for other in (pickle.loads(pickle.dumps(release)), copy.deepcopy(release)):
        assert lab.same(other, release)
        assert torch.equal(other.batch([1])[0], release.batch([1])[0])


def test_repr_shows_every_claim(lab: Any) -> None:
    release = lab.make(
        "bits",
        full=True,
        epsilon=24.0,
        secure=False,
        simulated=True,
        joint=True,
        notes=("two\nlines",),
        layers=("A", "B"),
    )
    assert repr(release).splitlines() == [
        "Release(",
        "  5 records × 1 bytes = 5 bytes in memory",
        "  symbols (2, 3) of 1 bit, features (2, 3)",
        "  ε 2 per element × 6 = 12 per record; worst record ε 24",
        "  layers: A, B",
        "  labels: public, not covered by ε",
        "  edge: trained jointly on the records",
        "  noise: not secure",
        "  simulated: charged to no ledger",
        "  note: two lines",
        ")",
    ]


def test_repr_without_a_mechanism(lab: Any) -> None:
    nothing = {"per_use": math.inf, "per_record": math.inf, "epsilon": math.inf, "layers": (), "edge_data": "private"}
    text = repr(lab.make("floats", full=True, labels="private", **nothing))
    for line in (
        "ε ∞ per record",
        "layers: none",
        "of float32",
        "private and unprotected: ε ∞",
        "private data, frozen",
    ):
        assert line in text


def test_repr_escapes_what_steers_a_terminal(lab: Any) -> None:
    text = repr(lab.make("bits", layers=("A\x1b[2J",), notes=("ε\u202e\x07\x00 日本\u2028end",)))
    assert "layers: A\\x1b[2J\n" in text
    assert "note: ε\\u202e\\x07\\x00 日本 end\n" in text
    assert all(line.isprintable() for line in text.split("\n"))
