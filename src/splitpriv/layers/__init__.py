"""Layers for the cut: mechanisms with an exact epsilon, defences without one; labels; and a projection."""

from splitpriv.layers.codebook_choice import CodebookChoice
from splitpriv.layers.codebook_ldp import CodebookLDP
from splitpriv.layers.embedded_labels import EmbeddedLabels
from splitpriv.layers.l1_laplace_ldp import L1LaplaceLDP
from splitpriv.layers.label_ldp import LabelLDP
from splitpriv.layers.laplace_ldp import LaplaceLDP
from splitpriv.layers.local_fit import EncoderHistory
from splitpriv.layers.local_pretrained_encoder import LocalPretrainedEncoder
from splitpriv.layers.projection import Projection
from splitpriv.layers.protocol import PrivacyLayer
from splitpriv.layers.random_codebook_ldp import RandomCodebookLDP
from splitpriv.layers.random_response_ldp import RandomResponseLDP
from splitpriv.layers.random_vector_mask import RandomVectorMask
from splitpriv.layers.relu_sanitizer import ReluSanitizer

__all__ = [
    "CodebookChoice",
    "CodebookLDP",
    "EmbeddedLabels",
    "EncoderHistory",
    "L1LaplaceLDP",
    "LabelLDP",
    "LaplaceLDP",
    "LocalPretrainedEncoder",
    "PrivacyLayer",
    "Projection",
    "RandomCodebookLDP",
    "RandomResponseLDP",
    "RandomVectorMask",
    "ReluSanitizer",
]
