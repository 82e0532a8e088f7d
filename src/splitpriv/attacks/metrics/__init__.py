"""What an attack achieved, as numbers."""

from splitpriv.attacks.metrics.classification import (
    RocCurve,
    auc,
    balanced_accuracy,
    balanced_threshold,
    f1,
    f1_of_all,
    roc_curve,
    threshold_at_fpr,
    tpr_at_fpr,
)
from splitpriv.attacks.metrics.identification import identification_rank
from splitpriv.attacks.metrics.image import mse, psnr, ssim, ssim_defined

__all__ = [
    "RocCurve",
    "auc",
    "balanced_accuracy",
    "balanced_threshold",
    "f1",
    "f1_of_all",
    "identification_rank",
    "mse",
    "psnr",
    "roc_curve",
    "ssim",
    "ssim_defined",
    "threshold_at_fpr",
    "tpr_at_fpr",
]
