"""What was the input? Attacks that reconstruct records from what crossed the cut."""

from splitpriv.attacks.inversion.decoder import DecoderInversion
from splitpriv.attacks.inversion.gradient import GradientInversion
from splitpriv.attacks.inversion.inversion import Inversion
from splitpriv.attacks.inversion.invert import invert
from splitpriv.attacks.inversion.likelihood import LikelihoodInversion
from splitpriv.attacks.inversion.posterior import PosteriorInversion
from splitpriv.attacks.inversion.query_free import QueryFreeInversion
from splitpriv.attacks.inversion.report import InversionReport
from splitpriv.attacks.inversion.result import InversionResult

__all__ = [
    "DecoderInversion",
    "GradientInversion",
    "Inversion",
    "InversionReport",
    "InversionResult",
    "LikelihoodInversion",
    "PosteriorInversion",
    "QueryFreeInversion",
    "invert",
]
