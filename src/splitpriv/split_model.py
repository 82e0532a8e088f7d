"""SplitModel: an edge, what stands at the cut, and a server, composed, frozen, priced, released."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from splitpriv import _validation as check
from splitpriv._errors import InvalidParameterError, PrivacyError
from splitpriv._modes import modes_kept
from splitpriv.accounting import Price, Spend
from splitpriv.cache import ReleaseCache
from splitpriv.charges import charge_call
from splitpriv.cut import Cut
from splitpriv.cutting import split
from splitpriv.independence import one_row_per_record, refuse_batch_statistics, refuse_mixing, refuse_shared_tensors
from splitpriv.labelling import Labels, spent
from splitpriv.layers.compilation import eager
from splitpriv.layers.embedded_labels import EmbeddedLabels
from splitpriv.layers.label_ldp import LabelLDP
from splitpriv.memoised import send_batch
from splitpriv.release import Release
from splitpriv.releasing import release_records

RecordIds = Sequence[str | int] | Tensor
_LEARNED = "_splitpriv_learned"  # mark on an edge whose weights were trained on raw records


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
            features only), ``"private"`` (∞: nothing protects them), a :class:`~splitpriv.LabelLDP`
            (released labels travel, and its ε is part of the record's), :class:`~splitpriv.EmbeddedLabels`
            (inside the features, covered by their ε), or None where none travel.

    Raises:
        InvalidParameterError: a parameter is outside its range, or a cut layer does not satisfy
            the :class:`~splitpriv.PrivacyLayer` protocol.

    Does not protect: the edge's weights (joint or private ones are ∞ when exported), the order
    and number of records, anything that custom code in the edge mixes between records (BatchNorm
    is refused, and so is what shows on the first and last row of a batch; more is not detected).

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
        labels: str | LabelLDP | EmbeddedLabels | None = None,
    ) -> None:
        super().__init__()
        self._joint: bool = check.choice("SplitModel", "joint", joint, (True, False))
        self.edge_data: str = check.choice("SplitModel", "edge_data", edge_data, ("public", "private"))
        self.labels = labels
        if edge_records is not None:
            check.integer("SplitModel", "edge_records", edge_records, 1)
            if edge_data == "public":
                fix = 'Declare edge_data="private".'
                raise InvalidParameterError(
                    check.message("SplitModel", "edge_records", "None with a public edge", edge_records, fix)
                )
        self.edge_records = edge_records
        self.edge, self.cut = check.module("SplitModel", "edge", edge), Cut(cut)
        self.server = check.module("SplitModel", "server", server)
        refuse_shared_tensors([self.edge, self.cut], self.server)
        self._feature_shape: tuple[int, ...] | None = None
        self._first_call: Any = None
        self._warned_unbounded = False
        # Whether the edge has learned from raw records: in the state_dict, and as a mark on the edge.
        self.register_buffer("edge_learned", torch.tensor(getattr(edge, _LEARNED, False), dtype=torch.bool))
        self.register_load_state_dict_post_hook(_mark_loaded)  # type: ignore[no-untyped-call]
        if not self.joint:
            self.edge.requires_grad_(False).eval()
            self.cut.requires_grad_(False).eval()

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

        The halves share the model's parameters, and the edge's are frozen in it: pass a
        ``copy.deepcopy`` to keep the model as it is, or to try one cut after another. With an
        ``example_input`` (public: it does not cross) the cut is verified, and the feature shape,
        hence every price, is known at once.

        Args:
            model: any module that :func:`splitpriv.split` can cut.
            at: name of the last module of the edge.
            cut: see the class.
            example_input: a public batch of two or more records, one tensor.
            options: keyword arguments of the class.

        Raises:
            CutError: the model cannot be cut there.
            PrivacyError: on the example, a row of the edge depends on other records.
            InvalidParameterError: ``example_input`` is not one tensor, or an option is out of range.
        """
        edge, server = split(model, at, example_input)
        wrapped = cls(edge, server, cut, **options)
        if example_input is not None:
            wrapped._learn_shape(example_input)
        return wrapped

    def _learn_shape(self, example: Tensor) -> None:
        if not isinstance(example, Tensor):
            fix = "Fix the other inputs in a module of your own, or cut behind where they are used up."
            kind = type(example).__name__
            raise InvalidParameterError(f"SplitModel: example_input must be one tensor, got {kind}. {fix}")
        with modes_kept(self.edge), torch.no_grad():
            self.edge.eval()
            features = self._checked(self.edge(example), example)
            refuse_mixing(self.edge, example, features)
        shape = self._labels.shape(features.shape[1:])
        self.price(shape)  # refuses layers that do not fit
        self._feature_shape = shape

    @property
    def joint(self) -> bool:
        """Whether both halves are trained."""
        return self._joint

    @property
    def labels(self) -> str | None:
        """What labels that travel are: "public", "private", "ldp", "embedded", or None where none do."""
        return self._labels.kind

    @labels.setter
    def labels(self, declared: str | LabelLDP | EmbeddedLabels | None) -> None:
        self._labels = Labels.of(declared)

    @property
    def label_layer(self) -> LabelLDP | None:
        """The mechanism that releases labels; None unless ``labels`` is "ldp"."""
        return self._labels.layer

    # Cost ----------------------------------------------------------------------------------

    @property
    def feature_shape(self) -> tuple[int, ...] | None:
        """Shape of the features that reach the cut, without batch; None before the first use."""
        return self._feature_shape

    def price(self, shape: Sequence[int] | None = None) -> Price:
        """What one record's features and its label's mechanism pay, and why. See :meth:`spend` for the arguments."""
        return self._labels.priced(self._features_price(shape))

    def _features_price(self, shape: Sequence[int] | None) -> Price:
        known = self._feature_shape if shape is None else check.feature_shape("SplitModel", shape)
        if known is None:
            raise PrivacyError(
                "SplitModel: shape must be known to price a record, got shape=None before the first use. "
                "Give example_input to from_model, or the shape of the features at the cut."
            )
        edge_records = 0 if self.edge_data == "public" else self.edge_records
        if edge_records == 0 and not self.joint and self._has_learned():
            edge_records = None  # trained jointly before, on nobody knows how many records
        return self.cut.price(known, edge_records=edge_records)

    def spend(self, shape: Sequence[int] | None = None) -> Spend:
        """What one release of one labelled record costs, labels that are not public included.

        Args:
            shape: shape of the features at the cut, without batch; None for the one last seen.

        One row: records that the edge or an encoder has learned from also pay for the rows that are
        released beside it (``price().per_record(rows)``), and the ledger charges them.

        Raises:
            PrivacyError: no shape is given, and none has been seen yet.
        """
        found = self.price(shape)
        if self.labels != "private" and found.rows == 0:
            return found.spend
        return spent(found, math.inf if self.labels == "private" else found.per_record())

    # Forward -------------------------------------------------------------------------------

    def forward(
        self,
        x: Tensor,  # shape: (batch, *input)
        ids: RecordIds | None = None,
        dataset: str = "",
        cache: ReleaseCache | None = None,
    ) -> Tensor:
        """``server(cut(edge(x)))``: one release of every record in the batch, charged first; no label travels.

        Args:
            x: raw records.
            ids: one str or int per record; without ids the charge counts for every record.
            dataset: name of the set the ids belong to; see :class:`~splitpriv.accounting.Ledger`.
            cache: gives records that were sent before the same symbols again, at no cost; needs ids.

        Raises:
            BudgetExceeded: a limit would be passed. Nothing is drawn then.
            PrivacyError: BatchNorm on the edge would tie the records of the batch together, or the
                edge or a layer is one that a cache is not for.
            ShapeError, NonFiniteError: the features do not fit the cut.
        """
        self._labels.refuse_call()
        if cache is not None and len(x):
            recalled: Tensor = self.server(send_batch(self, x, ids, dataset, cache))
            return recalled
        features = self._features(x)
        if len(features):  # an empty batch releases nothing
            charge_call(self, features, ids, dataset)
        output: Tensor = self.server(self.cut(features))
        return output

    def _features(self, x: Tensor) -> Tensor:
        if not self.joint and self.edge.training:
            self.edge.eval()  # someone switched it by hand
        self._refuse_batch_statistics()
        with torch.set_grad_enabled(self.joint and torch.is_grad_enabled()):
            return self._checked(self.edge(x), x)

    @eager
    def _refuse_batch_statistics(self) -> None:
        refuse_batch_statistics("edge", self.edge)
        refuse_batch_statistics("cut", self.cut)

    @eager
    def _checked(self, features: Any, x: Tensor | None) -> Tensor:
        return one_row_per_record(features, x)

    # Charging ------------------------------------------------------------------------------

    def _learn(self) -> None:
        self.edge_learned.fill_(True)
        setattr(self.edge, _LEARNED, True)  # goes with the edge, should it be wrapped again

    def _has_learned(self) -> bool:
        return bool(self.edge_learned) or getattr(self.edge, _LEARNED, False)

    # Release -------------------------------------------------------------------------------

    def release(
        self,
        data: Any,
        batch_size: int = 256,
        ids: RecordIds | None = None,
        progress: bool = True,
        *,
        dataset: str = "",
        anonymous: bool = False,
        cache: ReleaseCache | None = None,
    ) -> Release:
        """Send each record across the cut once; packed, labelled, priced and charged.

        Args:
            data: a Dataset of records or (record, label) pairs, a DataLoader that visits each
                record once, a tensor, or a pair of tensors (records, labels).
            batch_size: records per step of the edge, >= 1.
            ids: one str or int per record, in the order of ``data``; an id given twice pays twice.
            progress: show a progress bar.
            dataset: name of the set the ids belong to: equal ids of two names are two records.
            anonymous: put the records, symbols and labels together, in a secret random order, and refuse
                what else says which is whose: ids, edges and encoders that have learned from records,
                defences, layers whose symbols show their place, labels not released by a mechanism. It
                hides neither where and when a release comes from (network addresses, timing), nor
                anyone in a small one; several releases are mixed within each of them only.
            cache: gives records that were sent before the same symbols and labels again, at no cost; needs
                ids, and an id given twice then is one record, sent and paid once.

        Returns:
            A :class:`~splitpriv.Release`: a Dataset of (decoded features, label).

        Raises:
            BudgetExceeded: a limit would be passed. Nothing is drawn or charged then (but with a cache maybe labels).
            PrivacyError: the data have labels and ``labels`` was not declared; a DataLoader
                repeats records; BatchNorm on the edge; ``anonymous`` where rows can be told apart.
            InvalidParameterError: ``data`` is empty or of another kind, ids do not fit.
            NonFiniteError, ShapeError: features do not fit. What was charged by then stays charged, since
                noise may have been drawn: look for bad records before the release, or use a cache, with which
                the same release tried again does not pay again.
            LedgerFileError: the file of a ledger or of the cache cannot be read or written. Nothing is
                handed on that was not charged, and with a cache stored, before.
        """
        how: dict[str, Any] = {"progress": progress, "dataset": dataset, "anonymous": anonymous, "cache": cache}
        return release_records(self, data, batch_size=batch_size, ids=ids, **how)

    # Inference on the edge -----------------------------------------------------------------

    def local(
        self,
        x: Tensor,  # shape: (batch, *input)
    ) -> Tensor:
        """Clean inference: all on the edge device, in eval mode, without noise; nothing crosses or is charged.

        ``server(clean(x))`` without gradients; see :meth:`clean`.

        Raises:
            InvalidParameterError: a mechanism at the cut has no ``expected``.
            PrivacyError, ShapeError, NonFiniteError: as in :meth:`forward`.

        Does not protect: the result. To send it on is a release without a mechanism, that no ledger sees.
        """
        with modes_kept(self), torch.no_grad():
            self.eval()
            output: Tensor = self.server(self._clean(x))
        return output

    def clean(
        self,
        x: Tensor,  # shape: (batch, *input)
    ) -> Tensor:  # shape: (batch, *released)
        """Clean features: what the released ones are around, on the edge device, uncharged.

        ``c(edge(x))`` in eval mode without gradients, where ``c`` runs the layers of the cut in turn: a
        mechanism's ``expected`` in place of a draw, a defence as it is. That is the exact mean of what would
        cross for one mechanism, and affine defences behind it; any other layer behind a mechanism makes
        of that mean what it makes of features. Of public records they are what ``fit(public=...)`` takes.

        Raises:
            InvalidParameterError: a mechanism at the cut has no ``expected``.
            PrivacyError, ShapeError, NonFiniteError: as in :meth:`forward`.

        Does not protect: the result. To send it on is a release without a mechanism, that no ledger sees.
        """
        with modes_kept(self), torch.no_grad():
            self.eval()
            return self._clean(x)

    def _clean(self, x: Tensor) -> Tensor:
        return self._labels.clean(self._features(x), self.cut.expected)

    # Module --------------------------------------------------------------------------------

    def __setattr__(self, name: str, value: Any) -> None:
        # Another layer may be put at the cut; it is checked and frozen like the first.
        if name == "cut" and not isinstance(value, Cut):
            value = Cut(value)
            if not self.joint:
                value.requires_grad_(False).eval()
        super().__setattr__(name, value)

    def train(self, mode: bool = True) -> SplitModel:
        """Set the mode; a frozen edge and its cut stay in eval mode."""
        super().train(mode)
        if not self.joint:
            self.edge.eval()
            self.cut.eval()
        return self

    def extra_repr(self) -> str:
        """What is declared, and what one record pays."""
        if self._feature_shape is None:
            cost = "ε per record: unknown before the first use" if len(self.cut) else "ε ∞ per record"
        else:
            cost = str(self.price())
        joint = "trained jointly, so a record pays for every row after its first gradient"
        edge = joint if self.joint else f"frozen, {self.edge_data} data"
        return f"{cost}; edge: {edge}; labels: {self._labels}"


def _mark_loaded(model: SplitModel, keys: object) -> None:
    if model.edge_learned:
        model._learn()
