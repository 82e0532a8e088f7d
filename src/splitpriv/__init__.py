"""Privacy-preserving layers for split learning, with an exact epsilon."""

from splitpriv import accounting, cache, cutting, layers, mechanisms, release
from splitpriv._errors import (
    BudgetExceeded,
    CutError,
    InvalidParameterError,
    LedgerFileError,
    NonFiniteError,
    PrivacyError,
    PrivacyWarning,
    ReleaseFileError,
    ShapeError,
    SplitPrivError,
)
from splitpriv._version import __version__
from splitpriv.cache import ReleaseCache
from splitpriv.cutting import split, valid_cuts
from splitpriv.layers import (
    LaplaceLDP,
    LocalPretrainedEncoder,
    PrivacyLayer,
    RandomResponseLDP,
    RandomVectorMask,
    ReluSanitizer,
)
from splitpriv.release import Claims, Release
from splitpriv.split_model import SplitModel
from splitpriv.training import History, evaluate, fit

__all__ = [
    "BudgetExceeded",
    "Claims",
    "CutError",
    "History",
    "InvalidParameterError",
    "LaplaceLDP",
    "LedgerFileError",
    "LocalPretrainedEncoder",
    "NonFiniteError",
    "PrivacyError",
    "PrivacyLayer",
    "PrivacyWarning",
    "RandomResponseLDP",
    "RandomVectorMask",
    "Release",
    "ReleaseCache",
    "ReleaseFileError",
    "ReluSanitizer",
    "ShapeError",
    "SplitModel",
    "SplitPrivError",
    "__version__",
    "accounting",
    "cache",
    "cutting",
    "evaluate",
    "fit",
    "layers",
    "mechanisms",
    "release",
    "split",
    "valid_cuts",
]
