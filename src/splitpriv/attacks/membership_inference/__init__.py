"""Was this record in the training set? Attacks on a trained server, and the shadow models that they share."""

from splitpriv.attacks.membership_inference.front import membership
from splitpriv.attacks.membership_inference.lira import LiRA
from splitpriv.attacks.membership_inference.report import MembershipReport
from splitpriv.attacks.membership_inference.result import MembershipResult
from splitpriv.attacks.membership_inference.rmia import RMIA
from splitpriv.attacks.membership_inference.shadows import ShadowPool, train_shadows
from splitpriv.attacks.membership_inference.shokri import ShadowMembership
from splitpriv.attacks.membership_inference.target import MembershipTarget
from splitpriv.attacks.membership_inference.threshold import ThresholdMembership
from splitpriv.attacks.membership_inference.training import ServerTraining

__all__ = [
    "RMIA",
    "LiRA",
    "MembershipReport",
    "MembershipResult",
    "MembershipTarget",
    "ServerTraining",
    "ShadowMembership",
    "ShadowPool",
    "ThresholdMembership",
    "membership",
    "train_shadows",
]
