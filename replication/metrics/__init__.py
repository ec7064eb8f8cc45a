"""Measures of similarity. Every one states its data range or needs cd/m2."""

from replication.metrics.drim import DRIMResult, drim, overlay
from replication.metrics.fidelity import ms_ssim, psnr, pu21_encode, pu21_psnr, pu21_ssim, ssim
from replication.metrics.hdrvdp2 import HDRVDP2Result, hdrvdp2, pixels_per_degree
from replication.metrics.response import correct_response

__all__ = [
    "DRIMResult", "HDRVDP2Result", "correct_response", "drim", "hdrvdp2", "ms_ssim", "overlay",
    "pixels_per_degree", "psnr", "pu21_encode", "pu21_psnr", "pu21_ssim", "ssim",
]  # fmt: skip
