"""The presets of configs/notebooks.py hold what the documents print."""

import pytest

from configs import notebooks
from segjax.data.datasets import class_table
from segjax.models import model_options
from segjax.models.registry import HEAD

# Optimiser's rate, batch, epochs, early stopping, plateau's patience and its lowest rate.
DOCUMENTS = {
    "segnet": ("notebook_segnet", 1e-4, 16, 30, 5, 3, 1e-5),
    "pspnet": ("notebook_pspnet", 1e-3, 8, 30, 3, 2, 5e-4),
    "deeplabv3": ("notebook_deeplabv3", 1e-3, 8, 50, 5, 3, 5e-4),
}


@pytest.mark.parametrize("preset", DOCUMENTS)
def test_presets_are_the_notebooks(preset):
    config = notebooks.get_config(preset)
    optim, train = config.optim, config.train
    assert DOCUMENTS[preset] == (
        config.model.name,
        optim.learning_rate,
        train.batch_size,
        train.epochs,
        train.early_stop_patience,
        optim.plateau_patience,
        optim.plateau_min_rate,
    )
    assert (optim.name, optim.epsilon, optim.schedule) == ("adam", 1e-7, "constant")
    assert (optim.weight_decay, optim.plateau_factor) == (0, 0.2)
    assert (train.steps, train.eval_every) == (0, 0)  # by epochs, evaluated after each
    assert tuple(config.data.image_size) == (240, 480)
    assert (config.data.name, len(class_table(config.data))) == ("idd", 7)
    splits = config.data.train_split, config.data.val_split, *config.data.eval_splits
    assert splits == ("notebook_train", "val", "val", "notebook_test")
    assert (tuple(config.data.mean), tuple(config.data.std)) == ((0, 0, 0), (1, 1, 1))
    assert config.loss.class_weights == "none"
    assert (tuple(config.augment.scale), config.augment.flip) == ((1, 1), False)


def test_ncsu_preset_is_the_reports_first_test_case():
    config = notebooks.get_config("ncsu")
    optim, train = config.optim, config.train
    assert (optim.name, optim.learning_rate, optim.schedule) == ("sgd", 0.001, "constant")
    assert (optim.momentum, optim.weight_decay, optim.plateau_patience) == (0, 0, 0)
    assert (train.steps, train.eval_every, train.epochs) == (25_600, 512, 0)
    assert train.early_stop_patience == 0
    assert (config.data.name, tuple(config.data.image_size)) == ("camvid", (416, 608))
    white = [(1 - m) / s for m, s in zip(config.data.mean, config.data.std, strict=True)]
    assert white == pytest.approx([255 - 123.68, 255 - 116.779, 255 - 103.939])


@pytest.mark.parametrize("preset", ["streets", "segnet", "pspnet", "deeplabv3", "ncsu"])
def test_presets_are_full_networks_but_for_streets(preset):
    model = notebooks.get_config(preset).model
    known = {**HEAD, **model_options(model.name)}
    assert set(model) - {"name"} == set(known)
    if preset != "streets":
        assert {option: model[option] for option in known} == known
