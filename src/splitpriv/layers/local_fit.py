"""How a private encoder is fitted on local labels: a throw-away head, early stopping."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from splitpriv._errors import InvalidParameterError
from splitpriv._validation import message
from splitpriv.layers.local_records import Records, hold_out


@dataclass(frozen=True)
class EncoderHistory:
    """What happened in one ``LocalPretrainedEncoder.fit``. It describes private data: keep it local.

    Attributes:
        train_loss: mean loss over the records trained on, per epoch.
        holdout_loss: mean loss over the held-out records, per epoch.
        holdout_accuracy: share of held-out records classified rightly, per epoch; None for regression.
        best_epoch: the epoch, counted from 1, whose weights were kept: lowest ``holdout_loss``.
        stopped_early: whether ``patience`` ran out before ``epochs`` did.
        records: how many records the loader gave, held-out ones included.
        held_out: how many of them were held out.
    """

    train_loss: tuple[float, ...]
    holdout_loss: tuple[float, ...]
    holdout_accuracy: tuple[float, ...] | None
    best_epoch: int
    stopped_early: bool
    records: int
    held_out: int


@dataclass(frozen=True)
class Plan:
    """The settings of one fit, checked."""

    epochs: int
    lr: float
    holdout: float
    patience: int
    device: torch.device
    generator: torch.Generator = field(repr=False)
    progress: bool


@dataclass
class _Course:
    """What one fit has seen so far."""

    trained: list[float] = field(default_factory=list)
    judged: list[tuple[float, float]] = field(default_factory=list)
    best: float = math.inf
    best_epoch: int = 0
    weights: dict[str, Tensor] = field(default_factory=dict)


def fit_network(network: nn.Module, out_features: int, records: Records, plan: Plan) -> EncoderHistory:
    """Train ``network`` in place, under a linear head that is thrown away; keeps the best weights.

    Raises:
        InvalidParameterError: the held-out loss never was finite, or all records are the same.
    """
    kept, held = hold_out(records.features, plan.holdout, plan.generator)
    head = _head(out_features, records.outputs, plan.generator)
    model = nn.Sequential(network, head).to(plan.device).requires_grad_(True)
    run = _run_epochs(model, records, kept, held, plan)
    if run.best_epoch == 0:
        fix = "Lower it, or scale the features; nothing was changed."
        constraint = "small enough for the held-out loss to stay finite"
        raise InvalidParameterError(message("LocalPretrainedEncoder", "lr", constraint, plan.lr, fix))
    network.load_state_dict(run.weights)
    losses, accuracies = zip(*run.judged, strict=True)
    return EncoderHistory(
        train_loss=tuple(run.trained),
        holdout_loss=losses,
        holdout_accuracy=accuracies if records.classes else None,
        best_epoch=run.best_epoch,
        stopped_early=len(run.trained) < plan.epochs,
        records=len(records.features),
        held_out=len(held),
    )


def _run_epochs(model: nn.Sequential, records: Records, kept: Tensor, held: Tensor, plan: Plan) -> _Course:
    """Epochs until they or the patience run out."""
    run = _Course()
    optimizer = torch.optim.Adam(model.parameters(), lr=plan.lr)
    with tqdm(total=plan.epochs, desc="LocalPretrainedEncoder", unit="epoch", disable=not plan.progress) as bar:
        for epoch in range(1, plan.epochs + 1):
            run.trained.append(_train_epoch(model, optimizer, records, kept, plan))
            run.judged.append(_evaluate(model, records, held, plan.device))
            loss = run.judged[-1][0]
            if loss < run.best:
                # A copy: state_dict() holds the live weights, which go on changing.
                run.best, run.best_epoch, run.weights = loss, epoch, copy.deepcopy(model[0].state_dict())
            bar.set_postfix(holdout_loss=f"{loss:.3g}", refresh=False)
            bar.update()
            if epoch - run.best_epoch >= plan.patience:
                break
    return run


def _head(inputs: int, outputs: int, generator: torch.Generator) -> nn.Module:
    """A linear layer started from ``generator``, so that torch's global one is left alone."""
    head = nn.Linear(inputs, outputs, device="meta", dtype=torch.float32).to_empty(device="cpu")
    bound = 1 / math.sqrt(inputs)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.uniform_(-bound, bound, generator=generator)
    return head


def _loss(records: Records, output: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(output, target) if records.classes else F.mse_loss(output, target)


def _train_epoch(
    model: nn.Module, optimizer: torch.optim.Optimizer, records: Records, kept: Tensor, plan: Plan
) -> float:
    total = 0.0
    order = kept[torch.randperm(len(kept), generator=plan.generator, device="cpu")]
    for index in torch.split(order, records.batch_size):
        output = model(records.features[index].to(plan.device))
        loss = _loss(records, output, records.targets[index].to(plan.device))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        total += loss.item() * len(index)
    return total / len(order)


@torch.no_grad()
def _evaluate(model: nn.Module, records: Records, held: Tensor, device: torch.device) -> tuple[float, float]:
    """Mean loss and, for classes, accuracy on the held-out records."""
    total, right = 0.0, 0
    for index in torch.split(held, 1024):
        output, target = model(records.features[index].to(device)), records.targets[index].to(device)
        total += _loss(records, output, target).item() * len(index)
        if records.classes:
            right += int((output.argmax(1) == target).sum())
    return total / len(held), right / len(held)
