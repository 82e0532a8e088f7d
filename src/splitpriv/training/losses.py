"""Losses that know the channel which the labels went through."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from splitpriv import _validation as check
from splitpriv._errors import InvalidParameterError

Loss = Callable[[Tensor, Tensor], Tensor]


def forward_corrected(
    channel: Tensor,  # shape: (classes, labels)
) -> Loss:
    r"""Cross-entropy against released labels, right for the true ones.

    .. math:: -\ln \sum_y \mathrm{softmax}(o)_y \, \Pr[z \mid y]

    for outputs o and a released label z: the outputs are passed through the label channel before they
    are compared with what came out of it, so that its minimiser predicts the *true* label.

    Args:
        channel: ``release.label_channel``: Pr[released label | true label], rows sum to one.

    Returns:
        ``loss(outputs, labels)``, outputs (batch, classes), labels (batch,) integers; for ``fit`` or for
        a loop of one's own.

    Raises:
        InvalidParameterError: ``channel`` is not a matrix of probabilities whose rows sum to one.

    Source: forward correction, Patrini, Rozza, Menon, Nock, Qu 2017, theorem 2.

    Example:
        >>> loss = forward_corrected(torch.tensor([[0.9, 0.1], [0.1, 0.9]]))
        >>> round(float(loss(torch.tensor([[100.0, 0.0]]), torch.tensor([1]))), 4)  # -ln 0.1
        2.3026
    """
    fits = isinstance(channel, Tensor) and channel.ndim == 2 and channel.is_floating_point()
    if not fits or bool((channel < 0).any()) or not torch.allclose(channel.sum(1), torch.ones(()).to(channel)):
        constraint = "a matrix of probabilities whose rows sum to one"
        raise InvalidParameterError(check.message("forward_corrected", "channel", constraint, channel))
    logs = channel.log()

    def loss(outputs: Tensor, labels: Tensor) -> Tensor:
        released = logs.T.to(outputs)[labels.long()]  # shape: (batch, classes)
        return -torch.logsumexp(torch.log_softmax(outputs, 1) + released, 1).mean()

    return loss
