"""Why a cut is refused, before the user is told which cuts are near."""

from __future__ import annotations


class Refusal(Exception):
    """A cut that cannot be made; ``split`` turns it into a CutError.

    Args:
        constraint: what ``at`` would have to be, completing "at must be ...".
        detail: one or more sentences on what is in the way.
        by_run: whether it showed only when the halves were run.
        by_hand: whether the user could still cut there, by writing the halves.
    """

    def __init__(self, constraint: str, detail: str, *, by_hand: bool = False, by_run: bool = False) -> None:
        super().__init__(constraint, detail)
        self.constraint = constraint
        self.detail = detail
        self.by_hand = by_hand
        self.by_run = by_run

    def advice(self, near: str) -> str:
        """What is in the way and what to do, given the nearest valid cuts."""
        hand = "Or write the two halves as modules and pass them to SplitModel(edge, server) yourself."
        run = "Those are by structure: valid_cuts(model, example_input) runs each of them."
        return " ".join([self.detail, near] + [run] * self.by_run + [hand] * self.by_hand)


def listing(items: list[str], limit: int = 4) -> str:
    """Join ``items`` with commas, and count those beyond ``limit``."""
    shown = ", ".join(items[:limit])
    return shown if len(items) <= limit else f"{shown} and {len(items) - limit} more"
