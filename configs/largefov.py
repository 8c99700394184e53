"""DeepLab-LargeFOV: VGG16 at output stride 8 with an atrous fc6.

Source: Chen et al., ICLR 2015 (arXiv 1412.7062). Options: `segjax.models.DeepLabLargeFOV`.
  python launch.py --config=configs/largefov.py               streets at 97x193, width 1/4, CPU
  python launch.py --config=configs/largefov.py:camvid_small  CamVid at 180x240, width 1/4
  python launch.py --config=configs/largefov.py:camvid        CamVid at 360x480, the paper's width
  python launch.py --config=configs/largefov.py:paper         the recipe of SegNet's table 3
  python launch.py --config=configs/largefov.py:voc           the authors' own recipe on VOC
  python launch.py --config=configs/largefov.py:idd           the SegNet notebook's settings
There is no batch normalisation: at full width it needs VGG16's weights
(--config.init_from=imagenet/torchvision_v1, docs/weights.md); the narrow presets train from
nothing with Adam.
What the sources of paper say:
  the SegNet paper, section 4 and table 3: optim.name=sgd, optim.momentum=0.9, data.name=camvid,
    data.image_size=360x480, optim.learning_rate=0.001, optim.schedule=constant, train.batch_size=5,
    train.steps=40000, loss.class_weights=none, model.dropout_rate=0.5
  DeepLab-LargeFOV's train.prototxt: optim.lr_scale=classifier:10;bias:2, optim.decay_scale=bias:0,
    model.rate=12, model.fc_features=1024
  DeepLab-LargeFOV's solver.prototxt, and the SegNet authors': optim.weight_decay=0.0005
Different in paper: the data, 367 public images in place of 3,433; the loss, which DeepLab takes at
  an eighth of the image's size from labels that are shrunk, and here at the full size. Whether the
  SegNet authors kept DeepLab's multipliers is not said. Row "+ denseCRF": evaluate with --crf.
What the sources of voc say:
  solver.prototxt: optim.name=sgd, optim.momentum=0.9, optim.learning_rate=0.001,
    optim.schedule=step, optim.step_at=0.333333x0.666667, optim.step_factor=0.1,
    optim.weight_decay=0.0005, train.steps=6000
  train.prototxt: data.name=voc, data.variant=sbd, train.batch_size=30, augment.crop_size=321x321,
    augment.flip=True, augment.scale=1x1, optim.lr_scale=classifier:10;bias:2,
    optim.decay_scale=bias:0, model.dropout_rate=0.5, model.rate=12, model.fc_features=1024,
    loss.class_weights=none
Different in voc: the loss is taken at the full size, as above.
"""

from configs import fcn_vgg, presets, recipes

# The last layer learns ten times as fast, its bias twenty times.
MULTIPLIERS = dict(lr_scale="classifier=10,bias=2", decay_scale="bias=0")


def get_config(preset: str = "streets"):
    return presets.make("deeplab_largefov", preset, PRESETS)


def streets(config):
    presets.streets(config, 97, 193)  # 8k + 1: corners on corners
    fcn_vgg.narrow_streets_run(config)
    config.model.update(width=0.25, rate=4)  # the scores are 13x25


def camvid_small(config):
    fcn_vgg.camvid_small(config)
    config.model.rate = 6


def paper(config):
    fcn_vgg.paper(config)
    config.optim.update(MULTIPLIERS)


def voc(config):
    """The authors' release: SGD 0.001, a tenth after every 2,000 of 6,000 updates, crop 321."""
    presets.voc(config, 500)  # VOC's longer side
    recipes.nothing(config)
    config.augment.flip = True
    recipes.crop(config, 321, 321)
    config.optim.update(
        name="sgd", learning_rate=0.001, weight_decay=5e-4, schedule="step", step_at=(1 / 3, 2 / 3)
    )
    config.optim.update(MULTIPLIERS)
    config.train.update(steps=6000, batch_size=30, eval_every=1000)


PRESETS = dict(
    streets=streets,
    camvid=fcn_vgg.camvid,
    camvid_small=camvid_small,
    idd=presets.segnet_notebook,
    paper=paper,
    voc=voc,
)
