"""Attacks that know the defence: lower bounds on what a cut leaks, with honest statistics."""

from splitpriv.attacks import metrics
from splitpriv.attacks.attack import Attack
from splitpriv.attacks.cut_view import CutView, view_of
from splitpriv.attacks.estimate import Estimate, bootstrap, mean, proportion

__all__ = ["Attack", "CutView", "Estimate", "bootstrap", "mean", "metrics", "proportion", "view_of"]
