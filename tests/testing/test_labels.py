"""assert_label_ldp: proves the shipped layer, and notices each planted fault."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from splitpriv import LabelLDP
from splitpriv.accounting import Spend
from splitpriv.mechanisms import Channel
from splitpriv.mechanisms.k_ary import k_ary_response
from splitpriv.testing.labels import assert_label_ldp


class ClaimsHalf(LabelLDP):
    def spend(self, shape: Sequence[int] | None = None) -> Spend:
        return Spend.of(self.epsilon / 2, 1)


class OtherTable(LabelLDP):
    def encode(self, labels: Tensor) -> Tensor:
        return k_ary_response(self.classes, kept=self.kept, epsilon=1.05).sample(labels, self._source).long()


class OtherTransition(LabelLDP):
    @property
    def transition(self) -> Tensor:
        return torch.eye(self.classes, dtype=torch.float64)


class OutsideItsClasses(LabelLDP):
    def encode(self, labels: Tensor) -> Tensor:
        return super().encode(labels) + 1


class SlightlyOff(LabelLDP):
    """A word in 2**12 is taken from its label, which draws alone would not notice."""

    def encode(self, labels: Tensor) -> Tensor:
        table = self.channel().table()
        moved = [
            [entry + ((x == y) - (y == (x + 1) % 4)) * (1 << 52) for y, entry in enumerate(row)]
            for x, row in enumerate(table)
        ]
        return Channel(moved).sample(labels, self._source).long()


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (ClaimsHalf, r"the table must cost at most the epsilon claimed, 0\.5, got 1 between labels . and ."),
        (
            OtherTable,
            r"encode must follow the table that the layer declares, got \[.*\] of label 0, where \[.* expected",
        ),
        (OtherTransition, "transition must be the table over its total, got another one"),
        (OutsideItsClasses, r"encode must give labels in \[0, 4\), got values in \[1, 4\]"),
    ],
)
def test_a_fault_is_noticed(kind: Callable[..., LabelLDP], text: str) -> None:
    with pytest.raises(AssertionError, match=f"assert_label_ldp: {text}"):
        assert_label_ldp(kind(4, epsilon=1.0))


@pytest.mark.parametrize("classes", [2, 7])
def test_every_label_and_every_word_is_driven(classes: int) -> None:
    result = assert_label_ldp(LabelLDP(classes, epsilon=1.5))
    assert result.method == "exact"
    assert result.driven.startswith(f"every 16-bit word at {classes} of {classes} labels and 1,048,5")
    assert result == assert_label_ldp(LabelLDP(classes, epsilon=1.5))


def test_words_say_no_more_where_they_disagree() -> None:
    assert "16-bit" not in assert_label_ldp(SlightlyOff(4, epsilon=1.0)).driven
