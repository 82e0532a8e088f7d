"""What a membership attacker reads off logits, as scores: higher means more like a member. In float64, stable."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def loss(logits: Tensor, labels: Tensor) -> Tensor:  # shapes: (..., records, classes), (records,) -> (..., records)
    """ln p(label): the negative cross-entropy. Source: Yeom, Giacomelli, Fredrikson, Jha 2018."""
    return _at(_logs(logits)[0], labels)


def confidence(logits: Tensor, labels: Tensor) -> Tensor:
    """ln of the largest probability; blind to the label. Source: Salem et al. 2019."""
    return _logs(logits)[0].amax(-1)


def entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Negative entropy of the probabilities; blind to the label. Source: Salem et al. 2019."""
    logs, _ = _logs(logits)
    return (logs.exp() * logs).sum(-1)


def modified_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """(1 - p_y) ln p_y + sum over the other classes of p_i ln(1 - p_i). Source: Song, Mittal 2021, equation 8."""
    logs, rest = _logs(logits)
    own = F.one_hot(labels, logits.shape[-1]).bool()
    others = (logs.exp() * rest).masked_fill(own, 0.0)  # taken out of a sum, the label's term would leave nothing
    return _at(rest, labels).exp() * _at(logs, labels) + others.sum(-1)


def scaled_confidence(logits: Tensor, labels: Tensor) -> Tensor:
    """ln p_y - ln(1 - p_y), without cancellation. Source: Carlini et al. 2022, section VI-A (logit scaling)."""
    logs, rest = _logs(logits)
    return _at(logs, labels) - _at(rest, labels)


def _logs(logits: Tensor) -> tuple[Tensor, Tensor]:
    """ln p_i and ln(1 - p_i) of each class: of the two, that of the larger share from the other, so that it is no 0."""
    logs = torch.log_softmax(logits.double(), -1)
    # The log-sum of the other classes: of those before it and those behind it.
    least = torch.full_like(logs[..., :1], -torch.inf)
    before = torch.cat([least, torch.logcumsumexp(logs, -1)[..., :-1]], -1)
    behind = torch.cat([least, torch.logcumsumexp(logs.flip(-1), -1)[..., :-1]], -1).flip(-1)
    rest, half = torch.logaddexp(before, behind), -math.log(2)
    of_one, of_rest = torch.log1p(-rest.exp()), torch.log1p(-logs.exp())
    return torch.where(logs > half, of_one, logs), torch.where(logs < half, of_rest, rest)


def _at(values: Tensor, labels: Tensor) -> Tensor:
    return values.gather(-1, labels.expand(values.shape[:-1]).unsqueeze(-1)).squeeze(-1)


SIGNALS = {"loss": loss, "confidence": confidence, "entropy": entropy, "modified entropy": modified_entropy}
