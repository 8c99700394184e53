"""The common parts of configs: the choice of a preset, data sets, the seed notebooks' settings.

A preset starts from `base.py` and states all that differs: a data set with its augmentation from
here, the model's options, the optimiser and the length of the run. It sets no option twice, so that
nothing is left of a setting that it replaces.
"""

from collections.abc import Callable, Mapping

import ml_collections

from configs import base, recipes

Preset = Callable[[ml_collections.ConfigDict], None]


def make(model: str, preset: str, presets: Mapping[str, Preset]) -> ml_collections.ConfigDict:
    """The config of a model under the preset of that name.

    `PRESET+RECIPE` has that augmentation in place of the preset's, see `recipes.py`.

    Raises:
      ValueError: listing the presets or recipes, if the name is none of them.
    """
    name, plus, recipe = preset.partition("+")
    if name not in presets:
        raise ValueError(f"preset {name!r} is unknown; {model} has {', '.join(presets)}")
    if plus and recipe not in recipes.RECIPES:
        raise ValueError(
            f"recipe {recipe!r} is unknown; augmentation is one of {', '.join(recipes.RECIPES)}"
        )
    config = base.get_config(model).lock()  # locked: a misspelt option is an error
    presets[name](config)
    if plus:
        recipes.RECIPES[recipe](config)
    return config.unlock()


def streets(config, height: int, width: int):
    """Scenes of the same kind for training and evaluation, many and seen few times: what reaches
    the furthest in a few minutes of a CPU. Random scales and colours pay in longer runs."""
    config.data.update(image_size=(height, width), train_images=1200)
    recipes.nothing(config)
    config.augment.flip = True


def camvid(config, height: int = 360, width: int = 480):
    """CamVid as the SegNet authors use it: 367 images, 360x480, 11 classes."""
    config.data.update(
        name="camvid", root="data/camvid", image_size=(height, width), eval_splits=("val", "test")
    )


def camvid_small(config):
    """CamVid at half size, for a laptop's CPU; scored at the labels' own 360x480."""
    camvid(config, 180, 240)
    config.data.label_size = (360, 480)
    config.augment.scale = (0.75, 1.5)


def voc(config, side: int):
    """PASCAL VOC 2012 with SBD's masks: 10,582 images to train on, 1,449 to validate."""
    config.data.update(name="voc", variant="sbd", root="data/VOCdevkit", image_size=(side, side))


def idd_lite(config):
    """The recipe of the published baselines: AdamW 0.0024, cosine, batch 256, 200 epochs, zoom 1 to
    1.2, crop 224x320, cross-entropy + 0.5 Lovasz, heads at four times the rate."""
    config.data.update(name="idd_lite", root="data/idd_lite", image_size=(227, 320))
    recipes.nothing(config)
    config.augment.scale = (1.0, 1.2)
    recipes.crop(config, 224, 320)
    config.model.encoder = "resnet50"
    config.loss.update(terms="cross_entropy + 0.5 * lovasz", class_weights="median_present")
    config.optim.update(name="adamw", learning_rate=0.0024, schedule="cosine", lr_scale="head=4")
    config.train.update(epochs=200.0, batch_size=256)


def idd_lite_small(config):
    """IDD-Lite at 128x256, for a laptop's CPU: a narrow network from random weights."""
    config.data.update(name="idd_lite", root="data/idd_lite", image_size=(128, 256))
    recipes.nothing(config)
    config.augment.update(scale=(0.75, 1.5), flip=True)
    recipes.crop(config, 96, 192)
    config.optim.update(name="adamw", learning_rate=4e-3, schedule="cosine", warmup_steps=50)
    config.train.update(steps=1500, batch_size=8, eval_every=500)


def torchvision(config):
    """torchvision's network and, where there is an option for it, its reference training: SGD 0.02,
    batch 32, 30 epochs, poly, auxiliary loss 0.5, zoom 0.5 to 2 of 520, crop 480. (Its data are
    COCO's images of VOC's classes; here they are VOC's own.)

    For `init_from=` a file of `torchvision.models.segmentation`.
    """
    voc(config, 520)
    recipes.torchvision(config)
    config.model.update(output_stride=8, contract_dilation=True)
    config.loss.aux_weight = 0.5
    config.optim.update(learning_rate=0.02, lr_scale="aux=10", decay_scale="")
    config.train.update(epochs=30.0, batch_size=32)


# The seed notebooks on the India Driving Dataset --------------------------------------------------


def segnet_notebook(config):
    """`segnet_keras_idd`: Adam 1e-4, batch 16, 30 epochs, patience 5, plateau 3 (to 1e-5)."""
    _idd(config)
    config.optim.update(learning_rate=1e-4, plateau_patience=3, plateau_min_rate=1e-5)
    config.train.update(epochs=30.0, batch_size=16, early_stop_patience=5)


def pspnet_notebook(config):
    """`pspnet_keras_idd`: Adam 1e-3, batch 8, 30 epochs, patience 3, plateau 2 (to 5e-4)."""
    _idd(config)
    config.optim.update(learning_rate=1e-3, plateau_patience=2, plateau_min_rate=5e-4)
    config.train.update(epochs=30.0, batch_size=8, early_stop_patience=3)


def deeplabv3_notebook(config):
    """`deeplabv3_keras_idd`: Adam 1e-3, batch 8, 50 epochs, patience 5, plateau 3 (to 5e-4)."""
    _idd(config)
    config.optim.update(learning_rate=1e-3, plateau_patience=3, plateau_min_rate=5e-4)
    config.train.update(epochs=50.0, batch_size=8, early_stop_patience=5)


def _idd(config):
    """The India Driving Dataset at level 1 as the notebooks prepared it: 240x480, 7 classes.

    `data.root` holds the data set as it comes, both of its parts. The notebooks hold back 4,011 of
    its 14,027 training images to test on, and validate on all 2,036 validation images. They augment
    nothing, weight nothing, keep the best by validation mIoU, evaluate once an epoch, and lower the
    rate to a fifth when that stands still.
    """
    config.data.update(
        name="idd",
        variant="level1",
        root="data/idd",
        train_split="notebook_train",
        val_split="val",
        eval_splits=("val", "notebook_test"),
        image_size=(240, 480),
    )
    recipes.nothing(config)
    config.optim.update(
        name="adam",
        epsilon=1e-7,  # Keras's
        weight_decay=0.0,
        schedule="constant",
        plateau_factor=0.2,
    )
