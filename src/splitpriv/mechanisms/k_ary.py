"""k-ary randomized response: the truth, or one of the other symbols, all equally likely."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction

from splitpriv._errors import InvalidParameterError
from splitpriv._validation import message
from splitpriv.mechanisms.channel import Channel
from splitpriv.mechanisms.rounding import exp_decimal, log_up, precise

_WORDS = 1 << 64
_FAR = 45.0  # e**45 > 2**64: no channel of 64-bit words reaches it


def k_ary_response(inputs: int, *, kept: Sequence[int], epsilon: float) -> Channel:
    """Randomized response over the ``kept`` symbols; an input outside them becomes a uniform draw of them.

    A kept symbol has weight A, each other kept one B, and an input outside them has weight U for all k:

        A + (k - 1) B = k U,  so  A = B + k t  and  U = B + t  with a whole number t.

    B is the largest that leaves room for the row in 64-bit words; then t, and with it A, the largest
    for which A / B <= e**epsilon, the outward-rounded logarithm included. U lies between the two, so
    ln(A / B) is the epsilon of the whole channel.

    Args:
        inputs: number of symbols, the same on both sides.
        kept: two or more different symbols in [0, inputs).
        epsilon: the privacy loss asked for (natural log), > 0.

    Raises:
        InvalidParameterError: epsilon is so small that 64-bit words can only express 0.
    """
    k = len(kept)
    assert k == len(set(kept)) >= 2  # callers are this package's own
    odds = exp_decimal(Fraction(min(epsilon, _FAR)))
    other = max(1, int(precise().divide(_WORDS, odds + (k - 1))))
    steps = min(int(precise().multiply(Decimal(other), odds)) - other, _WORDS - k * other) // k
    while steps > 0 and log_up(Fraction(other + k * steps, other)) > epsilon:
        steps -= 1 + steps // 2**53  # the reported float must not pass the one asked either
    if steps < 1:
        constraint = "large enough to be expressed in 64 bits"
        raise InvalidParameterError(message("k_ary_response", "epsilon", constraint, epsilon))
    among = set(kept)
    outside = [(other + steps) * (symbol in among) for symbol in range(inputs)]
    rows = []
    for symbol in range(inputs):
        row = [other * (column in among) for column in range(inputs)]
        row[symbol] += k * steps
        rows.append(row if symbol in among else outside)
    return Channel(rows)


def most_likely_kept(prior: Sequence[Fraction], *, epsilon: float) -> list[int]:
    """The top-k symbols of a prior, for the k at which the released symbol is most often the true one.

    That is the k that maximises e^ε / (e^ε + k - 1) times the sum of the k largest probabilities;
    the smallest such k, symbols of equal probability in their order.

    Source: Ghazi, Golowich, Kumar, Manurangsi, Zhang 2021, algorithm RRWithPrior.
    """
    order = sorted(range(len(prior)), key=lambda symbol: -prior[symbol])
    odds = Fraction(exp_decimal(Fraction(min(epsilon, _FAR))))
    best, size, mass = Fraction(0), 0, Fraction(0)
    for k, symbol in enumerate(order, start=1):
        mass += prior[symbol]
        right = mass / (odds + k - 1)
        if right > best:
            best, size = right, k
    return sorted(order[:size])
