"""Warnings that point at the user's own line."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import torch

from splitpriv._errors import PrivacyWarning

_INSIDE = tuple(str(Path(file).parent) for file in (__file__, torch.__file__))


def warn(text: str) -> None:
    """Give a PrivacyWarning at the nearest frame outside splitpriv and torch."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_INSIDE):
        level, frame = level + 1, frame.f_back
    warnings.warn(text, PrivacyWarning, stacklevel=level)
