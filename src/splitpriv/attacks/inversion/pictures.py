"""Originals over what attackers made of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from splitpriv.attacks.inversion.smoothness import is_image
from splitpriv.attacks.plotting import new_figure


def pictures(originals: Tensor | None, found: Sequence[tuple[str, Tensor]], records: int) -> Any:
    """A matplotlib figure with a row for the originals and one for each attack; bars where inputs are no images."""
    rows = ([] if originals is None else [("original", originals)]) + list(found)
    columns = min(records, len(rows[0][1]))
    span = [float(limit) for limit in torch.stack([torch.stack(x.float().cpu().aminmax()) for _, x in rows]).aminmax()]
    figure, axes = new_figure(len(rows), columns, width=1.1 * columns + 1, height=1.2 * len(rows) + 0.3)
    for line, (name, inputs) in zip(axes, rows, strict=True):
        for axis, one in zip(line, inputs[:columns].detach().float().cpu(), strict=True):
            _draw(axis, one, span)
        line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8)
    return figure


def _draw(axis: Any, one: Tensor, span: list[float]) -> None:
    axis.set_xticks([])
    axis.set_yticks([])
    if is_image(one.shape) and one.shape[0] in (1, 3):
        shown = np.clip(one.numpy(), 0, 1).transpose(1, 2, 0)
        axis.imshow(shown if one.shape[0] == 3 else shown[..., 0], cmap="gray", vmin=0, vmax=1)
    else:
        values = one.flatten().numpy()
        axis.bar(range(len(values)), values, width=1.0)
        axis.set_ylim(min(0.0, span[0]), max(0.0, span[1]) or 1.0)  # one scale, so that rows can be compared
