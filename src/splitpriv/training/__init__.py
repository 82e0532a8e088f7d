"""Training the server on what crossed the cut."""

from splitpriv.training.loop import History, evaluate, fit
from splitpriv.training.losses import forward_corrected
from splitpriv.training.moments import ClassMoments, class_moments

__all__ = ["ClassMoments", "History", "class_moments", "evaluate", "fit", "forward_corrected"]
