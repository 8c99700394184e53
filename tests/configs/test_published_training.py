"""Presets that bear a source's name train: 20 steps on small scenes, with narrow networks."""

import json

import numpy as np
import pytest

from configs import recipes
from segjax.commands.train import train
from segjax.training.metrics_file import read_metrics
from tests.configs.published import TABLE
from tests.configs.test_published import config_of

SIZE = (65, 97)
# What makes a network of each kind narrow.
NARROW = {"width": 0.125, "features": 16, "fc_features": 64, "aspp_features": 16}


def small(name):
    """The preset with all of its recipe, but for the data, the width and the length."""
    config = config_of(name)
    weights = config.loss.class_weights
    config.data.update(name="streets", variant="", root="", image_size=SIZE, train_images=16)
    config.data.update(train_split="train", val_split="val", eval_splits=("val",), eval_images=4)
    recipes.crop(config, *config.augment.crop_size)  # at most the canvas
    config.model.update({k: v for k, v in NARROW.items() if k in config.model})
    if config.model.get("encoder", "").startswith("resnet"):
        config.model.encoder = "resnet18"
    if weights == "published":  # only with its own data set
        config.loss.class_weights = "median_present"
    config.train.update(steps=20, epochs=0.0, batch_size=4, eval_every=20, log_every=5)
    return config


@pytest.mark.slow
@pytest.mark.parametrize("name", TABLE)
def test_trains_for_20_steps(name, tmp_path):
    train(small(name), tmp_path)
    losses = [row["loss"] for row in read_metrics(tmp_path) if row["split"] == "train"]
    assert len(losses) == 4
    assert np.all(np.isfinite(losses))
    results = json.loads((tmp_path / "results.json").read_text())["results"]
    assert results["val"]["images"] == 4
