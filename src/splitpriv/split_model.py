"""SplitModel: an edge, what stands at the cut, and a server, composed, frozen, priced, released."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from splitpriv import _validation as check
from splitpriv import accounting
from splitpriv._errors import InvalidParameterError, PrivacyError, PrivacyWarning, ShapeError, SplitPrivError
from splitpriv.accounting import Price, Spend, price
from splitpriv.cutting import split
from splitpriv.layers.compilation import eager
from splitpriv.mechanisms.rounding import scale_up
from splitpriv.release import Release
from splitpriv.releasing import release_records

RecordIds = Sequence[str | int]


class SplitModel(nn.Module):
    """A model in two halves with privacy layers at the cut.

    ``model(x)`` is ``server(cut(edge(x)))``. Every call is a release and is charged to the
    ledger in force, in ``train()`` and ``eval()`` alike; :meth:`release` sends each record once
    and is what a frozen edge is for.

    Args:
        edge: the part that sees raw records, up to the cut.
        server: the part that sees only what crossed.
        cut: one layer, a sequence of layers, or None for no privacy at all (ε = ∞).
        joint: False freezes the edge and the cut (eval mode, no gradients; ``requires_grad`` is
            switched off on their parameters). True trains both halves, with gradients that flow
            back straight through the mechanisms. The edge then learns from raw records, so that
            a record pays for every row released after its first gradient.
        edge_data: what the edge was fitted on, ``"public"`` or ``"private"``; a declaration that
            reports repeat. A private edge costs ∞ unless ``edge_records`` is given.
        edge_records: how many private records the edge was fitted on; each of them influences
            every row, and pays that number of rows.
        labels: what labels that travel beside the features are: ``"public"`` (ε covers the
            features only), ``"private"`` (∞: nothing protects them), or None where none travel.

    Raises:
        InvalidParameterError: a parameter is outside its range, or a cut layer does not satisfy
            the :class:`~splitpriv.PrivacyLayer` protocol.

    Does not protect: the edge's weights (joint or private ones are ∞ when exported), the order
    and number of records, anything that custom code in the edge mixes between records (BatchNorm
    is refused; other ways are not detected).

    Example:
        >>> edge, server = nn.Linear(8, 16), nn.Linear(16, 3)
        >>> model = SplitModel(edge, server, cut=RandomResponseLDP(epsilon=2.0), labels="public")
        >>> release = model.release((torch.randn(100, 8), torch.arange(100) % 3), progress=False)
        >>> release.bytes_per_record, accounting.epsilon_total(release)
        (2, 32.0)
    """

    edge_learned: Tensor

    def __init__(
        self,
        edge: nn.Module,
        server: nn.Module,
        cut: nn.Module | Sequence[nn.Module] | None = None,
        *,
        joint: bool = False,
        edge_data: str = "public",
        edge_records: int | None = None,
        labels: str | None = None,
    ) -> None:
        super().__init__()
        self.joint: bool = check.choice("SplitModel", "joint", joint, (True, False))
        self.edge_data: str = check.choice("SplitModel", "edge_data", edge_data, ("public", "private"))
        fix = "Say what labels that travel beside the features are; None where none travel."
        self.labels: str | None = check.choice("SplitModel", "labels", labels, ("public", "private", None), fix)
        if edge_records is not None:
            check.integer("SplitModel", "edge_records", edge_records, 1)
            if edge_data == "public":
                fix = 'Declare edge_data="private".'
                raise InvalidParameterError(
                    check.message("SplitModel", "edge_records", "None with a public edge", edge_records, fix)
                )
        self.edge_records = edge_records
        self.edge = _module("edge", edge)
        self.cut = nn.Sequential(*_cut_layers(cut))
        self.server = _module("server", server)
        self._feature_shape: tuple[int, ...] | None = None
        self._calls_without_ids, self._warned_unbounded = 0, False
        if self.joint:
            self.register_buffer("edge_learned", torch.zeros((), dtype=torch.bool))
        else:
            self.edge.requires_grad_(False)
            self.cut.requires_grad_(False)
        self.train(self.training)

    @classmethod
    def from_model(
        cls,
        model: nn.Module,
        *,
        at: str,
        cut: nn.Module | Sequence[nn.Module] | None = None,
        example_input: Tensor | None = None,  # shape: (batch, *input)
        **options: Any,
    ) -> SplitModel:
        """Cut ``model`` after the module named ``at``, and put ``cut`` there.

        The halves share the model's parameters. With an ``example_input`` (public: it does not
        cross) the cut is verified, and the feature shape, hence every price, is known at once.

        Args:
            model: any module that :func:`splitpriv.split` can cut.
            at: name of the last module of the edge.
            cut: see the class.
            example_input: a public batch.
            options: keyword arguments of the class.

        Raises:
            CutError: the model cannot be cut there.
        """
        edge, server = split(model, at, example_input)
        wrapped = cls(edge, server, cut, **options)
        if example_input is not None:
            wrapped._learn_shape(example_input)
        return wrapped

    def _learn_shape(self, example: Tensor) -> None:
        modes = [(module, module.training) for module in self.edge.modules()]
        self.edge.eval()
        try:
            with torch.no_grad():
                self._feature_shape = tuple(self._checked(self.edge(example), None).shape[1:])
        finally:
            for module, mode in modes:
                module.training = mode

    # Cost ----------------------------------------------------------------------------------

    @property
    def feature_shape(self) -> tuple[int, ...] | None:
        """Shape of the features that reach the cut, without batch; None before the first use."""
        return self._feature_shape

    def price(self, shape: Sequence[int] | None = None) -> Price:
        """What one record's features pay, and why. See :meth:`spend` for the arguments."""
        known = self._feature_shape if shape is None else check.feature_shape("SplitModel", shape)
        if known is None:
            raise PrivacyError(
                "SplitModel: shape must be known to price a record, got shape=None before the first use. "
                "Give example_input to from_model, or the shape of the features at the cut."
            )
        edge_records = 0 if self.edge_data == "public" else self.edge_records
        return price(list(self.cut), known, edge_records=edge_records)

    def spend(self, shape: Sequence[int] | None = None) -> Spend:
        """What one release of one record costs, private labels included.

        Args:
            shape: shape of the features at the cut, without batch; None for the one last seen.

        Raises:
            PrivacyError: no shape is given, and none has been seen yet.
        """
        found = self.price(shape)
        total = math.inf if self.labels == "private" else found.per_record()
        return Spend(found.spend.per_use, found.spend.uses, total)

    # Forward -------------------------------------------------------------------------------

    def forward(
        self,
        x: Tensor,  # shape: (batch, *input)
        ids: RecordIds | None = None,
    ) -> Tensor:
        """``server(cut(edge(x)))``: one release of every record in the batch, charged first.

        Args:
            x: raw records.
            ids: one str or int per record; without ids the charge counts for every record.

        Raises:
            BudgetExceeded: a limit would be passed. Nothing is drawn then.
            PrivacyError: BatchNorm on the edge would tie the records of the batch together.
            ShapeError, NonFiniteError: the features do not fit the cut.
        """
        features = self._features(x)
        self._charge_call(len(features), ids)
        output: Tensor = self.server(self._through_cut(features))
        return output

    def _features(self, x: Tensor) -> Tensor:
        self._refuse_batch_norm()
        with torch.set_grad_enabled(self.joint and torch.is_grad_enabled()):
            features = self._checked(self.edge(x), x)
        self._feature_shape = tuple(features.shape[1:])
        return features

    @eager
    def _checked(self, features: Any, x: Tensor | None) -> Tensor:
        checked = check.features("SplitModel", features)
        if isinstance(x, Tensor) and len(checked) != len(x):
            raise ShapeError(
                f"SplitModel: edge must return one row per record, got {len(checked)} rows for {len(x)} records."
            )
        return checked

    def _through_cut(self, features: Tensor) -> Tensor:
        for position in range(len(self.cut)):
            features = self._at_layer(position, features, "forward")
        return features

    def encode(
        self,
        features: Tensor,  # shape: (batch, *feature)
    ) -> Tensor:  # shape: (batch, *symbol)
        """What crosses the cut: symbols of the last layer, or float32 features without one.

        Not charged: :meth:`release` and :meth:`forward` are.
        """
        for position in range(len(self.cut) - 1):
            features = self._at_layer(position, features, "forward")
        if not len(self.cut):
            return features.detach().to(torch.float32)
        return self._at_layer(len(self.cut) - 1, features, "encode")

    def _at_layer(self, position: int, features: Tensor, method: str) -> Tensor:
        layer = self.cut[position]
        try:
            passed: Tensor = layer(features) if method == "forward" else layer.encode(features)  # type: ignore[operator]
            return passed
        except SplitPrivError as error:
            where = f"SplitModel: cut[{position}] failed on features of shape {tuple(features.shape)}"
            raise type(error)(f"{where}: {error}") from error

    # Charging ------------------------------------------------------------------------------

    @eager
    def _charge_call(self, rows: int, ids: RecordIds | None) -> None:
        if ids is not None and len(ids) != rows:
            fix = "Give one id per record, in the order of the batch."
            raise InvalidParameterError(
                check.message("SplitModel", "ids", f"{rows} ids, one per record", f"{len(ids)} ids", fix)
            )
        self._warn_if_looped(ids)
        self._charge(rows, ids, "")
        if self.joint and torch.is_grad_enabled() and not accounting.simulating():
            self.edge_learned.fill_(True)

    def _charge(self, rows: int, ids: RecordIds | None, dataset: str) -> float:
        """Charge for ``rows`` rows before they are drawn; returns what the worst record pays."""
        found = self.price()
        learned = self.joint and bool(self.edge_learned)
        if learned or found.rows != 0:
            # Any record that the weights have learned from pays for all rows, whatever its id.
            cost = found.per_record(rows)
            cost = max(cost, scale_up(found.tied, rows)) if learned else cost
            ids = None
        else:
            cost = found.per_record()
        accounting.charge(cost, ids=ids, dataset=dataset)
        if math.isinf(cost) and not accounting.simulating():
            self._warn_unbounded(found.notes)
        return cost

    def _warn_unbounded(self, notes: tuple[str, ...]) -> None:
        if not self._warned_unbounded:
            self._warned_unbounded = True
            why = "; ".join(notes)
            warnings.warn(f"SplitModel: released with epsilon infinite: {why}.", PrivacyWarning, stacklevel=6)

    def _warn_if_looped(self, ids: RecordIds | None) -> None:
        if self.joint or ids is not None or accounting.simulating():
            return
        self._calls_without_ids += 1
        if self._calls_without_ids == 2:
            warnings.warn(
                "SplitModel: every forward call is a release and its cost adds up. With a frozen edge, use "
                "model.release(...) once and train the server on it; or pass ids= to tell records apart.",
                PrivacyWarning,
                stacklevel=5,
            )

    @eager
    def _refuse_batch_norm(self) -> None:
        for name, module in self.edge.named_modules():
            if isinstance(module, _BatchNorm) and (module.training or module.running_mean is None):
                raise PrivacyError(
                    f"SplitModel: edge must not normalise over the batch, got BatchNorm {name!r} using batch "
                    "statistics, which ties records together. Put the edge in eval mode, or use GroupNorm."
                )

    # Release -------------------------------------------------------------------------------

    def release(
        self,
        data: Any,
        batch_size: int = 256,
        ids: RecordIds | None = None,
        progress: bool = True,
        *,
        dataset: str = "",
    ) -> Release:
        """Send each record across the cut once; packed, labelled, priced and charged.

        Args:
            data: a Dataset of records or (record, label) pairs, a DataLoader that visits each
                record once, a tensor, or a pair of tensors (records, labels).
            batch_size: records per step of the edge, >= 1.
            ids: one str or int per record, in the order of ``data``; an id given twice pays twice.
            progress: show a progress bar.
            dataset: name of the set the ids belong to: equal ids of two names are two records.

        Returns:
            A :class:`~splitpriv.Release`: a Dataset of (decoded features, label).

        Raises:
            BudgetExceeded: a limit would be passed. Nothing is drawn or charged then.
            PrivacyError: the data have labels and ``labels`` was not declared; a DataLoader
                repeats records; BatchNorm on the edge.
            InvalidParameterError: ``data`` is empty or of another kind, ids do not fit.
        """
        return release_records(self, data, batch_size=batch_size, ids=ids, progress=progress, dataset=dataset)

    # Module --------------------------------------------------------------------------------

    def train(self, mode: bool = True) -> SplitModel:
        """Set the mode; a frozen edge stays in eval mode."""
        super().train(mode)
        if not self.joint:
            self.edge.eval()
        return self

    def extra_repr(self) -> str:
        """What is declared, and what one record pays."""
        if self._feature_shape is None:
            cost = "ε per record: unknown before the first use" if len(self.cut) else "ε ∞ per record"
        else:
            cost = str(self.price())
        labels = {"public": "public (ε covers features only)", "private": "private, unprotected (ε ∞)"}
        edge = "joint training" if self.joint else "frozen"
        return f"{cost}; edge: {edge}, {self.edge_data} data; labels: {labels.get(self.labels or '', 'none')}"


def _module(name: str, value: Any) -> nn.Module:
    if not isinstance(value, nn.Module):
        raise InvalidParameterError(check.message("SplitModel", name, "an nn.Module", value))
    return value


def _cut_layers(cut: Any) -> list[nn.Module]:
    layers = [] if cut is None else [cut] if isinstance(cut, nn.Module) and not _is_chain(cut) else list(cut)
    for position, layer in enumerate(layers):
        missing = [name for name in ("encode", "decode", "log_prob", "spend") if not hasattr(layer, name)]
        if missing or not isinstance(layer, nn.Module):
            fix = f"It lacks {', '.join(missing)}." if missing else ""
            constraint = "a privacy layer (nn.Module with encode, decode, log_prob, spend)"
            raise InvalidParameterError(
                check.message("SplitModel", f"cut[{position}]", constraint, type(layer).__name__, fix)
            )
    return layers


def _is_chain(cut: nn.Module) -> bool:
    return isinstance(cut, (nn.Sequential, nn.ModuleList)) and not hasattr(cut, "encode")
