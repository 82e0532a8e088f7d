"""The front door: all membership attacks on a model, from the records that it was and was not trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from splitpriv import _validation as check
from splitpriv._errors import InvalidParameterError, SplitPrivError
from splitpriv._modes import modes_kept
from splitpriv.accounting.simulation import simulation
from splitpriv.attacks.attack import existing
from splitpriv.attacks.cut_view import CutView, view_of
from splitpriv.attacks.membership_inference.arguments import keeping, optional_callable
from splitpriv.attacks.membership_inference.base import MembershipAttack, checked
from splitpriv.attacks.membership_inference.groups import Group
from splitpriv.attacks.membership_inference.identity import identity
from splitpriv.attacks.membership_inference.lira import LiRA
from splitpriv.attacks.membership_inference.report import MembershipReport
from splitpriv.attacks.membership_inference.rmia import RMIA
from splitpriv.attacks.membership_inference.shadows import Train, train_shadows
from splitpriv.attacks.membership_inference.shokri import ShadowMembership
from splitpriv.attacks.membership_inference.store import digest
from splitpriv.attacks.membership_inference.target import MembershipTarget, Outputs, chunks, observed
from splitpriv.attacks.membership_inference.target import query as query_of
from splitpriv.attacks.membership_inference.threshold import ThresholdMembership
from splitpriv.attacks.membership_inference.training import ServerTraining

_OWNER = "membership"


def membership(
    model: Any,
    members: Group,  # shapes: (members, *input), (members,)
    non_members: Group,  # shapes: (non_members, *input), (non_members,)
    *,
    attacks: Sequence[MembershipAttack] | None = None,
    query: str = "clean",
    queries: int = 1,
    train: Train | None = None,
    start: nn.Module | None = None,
    epochs: int = 20,
    lr: float = 1e-3,
    weight_decay: float = 0.0,
    train_batch_size: int = 128,
    shadows: int = 16,
    public: Group | None = None,  # shapes: (public, *input), (public,)
    folder: str | Path | None = None,
    tag: str | None = None,
    vectorised: bool | str = "auto",
    batch_size: int = 256,
    seed: int = 0,
    device: str | torch.device | None = None,
    progress: bool = False,
) -> MembershipReport:
    """Who was the server trained on? Runs every membership attack, with one set of shadow models for all.

    The target is the server of a ``SplitModel``, trained on what the members released. The attacker knows edge, layer
    and how the server is trained, and trains shadow servers on releases of random halves of the candidates, noise
    drawn anew for each. Nothing is charged (:func:`splitpriv.accounting.simulation`), and modes are kept.

    Args:
        model: a ``SplitModel``, or a callable from records to logits (then give ``train`` for shadow models).
        members: records and labels that the server was trained on: two tensors, or a data set of (record, label).
        non_members: the same of those that it was not; from the same distribution, or the figures mean nothing.
        attacks: what to run, one or more; by default thresholds on loss and modified entropy and, with shadow models,
            :class:`ShadowMembership`, :class:`LiRA` online and offline (from 4 models on) and :class:`RMIA`.
        query: ``"clean"``: server(clean(edge(x))), as a server that runs on the edge is asked; ``"released"``:
            server(decode(encode(edge(x)))), through the layer, noise drawn anew. Not for a callable.
        queries: with ``"released"``: repeated so often, log-probabilities averaged; >= 1.
        train: how shadow models are made, from features at the cut (from records, for a callable); see
            :func:`train_shadows`. By default :class:`ServerTraining` with ``epochs``, ``lr``, ``weight_decay`` and
            ``train_batch_size``: make these the owner's (the defaults are those of :func:`splitpriv.fit`).
        start: the server as it was before it was trained, where it was not random (a pretrained one); public. What of
            it does not require grad is not trained. None to draw all parameters anew.
        epochs: of the default training, >= 1.
        lr: of the default training, > 0.
        weight_decay: of the default training, >= 0.
        train_batch_size: of the default training, >= 1.
        shadows: number of shadow models, even; 0 for none. Default attacks that need more are named in the report.
        public: records and labels of which everyone knows that the server was not trained on them.
        folder: keeps finished shadow models, so that a run can be resumed; see :func:`train_shadows`.
        tag: what ``train`` does, in words; needed with a folder where ``train`` cannot say it.
        vectorised: see :func:`train_shadows`.
        batch_size: records per query, >= 1.
        seed: of shadow models and attacks. Noise of a layer with a secure source is new in each run.
        device: where edge and servers are; None for where the model is. Nothing is moved but records.
        progress: show progress bars.

    Returns:
        A :class:`MembershipReport`: each attack's result, and the best.

    Raises:
        InvalidParameterError: an argument is outside its range, does not fit the model, or a record is in two groups.
        ShapeError, NonFiniteError: records, labels or outputs do not fit.

    Does not prove: that nothing leaks where all attacks fail; ε is the upper bound. What the server saw of a member,
    its release, is not attacked here.

    Source: the classes of the attacks name theirs.

    Example:
        >>> model = sp.SplitModel(nn.Linear(8, 16), nn.Linear(16, 2), labels="public")
        >>> known = torch.randn(20, 8), torch.arange(20) % 2
        >>> other = torch.randn(20, 8), torch.arange(20) % 2
        >>> report = membership(model, known, other, shadows=4, epochs=1)
        >>> report.shadows, len(report.results)
        (4, 6)
    """
    check.choice(_OWNER, "query", query, ("clean", "released"))
    check.integer(_OWNER, "queries", queries, 1)
    check.integer(_OWNER, "seed", seed, 0)
    if check.integer(_OWNER, "shadows", shadows, 0) % 2:
        raise InvalidParameterError(check.message(_OWNER, "shadows", "even: they come in pairs", shadows))
    if queries > 1 and query == "clean":
        fix = "Clean answers do not vary."
        raise InvalidParameterError(check.message(_OWNER, "queries", '1 with query="clean"', queries, fix))
    keeping(_OWNER, folder, tag, vectorised, batch_size, progress)
    optional_callable(_OWNER, "train", train)
    if device is not None:
        existing(_OWNER, device)
    common: dict[str, Any] = {"batch_size": batch_size, "seed": seed, "progress": progress}
    chosen, skipped = _default(shadows, common) if attacks is None else (checked(_OWNER, attacks, shadows), {})
    with ExitStack() as stack:
        stack.enter_context(simulation())
        asked = _Asked.of(model, query, queries, device, stack)
        target = asked.target(members, non_members, public, batch_size)
        if train is None and shadows:
            settings = {"epochs": epochs, "lr": lr, "weight_decay": weight_decay, "batch_size": train_batch_size}
            train = asked.training(model, start, target, settings)
        pool = None
        if train is not None and shadows:
            kept: dict[str, Any] = {"folder": folder, "tag": tag, "vectorised": vectorised, "progress": progress}
            extra: dict[str, Any] = {
                "held_out": 0 if target.public is None else len(target.public[1]),
                "batch_size": batch_size,
                "seed": seed,
            }
            pool = train_shadows(train, target.all_records, target.all_labels, shadows=shadows, **extra, **kept)
        results = [attack(target, pool) for attack in chosen]
    named = _named([r.attack for r in results], results)
    return MembershipReport(named, asked.query, asked.layer, shadows, skipped)


@dataclass(frozen=True, eq=False)
class _Asked:
    """How records reach the target: once up to the cut, then as often as it is queried."""

    outputs: Outputs
    query: str
    layer: str
    edge: Callable[[Tensor], Tensor] | None = None
    view: CutView | None = None
    reads: Callable[[Tensor], Tensor] | None = None
    queries: int = 1
    device: torch.device | None = None

    @classmethod
    def of(cls, model: Any, query: str, queries: int, device: Any, stack: ExitStack) -> _Asked:
        if isinstance(model, nn.Module):
            stack.enter_context(modes_kept(model))
            model.eval()
        if not hasattr(model, "cut"):
            if not callable(model):
                kind = type(model).__name__
                raise InvalidParameterError(f"{_OWNER}: model must be a SplitModel or a callable, got {kind}.")
            return cls(model, "outputs", "unknown layer")
        view = view_of(model)
        if getattr(model, "labels", None) == "embedded":
            raise InvalidParameterError(
                f"{_OWNER}: model must not send labels inside the features (EmbeddedLabels). "
                "Give a callable from records to logits, and train."
            )
        if query == "clean" and view.clean is None:
            raise InvalidParameterError(
                f'{_OWNER}: query must be "released" where a mechanism at the cut has no expected(features), got '
                f"query={query!r} for {view.layer}."
            )
        reads = view.clean if query == "clean" else _through(view)
        where = next((p.device for p in model.parameters()), None) if device is None else torch.device(device)
        outputs = _repeated(lambda features: view.need("server")(_need(reads)(features)), queries)
        return cls(outputs, query, view.layer, view.edge, view, reads, queries, where)

    def target(self, members: Group, non_members: Group, public: Group | None, batch_size: int) -> MembershipTarget:
        """Everyone as seen at the cut; one query tells whether the labels are classes of the target."""
        raw = MembershipTarget.of(self.outputs, members, non_members, public)
        known = None if raw.public is None else (self.seen(raw.public[0], batch_size), raw.public[1])
        found = replace(raw, records=self.seen(raw.records, batch_size), public=known)
        observed(_OWNER, query_of(_OWNER, self.outputs, found.records[:1], 1), found.all_labels, len(found.labels))
        return found

    def seen(self, records: Tensor, batch_size: int) -> Tensor:
        """What the attacker works with: features at the cut, or records as they are where nothing is known of one."""
        if self.edge is None:
            return records
        with torch.no_grad():
            return torch.cat([self.edge(part.to(self.device)).detach().float() for part in chunks(records, batch_size)])

    def training(
        self, model: Any, start: nn.Module | None, target: MembershipTarget, settings: dict[str, Any]
    ) -> Train:
        """Imitates the owner's training.

        Raises:
            InvalidParameterError: a callable hides what is trained, or the start does not stand where the server does.
        """
        if self.view is None:
            raise InvalidParameterError(
                f"{_OWNER}: train must be given for shadow models of a callable, got train=None. Or use shadows=0."
            )
        if start is not None:
            check.module(_OWNER, "start", start)
        layer = getattr(model, "label_layer", None)
        training = ServerTraining(
            server=model.server if start is None else start,
            reset=start is None,
            release=_through(self.view),
            release_labels=None if layer is None else layer.encode,
            query=self.reads,
            through=digest(self.query, self.layer, _label_key(layer), identity(model.cut)),
            device=self.device,
            **settings,
        )
        if start is not None:
            _refuse_other_start(training, target)
        return training if self.queries == 1 else _Repeating(training, self.queries)


class _Repeating:
    """A training whose models are asked several times, as the target is."""

    def __init__(self, training: ServerTraining, queries: int) -> None:
        self.training, self.queries = training, queries

    def __call__(self, records: Tensor, labels: Tensor, seed: int) -> Outputs:
        return _repeated(self.training(records, labels, seed), self.queries)

    def many(self, *sets: Any) -> list[Outputs]:
        return [_repeated(outputs, self.queries) for outputs in self.training.many(*sets)]

    def prefers_many(self) -> bool:
        return self.training.prefers_many()

    def fingerprint(self) -> str:
        return f"{self.training.fingerprint()} {self.queries}"


def _repeated(outputs: Outputs, queries: int) -> Outputs:
    if queries == 1:
        return outputs
    return lambda records: torch.stack([outputs(records).log_softmax(-1) for _ in range(queries)]).mean(0)


def _through(view: CutView) -> Callable[[Tensor], Tensor]:
    return lambda features: view.need("decode")(view.need("encode")(features)).to(features.device)


def _need(reads: Callable[[Tensor], Tensor] | None) -> Callable[[Tensor], Tensor]:
    assert reads is not None
    return reads


def _label_key(layer: Any) -> str:
    """All that the table of a label mechanism follows from; it does not show its prior."""
    return "" if layer is None else f"{type(layer).__qualname__} {layer.classes} {layer.kept} {layer.asked!r}"


def _refuse_other_start(training: ServerTraining, target: MembershipTarget) -> None:
    """Raise where the start does not fit, before anything is trained."""
    record = target.records[:1]
    classes = query_of(_OWNER, target.outputs, record, 1).shape[1]
    try:
        found: Any = query_of(_OWNER, training.untrained(0), record, 1).shape[1]
    except (RuntimeError, ValueError, TypeError, IndexError, SplitPrivError) as error:
        found = f"an error: {error}"
    if found != classes:
        raise InvalidParameterError(
            f"{_OWNER}: start must take what the server takes and give its {classes} classes, got {found}."
        )


def _default(shadows: int, common: dict[str, Any]) -> tuple[list[MembershipAttack], dict[str, str]]:
    """The attacks that so many shadow models are enough for, and of the others what they need."""
    every: list[MembershipAttack] = [ThresholdMembership(score=s, **common) for s in ("loss", "modified entropy")]
    every += [ShadowMembership(**common), LiRA(**common), LiRA(mode="offline", **common), RMIA(**common)]
    lacking = {one.title: f"it needs {one.needs} shadow models or more" for one in every if shadows < one.needs}
    return [one for one in every if one.title not in lacking], lacking


def _named(names: list[str], results: list[Any]) -> dict[str, Any]:
    """By name; a second one of a name gets a number."""
    found: dict[str, Any] = {}
    for name, result in zip(names, results, strict=True):
        count = sum(known == name or known.startswith(f"{name} #") for known in found)
        found[name if not count else f"{name} #{count + 1}"] = result
    return found
