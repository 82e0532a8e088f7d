"""Layers for the cut: two mechanisms with an exact epsilon, three defences without one."""

from splitpriv.layers.laplace_ldp import LaplaceLDP
from splitpriv.layers.protocol import PrivacyLayer
from splitpriv.layers.random_response_ldp import RandomResponseLDP

__all__ = ["LaplaceLDP", "PrivacyLayer", "RandomResponseLDP"]
