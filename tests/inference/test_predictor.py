"""Prediction at the image's own size, from a workdir alone."""

import numpy as np
import pytest

from configs import base
from segjax.data.classes import from_names
from segjax.inference.predictor import Predictor


class BrightestThird:
    """A stand-in model: class 0, 1 or 2 by which colour channel is the largest."""

    def apply(self, variables, images, *, train):
        assert not train
        return {"logits": images * variables}


@pytest.fixture
def predictor():
    config = base.get_config()
    config.data.image_size = (24, 32)
    config.data.mean, config.data.std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    return Predictor(BrightestThird(), 1.0, from_names(["red", "green", "blue"]), config)


@pytest.mark.parametrize("size", [(24, 32), (48, 64), (37, 53), (30, 90), (100, 20), (1, 1)])
def test_labels_have_the_images_size_and_place(predictor, size):
    """Left half green, right half blue, upper rows red: found again at any size and shape."""
    height, width = size
    truth = np.ones(size, int)
    truth[:, width // 2 :] = 2
    truth[: height // 3] = 0
    image = (np.eye(3)[truth] * 250).astype(np.uint8)
    label = predictor.predict(image)
    assert label.shape == size
    assert label.dtype == np.uint8
    # Only pixels beside a border may change, by the resizing there and back.
    assert np.mean(label == truth) > 0.85


def test_wrong_input(predictor):
    with pytest.raises(ValueError, match=r"uint8 image \[h, w, 3\], found float64 \(4, 4, 3\)"):
        predictor.predict(np.zeros((4, 4, 3)))
    with pytest.raises(ValueError, match=r"found uint8 \(4, 4\)"):
        predictor.predict(np.zeros((4, 4), np.uint8))


def test_no_run(tmp_path):
    with pytest.raises(ValueError, match=r"holds no run \(there is no config.json\)"):
        Predictor.from_workdir(tmp_path)
