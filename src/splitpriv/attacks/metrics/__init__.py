"""What an attack achieved, as numbers."""

from splitpriv.attacks.metrics.identification import identification_rank
from splitpriv.attacks.metrics.image import mse, psnr, ssim, ssim_defined

__all__ = ["identification_rank", "mse", "psnr", "ssim", "ssim_defined"]
