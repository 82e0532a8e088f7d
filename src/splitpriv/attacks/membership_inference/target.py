"""What a membership attacker is given: queries, candidate records, and (for the evaluation alone) the truth."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from splitpriv import _validation as check
from splitpriv._errors import InvalidParameterError, NonFiniteError, ShapeError
from splitpriv._modes import modes_kept
from splitpriv.attacks.membership_inference.groups import Group, Labelled, labelled, refuse_shared

Outputs = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class MembershipTarget:
    """A trained model that answers queries, and candidates of which the attacker asks: was it trained on this one?

    Args:
        outputs: queries: records (batch, \\*record) to the target's logits (batch, classes), classes >= 2. For a server
            behind a cut: in the clear, or through the layer with fresh noise. A module is queried in eval mode, and
            left in the mode it was in; of another callable, see to that yourself.
        records: the candidates, (n, \\*record).
        labels: their classes, (n,), integers.
        members: (n,), bool: which of them the target was trained on. The evaluation alone reads it; no score and no
            threshold depends on it.
        public: records (m, \\*record) and labels (m,) that everyone knows not to be members; None for none. They serve
            for calibration and as the population of RMIA.

    Raises:
        InvalidParameterError: ``outputs`` cannot be called.
        ShapeError: shapes or dtypes do not fit, or members or non-members are missing among the candidates.

    Example:
        >>> target = MembershipTarget(nn.Linear(4, 2), torch.randn(6, 4), torch.arange(6) % 2, torch.arange(6) < 3)
        >>> target
        MembershipTarget(3 members, 3 non-members, 0 public)
    """

    outputs: Outputs
    records: Tensor  # shape: (n, *record)
    labels: Tensor  # shape: (n,)
    members: Tensor  # shape: (n,), bool
    public: Labelled | None = None  # shapes: (m, *record), (m,)

    def __post_init__(self) -> None:
        if not callable(self.outputs):
            raise InvalidParameterError(check.message("MembershipTarget", "outputs", "a callable", self.outputs))
        for name, given in zip(("records", "labels"), labelled("records", (self.records, self.labels)), strict=True):
            object.__setattr__(self, name, given)  # as tensors
        fits = isinstance(self.members, Tensor) and self.members.dtype == torch.bool
        if not fits or self.members.shape != self.labels.shape or not 0 < int(self.members.sum()) < len(self.members):
            raise ShapeError(
                "MembershipTarget: members must be one bool per candidate, true for some and false for some, got "
                f"{check.message('', '', '', self.members).split('=', 1)[1]} for {len(self.labels)} candidates."
            )
        if self.public is not None:
            object.__setattr__(self, "public", labelled("public", self.public))
            if self.public[0].shape[1:] != self.records.shape[1:]:
                raise ShapeError(
                    f"MembershipTarget: public must have records of shape {tuple(self.records.shape[1:])}, as the "
                    f"candidates, got shape={tuple(self.public[0].shape[1:])}."
                )

    @classmethod
    def of(cls, outputs: Outputs, members: Group, non_members: Group, public: Group | None = None) -> MembershipTarget:
        """A target whose candidates are given in two groups: (records, labels) of members, and of non-members.

        Args:
            outputs: as above.
            members: records and labels, or a data set of (record, label).
            non_members: the same of those that the target was not trained on.
            public: the same of public ones; None for none.

        Raises:
            ShapeError: as above.
            InvalidParameterError: a record is in two of the groups.
        """
        members, non_members = labelled("members", members), labelled("non_members", non_members)
        public = None if public is None else labelled("public", public)
        if members[0].shape[1:] != non_members[0].shape[1:]:
            raise ShapeError(
                "MembershipTarget: non_members must have records of the members' shape "
                f"{tuple(members[0].shape[1:])}, got shape={tuple(non_members[0].shape[1:])}."
            )
        refuse_shared({"members": members, "non_members": non_members, "public": public})
        records, labels = (torch.cat(pair) for pair in zip(members, non_members, strict=True))
        return cls(outputs, records, labels, torch.arange(len(labels)) < len(members[1]), public)

    @property
    def all_records(self) -> Tensor:  # shape: (n + m, *record)
        """The candidates, then the public records."""
        return self.records if self.public is None else torch.cat([self.records, self.public[0]])

    @property
    def all_labels(self) -> Tensor:  # shape: (n + m,), int64
        """The labels of :attr:`all_records`."""
        return (self.labels if self.public is None else torch.cat([self.labels, self.public[1]])).long().cpu()

    def __repr__(self) -> str:
        count = int(self.members.sum())
        public = 0 if self.public is None else len(self.public[1])
        return f"MembershipTarget({count} members, {len(self.members) - count} non-members, {public} public)"


@dataclass(frozen=True, eq=False)
class Observation:
    """All that a score may depend on: logits and labels, no membership.

    Attributes:
        logits: (records, classes), float64, on the CPU.
        labels: (records,), int64.
        candidates: so many records from the first are candidates; the rest are public.
    """

    logits: Tensor  # shape: (records, classes)
    labels: Tensor  # shape: (records,)
    candidates: int


def chunks(records: Tensor, size: int) -> Iterator[Tensor]:  # shape of each: (batch, *record)
    """At most ``size`` records at a time; nothing where there are none."""
    yield from (records[start : start + size] for start in range(0, len(records), size))


def query(
    owner: str, outputs: Outputs, records: Tensor, batch_size: int, device: str | torch.device | None = None
) -> Tensor:  # shape: (records, classes)
    """Logits of records in batches, float32 on the CPU, checked; of a module in eval mode, and back."""
    if not callable(outputs):
        constraint = "a callable from records to logits"
        raise InvalidParameterError(check.message(owner, "outputs", constraint, outputs))
    modules = [outputs] if isinstance(outputs, nn.Module) else []
    with modes_kept(*modules), torch.no_grad():
        for module in modules:
            module.eval()
        found = [_checked(owner, outputs(part.to(device or part.device)), part) for part in chunks(records, batch_size)]
    return torch.cat(found)


def _checked(owner: str, logits: Any, part: Tensor) -> Tensor:
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(part) or logits.shape[1] < 2:
        shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ShapeError(
            f"{owner}: outputs must give logits of shape ({len(part)}, classes), classes >= 2, got {shape}."
        )
    found = logits.detach().float().cpu()
    if not bool(torch.isfinite(found).all()):
        raise NonFiniteError(f"{owner}: outputs must be finite logits, got NaN or infinity. Was the training stable?")
    return found


def observed(owner: str, logits: Tensor, labels: Tensor, candidates: int) -> Observation:
    """Logits with labels that fit them."""
    if int(labels.min()) < 0 or int(labels.max()) >= logits.shape[1]:
        raise ShapeError(
            f"{owner}: labels must be in [0, {logits.shape[1]}), one of the classes of the outputs, got values in "
            f"[{int(labels.min())}, {int(labels.max())}]."
        )
    return Observation(logits.double(), labels, candidates)
