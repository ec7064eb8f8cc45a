"""Every fact of the paper in one place: what it sets, what it measures, what it claims.

S. Lee, G. H. An, S.-J. Kang, "Deep Chain HDRI: Reconstructing a High Dynamic Range Image from a Single
Low Dynamic Range Image", 2018, arXiv:1801.06277. Nothing here is ours.
"""

from __future__ import annotations

# Sections 4.1 and 4.2: architecture
EVS = (1, 2, 3, -1, -2, -3)
DILATIONS = (1, 1, 2, 3, 5, 8, 13)
KERNELS = 32
RECEPTIVE_FIELD = 67
PATCH_SIZE = 64

# Section 4.3: training
PATCH_STRIDE = 10
PATCH_PAIRS = 180_000
EPOCHS = 100
PATCHES = PATCH_PAIRS * EPOCHS  # 18,000,000 for each subnetwork
TV_WEIGHT = 0.001  # λ of Eq. 3
BATCH_SIZE = 1
LEARNING_RATE = 1e-3
BETA1 = 0.9
HOURS_PER_SUBNETWORK = 48  # on a GTX 1080 Ti

# Section 4.4: data set
SCENES = 96
SPLIT = (7, 3, 10)  # training : validation : test
IMAGE_SIZE = (912, 608)  # width, height

# Section 6: evaluation
TEST_SCENES = 48
DISPLAY_DIAGONAL_INCHES = 24
DISPLAY_RESOLUTION = (1920, 1200)  # the abstract
VIEWING_DISTANCE_M = 0.5
PEAK_CONTRAST = 0.0025
DISPLAY_GAMMA = 2.2

TABLE1 = {-3: 8.7, -2: 10.87, -1: 15.74, 1: 15.88, 2: 10.40, 3: 7.62}  # EV -> PSNR to EV 0, in dB


def _scores(psnr, ssim, ms_ssim):
    return {"psnr": psnr, "ssim": ssim, "ms_ssim": ms_ssim}


TABLE4 = {
    3: _scores((28.18, 2.77), (0.953, 0.065), (0.983, 0.015)),
    2: _scores((29.65, 3.06), (0.959, 0.065), (0.986, 0.016)),
    1: _scores((31.90, 3.43), (0.969, 0.039), (0.992, 0.008)),
    -1: _scores((29.01, 3.83), (0.935, 0.056), (0.980, 0.017)),
    -2: _scores((26.72, 4.54), (0.952, 0.029), (0.974, 0.021)),
    -3: _scores((24.33, 4.57), (0.919, 0.036), (0.948, 0.037)),
}
"""Inferred against true exposures: EV -> metric -> (mean, σ)."""

TABLE2 = {"chain": TABLE4[3], "shallow": _scores((17.52, 4.83), (0.913, 0.077), (0.966, 0.048))}
"""EV 0 -> EV +3, the chain against the network of [22]: metric -> (mean, σ)."""

TABLE3 = {(ev, "mprelu"): TABLE4[ev] for ev in (-1, -2, -3)} | {
    (-1, "prelu"): _scores((28.28, 2.96), (0.931, 0.053), (0.977, 0.015)),
    (-2, "prelu"): _scores((24.98, 3.92), (0.910, 0.050), (0.962, 0.028)),
    (-3, "prelu"): _scores((22.58, 4.46), (0.836, 0.075), (0.933, 0.046)),
}
"""(EV, activation) -> metric -> (mean, σ)."""

TABLE5 = {
    "deep_chain": {"psnr": (30.86, 3.36), "hdrvdp2_q": (56.36, 4.41)},
    "huo": {"psnr": (18.43, 3.04), "hdrvdp2_q": (50.00, 5.86)},
    "kovaleski_oliveira": {"psnr": (21.76, 2.81), "hdrvdp2_q": (50.28, 4.98)},
    "masia": {"psnr": (20.13, 2.21), "hdrvdp2_q": (51.24, 5.67)},
}
"""Method -> tone-mapped PSNR in dB and VDP quality score: (mean, σ)."""
