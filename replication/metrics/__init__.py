"""Measures of similarity; every one names its data range."""

from replication.metrics.fidelity import ms_ssim, psnr, ssim

__all__ = ["ms_ssim", "psnr", "ssim"]
