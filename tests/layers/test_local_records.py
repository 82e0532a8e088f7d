"""The records of a fit: read once, and held out by record."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler

from splitpriv._errors import InvalidParameterError
from splitpriv.layers.local_records import collect, hold_out

HoldOut = Callable[[Tensor, float, torch.Generator], tuple[Tensor, Tensor]]


class Counted(Dataset[tuple[Tensor, Tensor]]):
    """Counts how often each record is read."""

    def __init__(self) -> None:
        self.reads = [0] * 30

    def __len__(self) -> int:
        return 30

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        self.reads[index] += 1
        return torch.full((2,), float(index)), torch.tensor(index % 3)


@pytest.mark.parametrize(
    ("load", "batch_size"),
    [
        (lambda data: data, 64),
        (lambda data: DataLoader(data, batch_size=7, shuffle=True), 7),
        (lambda data: DataLoader(data, batch_sampler=[range(15), range(15, 30)]), 64),
    ],
)
def test_each_record_is_read_once_with_its_label(load: Callable[[Counted], object], batch_size: int) -> None:
    data = Counted()
    records = collect("Owner", load(data), (2,))
    assert data.reads == [1] * 30
    assert sorted(records.features[:, 0].tolist()) == list(range(30))
    assert torch.equal(records.targets, records.features[:, 0].long() % 3)
    assert (records.outputs, records.classes, records.batch_size) == (3, True, batch_size)


def test_class_labels_need_not_be_consecutive() -> None:
    records = collect("Owner", (torch.rand(4, 2), torch.tensor([-7, 100, 3, 100])), (2,))
    assert records.targets.tolist() == [0, 2, 1, 2]
    assert records.outputs == 3


def test_regression_targets_are_standardised() -> None:
    labels = torch.tensor([[1e6, 5.0], [3e6, 5.0], [5e6, 5.0]])
    records = collect("Owner", (torch.rand(3, 2), labels), (2,))
    assert not records.classes
    assert torch.allclose(records.targets, torch.tensor([[-1.0, 0.0], [0.0, 0.0], [1.0, 0.0]]))


def assert_holds_out_by_record(hold_out: HoldOut) -> None:
    """The two parts are all records, share none, and keep copies of a record together."""
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randint(0, 40, (100,), generator=generator)  # as a sampler with replacement draws
        features = drawn[:, None, None].float().expand(-1, 3, 2)
        kept, held = hold_out(features, 0.2, generator)
        assert sorted([*kept.tolist(), *held.tolist()]) == list(range(100))
        assert 20 <= len(held) < 40
        assert not set(drawn[kept].tolist()) & set(drawn[held].tolist())


def by_position(features: Tensor, share: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Planted fault: positions, not records, so that copies fall on both sides."""
    order = torch.randperm(len(features), generator=generator)
    count = round(share * len(features))
    return order[count:], order[:count]


def test_holds_out_by_record() -> None:
    assert_holds_out_by_record(hold_out)


def test_a_leaking_hold_out_is_caught() -> None:
    with pytest.raises(AssertionError):
        assert_holds_out_by_record(by_position)


def test_a_seed_means_the_same_hold_out_in_any_order(generator: torch.Generator) -> None:
    features = torch.rand(50, 4, generator=generator)
    shuffled = features[torch.randperm(50, generator=generator)]
    chosen = [f[hold_out(f, 0.3, torch.Generator().manual_seed(5))[1]] for f in (features, shuffled)]
    assert chosen[0].shape == (15, 4)
    assert sorted(chosen[0].tolist()) == sorted(chosen[1].tolist())


@pytest.mark.parametrize("share", [1e-9, 0.999])
def test_both_parts_hold_a_record(share: float) -> None:
    kept, held = hold_out(torch.eye(3), share, torch.Generator())
    assert min(len(kept), len(held)) == 1


def test_one_record_cannot_be_split() -> None:
    text = "^LocalPretrainedEncoder: loader must give at least two different records, got one"
    with pytest.raises(InvalidParameterError, match=text):
        hold_out(torch.ones(5, 2), 0.5, torch.Generator())


def test_a_sampler_that_repeats_records_is_followed() -> None:
    data = Counted()
    loader = DataLoader(data, batch_size=8, sampler=RandomSampler(data, replacement=True, num_samples=90))
    assert len(collect("Owner", loader, (2,)).features) == 90
