"""Chains of layers: cascades, defences, weights fitted on private records."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch import nn

from splitpriv import LaplaceLDP, RandomResponseLDP
from splitpriv.accounting import Spend, price
from splitpriv.mechanisms import Channel


class Encoder(nn.Module):
    """A stand-in for a layer whose weights were fitted on private records."""

    def __init__(self, fitted_records: int | None) -> None:
        super().__init__()
        self.fitted_records = fitted_records

    def output_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        return (10,)

    def spend(self, shape: Sequence[int]) -> Spend:
        return Spend.infinite(math.prod(shape))


def rr(epsilon: float, **options: object) -> RandomResponseLDP:
    return RandomResponseLDP(epsilon=epsilon, **options)  # type: ignore[arg-type]


def total(layers: list[nn.Module], shape: tuple[int, ...] = (3, 2), **options: int | None) -> float:
    return price(layers, shape, **options).per_record()


def test_no_layer_costs_infinity_and_says_why() -> None:
    found = price([], (5,))
    assert found.per_record() == math.inf
    assert found.notes == ("no mechanism at the cut",)
    assert str(found) == "ε ∞ per record"


def test_a_mechanism_costs_its_elements() -> None:
    assert total([rr(2.0)]) == 12.0
    assert str(price([rr(2.0)], (3, 2))) == "ε 2 per element × 6 = 12 per record"


def test_a_cascade_of_channels_costs_the_exact_product() -> None:
    first, second = rr(2.0), rr(1.0, threshold=0.5)
    product = first.channel((1,)).cascade(second.channel((1,)))
    assert total([first, second]) == Spend.of(product.epsilon, 6).per_record < 6.0


def test_the_product_follows_the_values_between_the_layers() -> None:
    # A threshold above both decoded values sends everything to 0: nothing crosses.
    assert total([rr(2.0), rr(1.0, threshold=5.0)]) == 0.0
    # Debiased values are other numbers: here the threshold lies between them.
    assert total([rr(2.0, debias=True), rr(1.0, threshold=0.9)]) > 0.0


def test_laplace_then_randomized_response() -> None:
    laplace, second = LaplaceLDP(epsilon=2.0, sensitivity=4.0, levels=9), rr(1.0)
    values = laplace.decode_table((1,))
    bridge = Channel([[1, 0] if v <= 0 else [0, 1] for v in values.tolist()])
    product = laplace.channel((1,)).cascade(bridge).cascade(second.channel((1,)))
    assert total([laplace, second]) == Spend.of(product.epsilon, 6).per_record < 6.0


def test_where_symbols_do_not_meet_one_to_one_the_smaller_total_counts() -> None:
    by_channel = rr(1.0, threshold=torch.zeros(3))
    assert total([rr(2.0), by_channel]) == 6.0
    assert total([rr(2.0), rr(4.0, per="record")]) == pytest.approx(4.0, abs=1e-9)
    assert total([rr(2.0), Encoder(0), rr(1.0)]) == 10.0  # 6 elements at 2, or 10 at 1
    wide = LaplaceLDP(epsilon=1.0, sensitivity=1.0)  # the bridge between two of these is too large
    assert total([wide, LaplaceLDP(epsilon=0.5, sensitivity=1.0, levels=257)]) == pytest.approx(3.0)


def test_an_encoder_fitted_on_private_records_ties_rows_together() -> None:
    found = price([Encoder(50), rr(1.0)], (3, 2))
    assert found.spend.per_record == 10.0  # its own row
    assert found.per_record() == 500.0
    assert found.per_record(released=200) == 2000.0  # each of the 200 rows shows the weights
    assert found.notes == ("Encoder was fitted on 50 private records: each influences every row",)
    assert str(found) == "ε 1 per element × 10 = 10 per record × 50 rows = 500"


def test_one_private_record_still_pays_for_every_row() -> None:
    assert price([Encoder(1), rr(1.0)], (3, 2)).per_record(released=7) == 70.0


def test_an_unknown_number_is_infinite() -> None:
    found = price([Encoder(None), rr(1.0)], (3, 2))
    assert found.per_record() == math.inf
    assert "an unknown number of private records" in found.notes[0]


def test_what_lies_before_fitted_weights_does_not_hide_them() -> None:
    found = price([rr(1.0), Encoder(50)], (3, 2))
    assert found.spend.per_record == 6.0
    assert found.per_record() == math.inf
    assert "no mechanism follows those weights" in found.notes
    assert price([rr(0.1), Encoder(50), rr(1.0)], (3, 2)).per_record() == 500.0


def test_a_count_that_cannot_be_read_is_not_read_as_none() -> None:
    class Broken(Encoder):
        @property
        def fitted_records(self) -> int:
            raise AttributeError("lost")

        @fitted_records.setter
        def fitted_records(self, value: int) -> None: ...

    with pytest.raises(AttributeError, match=r"lost|fitted_records"):
        price([Broken(1), rr(1.0)], (3, 2))


def test_a_private_edge_counts_like_an_encoder_before_all_layers() -> None:
    assert total([rr(1.0)], edge_records=None) == math.inf
    assert total([rr(1.0)], edge_records=9) == 54.0
    assert "the edge was fitted on 9 private records" in price([rr(1.0)], (3, 2), edge_records=9).notes[0]
    assert total([Encoder(50), rr(1.0)], edge_records=9) == 500.0
    assert total([Encoder(50), rr(1.0)], edge_records=None) == math.inf
