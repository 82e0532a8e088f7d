"""Privacy-preserving layers for split learning, with an exact epsilon."""

from splitpriv import accounting, mechanisms
from splitpriv._errors import (
    BudgetExceeded,
    CutError,
    InvalidParameterError,
    NonFiniteError,
    PrivacyError,
    PrivacyWarning,
    ReleaseFileError,
    ShapeError,
    SplitPrivError,
)
from splitpriv._version import __version__
from splitpriv.layers import LaplaceLDP, RandomResponseLDP

__all__ = [
    "BudgetExceeded",
    "CutError",
    "InvalidParameterError",
    "LaplaceLDP",
    "NonFiniteError",
    "PrivacyError",
    "PrivacyWarning",
    "RandomResponseLDP",
    "ReleaseFileError",
    "ShapeError",
    "SplitPrivError",
    "__version__",
    "accounting",
    "mechanisms",
]
