"""Features to symbols on the device where the features are, with noise that is drawn there.

The law is that of the CPU, from the same integers; the words come from ChaCha20 under a key that the layer's
own source gives for each call. On CUDA one kernel of Triton does nearly all of it, after it has given the same
symbols as the operations of torch here on that very device; where it cannot be had, those do.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from splitpriv import _validation as check
from splitpriv._errors import PrivacyError
from splitpriv.mechanisms import DiscreteLaplace, RandomizedResponse, Source
from splitpriv.mechanisms.chacha import draw_key, key_words, known_answer
from splitpriv.mechanisms.device_draw import TILE, DeviceDraw, device_draw, leading_words

DEVICES = ("cuda",)
"""Types of device where noise may be drawn; tests add the CPU."""

_STEP = 1 << 12  # tiles at a time: temporaries of about 30 bytes per element, half a gigabyte
_TRIED_BITS = RandomizedResponse(epsilon=1.0)
_TRIED_GRID = DiscreteLaplace(epsilon=1.0, levels=129)
_given_up: set[torch.device] = set()


def serves(device: torch.device) -> bool:
    """Whether noise may be drawn on a device."""
    return device.type in DEVICES


def draw_bits(
    owner: str,
    features: Tensor,  # shape: (batch, *feature)
    threshold: Tensor,  # shape: () or as broadcasts with features, float32, on their device
    channel: RandomizedResponse,
    source: Source,
) -> Tensor:  # shape: (batch, *feature), uint8
    """One randomised bit ``x > threshold`` for each element.

    Raises:
        NonFiniteError: features hold NaN or infinity, wherever; nothing is returned then.
        PrivacyError: a CUDA graph is being captured, or the device computes ChaCha20 wrong.
    """

    def bits() -> Tensor:
        wide = _wide(features)
        return (wide > threshold.to(wide.dtype)).to(torch.int8)

    options = {"threshold": threshold.float()} if threshold.ndim == 0 else None
    return _draw(owner, features, bits, channel, source, options).view(torch.uint8)


def draw_grid(
    owner: str,
    features: Tensor,  # shape: (batch, *feature)
    width: float,
    outside: str,
    channel: DiscreteLaplace,
    source: Source,
) -> Tensor:  # shape: (batch, *feature), the channel's symbol_dtype
    """The grid point of each element in an interval of this width, with the channel's noise.

    Raises:
        NonFiniteError, PrivacyError: see :func:`draw_bits`.
    """
    steps = channel.inputs - 1
    drawn = _draw(
        *(owner, features, lambda: grid_points(features, width, outside, steps)),
        *(channel, source, {"grid": (width, outside)}),
    )
    return drawn.to(channel.symbol_dtype)


def pack_bits(
    symbols: Tensor,  # shape: (batch, elements), uint8 in {0, 1}
) -> Tensor:  # shape: (batch, ceil(elements / 8)), uint8, on the same device
    """Eight to a byte, the first in the least significant place, each record on its own."""
    bytes_out = -(-symbols.shape[1] // 8)
    padded = torch.nn.functional.pad(symbols, (0, 8 * bytes_out - symbols.shape[1]))
    places = torch.arange(8, dtype=torch.uint8, device=symbols.device)
    return (padded.reshape(-1, bytes_out, 8) << places).sum(-1, dtype=torch.uint8)


def grid_points(features: Tensor, width: float, outside: str, steps: int) -> Tensor:  # shape: as features, int16
    """round((x / width + 1/2) * steps) of what lies inside the interval: the CPU's points on every device."""
    wide, half = _wide(features), width / 2
    limited = wide.clamp(-half, half) if outside == "clamp" else wide.where(wide.abs() < half, wide.new_zeros(()))
    # By a number torch would not divide on CUDA, but multiply with its inverse.
    divisor = wide.new_full((1,), width)
    return ((limited / divisor + 0.5) * steps).round().to(torch.int16)


def _wide(features: Tensor) -> Tensor:
    return features if features.dtype == torch.float64 else features.float()


def _draw(
    owner: str,
    features: Tensor,
    inputs: Callable[[], Tensor],
    channel: RandomizedResponse | DiscreteLaplace,
    source: Source,
    options: dict[str, Any] | None,
) -> Tensor:
    """Symbols in the draw's own dtype; ``options`` are those of the kernel, None where it does not serve."""
    device = features.device
    if _is_captured(device):
        raise PrivacyError(f"{owner}: features must not be encoded into a CUDA graph: its noise would be repeated.")
    if not _computes_chacha(device):
        raise PrivacyError(f"{owner}: noise must come from ChaCha20, got other words on {device}. Use noise='cpu'.")
    draw, key = device_draw(channel, device), draw_key(source, device)
    if not features.numel():
        return torch.empty(features.shape, dtype=draw.dtype, device=device)
    drawn = None
    if options is not None and features.dtype != torch.float64:
        drawn = _by_kernel(owner, features, draw, key, options)
    if drawn is None:
        check.features(owner, features)
        drawn = _by_operations(inputs().reshape(-1), draw, key)
    return drawn.reshape(features.shape)


def _by_operations(inputs: Tensor, draw: DeviceDraw, key: Tensor) -> Tensor:
    """Symbols of all elements, some tiles at a time."""
    marked = torch.empty(inputs.numel(), dtype=draw.dtype, device=inputs.device)
    for start in range(0, inputs.numel(), _STEP * TILE):
        part = inputs[start : start + _STEP * TILE]
        marked[start : start + part.numel()] = draw.mark(part, leading_words(key, start, part.numel()))
    draw.settle(marked, key)
    return marked


def _by_kernel(owner: str, features: Tensor, draw: DeviceDraw, key: Tensor, options: dict[str, Any]) -> Tensor | None:
    """The same from the fused kernel, or None where there is none; a failure ends its use on the device.

    What is drawn anew under the same key after a failure are the same symbols: none has left before.
    """
    kernel = fused_kernel(features.device, features.dtype, options["grid"][1] if "grid" in options else "bits")
    if kernel is None:
        return None
    try:
        marked: Tensor | None = kernel.launch(features.resolve_neg().contiguous().reshape(-1), draw, key, **options)
        if marked is not None:
            kernel.settle(marked, draw, key)
    except Exception as error:  # whatever a compiler or a driver may raise
        _give_up(features.device, repr(error))
        return None
    if marked is None:
        raise check.not_finite(owner, features)
    return marked


def fused_kernel(device: torch.device, dtype: torch.dtype, kind: str) -> Any:
    """The module with the fused kernel, if that runs on this device and is right there; else None.

    Args:
        device: where the features are.
        dtype: theirs.
        kind: "bits", or "zero" or "clamp" for a grid.
    """
    return _tried_kernel(device, dtype, kind) if device.type == "cuda" and device not in _given_up else None


@cache
def _tried_kernel(device: torch.device, dtype: torch.dtype, kind: str) -> Any:
    try:
        from splitpriv.layers import device_kernel  # loads Triton

        if device_kernel.triton is None:
            _give_up(device, "Triton is not installed")
        elif agrees(device_kernel, device, dtype, kind):
            return device_kernel
        else:
            _give_up(device, "it gives other symbols")
    except Exception as error:  # as above
        _give_up(device, repr(error))
    return None


def _give_up(device: torch.device, reason: str) -> None:
    if device not in _given_up:
        _given_up.add(device)
        text = f"splitpriv: no fused kernel on {device} ({reason}). Noise is drawn by operations of torch, slower."
        warnings.warn(text, RuntimeWarning, stacklevel=2)


def _is_captured(device: torch.device) -> bool:
    """Whether a CUDA graph records what is done now, to repeat it with the same key."""
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()


@cache
def _computes_chacha(device: torch.device) -> bool:
    return known_answer(device)


def agrees(kernel: Any, device: torch.device, dtype: torch.dtype, kind: str) -> bool:
    """Whether the fused kernel marks some tiles as the operations do, and refuses what is not finite."""
    key = key_words(bytes(range(5, 37)), device)  # with ties of both kinds
    # Multiples of 1/256: the last digit of a division does not matter. Some lie outside the interval.
    x = (((torch.arange(3 * TILE + 5, device=device) * 7919 % 400 - 200).float() + 0.25) / 64).to(dtype)
    if kind == "bits":
        threshold = torch.zeros((), device=device)
        draw, inputs = device_draw(_TRIED_BITS, device), (x > threshold).to(torch.int8)
        options: dict[str, Any] = {"threshold": threshold}
    else:
        draw, inputs = device_draw(_TRIED_GRID, device), grid_points(x, 4.0, kind, _TRIED_GRID.inputs - 1)
        options = {"grid": (4.0, kind)}
    found = kernel.launch(x, draw, key, **options)
    if found is None or not bool((found < 0).any()):  # some ties among them, to be settled
        return False
    kernel.settle(found, draw, key)
    if not torch.equal(found, _by_operations(inputs, draw, key)):
        return False
    for value in (math.nan, math.inf, -math.inf):
        for place in (0, TILE, -1):
            bad = x.clone()
            bad[place] = value
            if kernel.launch(bad, draw, key, **options) is not None:
                return False
    return True
