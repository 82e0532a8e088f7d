"""Privacy-preserving layers for split learning, with an exact epsilon."""

from splitpriv import accounting, attacks, cache, cutting, layers, mechanisms, release, training
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
    CodebookLDP,
    EmbeddedLabels,
    L1LaplaceLDP,
    LabelLDP,
    LaplaceLDP,
    LocalPretrainedEncoder,
    PrivacyLayer,
    Projection,
    RandomCodebookLDP,
    RandomResponseLDP,
    RandomVectorMask,
    ReluSanitizer,
)
from splitpriv.release import Claims, Release
from splitpriv.split_model import SplitModel
from splitpriv.training import ClassMoments, History, class_moments, evaluate, fit, forward_corrected

__all__ = [
    "BudgetExceeded",
    "Claims",
    "ClassMoments",
    "CodebookLDP",
    "CutError",
    "EmbeddedLabels",
    "History",
    "InvalidParameterError",
    "L1LaplaceLDP",
    "LabelLDP",
    "LaplaceLDP",
    "LedgerFileError",
    "LocalPretrainedEncoder",
    "NonFiniteError",
    "PrivacyError",
    "PrivacyLayer",
    "PrivacyWarning",
    "Projection",
    "RandomCodebookLDP",
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
    "attacks",
    "cache",
    "class_moments",
    "cutting",
    "evaluate",
    "fit",
    "forward_corrected",
    "layers",
    "mechanisms",
    "release",
    "split",
    "training",
    "valid_cuts",
]
