"""What the presets of all configs share: the data set, its sizes, the length of the run."""

from collections.abc import Callable, Mapping

import ml_collections

from configs import recipes

Preset = Callable[[ml_collections.ConfigDict], None]


def apply(config: ml_collections.ConfigDict, preset: str, presets: Mapping[str, Preset]) -> None:
    """Changes `config` to the preset of that name; `PRESET+RECIPE` then to that augmentation.

    Raises:
      ValueError: listing the presets or recipes, if the name is none of them.
    """
    preset, plus, recipe = preset.partition("+")
    if preset not in presets:
        raise ValueError(
            f"preset {preset!r} is unknown; {config.model.name} has {', '.join(presets)}"
        )
    if plus and recipe not in recipes.RECIPES:
        raise ValueError(
            f"recipe {recipe!r} is unknown; augmentation is one of {', '.join(recipes.RECIPES)}"
        )
    presets[preset](config)
    if plus:
        recipes.RECIPES[recipe](config)


def streets_short(config: ml_collections.ConfigDict) -> None:
    """Scenes of the same kind for training and evaluation, many and seen few times: what reaches
    the furthest in a few minutes of a CPU. Random scales and colours pay in longer runs."""
    config.data.train_images = 1200
    recipes.nothing(config)
    config.augment.flip = True
    config.optim.name = "adamw"
    config.optim.learning_rate = 4e-3
    config.optim.schedule = "cosine"
    config.optim.warmup_steps = 50
    config.train.steps = 1500
    config.train.batch_size = 8
    config.train.eval_every = 500


def camvid(config: ml_collections.ConfigDict) -> None:
    """CamVid as the SegNet authors use it: 367 images, 360x480, 11 classes."""
    config.data.name = "camvid"
    config.data.root = "data/camvid"
    config.data.image_size = (360, 480)
    config.data.eval_splits = ("val", "test")
    config.train.epochs = 0.0
    config.train.steps = 20_000
    config.train.batch_size = 8
    config.train.eval_every = 500


def camvid_small(config: ml_collections.ConfigDict) -> None:
    """CamVid at half size, for a laptop's CPU; scored at the labels' own 360x480."""
    camvid(config)
    config.data.image_size = (180, 240)
    config.data.label_size = (360, 480)
    config.augment.scale = (0.75, 1.5)
    config.train.batch_size = 6
    config.train.steps = 1800
    config.train.eval_every = 180  # about three epochs
    config.optim.name = "adamw"
    config.optim.learning_rate = 2e-3
    config.optim.schedule = "cosine"
    config.optim.warmup_steps = 60


def voc(config: ml_collections.ConfigDict) -> None:
    """PASCAL VOC 2012 with SBD's masks: 10,582 images to train on, 1,449 to validate."""
    config.data.name = "voc"
    config.data.variant = "sbd"
    config.data.root = "data/VOCdevkit"


def torchvision(config: ml_collections.ConfigDict) -> None:
    """torchvision's network and, where there is an option for it, its reference training: SGD 0.02,
    batch 32, 30 epochs, poly, auxiliary loss 0.5, zoom 0.5 to 2 of 520, crop 480. (Its data are
    COCO's images of VOC's classes; here they are VOC's own.)

    For `init_from=` a file of `torchvision.models.segmentation`. (Its auxiliary head learns ten
    times faster than the rest; here all have one rate.)
    """
    config.model.encoder = "resnet50"
    config.model.output_stride = 8
    config.model.stem = "7x7"
    config.model.contract_dilation = True
    config.model.aux = True
    config.model.align_corners = False
    voc(config)
    config.data.image_size = (520, 520)
    recipes.torchvision(config)
    config.optim.learning_rate = 0.02
    config.optim.decay_biases_and_norms = True
    config.loss.aux_weight = 0.5
    config.train.steps = 0
    config.train.epochs = 30.0
    config.train.batch_size = 32


def idd(config: ml_collections.ConfigDict) -> None:
    """The India Driving Dataset at level 1 as the seed notebooks prepared it: 240x480, 7 classes.

    `data.root` holds the data set as it comes, both of its parts. The notebooks hold back 4,011 of
    its 14,027 training images to test on, and validate on all 2,036 validation images. They augment
    nothing, weight nothing, keep the best by validation mIoU, and lower the rate to a fifth when
    that stands still.
    """
    config.data.name = "idd"
    config.data.variant = "level1"
    config.data.root = "data/idd"
    config.data.train_split = "notebook_train"
    config.data.val_split = "val"
    config.data.eval_splits = ("val", "notebook_test")
    config.data.image_size = (240, 480)
    recipes.nothing(config)
    if "aux" in config.model:
        config.model.aux = False
    config.optim.name = "adam"
    config.optim.epsilon = 1e-7  # Keras's
    config.optim.weight_decay = 0.0
    config.optim.schedule = "constant"
    config.optim.plateau_factor = 0.2
    config.train.steps = 0
    config.train.eval_every = 0  # once an epoch
