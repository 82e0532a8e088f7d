"""Shadow models: trained as the target was, on random halves that the attacker knows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from splitpriv import _validation as check
from splitpriv._errors import InvalidParameterError, ShapeError
from splitpriv._version import __version__
from splitpriv.attacks.attack import generator
from splitpriv.attacks.membership_inference.arguments import keeping
from splitpriv.attacks.membership_inference.store import Store, digest
from splitpriv.attacks.membership_inference.target import Outputs, observed, query

Train = Callable[[Tensor, Tensor, int], Outputs]
_OWNER = "train_shadows"
_MADE_BY = f"shadows 2, splitpriv {__version__}"  # count up where shadows of the same settings become others


@runtime_checkable
class ManyTraining(Protocol):
    """A training procedure that can also train several models at once."""

    def many(
        self, records: Sequence[Tensor], labels: Sequence[Tensor], seeds: Sequence[int]
    ) -> list[Outputs]:  # shapes: each (batch, *record), (batch,)
        """One model for each training set; all of one size."""
        ...

    def prefers_many(self) -> bool:
        """Whether that is expected to be faster than one after another."""
        ...


@dataclass(frozen=True, eq=False)
class ShadowPool:
    """The outputs of all shadow models on all records, and which records each was trained on.

    Shadow models come in pairs that were trained on complementary halves, so that each record is in exactly one model
    of a pair (records that were held out are in none).

    Args:
        outputs: (shadows, records, classes), logits, float32.
        membership: (shadows, records), bool.
        labels: (records,), integers.

    Raises:
        ShapeError: shapes do not fit, or the models are no such pairs.
    """

    outputs: Tensor  # shape: (shadows, records, classes)
    membership: Tensor  # shape: (shadows, records), bool
    labels: Tensor  # shape: (records,)

    def __post_init__(self) -> None:
        shape = tuple(self.outputs.shape)
        if len(shape) != 3 or tuple(self.membership.shape) != shape[:2] or tuple(self.labels.shape) != shape[1:2]:
            raise ShapeError(
                "ShadowPool: outputs must be (shadows, records, classes) with membership (shadows, records) and labels "
                f"(records,), got {shape}, {tuple(self.membership.shape)} and {tuple(self.labels.shape)}."
            )
        if not len(self) or len(self) % 2 or not self._paired():
            raise ShapeError(
                "ShadowPool: membership must come in pairs of rows in which each record is a member of one, "
                f"or of none in all pairs, got {len(self)} rows that are not."
            )

    def _paired(self) -> bool:
        first, second = self.membership[0::2].bool(), self.membership[1::2].bool()
        held = ~(first | second)
        return not bool((first & second).any()) and bool((held == held[:1]).all())

    def __len__(self) -> int:
        return len(self.outputs)

    @property
    def pairs(self) -> int:
        """Half the number of models."""
        return len(self) // 2

    def without(self, pair: int) -> ShadowPool:
        """The pool as it were without both models of a pair; each record is still in half of the rest."""
        kept = torch.arange(len(self)) // 2 != pair
        return ShadowPool(self.outputs[kept], self.membership[kept], self.labels)

    def __repr__(self) -> str:
        return f"ShadowPool({len(self)} shadow models on {len(self.labels)} records)"


def halves(records: int, pair: int, seed: int) -> Tensor:  # shape: (2, records), bool
    """A random half of the records for one model of a pair, and the other half for the other."""
    order = torch.randperm(records, generator=generator(seed, stream=f"halves {pair}"))
    first = torch.zeros(records, dtype=torch.bool)
    first[order[: records // 2]] = True
    return torch.stack([first, ~first])


def train_shadows(
    train: Train,
    records: Tensor,  # shape: (records, *record)
    labels: Tensor,  # shape: (records,)
    *,
    shadows: int = 16,
    held_out: int = 0,
    seed: int = 0,
    folder: str | Path | None = None,
    tag: str | None = None,
    vectorised: bool | str = "auto",
    batch_size: int = 256,
    progress: bool = False,
) -> ShadowPool:
    """Train shadow models on random halves, and query each on all records; resumable.

    Models 2k and 2k + 1 are trained on complementary halves. With a folder, each finished model's outputs are a file
    of it (numpy, no pickle; written beside and then renamed), so that a run that was cut off, or one that asks for
    more shadow models, trains only what is missing. A file that another configuration or other data have left there
    is refused; one that cannot be read is replaced.

    Args:
        train: (records, labels, seed) to a callable from records to logits: what the attacker believes that the
            target's owner did, on other records. Shadows are only as good as that belief.
        records: candidates and public records, in the order of the target's.
        labels: one class per record, integers.
        shadows: number of models, even, >= 2.
        held_out: so many records at the end are in no shadow's training set: public ones, which the target was not
            trained on either.
        seed: of the halves and of each training.
        folder: where finished shadows are kept; None to keep none.
        tag: what ``train`` does, in words; part of what tells configurations apart. Needed with a folder unless
            ``train`` has a method ``fingerprint()``.
        vectorised: train several at once (``train`` must have a method ``many``, as
            :class:`~splitpriv.attacks.ServerTraining`), or one after another; ``"auto"`` asks ``train.prefers_many()``.
        batch_size: records per query, >= 1.
        progress: show a progress bar.

    Returns:
        A :class:`~splitpriv.attacks.ShadowPool` for all attacks that need one.

    Raises:
        InvalidParameterError: an argument is outside its range, or the folder holds shadows of something else.
        ShapeError, NonFiniteError: the outputs are not finite logits of one shape.

    Source: Shokri, Stronati, Song, Shmatikov 2017 (shadow models); Carlini et al. 2022 (balanced halves).
    """
    keeping(_OWNER, folder, tag, vectorised, batch_size, progress)
    _checked(train, records, labels, shadows, held_out, seed, vectorised)
    store = _store(folder, train, records, labels, seed, held_out, tag)
    trained = len(labels) - held_out
    masks = torch.zeros(shadows, len(labels), dtype=torch.bool)
    for pair in range(shadows // 2):
        masks[2 * pair : 2 * pair + 2, :trained] = halves(trained, pair, seed)
    found = {number: known for number in range(shadows) if (known := store.read(number)) is not None}
    missing = [number for number in range(shadows) if number not in found]
    at_once: bool = (
        train.prefers_many() if vectorised == "auto" and isinstance(train, ManyTraining) else vectorised is True
    )
    groups = _groups(missing, masks) if at_once else [[number] for number in missing]
    bar = tqdm(total=len(missing), desc="shadow models", disable=not progress, leave=False)
    for group in groups:
        for number, outputs in zip(group, _trained(train, group, masks, records, labels, seed, at_once), strict=True):
            found[number] = query(_OWNER, outputs, records, batch_size).numpy()
            observed(_OWNER, torch.from_numpy(found[number]), labels.long().cpu(), trained)
            store.write(number, found[number])
            bar.update()
    bar.close()
    logits = torch.from_numpy(np.stack([found[number] for number in range(shadows)]))
    return ShadowPool(logits, masks, labels.long().cpu())


def _trained(
    train: Any, group: list[int], masks: Tensor, records: Tensor, labels: Tensor, seed: int, at_once: bool
) -> list[Outputs]:
    rows = [masks[number].nonzero().squeeze(1) for number in group]
    seeds = [int(np.random.SeedSequence([seed, number]).generate_state(1)[0]) for number in group]
    sets = [records[row.to(records.device)] for row in rows], [labels[row.to(labels.device)] for row in rows]
    if at_once:
        many: list[Outputs] = train.many(*sets, seeds)
        return many
    return [train(*given) for given in zip(*sets, seeds, strict=True)]


def _groups(missing: list[int], masks: Tensor) -> list[list[int]]:
    """Models whose training sets are of one size."""
    sizes: dict[int, list[int]] = {}
    for number in missing:
        sizes.setdefault(int(masks[number].sum()), []).append(number)
    return list(sizes.values())


def _store(
    folder: str | Path | None, train: Any, records: Tensor, labels: Tensor, seed: int, held_out: int, tag: str | None
) -> Store:
    if folder is None:
        return Store(None, "")
    known = train.fingerprint() if hasattr(train, "fingerprint") else None
    if known is None and tag is None:
        raise InvalidParameterError(
            f"{_OWNER}: tag must say in words what train does when a folder is given, got tag=None. "
            "Shadows of another training could not be told apart."
        )
    return Store(Path(folder), digest(_MADE_BY, str(known), str(tag), str(seed), str(held_out), records, labels))


def _checked(
    train: Any,
    records: Tensor,
    labels: Tensor,
    shadows: int,
    held_out: int,
    seed: int,
    vectorised: Any,
) -> None:
    if not callable(train):
        raise InvalidParameterError(check.message(_OWNER, "train", "a callable from (records, labels, seed)", train))
    check.integer(_OWNER, "shadows", shadows, 2)
    if shadows % 2:
        raise InvalidParameterError(check.message(_OWNER, "shadows", "even: they come in pairs", shadows))
    if not isinstance(records, Tensor) or not isinstance(labels, Tensor) or labels.shape != records.shape[:1]:
        raise ShapeError(f"{_OWNER}: records and labels must be tensors of as many rows.")
    check.integer(_OWNER, "held_out", held_out, 0, len(labels) - 2)
    check.integer(_OWNER, "seed", seed, 0)
    if vectorised is True and not isinstance(train, ManyTraining):
        fix = "Use ServerTraining, or False."
        constraint = 'False or "auto" for a training without a method many'
        raise InvalidParameterError(check.message(_OWNER, "vectorised", constraint, vectorised, fix))
