"""A small training loop for the server's half."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from splitpriv import _validation as check
from splitpriv._errors import InvalidParameterError, NonFiniteError
from splitpriv._modes import modes_kept
from splitpriv.release import Release
from splitpriv.training.losses import Loss
from splitpriv.training.noise_aware import NoiseAware, Public, corrected_loss, embedded, of_vectors


@dataclass(frozen=True)
class History:
    """What :func:`fit` saw, one entry per epoch.

    Attributes:
        loss: mean training loss.
        validation_loss: mean loss on the validation release; empty without one.
        validation_accuracy: share of validation records whose largest output is their label;
            empty without a validation release or with labels that are not classes.
    """

    loss: tuple[float, ...]
    validation_loss: tuple[float, ...] = ()
    validation_accuracy: tuple[float, ...] = ()


def fit(
    server: nn.Module,
    release: Release,
    *,
    epochs: int = 20,
    batch_size: int = 128,
    lr: float = 1e-3,
    weight_decay: float = 0.0,
    loss: Loss | None = None,
    noise_aware: bool = False,
    public: Public | None = None,
    prior: Tensor | None = None,
    through: nn.Module | None = None,
    validation: Release | None = None,
    device: torch.device | str | None = None,
    seed: int | None = None,
    progress: bool = True,
) -> History:
    """Train the server on what crossed the cut (Adam, shuffled mini-batches).

    Post-processing: it costs no privacy, however many epochs it takes. For those who have no
    loop of their own; a ``Release`` is a ``torch.utils.data.Dataset`` and fits any other.

    *Noise-aware* training makes the server right for clean features, those of
    :meth:`SplitModel.local`. Where one vector per record has crossed, the class means are freed of
    the noise (:func:`class_moments`) and the server learns from fresh draws around them: mean, its
    uncertainty, and the residual of a public record. A server that is one ``nn.Linear`` is solved
    in closed form. Features of any other shape are trained on as they came. Labels that went
    through a label mechanism are compared behind its channel (:func:`forward_corrected`).

    Args:
        server: the model's second half, from released features ``(batch, *feature)`` to outputs.
        release: labelled records that crossed the cut.
        epochs: passes over the release, >= 1.
        batch_size: records per step, >= 1.
        lr: learning rate, > 0.
        weight_decay: decoupled weight decay (AdamW), >= 0.
        loss: ``loss(outputs, labels)``; by default cross-entropy for integer labels, mean squared
            error for floating-point ones. Features come in the server's floating-point dtype.
        noise_aware: train for clean features, as above.
        public: with ``noise_aware`` on vectors: clean features (n, dim) of public records, or a pair of
            them and their labels (n,), which need not be the private classes. None takes the
            spread within a class as equal in all directions, which costs accuracy.
        prior: with ``noise_aware`` on vectors: (classes,), public shares of the classes; see
            :func:`class_moments`.
        through: with ``noise_aware`` on vectors: the layer that records will cross at inference, to make the
            server right for what it releases (noisy inference); None for clean features.
        validation: a second labelled release, evaluated after each epoch.
        device: where to train; None for where the server's parameters are. The server stays there.
        seed: order of the records; None for a new order each time.
        progress: show a progress bar.

    Returns:
        The losses, by epoch; none for a server that was solved.

    Raises:
        InvalidParameterError: a parameter is out of range, a release has no labels or no
            records, or the server has nothing to train.
        NonFiniteError: the loss became NaN or infinite; the server is then not usable.
    """
    _server("fit", server)
    check.integer("fit", "epochs", epochs, 1)
    check.integer("fit", "batch_size", batch_size, 1)
    check.positive("fit", "lr", lr)
    if check.finite("fit", "weight_decay", weight_decay) < 0:
        raise InvalidParameterError(check.message("fit", "weight_decay", ">= 0", weight_decay))
    check.choice("fit", "noise_aware", noise_aware, (True, False))
    _refuse_unused(noise_aware, release, public=public, prior=prior, through=through)
    if not (noise_aware and isinstance(release, Release) and embedded(release)):
        _labelled("release", release)
    if validation is not None:
        _labelled("validation", validation)
    trained = [p for p in server.parameters() if p.requires_grad]
    if not trained:
        raise InvalidParameterError("fit: server must have parameters that require grad, got none.")
    if device is not None:
        server.to(device)
    order = torch.Generator()
    order.manual_seed(seed) if seed is not None else order.seed()
    batches, corrected = partial(_batches, release, batch_size, order), None
    if noise_aware and of_vectors(release):
        aware = NoiseAware(server, release, public, prior, order, through)
        if aware.solve(server):
            return History(())
        batches = partial(aware.batches, batch_size)
    elif noise_aware:
        corrected = corrected_loss(release)
    criterion = loss or corrected or _default_loss
    optimizer = torch.optim.AdamW(trained, lr=lr, weight_decay=weight_decay)
    losses, seen = [], []
    with modes_kept(server):
        bar = tqdm(range(epochs), desc="fit", unit="epoch", disable=not progress)
        for epoch in bar:
            server.train()
            losses.append(_epoch(server, batches(), criterion, optimizer, epoch))
            bar.set_postfix(loss=f"{losses[-1]:.4f}")
            if validation is not None:
                seen.append(evaluate(server, validation, loss=criterion, batch_size=batch_size))
    accuracies = tuple(accuracy for _, accuracy in seen if accuracy is not None)
    return History(tuple(losses), tuple(value for value, _ in seen), accuracies)


def evaluate(
    server: nn.Module,
    release: Release,
    *,
    loss: Loss | None = None,
    batch_size: int = 1024,
) -> tuple[float, float | None]:
    """Mean loss, and accuracy where labels are classes (else None), of the server on a release.

    Args:
        server: the model's second half; evaluated in eval mode, its mode is restored.
        release: labelled records that crossed the cut.
        loss: as in :func:`fit`.
        batch_size: records per step, >= 1.

    Raises:
        InvalidParameterError: the release has no labels or no records.
    """
    _server("evaluate", server)
    check.integer("evaluate", "batch_size", batch_size, 1)
    _labelled("release", release, "evaluate")
    criterion = loss or _default_loss
    place = _place(server)
    total, right, classes = 0.0, 0, True
    with modes_kept(server), torch.no_grad():
        server.eval()
        for indices in torch.split(torch.arange(len(release)), batch_size):
            features, labels = _moved(release, indices, *place)
            outputs = server(features)
            total += float(criterion(outputs, labels)) * len(indices)
            classes = classes and _are_classes(outputs, labels)
            if classes:
                right += int((outputs.argmax(1) == labels).sum())
    return total / len(release), right / len(release) if classes else None


def _epoch(
    server: nn.Module,
    batches: Iterator[tuple[Tensor, Tensor]],
    criterion: Loss,
    optimizer: torch.optim.Optimizer,
    epoch: int,
) -> float:
    total, count, (home, dtype) = 0.0, 0, _place(server)
    for features, labels in batches:
        value = criterion(server(features.to(home, dtype)), labels.to(home))
        optimizer.zero_grad(set_to_none=True)
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        total += float(value.detach()) * len(labels)
        count += len(labels)
    if not math.isfinite(total):
        fix = "Lower lr, or normalise the features."
        raise NonFiniteError(f"fit: loss must stay finite, got loss={total} in epoch {epoch}. {fix}")
    return total / count


def _batches(release: Release, size: int, order: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Every record once, in a new order."""
    steps = list(torch.split(torch.randperm(len(release), generator=order), size))
    if len(steps) > 1 and size > 1 and len(steps[-1]) == 1:
        steps[-2:] = [torch.cat(steps[-2:])]  # BatchNorm cannot train on a single record
    for indices in steps:
        features, labels = release.batch(indices)
        assert labels is not None
        yield features, labels


def _moved(release: Release, indices: Tensor, home: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    features, labels = release.batch(indices)
    assert labels is not None
    return features.to(home, dtype), labels.to(home)


def _place(server: nn.Module) -> tuple[torch.device, torch.dtype]:
    """Where the server computes, and in which floating-point dtype."""
    parameters = [p for p in server.parameters() if p.is_floating_point()]
    return (parameters[0].device, parameters[0].dtype) if parameters else (torch.device("cpu"), torch.float32)


def _are_classes(outputs: Any, labels: Tensor) -> bool:
    """Whether the largest output is an answer: one label, and one of several outputs, per record."""
    if not isinstance(outputs, Tensor) or labels.is_floating_point() or labels.ndim != 1:
        return False
    return outputs.ndim == 2 and outputs.shape[1] > 1


def _refuse_unused(noise_aware: bool, release: Any, **given: Any) -> None:
    for name, value in given.items():
        if value is not None and not (noise_aware and isinstance(release, Release) and of_vectors(release)):
            constraint = "None unless noise_aware=True and one vector per record was released"
            got = type(value).__name__
            raise InvalidParameterError(check.message("fit", name, constraint, got))


def _server(owner: str, server: Any) -> None:
    if not isinstance(server, nn.Module) or hasattr(server, "cut"):
        kind = type(server).__name__
        raise InvalidParameterError(f"{owner}: server must be the server's half, got {kind}. Pass model.server.")


def _default_loss(outputs: Tensor, labels: Tensor) -> Tensor:
    if not isinstance(outputs, Tensor):
        kind = type(outputs).__name__
        raise InvalidParameterError(f"fit: server must return a tensor where no loss is given, got {kind}. Pass loss=.")
    if labels.is_floating_point():
        return F.mse_loss(outputs.reshape(labels.shape), labels.to(outputs.dtype))
    return F.cross_entropy(outputs, labels.long())


def _labelled(name: str, release: Any, owner: str = "fit") -> None:
    if not isinstance(release, Release):
        fix = "SplitModel.release makes one; release.subset(indices) is a part of one."
        raise InvalidParameterError(f"{owner}: {name} must be a Release, got {type(release).__name__}. {fix}")
    if not len(release) or release.labels is None:
        fix = "Release (features, label) records from a SplitModel that declares labels; fit embedded ones noise_aware."
        raise InvalidParameterError(check.message(owner, name, "a non-empty release with labels", release, fix))
