"""What would tie the records of a batch together, and so break the record as the unit of privacy."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.instancenorm import _InstanceNorm

from splitpriv import _validation as check
from splitpriv._errors import InvalidParameterError, PrivacyError, ShapeError
from splitpriv._validation import message


def refuse_batch_statistics(part: str, root: nn.Module) -> None:
    """Refuse BatchNorm on the statistics of the batch, and InstanceNorm that learns running ones."""
    for name, module in root.named_modules():
        if not isinstance(module, _NormBase):
            continue
        if isinstance(module, _InstanceNorm):
            tied = module.training and module.track_running_stats
        else:
            tied = module.training or module.running_mean is None
        if tied:
            raise PrivacyError(
                f"SplitModel: {part} must not normalise over the batch, got BatchNorm {name!r} using batch "
                "statistics, which ties records together. Put it in eval mode, or use GroupNorm."
            )


def one_row_per_record(features: Any, x: Any) -> Tensor:
    """What an edge made of ``x``, if it is one finite floating-point tensor with a row for each record."""
    if not isinstance(features, Tensor):
        raise ShapeError(f"SplitModel: edge must return one tensor, got {type(features).__name__}.")
    checked = check.features("SplitModel", features)
    if isinstance(x, Tensor) and len(checked) != len(x):
        got = f"{len(checked)} rows for {len(x)} records"
        raise ShapeError(f"SplitModel: edge must return one row per record, got {got}.")
    return checked


@torch.no_grad()
def refuse_mixing(
    edge: nn.Module,
    x: Tensor,  # shape: (batch, *input)
    features: Tensor,  # shape: (batch, *feature), what the edge made of x in eval mode
) -> None:
    """Refuse an edge in which the first or the last row changes when the other records are absent.

    A sequence layer that takes time for the batch does that. What shows on neither row is not seen.
    """
    room = max(1e-3, 16 * torch.finfo(features.dtype).eps) * float(features.abs().max())
    for row in {0, len(x) - 1} if len(x) > 1 else ():
        alone = edge(x[row : row + 1])
        if alone.shape[1:] != features.shape[1:] or float((alone[0] - features[row]).abs().max()) > room:
            raise PrivacyError(
                "SplitModel: edge must treat each record by itself, got one whose rows depend on one another. "
                "Sequence layers need batch_first=True."
            )


def refuse_shared_tensors(private: list[nn.Module], server: nn.Module) -> None:
    """Refuse a server that holds a parameter or a buffer of the edge or of the cut."""
    held = {id(tensor) for part in private for tensor in (*part.parameters(), *part.buffers())}
    tensors = (*server.named_parameters(), *server.named_buffers())
    shared = [name for name, tensor in tensors if id(tensor) in held]
    if shared:
        fix = "Give the server a copy of its own."
        constraint = "free of the edge's tensors"
        raise InvalidParameterError(message("SplitModel", "server", constraint, ", ".join(shared), fix))
