"""Hypothesis strategies: batches of features with all that is awkward about floats, and shipped layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from splitpriv._validation import feature_shape
from splitpriv.layers import CodebookLDP, L1LaplaceLDP, LaplaceLDP, RandomResponseLDP, RandomVectorMask, ReluSanitizer

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def features(
    *,
    shape: Sequence[int] | None = None,
    dtypes: Sequence[torch.dtype] = DTYPES,
    thresholds: Sequence[float] = (0.0,),
    max_records: int = 5,
) -> st.SearchStrategy[Tensor]:
    """Finite batches ``(batch, *feature)``: denormals, huge numbers, both zeros, and ties at thresholds.

    Args:
        shape: feature shape without batch; None for any small one of one to three dimensions.
        dtypes: to choose from.
        thresholds: numbers at which a layer decides; features hit them exactly, and lie next to them on both sides.
        max_records: of a batch, >= 1.

    Raises:
        ShapeError: ``shape`` is not a sequence of positive ints.

    Example:
        >>> batch = features(shape=(3,), thresholds=(0.5,)).example()  # doctest: +SKIP
    """
    shapes = (
        st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple)
        if shape is None
        else st.just(feature_shape("strategies.features", shape))
    )

    @st.composite
    def batches(draw: st.DrawFn) -> Tensor:
        dtype = draw(st.sampled_from(list(dtypes)))
        size = (draw(st.integers(1, max_records)), *draw(shapes))
        element = st.one_of(st.sampled_from(_awkward(dtype, thresholds)), st.floats(-4, 4, width=16))
        count = math.prod(size)
        values = draw(st.lists(element, min_size=count, max_size=count))
        # By way of float64, which holds each of them; the cast cannot overflow, since each comes from dtype.
        return torch.tensor(values, dtype=torch.float64).to(dtype).reshape(size)

    return batches()


def _awkward(dtype: torch.dtype, thresholds: Sequence[float]) -> list[float]:
    """What goes wrong, where something does: exact values of the dtype."""
    info = torch.finfo(dtype)
    found = [0.0, -0.0, info.max, info.min, info.tiny, -info.tiny, info.smallest_normal / 2, info.eps, 1.0, -1.0]
    for threshold in thresholds:
        at = torch.tensor(threshold, dtype=torch.float64).to(dtype)
        sides = [torch.nextafter(at.float(), torch.tensor(side)).to(dtype) for side in (math.inf, -math.inf)]
        found += [float(at), *map(float, sides)]
    return [value for value in found if math.isfinite(value)]


def layers(*, mechanisms_only: bool = False, shape: Sequence[int] | None = None) -> st.SearchStrategy[nn.Module]:
    """Shipped layers over the ranges of their parameters, with secure noise.

    Args:
        mechanisms_only: leave out the defences, which claim no epsilon.
        shape: feature shape without batch, for layers that take one only: those with a codebook, of 2 to 9
            codewords. None leaves them out.

    Raises:
        ShapeError: ``shape`` is not a sequence of positive ints.
    """
    epsilon = st.floats(0.01, 12.0)
    per = st.sampled_from(["element", "record"])
    response = st.builds(
        RandomResponseLDP, epsilon=epsilon, threshold=st.floats(-2, 2, width=32), per=per, debias=st.booleans()
    )
    laplace = st.builds(
        LaplaceLDP,
        epsilon=epsilon,
        sensitivity=st.floats(0.01, 100.0),
        per=per,
        outside=st.sampled_from(["zero", "clamp"]),
        levels=st.sampled_from([None, 3, 5, 17, 65]),
    )
    limited = st.builds(L1LaplaceLDP, epsilon=epsilon, radius=st.floats(0.01, 100.0))
    found: list[st.SearchStrategy[Any]] = [response, laplace, limited]
    if shape is not None:
        found += _with_codebook(feature_shape("strategies.layers", shape), epsilon)
    if not mechanisms_only:
        nonce = st.binary(min_size=16, max_size=32)
        found += [st.builds(RandomVectorMask, nonce, entries=st.sampled_from(["sign", "dyadic"]))]
        found += [st.builds(ReluSanitizer, nonce)]
    return st.one_of(found)


def _with_codebook(shape: tuple[int, ...], epsilon: st.SearchStrategy[float]) -> list[st.SearchStrategy[Any]]:
    """Codebooks of a shape, and random ones where it has two elements or more, of any m."""
    size = st.integers(2, 9)
    sizes = size.flatmap(lambda n: st.tuples(st.just(n), st.one_of(st.just("auto"), st.integers(1, n - 1))))
    seeds = st.integers(0, 2**32)

    def fixed(options: tuple[int, Any], seed: int, epsilon: float, decode: str) -> nn.Module:
        words = torch.randn(options[0], *shape, generator=torch.Generator().manual_seed(seed))
        return CodebookLDP(words, epsilon=epsilon, closest=options[1], decode=decode)

    def fresh(options: tuple[int, Any], nonce: bytes, epsilon: float) -> nn.Module:
        return CodebookLDP.random(math.prod(shape), size=options[0], epsilon=epsilon, closest=options[1], nonce=nonce)

    decode = st.sampled_from(["codeword", "membership"])
    found: list[st.SearchStrategy[Any]] = [st.builds(fixed, sizes, seeds, epsilon, decode)]
    if math.prod(shape) > 1:
        found.append(st.builds(fresh, sizes, st.binary(min_size=16, max_size=16), epsilon))
    return found
