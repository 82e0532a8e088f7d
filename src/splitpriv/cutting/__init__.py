"""Cutting a model in two by the name of one of its modules."""

from splitpriv.cutting.cut import split, valid_cuts

__all__ = ["split", "valid_cuts"]
