"""Figure 6: the inferred stack follows the true one."""

import numpy as np

from replication.metrics import psnr
from replication.reconstruct import infer_stack


def test_inferred_stack_rises_in_brightness_and_is_nearer_to_the_truth_than_the_photo(mini):
    truth = mini[0].images
    inferred = infer_stack(truth[0])
    assert (np.diff([inferred[ev].mean() for ev in range(-3, 4)]) > 2).all()
    for ev in (-3, -2, -1, 1, 2, 3):
        unchanged = psnr(truth[0], truth[ev], data_range=255)
        assert psnr(inferred[ev], truth[ev], data_range=255) > unchanged + 5
