"""``assert_ldp``: is the epsilon that a layer claims the one of what it runs?"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

from torch import Tensor

from splitpriv import _validation as check
from splitpriv._errors import InvalidParameterError
from splitpriv.mechanisms.rounding import log_up, scale_up, show
from splitpriv.testing.bound import bound
from splitpriv.testing.drive import Drive
from splitpriv.testing.drive_sets import drive_sets
from splitpriv.testing.inputs import example_batch
from splitpriv.testing.noise import sets_channel
from splitpriv.testing.result import LDPResult
from splitpriv.testing.sources import Played, playing
from splitpriv.testing.tables import declared_table, exceeds, worst_pair


def assert_ldp(
    layer: Any,
    example: Tensor,  # shape: (batch, *feature)
    *,
    epsilon: float | None = None,
    failure_probability: float = 1e-6,
    draws: int = 1 << 20,
    seed: int = 0,
) -> LDPResult:
    r"""Assert that one use of a layer costs no more than it claims, ``layer.spend(shape).per_use``.

    *Where the layer declares a channel*, its table is enumerated: the largest ratio within a column is held
    against :math:`e^\epsilon` in exact integers. Then the layer's own ``encode`` is driven, since a table that is not
    the one that runs proves nothing:

    * with random bytes, and the symbols are held against the table: exact binomial tests of every entry and of
      every prefix of a row that is reached, at features that are searched for through ``quantize`` (most of the draws
      go to the two rows that differ most). Without ``quantize``, each symbol must fit some row.
    * with every 16-bit word, once each, as the leading bits of the draws, at every input that a record can be
      filled with. How a sampler takes its bytes is its own affair: words per element are recognised, and the slices
      of digits that the sampler of :class:`~splitpriv.mechanisms.RandomizedResponse` reads. Counts that agree with the
      table to within its ties prove ``encode`` to 16 bits, and the result says so. Counts that do not agree
      are a fault where the slices were read as they were played and the symbols follow the words; elsewhere they prove
      nothing, since another sampler may read another way, and the draws decide.

    Where each record names m of N symbols (:class:`~splitpriv.mechanisms.KClosest`), the table has a row for each set,
    too many to write out, but two weights in all of them: ε is the logarithm of their ratio, and ``encode`` is held
    against them at records far apart and at what symbols stand for, alone and beside each other.

    ``encode_packed``, where a layer has it and a release would call it, is driven with random bytes too.

    *Elsewhere*, and for what the table does not cover (several symbols, but one use), draws give a lower bound
    on epsilon, by :class:`~splitpriv.attacks.LowerBoundAudit`: records and an event are chosen on some of the draws,
    and a Clopper-Pearson bound is taken on how often the event tells those records apart in the others. Where a layer
    has as many symbols as uses, one symbol is held against the claim of one use (of decoded values only those that are
    seen to follow their own symbol alone); else the whole record is held against that of all uses.

    The layer's source of bytes is replaced by a repeatable one where it keeps it in an attribute
    that has ``read`` and ``secure``, as :func:`~splitpriv.mechanisms.make_source` returns; a result is then the
    same each time. Elsewhere its own source is used.

    Args:
        layer: a :class:`~splitpriv.PrivacyLayer`.
        example: records like those that it is for, finite, at least one.
        epsilon: claim to test in the place of the layer's own, for one use (natural log), > 0.
        failure_probability: of rejecting a layer that keeps its claim, in (0, 1).
        draws: symbols to draw, >= 1000. A relative error of about ``8 / sqrt(draws * p)`` in an entry p of the worst
            rows is noticed.
        seed: of the bytes that are played, an int >= 0.

    Returns:
        What was tested, how, and what was found.

    Raises:
        AssertionError: the claim does not hold, is infinite, or ``encode`` does not do what the table says.
        InvalidParameterError: an argument is out of range.
        ShapeError: ``example`` is not a floating-point batch.
        NonFiniteError: ``example`` holds NaN or infinity.

    Does not prove: anything of inputs and symbol positions that were not reached, of faults smaller than what is
    noticed, of the source of random bytes, or of what the server is sent besides. A statistical result that
    passes is no proof of epsilon.

    Source: Clopper and Pearson 1934; events chosen on one half and tested on the other, as in
    Ding, Wang, Wang, Zhang, Kifer 2018; Jagielski, Ullman, Oprea 2020 for bounds on epsilon that hold with a
    stated probability.

    Example:
        >>> assert_ldp(RandomResponseLDP(epsilon=2.0), torch.randn(4, 8), draws=100_000).method
        'exact'
    """
    example = example_batch("assert_ldp", example)
    check.integer("assert_ldp", "draws", draws, 1000)
    check.integer("assert_ldp", "seed", seed, 0)
    alpha = check.positive("assert_ldp", "failure_probability", failure_probability)
    if alpha >= 1:
        raise InvalidParameterError(check.message("assert_ldp", "failure_probability", "below 1", alpha))
    shape = tuple(example.shape[1:])
    spend = layer.spend(shape)
    claim = float(spend.per_use) if epsilon is None else check.positive("assert_ldp", "epsilon", epsilon)
    if not math.isfinite(claim) or claim < 0:
        raise AssertionError(
            f"assert_ldp: layer must claim a finite epsilon, got {show(claim)} from {type(layer).__name__}. "
            "A defence guarantees nothing that could be tested."
        )
    table, sets = declared_table(layer, shape), sets_channel(layer, shape)
    if table is None and sets is None:
        return _from_draws(layer, example, claim, spend, draws, alpha, seed)
    # A row of two weights needs no table: two records can name different symbols throughout.
    worst = (Fraction(sets.near, sets.far), 0, 1) if table is None and sets is not None else worst_pair(table or [])
    if exceeds(worst[0], claim):
        between = "records that name other symbols" if table is None else f"inputs {worst[1]} and {worst[2]}"
        raise AssertionError(
            f"assert_ldp: the table must cost at most the epsilon claimed, {show(claim)}, got "
            f"{show(log_up(worst[0]))} between {between}. Claim what the table costs."
        )
    if sets is not None:
        driven = drive_sets(layer, example, sets, draws=draws, alpha=alpha / 2, seed=seed)
    else:
        driven = Drive(layer, example, table or [], worst[1:], draws, alpha / 2, seed).run()
    ratio = worst[0]
    result = LDPResult("exact", claim, log_up(ratio), alpha, driven)
    if spend.uses < _symbols(layer, example):  # the table speaks of one symbol, the claim of several
        bounded = _from_draws(layer, example, claim, spend, draws, alpha / 2, seed)
        return LDPResult("statistical", bounded.claimed, bounded.found, alpha, f"{driven}; {bounded.driven}")
    return result


def _symbols(layer: Any, example: Tensor) -> int:
    return max(1, int(layer.encode(example[:1])[0].numel()))


def _from_draws(
    layer: Any, example: Tensor, claim: float, spend: Any, draws: int, alpha: float, seed: int
) -> LDPResult:
    """The lower bound: of one symbol at a time where each is a use's own, else of the record and all of its uses."""
    whole = spend.uses != _symbols(layer, example) or spend.uses == 1
    claim = scale_up(claim, spend.uses) if whole else claim
    with playing(layer, Played(seed)) as injected:
        found = bound(layer, example, whole=whole, claim=claim, draws=draws, alpha=alpha)
    if found.epsilon > claim:
        unit = f"a record of {spend.uses} uses" if whole and spend.uses > 1 else "one use"
        raise AssertionError(
            f"assert_ldp: {unit} must cost at most the epsilon claimed, {show(claim)}, got at least "
            f"{found.epsilon:.4g} (error probability {alpha:g}), by {found.event} over {found.draws:,} releases."
        )
    own = "" if injected else " from its own source (it keeps none where a test could replace it)"
    return LDPResult("statistical", claim, found.epsilon, alpha, f"{found.draws:,} releases{own}")
