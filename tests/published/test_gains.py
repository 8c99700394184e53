"""What a way of measuring gains, from the counts of images."""

import numpy as np
import pytest

from segjax.metrics.confusion import ImageConfusions
from segjax.published.gains import gain
from segjax.training.evaluation import Evaluation

RIGHT, HALF, NOTHING = np.diag([4, 4]), np.array([[4, 0], [4, 0]]), np.zeros((2, 2), int)


def evaluation(*confusions, names=("a", "b", "c")):
    dense = np.asarray(confusions, np.int64)
    return Evaluation(names[: len(dense)], ImageConfusions.from_dense(dense), 0.0)


def test_each_image_is_its_mean_over_the_seeds():
    """The mIoU of HALF is (4 / 8 + 0) / 2 = 0.25."""
    plain = [evaluation(RIGHT, HALF, NOTHING), evaluation(HALF, HALF, NOTHING)]
    test = gain(plain, [evaluation(RIGHT, RIGHT, NOTHING)])  # as an ensemble has it
    assert (test.images, test.better, test.worse) == (2, 2, 0)  # nothing is labelled in the third
    assert test.mean == pytest.approx((0.375 + 0.75) / 2)
    same = gain(plain, plain)
    assert (same.mean, same.equal) == (0, 2)


def test_no_gain_without_the_same_images():
    one = evaluation(RIGHT, HALF)
    assert gain([one], []) is None
    assert gain([], [one]) is None
    assert gain([one], [evaluation(RIGHT, HALF, names="ax")]) is None
    assert gain([evaluation(NOTHING)], [evaluation(NOTHING)]) is None
