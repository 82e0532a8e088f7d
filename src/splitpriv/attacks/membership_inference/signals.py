"""What a membership attacker reads off logits, as scores: higher means more like a member. In float64, stable."""

from __future__ import annotations

import torch
from torch import Tensor


def loss(logits: Tensor, labels: Tensor) -> Tensor:  # shapes: (..., records, classes), (records,) -> (..., records)
    """ln p(label): the negative cross-entropy. Source: Yeom, Giacomelli, Fredrikson, Jha 2018."""
    return _at(torch.log_softmax(logits.double(), -1), labels)


def confidence(logits: Tensor, labels: Tensor) -> Tensor:
    """ln of the largest probability; blind to the label. Source: Salem et al. 2019."""
    return torch.log_softmax(logits.double(), -1).amax(-1)


def entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Negative entropy of the probabilities; blind to the label. Source: Salem et al. 2019."""
    logs = torch.log_softmax(logits.double(), -1)
    return (logs.exp() * logs).sum(-1)


def modified_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """(1 - p_y) ln p_y + sum over the other classes of p_i ln(1 - p_i). Source: Song, Mittal 2021, equation 8."""
    logs, rest = torch.log_softmax(logits.double(), -1), _log_rest(logits)
    return _at(rest, labels).exp() * _at(logs, labels) + (logs.exp() * rest).sum(-1) - _at(logs.exp() * rest, labels)


def scaled_confidence(logits: Tensor, labels: Tensor) -> Tensor:
    """ln p_y - ln(1 - p_y), without cancellation. Source: Carlini et al. 2022, section VI-A (logit scaling)."""
    return _at(torch.log_softmax(logits.double(), -1), labels) - _at(_log_rest(logits), labels)


def _log_rest(logits: Tensor) -> Tensor:
    """ln(1 - p_i) for each class: the log-sum of the others, by what is before and what is behind it."""
    logs = torch.log_softmax(logits.double(), -1)
    least = torch.full_like(logs[..., :1], -torch.inf)
    before = torch.cat([least, torch.logcumsumexp(logs, -1)[..., :-1]], -1)
    behind = torch.cat([least, torch.logcumsumexp(logs.flip(-1), -1)[..., :-1]], -1).flip(-1)
    return torch.logaddexp(before, behind)


def _at(values: Tensor, labels: Tensor) -> Tensor:
    return values.gather(-1, labels.expand(values.shape[:-1]).unsqueeze(-1)).squeeze(-1)


SIGNALS = {"loss": loss, "confidence": confidence, "entropy": entropy, "modified entropy": modified_entropy}
