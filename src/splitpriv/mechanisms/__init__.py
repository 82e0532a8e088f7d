"""Mechanisms as finite channels of integers, and the randomness that drives them."""

from splitpriv.mechanisms.channel import Cascade, Channel
from splitpriv.mechanisms.discrete_laplace import DiscreteLaplace
from splitpriv.mechanisms.endless_codebook import EndlessCodebook
from splitpriv.mechanisms.k_closest import KClosest
from splitpriv.mechanisms.randomized_response import RandomizedResponse
from splitpriv.mechanisms.randomness import SecureSource, SeededSource, Source, make_source
from splitpriv.mechanisms.worst_pair import WorstPair

__all__ = [
    "Cascade",
    "Channel",
    "DiscreteLaplace",
    "EndlessCodebook",
    "KClosest",
    "RandomizedResponse",
    "SecureSource",
    "SeededSource",
    "Source",
    "WorstPair",
    "make_source",
]
