"""Checks of what the numbers mean: gradients, values, costs, likelihoods, and what a release gives back."""

from __future__ import annotations

import copy
import math
from fractions import Fraction
from inspect import signature
from typing import Any

import numpy as np
import torch
from torch import Tensor

from splitpriv.accounting import epsilon_total, simulation
from splitpriv.attacks.auditing.candidates import copies, records
from splitpriv.cut import packs
from splitpriv.mechanisms import EndlessCodebook
from splitpriv.release import pack, unpack
from splitpriv.release.packing import bits_for, bytes_for
from splitpriv.split_model import SplitModel
from splitpriv.testing.inputs import channel_outputs, claims_epsilon, example_batch, table_size
from splitpriv.testing.noise import channel_pairs, sets_channel
from splitpriv.testing.sources import Played, has_source, playing
from splitpriv.testing.statistics import difference_p

ALPHA = 1e-9
_POSITIONS = 32


def check_gradient(layer: Any, example: Tensor) -> None:
    """Gradients are finite and have the features' shape: of ``forward``, of ``log_prob``, and of ``passes``.

    What is released while training must hold nothing of the features: the usual trick ``x + (released - x).detach()``
    does, by its rounding errors.

    Args:
        layer: to check. A forward without a gradient is legal: at a cut, ``SplitModel`` attaches it.
        example: # shape: (batch, *feature)

    Raises:
        AssertionError: a gradient is not finite or misshapen, ``log_prob`` has none, or a release with a gradient
            has values that ``decode`` does not give.
    """
    example = example_batch("check_gradient", example)
    features = (example * 1.0625).requires_grad_()
    released = layer(features)
    if released.requires_grad:
        (slope,) = torch.autograd.grad(released.sum(), features, allow_unused=True)
        _finite_slope("forward", slope, allow_none=True)
    if (
        claims_epsilon(layer, example)
        and released.requires_grad
        and not _is_decoded(layer, features, released.detach())
    ):
        raise AssertionError(
            "check_gradient: a release with a gradient must hold values that decode gives, got others. "
            "x + (released - x).detach() leaks low bits of x; use a torch.autograd.Function."
        )
    symbols = layer.encode(features).detach()
    likelihood = layer.log_prob(symbols, features * 0.96875).sum()
    known = likelihood.requires_grad
    _finite_slope("log_prob", torch.autograd.grad(likelihood, features, allow_unused=True)[0] if known else None)
    passes = layer.passes(features.detach()) if callable(getattr(layer, "passes", None)) else None
    if passes is not None and (passes.shape != features.shape or not bool(torch.isfinite(passes).all())):
        raise AssertionError("check_gradient: passes must be finite and of the features' shape, got another.")


def _finite_slope(name: str, slope: Tensor | None, allow_none: bool = False) -> None:
    if slope is None and not allow_none:
        raise AssertionError(f"check_gradient: {name} must be differentiable in the features, got no gradient.")
    if slope is not None and not bool(torch.isfinite(slope).all()):
        raise AssertionError(f"check_gradient: the gradient of {name} must be finite, got NaN or infinity.")


def _is_decoded(layer: Any, features: Tensor, released: Tensor) -> bool:
    """Whether values are those of the decode table; True where there is none to compare with."""
    if not callable(getattr(layer, "decode_table", None)):
        return True
    table = layer.decode_table(tuple(released.shape[1:]))
    if isinstance(table, EndlessCodebook):
        return not has_source(layer) or _decodes_the_same(layer, features)
    table = table.to(released)
    if table.ndim > 1:
        table, released = table.flatten(1), released.flatten(1)
        return bool((released[:, None] == table[None]).all(-1).any(-1).all()) if table.numel() < 1 << 20 else True
    return bool(torch.isin(released, table).all())


def _decodes_the_same(layer: Any, features: Tensor) -> bool:
    """Whether, of the same bytes, forward makes what decode makes of the symbols."""
    twin, other = copy.deepcopy(layer), copy.deepcopy(layer)
    with playing(twin, Played(11)):
        released: Tensor = twin(features).detach()
    with playing(other, Played(11)):
        decoded: Tensor = other.decode(other.encode(features)).detach()
    return torch.equal(released, decoded.to(released.dtype))


def check_state_dict(layer: Any, example: Tensor) -> None:
    """A state dict carries what the public part of the layer depends on.

    Args:
        layer: to check; it is left as it is.
        example: # shape: (batch, *feature)

    Raises:
        AssertionError: a copy whose state was overwritten and loaded again prices or decodes otherwise.
    """
    example = example_batch("check_state_dict", example)
    symbols, spend = layer.encode(example), layer.spend(tuple(example.shape[1:]))
    state = {name: value.clone() for name, value in layer.state_dict().items()}
    twin = copy.deepcopy(layer)
    with torch.no_grad():
        for value in twin.state_dict().values():
            value.zero_()
    twin.load_state_dict(state)
    if twin.state_dict().keys() != state.keys() or twin.spend(tuple(example.shape[1:])) != spend:
        raise AssertionError("check_state_dict: a loaded state must have the same names and cost, got others.")
    if not torch.equal(twin.decode(symbols), layer.decode(symbols)):
        raise AssertionError("check_state_dict: a loaded state must decode as before, got other values.")
    deterministic = twin.quantize if callable(getattr(layer, "quantize", None)) else None
    if deterministic is None and not claims_epsilon(layer, example):
        deterministic = twin.encode
    if deterministic is not None and not torch.equal(
        deterministic(example), getattr(layer, deterministic.__name__)(example)
    ):
        raise AssertionError("check_state_dict: a loaded state must encode as before, got other symbols.")


def check_packing(layer: Any, example: Tensor) -> None:
    """A release of the layer gives what the layer itself decodes to, packed or not.

    Args:
        layer: to check; with a ``decode_table``, or one that releases float32.
        example: # shape: (batch, *feature)

    Raises:
        AssertionError: packing changes symbols, ``decode_table`` and ``decode`` differ, or a release does.
    """
    example = example_batch("check_packing", example)
    shape = tuple(example.shape[1:])
    symbols = layer.encode(example)
    if not symbols.is_floating_point():
        if not callable(getattr(layer, "decode_table", None)):
            return  # released by other means than a table
        table, size = layer.decode_table(shape), table_size(layer, example) or 0
        if not 0 <= int(symbols.min()) <= int(symbols.max()) < size:
            return  # check_symbols says so
        decoded = layer.decode(symbols).cpu()
        if not torch.equal(_looked_up(table, symbols).reshape(decoded.shape), decoded):
            raise AssertionError("check_packing: decode_table must give what decode gives, got other values.")
        if packs(layer):
            _check_packed(layer.encode_packed(example), bits_for(max(2, size)), tuple(symbols.shape), size)
    release = _released(layer, example)
    got = torch.stack([release[i][0] for i in range(len(release))])
    direct = layer.decode(symbols)
    if got.shape != direct.shape:
        shapes = f"{tuple(direct.shape)}, got {tuple(got.shape)}"
        raise AssertionError(f"check_packing: a release must keep the shape that decode gives, {shapes}.")
    if not claims_epsilon(layer, example):
        same = torch.equal(got, direct)
    else:
        many = copies(example[0], 256)
        released, twin = _released(layer, many), copy.deepcopy(layer).eval()  # a release runs in eval mode
        same = same_law(torch.stack([released[i][0] for i in range(256)]), twin.decode(twin.encode(many)))
    if not same:
        raise AssertionError("check_packing: a release must give back what is encoded, got other features.")


def _looked_up(table: Tensor | EndlessCodebook, symbols: Tensor) -> Tensor:
    """What a release decodes symbols to, after packing them: of an endless codebook's numbers only the indices."""
    if isinstance(table, EndlessCodebook):
        bits, index = bits_for(table.size), symbols % table.size
        return table.codewords(symbols.cpu() - index.cpu() + unpack(pack(index, bits), bits, ()).long())
    bits = bits_for(max(2, len(table)))
    return table.cpu()[unpack(pack(symbols, bits), bits, symbols.shape[1:]).long()]


def _check_packed(packed: Tensor, bits: int, shape: tuple[int, ...], alphabet: int) -> None:
    size = (shape[0], bytes_for(math.prod(shape[1:]), bits))
    if packed.dtype != torch.uint8 or tuple(packed.shape) != size:
        got = f"{packed.dtype} {tuple(packed.shape)}"
        raise AssertionError(f"check_packing: encode_packed must give uint8 of shape {size}, got {got}.")
    if int(unpack(packed, bits, shape[1:]).max()) >= alphabet:
        raise AssertionError(f"check_packing: encode_packed must give symbols in [0, {alphabet}), got a larger one.")


def _released(layer: Any, features: Tensor) -> Any:
    """A release of these records; read back, each is (features, label)."""
    twin = copy.deepcopy(layer)  # a model changes its mode
    model = SplitModel(torch.nn.Identity(), torch.nn.Identity(), twin, labels="public")
    labels = torch.zeros(len(features), dtype=torch.int64)
    with simulation():  # nothing leaves
        return model.release((features, labels), progress=False)


def check_decode(layer: Any, example: Tensor) -> None:
    """``decode`` looks at the symbols alone, and ``layer(x)`` has the law of ``decode(encode(x))``.

    Args:
        layer: to check.
        example: # shape: (batch, *feature)

    Raises:
        AssertionError: the same symbols decode to other values after other features were encoded, or in a copy that
            never saw any; or forward gives something else (two samples compared, error probability 1e-9).
    """
    example = example_batch("check_decode", example)
    stranger = copy.deepcopy(layer)
    symbols = layer.encode(example)
    first = layer.decode(symbols)
    layer.encode(-3 * example)
    layer(2 * example.flip(0))
    if not torch.equal(first, layer.decode(symbols)) or not torch.equal(first, stranger.decode(symbols)):
        raise AssertionError("check_decode: decode must depend on the symbols alone, got values that changed.")
    many = copies(example[0], 512)
    direct, forward = layer.decode(layer.encode(many)), layer(many).detach().to(first.dtype)
    same = same_law(direct, forward) if claims_epsilon(layer, example) else torch.allclose(direct, forward)
    if not same:
        raise AssertionError("check_decode: forward must be decode(encode(x)), got another law.")


def same_law(first: Tensor, second: Tensor) -> bool:
    """Whether two samples of one law pass for that: Fisher's exact test at the first positions, error 1e-9."""
    flat = [part.detach().reshape(len(part), -1)[:, :_POSITIONS] for part in (first, second)]
    one, other = (part.double().cpu().numpy() for part in flat)
    middle = np.quantile(np.concatenate([one, other]), 0.5, axis=0, method="nearest")
    p_values = [difference_p(one > middle, other > middle), difference_p(one < middle, other < middle)]
    return bool(np.min(p_values) * 2 * one.shape[1] >= ALPHA)


def check_spend(layer: Any, example: Tensor) -> None:
    """The cost is one that accounting can use: a record pays for all its uses, in any mode, at any time.

    Args:
        layer: to check.
        example: # shape: (batch, *feature)

    Raises:
        AssertionError: a cost is negative or NaN, a record pays less than its uses do, the cost changes with the
            mode or with what was encoded, or ``epsilon`` and ``epsilon_total`` say something else.
    """
    example = example_batch("check_spend", example)
    shape = tuple(example.shape[1:])
    was, spend = layer.training, layer.spend(shape)
    if not spend.per_use >= 0 or not spend.per_record >= 0 or spend.uses < 1:
        raise AssertionError(f"check_spend: a cost must be >= 0 and have a use at least, got {spend!r}.")
    finite = math.isfinite(spend.per_record)
    if finite and Fraction(spend.per_record) < Fraction(spend.per_use) * spend.uses:
        raise AssertionError(f"check_spend: a record must pay for all of its uses, got {spend!r}. Use Spend.of.")
    layer.encode(example)
    for training in (True, False):
        if layer.train(training).spend(shape) != spend:
            raise AssertionError(f"check_spend: a use must cost the same in every mode, got another than {spend!r}.")
    layer.train(was)
    stated = getattr(layer, "epsilon", spend.per_use)
    if stated != spend.per_use:
        raise AssertionError(f"check_spend: layer.epsilon must be {spend.per_use!r}, that of a use, got {stated!r}.")
    if epsilon_total(layer, shape=shape) != spend.per_record:
        raise AssertionError("check_spend: epsilon_total must be what the record pays, got another number.")


def check_log_prob(layer: Any, example: Tensor) -> None:
    """Log-likelihoods are finite and, where an alphabet can be summed over, those of a law.

    A relaxation may lose probability between the points where it is exact; it may never gain any, and must be
    exact for some features. Where records name m of N symbols it must give the channel's own probabilities as its
    ``temperature`` goes to 0.

    Args:
        layer: to check; the score of a layer without an epsilon only has to be finite.
        example: # shape: (batch, *feature)

    Raises:
        AssertionError: something is not finite, or probabilities sum to more than one, or to one nowhere.
    """
    example = example_batch("check_log_prob", example)
    symbols = layer.encode(example)
    found = layer.log_prob(symbols, example)
    if not bool(torch.isfinite(found).all()) or len(found) != len(example):
        raise AssertionError("check_log_prob: ln Pr must be finite, one or more for each record, got another result.")
    if not claims_epsilon(layer, example):
        return
    if sets_channel(layer, tuple(example.shape[1:])) is not None:
        _check_sets(layer, example, symbols)
        return
    outputs = channel_outputs(layer, example) or table_size(layer, example)
    if outputs is None or found.shape != symbols.shape or outputs > 4096 or int(symbols.max()) >= outputs:
        return
    sums, step = [], max(1, (1 << 20) // max(symbols[0].numel(), example[0].numel()))
    for record in records(layer, example)[:6]:
        total = torch.zeros(symbols[0].shape, dtype=torch.float64, device=symbols.device)
        for start in range(0, outputs, step):
            part = torch.arange(start, min(start + step, outputs), device=symbols.device).to(symbols.dtype)
            every = part.reshape(-1, *[1] * (symbols.ndim - 1)).expand(-1, *symbols.shape[1:]).contiguous()
            total += layer.log_prob(every, copies(record.double(), len(part))).detach().double().exp().sum(0)
        sums.append(total.reshape(-1))
    least, most = (float(v) for v in torch.aminmax(torch.cat(sums)))
    nearest = float((torch.cat(sums) - 1).abs().min())
    if most > 1 + 1e-4 or nearest > 1e-4:
        _refuse_sums(least, most)


def _refuse_sums(least: float, most: float) -> None:
    got = f"sums between {least:.6g} and {most:.6g}"
    raise AssertionError(f"check_log_prob: probabilities must sum to one over the symbols, got {got}.")


def _check_sets(layer: Any, example: Tensor, symbols: Tensor) -> None:
    """Of records that name m of N symbols: the weights themselves, where a relaxation is as good as off."""
    channel = layer.channel(tuple(example.shape[1:]))
    step = {"temperature": 1e-12} if "temperature" in signature(layer.log_prob).parameters else {}
    written = channel_pairs(layer, symbols, example)[1].to(symbols)
    sums = torch.zeros(len(example), dtype=torch.float64)
    for other in range(channel.size):
        every = symbols - written + other  # the same book, where symbols number codewords
        read, index = channel_pairs(layer, every, example)
        if not 0 <= int(index.min()) <= int(index.max()) < channel.size:
            return  # check_symbols says so
        chances = layer.log_prob(every, example, **step).detach().double().cpu().exp()
        if not torch.allclose(chances, channel.log_prob(index, read).cpu().exp(), rtol=1e-4, atol=0.0):
            raise AssertionError("check_log_prob: ln Pr must be that of the channel, got other probabilities.")
        sums += chances
    if not torch.allclose(sums, torch.ones_like(sums), rtol=0.0, atol=1e-4):
        _refuse_sums(float(sums.min()), float(sums.max()))
