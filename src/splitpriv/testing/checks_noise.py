"""Checks of the noise: that it is there, is fresh, is each symbol's own, and comes from the source that is claimed."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import numpy as np
import torch
from torch import Tensor

from splitpriv.attacks.auditing.candidates import accepts, copies
from splitpriv.attacks.auditing.freshness import draws_to_see_noise
from splitpriv.testing.checks_values import ALPHA, same_law
from splitpriv.testing.inputs import claims_epsilon, example_batch
from splitpriv.testing.noise import encoded_noise, noise_of
from splitpriv.testing.sources import Played, has_source, playing
from splitpriv.testing.statistics import Array, association_p

_POSITIONS = 32


def visible(layer: Any, example: Tensor) -> Tensor | None:
    """The example as often as it takes to see noise; None where none need be seen.

    Epsilon itself says how often (:func:`draws_to_see_noise`), unless the release is a constant. Where that many
    symbols cannot be drawn, nothing can be told.
    """
    needed = draws_to_see_noise(layer.spend(tuple(example.shape[1:])).per_use)
    elements = max(1, layer.encode(example[:1]).numel()) * len(example)
    if needed is None:
        return None
    batch = example.repeat(math.ceil(needed / elements), *[1] * (example.ndim - 1))
    others = [torch.zeros_like(batch), -batch]
    tried = [encoded_noise(layer, features) for features in (batch, *others) if accepts(layer, features)]
    if all(torch.equal(symbols, tried[0][:1].expand_as(symbols)) for symbols in tried):
        return None  # a constant tells nothing
    return batch


def check_fresh_noise(layer: Any, example: Tensor) -> None:
    """Each call draws anew: the same batch gives other symbols, in the mode that the layer is in.

    Args:
        layer: to check; with an epsilon.
        example: # shape: (batch, *feature)

    Raises:
        AssertionError: two of four calls give the same symbols, where epsilon says that they would not.
    """
    example = example_batch("check_fresh_noise", example)
    if claims_epsilon(layer, example) and _repeats(layer, example):
        raise AssertionError("check_fresh_noise: each call must draw anew, got the same symbols again.")


def check_noise_in_eval(layer: Any, example: Tensor) -> None:
    """Noise is on in ``eval()`` as in ``train()``, and is the same noise: inference is a release too.

    Args:
        layer: to check; with an epsilon.
        example: # shape: (batch, *feature)

    Raises:
        AssertionError: in one mode only calls repeat, or the two modes differ in law (error probability 1e-9).
    """
    example = example_batch("check_noise_in_eval", example)
    if not claims_epsilon(layer, example):
        return
    was, repeats, drawn = layer.training, [], []
    many = copies(example[0], 1024)
    for training in (True, False):
        layer.train(training)
        repeats.append(_repeats(layer, example))
        drawn.append(encoded_noise(layer, many))
    layer.train(was)
    if repeats[0] != repeats[1]:
        mode = "train" if repeats[0] else "eval"
        raise AssertionError(f"check_noise_in_eval: noise must be on in every mode, got none in {mode} mode.")
    if not same_law(*drawn):
        raise AssertionError("check_noise_in_eval: noise must be the same in train and eval mode, got another law.")


def _repeats(layer: Any, example: Tensor) -> bool:
    batch = visible(layer, example)
    return batch is not None and len({encoded_noise(layer, batch).cpu().numpy().tobytes() for _ in range(4)}) < 4


def check_independent_noise(layer: Any, example: Tensor) -> None:
    """Noise is drawn for each symbol: not shared by records, by elements of one, or by calls.

    Args:
        layer: to check; with an epsilon.
        example: # shape: (batch, *feature)

    Raises:
        AssertionError: pairs of symbols that should be independent are not (Fisher's exact test, error
            probability 1e-9).
    """
    example = example_batch("check_independent_noise", example)
    if not claims_epsilon(layer, example):
        return
    record = example[0]
    calls = [_symbols(layer, copies(record, 2)) for _ in range(256)]
    batch = _symbols(layer, copies(record, 2048))
    pairs = {
        "records of one batch": (np.stack([c[0] for c in calls]), np.stack([c[1] for c in calls])),
        "calls": (np.stack([c[0] for c in calls[::2]]), np.stack([c[0] for c in calls[1::2]])),
        "neighbouring records": (batch[::2], batch[1::2]),
        "neighbouring elements": (batch[:, :-1], batch[:, 1:]),
        "far elements": (batch[:, : batch.shape[1] // 2], batch[:, batch.shape[1] // 2 :][:, : batch.shape[1] // 2]),
    }
    for name, (one, other) in pairs.items():
        if one.shape[1] and _associated(one, other) < ALPHA / len(pairs):
            raise AssertionError(f"check_independent_noise: noise must be independent, got {name} that share it.")


def _associated(one: Array, other: Array) -> float:
    """The smallest p-value of two columns' association, Bonferroni over columns."""
    events = [values > np.quantile(values, 0.5, axis=0, method="lower") for values in (one, other)]
    return float(min(1.0, association_p(*events).min() * one.shape[1]))


def _symbols(layer: Any, batch: Tensor) -> Array:
    symbols: Array = encoded_noise(layer, batch).reshape(len(batch), -1)[:, :_POSITIONS].cpu().numpy()
    return symbols


def check_batch_independence(layer: Any, example: Tensor) -> None:
    """A record's symbols do not depend on the other records of its batch, nor on their number.

    Args:
        layer: to check.
        example: # shape: (batch, *feature)

    Raises:
        AssertionError: a record has another law (without an epsilon: another value) beside other records (error
            probability 1e-9).
    """
    example = example_batch("check_batch_independence", example)
    own = example[0]
    reach = float(example.abs().max()) or 1.0
    beside = [torch.full_like(own, sign * scale * reach) for scale in (0.5, 4.0) for sign in (1, -1)]
    beside = [record for record in [*beside, -own] if accepts(layer, torch.stack([own, record]))]
    noisy = claims_epsilon(layer, example)
    count = 1024 if noisy else 2
    alone = encoded_noise(layer, copies(own, count))
    for other in beside:
        mixed = torch.stack([own, other, other]).repeat(count, *[1] * own.ndim)
        for turn in range(2):  # the record first, and last
            found = noise_of(layer, layer.encode(mixed.roll(turn, 0))[turn::3], copies(own, count))
            same = same_law(alone, found) if noisy else torch.allclose(alone, found, rtol=1e-4, atol=1e-6)
            if not same:
                raise AssertionError(
                    "check_batch_independence: a record's symbols must depend on it alone, got another law beside "
                    "other records. What ties records together breaks the record as a unit of privacy."
                )


def check_seed(layer: Any, example: Tensor) -> None:
    """The same random bytes give the same symbols, and only a source that is not secure can be repeated.

    The bytes are played to the layer by a source in the place of its own, which it must keep in an attribute
    that has ``read`` and ``secure``, as :func:`~splitpriv.mechanisms.make_source` returns.

    Args:
        layer: to check; with an epsilon.
        example: # shape: (batch, *feature)

    Raises:
        AssertionError: the same bytes give other symbols, or other bytes the same; torch's global seed decides,
            yet the layer does not say ``secure = False``; or it says so, and nothing repeats its noise.
    """
    example = example_batch("check_seed", example)
    batch = visible(layer, example) if claims_epsilon(layer, example) else None
    if batch is None:
        return
    global_seed = []
    with torch.random.fork_rng(devices=[]):
        for _ in range(2):
            torch.manual_seed(7)
            global_seed.append(encoded_noise(layer, batch))
    follows_torch = torch.equal(*global_seed)
    secure = getattr(layer, "secure", None)
    if follows_torch and secure is not False:
        raise AssertionError(
            "check_seed: noise that torch.manual_seed repeats must be declared, got a layer without secure = False. "
            "Draw from make_source(None)."
        )
    if has_source(layer):
        played = []
        for seed in (5, 5, 6):
            twin = copy.deepcopy(layer)
            with playing(twin, Played(seed)):
                played.append(encoded_noise(twin, batch))
        if not torch.equal(played[0], played[1]) or torch.equal(played[0], played[2]):
            raise AssertionError("check_seed: the layer's source must decide its noise, got noise from elsewhere.")
    elif secure is False and not follows_torch:
        raise AssertionError(
            "check_seed: noise from a seed must be repeatable, got a layer that keeps no source. "
            "Keep what make_source returns in an attribute."
        )


def check_pickle(layer: Any, example: Tensor) -> None:
    """Copies and pickles cost and decode the same, and never repeat one another's noise.

    Args:
        layer: to check.
        example: # shape: (batch, *feature)

    Raises:
        AssertionError: a copy prices or decodes otherwise, or draws what another one draws.
    """
    example = example_batch("check_pickle", example)
    shape, symbols = tuple(example.shape[1:]), layer.encode(example)
    blob = pickle.dumps(layer)
    twins = [pickle.loads(blob), pickle.loads(blob), copy.deepcopy(layer), layer]
    for twin in twins:
        if twin.spend(shape) != layer.spend(shape) or not torch.equal(twin.decode(symbols), layer.decode(symbols)):
            raise AssertionError("check_pickle: a copy must cost and decode the same, got another cost or values.")
    if not claims_epsilon(layer, example):
        if not torch.equal(twins[0].encode(example), symbols):
            raise AssertionError("check_pickle: a copy of a layer without noise must encode the same, got another.")
        return
    batch = visible(layer, example)
    if batch is None:
        return
    drawn = [encoded_noise(twin, batch).cpu().numpy().tobytes() for twin in twins]
    if len(set(drawn)) < len(drawn):
        raise AssertionError(
            "check_pickle: copies must draw noise of their own, got the same symbols from two of them. "
            "Re-key the source in __reduce__ or __getstate__, as make_source does."
        )
