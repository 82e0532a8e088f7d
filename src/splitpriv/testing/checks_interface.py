"""Checks of what a layer takes and gives; each raises ``AssertionError`` with what was expected and got."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor

from splitpriv._errors import SplitPrivError
from splitpriv.attacks.auditing.candidates import accepts, records
from splitpriv.mechanisms.rounding import show
from splitpriv.testing.inputs import channel_outputs, claims_epsilon, example_batch, table_size

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def check_shape(layer: Any, example: Tensor) -> None:
    """One release per record, of the shape that ``output_shape`` announces, for batches of any size.

    Args:
        layer: to check.
        example: # shape: (batch, *feature)

    Raises:
        AssertionError: a batch of 0, 1 or more records comes out in another shape.
    """
    example = example_batch("check_shape", example)
    shape = tuple(example.shape[1:])
    announced = tuple(layer.output_shape(shape)) if callable(getattr(layer, "output_shape", None)) else shape
    symbol_shape = tuple(layer.encode(example[:1]).shape[1:])
    for records_given in {0, 1, len(example)}:
        features = example[:records_given]
        symbols = layer.encode(features)
        got = tuple(symbols.shape), tuple(layer.decode(symbols).shape), tuple(layer(features).shape)
        wanted = (records_given, *symbol_shape), (records_given, *announced), (records_given, *announced)
        for name, found, expected in zip(("encode", "decode", "forward"), got, wanted, strict=True):
            if found != expected:
                raise AssertionError(f"check_shape: {name} must return shape {expected}, got shape={found}.")


def check_dtype(layer: Any, example: Tensor) -> None:
    """``layer(x)`` keeps the dtype of ``x``, ``decode`` gives float32, and symbols have one dtype throughout.

    Args:
        layer: to check.
        example: # shape: (batch, *feature)

    Raises:
        AssertionError: one of float16, bfloat16, float32 and float64 comes out as another dtype.
    """
    example = example_batch("check_dtype", example)
    wanted = layer.encode(example).dtype
    for dtype in DTYPES:
        features = example.to(dtype)
        if not bool(torch.isfinite(features).all()):
            continue
        symbols, released = layer.encode(features), layer(features)
        if symbols.dtype != wanted:
            raise AssertionError(
                f"check_dtype: symbols must have one dtype, got {wanted} and {symbols.dtype} ({dtype})."
            )
        if (decoded := layer.decode(symbols).dtype) != torch.float32:
            raise AssertionError(f"check_dtype: decode must return float32, got dtype={decoded} for {dtype} features.")
        if released.dtype != dtype:
            raise AssertionError(f"check_dtype: the layer must keep {dtype}, got dtype={released.dtype}.")


def check_device(layer: Any, example: Tensor) -> None:
    """Symbols, values and log-likelihoods are where the features are: on the CPU, and on CUDA where there is one.

    Args:
        layer: to check; a copy of it is moved.
        example: # shape: (batch, *feature)

    Raises:
        AssertionError: something is on another device.
    """
    example = example_batch("check_device", example)
    for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        moved, features = copy.deepcopy(layer).to(device), example.to(device)
        symbols = moved.encode(features)
        found = {"encode": symbols.device.type}
        if symbols.device.type == device:
            found |= {"decode": moved.decode(symbols).device.type, "forward": moved(features).device.type}
            found["log_prob"] = moved.log_prob(symbols, features).device.type
        for name, got in found.items():
            if got != device:
                raise AssertionError(f"check_device: {name} must return a tensor on {device}, got device={got}.")


def check_finite(layer: Any, example: Tensor) -> None:
    """NaN and infinity are refused with a ``ValueError`` that says so, and shows no feature.

    Args:
        layer: to check.
        example: # shape: (batch, *feature)

    Raises:
        AssertionError: something is returned, or the message is empty or holds a feature's value.
    """
    example = example_batch("check_finite", example)
    for value in (math.nan, math.inf, -math.inf):
        features = torch.full_like(example, 0.8125)
        features.view(-1)[-1] = value
        for name in ("encode", "forward"):
            try:
                getattr(layer, name)(features)
            except (SplitPrivError, ValueError) as error:
                if not str(error) or "0.8125" in str(error):
                    raise AssertionError(
                        f"check_finite: the error of {name} must say what is wrong and show no feature, got {error!s}."
                    ) from None
            else:
                raise AssertionError(f"check_finite: {name} must refuse {value} in features, got a result.")


def check_symbols(layer: Any, example: Tensor) -> None:
    """Symbols are integers of the alphabet that ``channel`` and ``decode_table`` declare, at extremes too.

    Args:
        layer: to check; one without an epsilon may give finite float32 instead.
        example: # shape: (batch, *feature)

    Raises:
        AssertionError: a symbol is of another dtype, or outside the alphabet.
    """
    example = example_batch("check_symbols", example)
    decoded, written = table_size(layer, example), channel_outputs(layer, example)
    extremes = [example * scale for scale in (1.0, 0.0, -0.0, 1e-40, 1e4, -1e4)]
    extremes += [torch.stack(records(layer, example))]
    for features in extremes:
        if not accepts(layer, features):
            continue
        symbols = layer.encode(features)
        if symbols.is_floating_point():
            if claims_epsilon(layer, example) or symbols.dtype != torch.float32:
                raise AssertionError(
                    f"check_symbols: symbols must have an integer dtype (float32 without an epsilon), "
                    f"got dtype={symbols.dtype}."
                )
            if not bool(torch.isfinite(symbols).all()):
                raise AssertionError("check_symbols: released floats must be finite, got NaN or infinity.")
        else:
            _inside("symbols", symbols, decoded)
            paired = callable(getattr(layer, "channel_pairs", None))
            _inside("symbols", layer.channel_pairs(symbols, features)[1] if paired else symbols, written)


def _inside(name: str, values: Tensor, size: int | None) -> None:
    if size is None or not values.numel():
        return
    low, high = int(values.min()), int(values.max())
    if low < 0 or high >= size:
        raise AssertionError(f"check_symbols: {name} must be in [0, {size}), got [{low}, {high}].")


def check_repr(layer: Any, example: Tensor) -> None:
    """``repr`` shows epsilon, and says so where noise comes from a seed.

    Args:
        layer: to check; one record is encoded first.
        example: # shape: (batch, *feature)

    Raises:
        AssertionError: the epsilon of a use or of a record, or the words "not secure", are missing.
    """
    example = example_batch("check_repr", example)
    layer.encode(example)
    spend, text = layer.spend(tuple(example.shape[1:])), repr(layer)
    shown = {show(spend.per_use), show(spend.per_record), f"{spend.per_use:g}", f"{spend.per_record:g}"}
    if not any(number in text for number in shown):
        raise AssertionError(f"check_repr: repr must show epsilon, one of {sorted(shown)}, got {text}.")
    if getattr(layer, "secure", None) is False and "not secure" not in text.lower():
        raise AssertionError(f'check_repr: repr must say "not secure" where noise comes from a seed, got {text}.')
