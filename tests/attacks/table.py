"""One table of attacks drives the tests that all of them share: see test_attacks.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Case:
    """An attack, and how to run it on a small undefended target that is the same at every call.

    Attributes:
        attack: the configured attack; its class must accept ``dataclasses.replace``.
        run: runs an attack of that kind on the target, and returns its result.
        figure: the attack's main figure in a result: the larger, the more it learned.
        floor: what that figure must reach on the undefended target.
        sequential: True where batch_size groups steps of training, so that another one gives another result.
    """

    attack: Any
    run: Callable[[Any], Any]
    figure: Callable[[Any], float]
    floor: float
    sequential: bool = False

    def __str__(self) -> str:
        return type(self.attack).__name__
