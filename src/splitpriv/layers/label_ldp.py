"""Randomized response on the label of each record."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from fractions import Fraction
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from splitpriv import _validation as check
from splitpriv._errors import InvalidParameterError, ShapeError
from splitpriv.accounting.spend import Spend
from splitpriv.layers.compilation import eager
from splitpriv.mechanisms import Channel, make_source
from splitpriv.mechanisms.k_ary import k_ary_response, most_likely_kept
from splitpriv.mechanisms.rounding import show

_MAX_CLASSES = 1 << 10  # the table has classes**2 entries


class LabelLDP:
    r"""Each class label is kept with probability e^ε/(e^ε+k-1), else becomes another of k classes.

    .. math:: \Pr[s = y] = \frac{e^\epsilon}{e^\epsilon + k - 1}, \qquad
              \Pr[s = y'] = \frac{1}{e^\epsilon + k - 1} \text{ for each } y' \ne y \text{ of the } k

    in whole numbers, so that ε is exact, and at most the one asked. Without a prior all classes count:
    k = ``classes``. With a public prior only its k most probable ones are ever released
    (RRWithPrior): k maximises :math:`e^\epsilon/(e^\epsilon + k - 1)` times the sum of the k largest
    probabilities, the chance that a label drawn from the prior is released unchanged. A label
    outside those k becomes a uniform draw of them. Local differential privacy for any two labels of
    a record, whether the prior is right or wrong.

    No ``nn.Module``, and not for ``cut``: pass it as ``SplitModel(..., labels=LabelLDP(...))``, whose
    releases then carry released labels in place of true ones, and pay for them.

    Args:
        classes: number of classes, an integer in [2, 1024].
        epsilon: privacy loss of one label (natural log), finite and > 0.
        prior: ``classes`` probabilities that sum to one. Take it from public data: the claim does
            not cover it. None treats all classes alike.
        generator: None for secure noise; an int or a CPU ``torch.Generator`` for experiments.

    Shape:
        labels ``(batch,)``, any integer dtype, in [0, classes); symbols likewise, int64.

    Raises:
        InvalidParameterError: a parameter is outside its range, or the prior is so uneven that at this
            epsilon one class alone would be released, whatever the label.

    Does not protect: the number of records, the prior, the features (their ε is added to this
    one). A class that is never released cannot be learned from these labels. Several releases of one
    label add up.

    Source: Warner 1965 and Kairouz, Oh, Viswanath 2014 for k-ary randomized response; Ghazi, Golowich,
    Kumar, Manurangsi, Zhang 2021, algorithms RRTop-k and RRWithPrior.

    Example:
        >>> layer = LabelLDP(10, epsilon=1.0)
        >>> released = layer.encode(torch.tensor([3, 1, 4]))
        >>> layer
        LabelLDP(ε 1 per label; randomized response over 10 classes; secure noise)
        >>> LabelLDP(4, epsilon=1.0, prior=[0.45, 0.45, 0.05, 0.05]).kept
        (0, 1)
    """

    def __init__(
        self,
        classes: int,
        *,
        epsilon: float,
        prior: Sequence[float] | Tensor | None = None,  # shape: (classes,)
        generator: int | torch.Generator | None = None,
    ) -> None:
        fix = "Declare public labels, or release none, to send them without noise."
        self.classes = check.integer("LabelLDP", "classes", classes, 2, _MAX_CLASSES)
        self.asked = check.positive("LabelLDP", "epsilon", epsilon, fix)
        kept = list(range(self.classes))
        if prior is not None:
            kept = most_likely_kept(_probabilities(prior, self.classes), epsilon=self.asked)
        if len(kept) < 2:
            fix = f"Class {kept[0]} would be released for every label. Use a larger epsilon, or no prior."
            constraint = f"less one-sided at epsilon={self.asked!r}"
            raise InvalidParameterError(check.message("LabelLDP", "prior", constraint, prior, fix))
        self.kept: tuple[int, ...] = tuple(kept)
        self._source = make_source(_own_stream(generator))
        _ = self._channel  # an epsilon that cannot be met is refused here

    # Cost ----------------------------------------------------------------------------------

    @property
    def epsilon(self) -> float:
        """Realised epsilon of one label (natural log), at most the one asked."""
        return self._channel.epsilon

    @property
    def secure(self) -> bool:
        """False when the noise comes from a seed."""
        return self._source.secure

    def spend(self, shape: Sequence[int] | None = None) -> Spend:
        """What one release of one label costs: one use. ``shape`` is not looked at: a label has none."""
        return Spend.of(self.epsilon, 1)

    def channel(self, shape: Sequence[int] | None = None) -> Channel:
        """The channel that each label passes through, ``classes`` symbols to ``classes`` symbols."""
        return self._channel

    @cached_property
    def _channel(self) -> Channel:
        return k_ary_response(self.classes, kept=self.kept, epsilon=self.asked)

    @cached_property
    def _transition(self) -> Tensor:
        total = self._channel.total
        rows = [[float(Fraction(entry, total)) for entry in row] for row in self._channel.table()]
        return torch.tensor(rows, dtype=torch.float64)

    @property
    def transition(self) -> Tensor:  # shape: (classes, classes), float64
        """Pr[released label | true label], one row per true label; what a server corrects its loss by."""
        return self._transition.clone()

    # Release -------------------------------------------------------------------------------

    @eager
    def encode(
        self,
        labels: Tensor,  # shape: (batch,), integers in [0, classes)
    ) -> Tensor:  # shape: (batch,), int64 in [0, classes)
        """Private: the released labels, with fresh noise at each call.

        Raises:
            ShapeError: not an integer tensor of shape (batch,) with values in [0, classes).
        """
        return self._channel.sample(self.quantize(labels), self._source).long()

    def quantize(
        self,
        labels: Tensor,  # shape: (batch,), integers in [0, classes)
    ) -> Tensor:  # shape: (batch,), int64
        """The labels themselves, checked; private."""
        return self._checked(labels, "labels").detach().long()

    def decode(
        self,
        symbols: Tensor,  # shape: (batch,), integers in [0, classes)
    ) -> Tensor:  # shape: (batch,), int64
        """Public: the identity, since a symbol is a class.

        Raises:
            ShapeError: not an integer tensor of shape (batch,) with values in [0, classes).
        """
        return self._checked(symbols, "symbols").long()

    def log_prob(
        self,
        symbols: Tensor,  # shape: (batch,), integers in [0, classes)
        labels: Tensor,  # shape: (batch,), integers in [0, classes)
    ) -> Tensor:  # shape: (batch,), float64
        """ln Pr[symbol | label], exact for the integers that run; -inf for a class never released.

        Raises:
            ShapeError: either is not an integer tensor of shape (batch,) with values in [0, classes).
        """
        return self._channel.log_prob(self._checked(symbols, "symbols"), self._checked(labels, "labels"))

    def _checked(self, given: Any, name: str) -> Tensor:
        if not isinstance(given, Tensor) or given.ndim != 1:
            got = f"shape={tuple(given.shape)}" if isinstance(given, Tensor) else type(given).__name__
            raise ShapeError(f"LabelLDP: {name} must be a torch.Tensor of shape (batch,), got {got}.")
        if given.is_floating_point() or given.is_complex() or given.dtype == torch.bool:
            fix = "A label is the number of its class; convert with .long()."
            raise ShapeError(f"LabelLDP: {name} must have an integer dtype, got dtype={given.dtype}. {fix}")
        low, high = (int(v) for v in torch.aminmax(given.long())) if given.numel() else (0, 0)
        if low < 0 or high >= self.classes:
            raise ShapeError(f"LabelLDP: {name} must be in [0, {self.classes}), got others (not shown).")
        return given

    def __getstate__(self) -> dict[str, Any]:
        # Tables of classes**2 entries are made again where they are needed.
        return {name: value for name, value in self.__dict__.items() if name not in ("_channel", "_transition")}

    def __repr__(self) -> str:
        among = f"{len(self.kept)} of " if len(self.kept) < self.classes else ""
        noise = "secure noise" if self.secure else f"noise from {self._source!r}"
        claim = f"randomized response over {among}{self.classes} classes"
        return f"LabelLDP(ε {show(self.epsilon)} per label; {claim}; {noise})"


def _own_stream(generator: Any) -> Any:
    """A seed of labels alone: a layer at the cut with the same seed must not draw the same noise."""
    if isinstance(generator, int) and not isinstance(generator, bool) and 0 <= generator < 1 << 63:
        return int.from_bytes(hashlib.sha256(b"splitpriv labels %d" % generator).digest()[:8], "big") >> 1
    return generator


def _probabilities(prior: Sequence[float] | Tensor, classes: int) -> list[Fraction]:
    """A prior as exact fractions; a sum off by the rounding of floats is let pass."""
    constraint = f"{classes} finite numbers >= 0 that sum to one"
    try:
        given: Any = prior.detach().cpu().tolist() if isinstance(prior, Tensor) else list(prior)
        exact = [Fraction(number) for number in given]
    except (TypeError, ValueError, OverflowError):
        raise InvalidParameterError(check.message("LabelLDP", "prior", constraint, prior)) from None
    if len(exact) != classes or min(exact) < 0 or abs(sum(exact, Fraction(-1))) > Fraction(1, 10**5):
        raise InvalidParameterError(check.message("LabelLDP", "prior", constraint, prior))
    return exact
