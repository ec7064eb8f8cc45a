"""Measures of similarity; every one names its data range."""

from replication.metrics.fidelity import ms_ssim, psnr, ssim
from replication.metrics.pu21 import pu21_encode, pu21_psnr, pu21_ssim

__all__ = ["ms_ssim", "psnr", "pu21_encode", "pu21_psnr", "pu21_ssim", "ssim"]
