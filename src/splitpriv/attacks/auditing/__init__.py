"""Guarantees against measurements: lower bounds on epsilon, and what no attacker can exceed."""

from splitpriv.attacks.auditing.bayes import advantage_bound, bayes_accuracy, channel_accuracy, tpr_bound
from splitpriv.attacks.auditing.canaries import OneRunAudit
from splitpriv.attacks.auditing.floating_point import FloatingPointAttack, FloatingPointResult
from splitpriv.attacks.auditing.front import audit
from splitpriv.attacks.auditing.lower_bound import LowerBoundAudit
from splitpriv.attacks.auditing.one_run import one_run_epsilon
from splitpriv.attacks.auditing.result import AuditResult
from splitpriv.attacks.auditing.training import audit_training

__all__ = [
    "AuditResult",
    "FloatingPointAttack",
    "FloatingPointResult",
    "LowerBoundAudit",
    "OneRunAudit",
    "advantage_bound",
    "audit",
    "audit_training",
    "bayes_accuracy",
    "channel_accuracy",
    "one_run_epsilon",
    "tpr_bound",
]
