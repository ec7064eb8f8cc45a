"""Measures of similarity; every one names its data range."""

from replication.metrics.drim import DRIMResult, drim, overlay
from replication.metrics.fidelity import ms_ssim, psnr, ssim
from replication.metrics.hdrvdp2 import HDRVDP2Result, hdrvdp2, pixels_per_degree
from replication.metrics.pu21 import pu21_encode, pu21_psnr, pu21_ssim

__all__ = [
    "DRIMResult",
    "HDRVDP2Result",
    "drim",
    "hdrvdp2",
    "ms_ssim",
    "overlay",
    "pixels_per_degree",
    "psnr",
    "pu21_encode",
    "pu21_psnr",
    "pu21_ssim",
    "ssim",
]
