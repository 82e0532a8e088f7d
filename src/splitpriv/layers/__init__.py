"""Layers for the cut: mechanisms with an exact epsilon, defences without one; and one for labels."""

from splitpriv.layers.label_ldp import LabelLDP
from splitpriv.layers.laplace_ldp import LaplaceLDP
from splitpriv.layers.local_fit import EncoderHistory
from splitpriv.layers.local_pretrained_encoder import LocalPretrainedEncoder
from splitpriv.layers.protocol import PrivacyLayer
from splitpriv.layers.random_response_ldp import RandomResponseLDP
from splitpriv.layers.random_vector_mask import RandomVectorMask
from splitpriv.layers.relu_sanitizer import ReluSanitizer

__all__ = [
    "EncoderHistory",
    "LabelLDP",
    "LaplaceLDP",
    "LocalPretrainedEncoder",
    "PrivacyLayer",
    "RandomResponseLDP",
    "RandomVectorMask",
    "ReluSanitizer",
]
