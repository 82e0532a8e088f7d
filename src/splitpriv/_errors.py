"""The errors and the warning that splitpriv raises."""

from __future__ import annotations


class SplitPrivError(Exception):
    """Base of every error that splitpriv raises on purpose."""


class InvalidParameterError(SplitPrivError, ValueError):
    """A parameter is outside its stated range."""


class ShapeError(SplitPrivError, ValueError):
    """A tensor does not have the shape or the dtype that was asked for."""


class NonFiniteError(SplitPrivError, ValueError):
    """Features hold NaN or infinity, for which no guarantee can be stated."""


class CutError(SplitPrivError, ValueError):
    """A model cannot be cut at the place that was named."""


class ReleaseFileError(SplitPrivError, ValueError):
    """A release file is truncated, altered, foreign or of an unknown version."""


class LedgerFileError(SplitPrivError, RuntimeError):
    """A ledger's file is foreign, damaged, busy or not writable; nothing was drawn."""


class PrivacyError(SplitPrivError, RuntimeError):
    """The operation would break the privacy claim, or leave it unstated."""


class BudgetExceeded(PrivacyError):
    """A charge would pass the limit of a ledger; nothing was drawn or spent.

    Attributes:
        limit: the limit of that ledger; None where the error was made by hand, like the others.
        spent: what the worst record in the charge had paid.
        asked: what the charge asked of it.
    """

    def __init__(
        self, text: str, *, limit: float | None = None, spent: float | None = None, asked: float | None = None
    ) -> None:
        super().__init__(text)
        self.limit, self.spent, self.asked = limit, spent, asked


class PrivacyWarning(UserWarning):
    """Something is legal but weakens, or does not carry, a guarantee."""
