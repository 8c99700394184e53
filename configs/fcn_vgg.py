"""FCN-8s, FCN-16s and FCN-32s on VGG16, as their authors' Caffe networks.

Source: Long et al., CVPR 2015. Options: `segjax.models.FCNVGG`; choose the stride with
--config.model.stride=8|16|32.
  python launch.py --config=configs/fcn_vgg.py               streets at 96x192, width 1/8, CPU
  python launch.py --config=configs/fcn_vgg.py:camvid_small  CamVid at 180x240, width 1/4
  python launch.py --config=configs/fcn_vgg.py:camvid        CamVid at 360x480, the paper's width
  python launch.py --config=configs/fcn_vgg.py:paper         the recipe of SegNet's table 3
  python launch.py --config=configs/fcn_vgg.py:idd           the SegNet notebook's settings
There is no batch normalisation: at full width it needs VGG16's weights
(--config.init_from=imagenet/torchvision_v1, docs/weights.md); the narrow presets train from
nothing with Adam.
The 100 zeros around the image cost: 96x192 pixels are computed as 294x390.
What the sources of paper say:
  the SegNet paper, section 4 and table 3: optim.name=sgd, optim.momentum=0.9, data.name=camvid,
    data.image_size=360x480, optim.learning_rate=0.001, optim.schedule=constant, train.batch_size=5,
    train.steps=40000, loss.class_weights=none, model.dropout_rate=0.5
  table 3, row "FCN (learnt deconv)": model.learn_upsampling=True
  FCN's voc-fcn8s/net.py: optim.lr_scale=bias:2, optim.decay_scale=bias:0, model.stride=8,
    model.fc_features=4096
  FCN's solver.prototxt, and the SegNet authors': optim.weight_decay=0.0005
Different in paper: the data, 367 public images in place of 3,433. Whether the SegNet authors kept
  FCN's multipliers is not said. FCN's own solver (rate 1e-14 of a loss that is not divided,
  momentum 0.99, 100,000 updates of one image) is not this one.
"""

from configs import presets, recipes

# The SegNet paper compares all networks with SGD 0.001 fixed, momentum 0.9 and batch 5 (section 4,
# table 3), 40,000 updates for the first column; the weight decay is its solvers'.
TABLE3_SOLVER = dict(
    name="sgd", learning_rate=0.001, momentum=0.9, weight_decay=5e-4, schedule="constant"
)
TABLE3_RUN = dict(steps=40_000, batch_size=5, eval_every=500)


def get_config(preset: str = "streets"):
    return presets.make("fcn_vgg", preset, PRESETS)


def streets(config):
    presets.streets(config, 96, 192)
    narrow_streets_run(config)
    config.model.width = 0.125


def narrow_streets_run(config):
    """The settings with which a plain, narrow VGG learns in a few minutes of a CPU."""
    config.model.update(fc_features=256, dropout_rate=0.1)
    config.optim.update(name="adamw", learning_rate=1e-3, schedule="cosine", warmup_steps=50)
    config.train.update(steps=600, batch_size=4, eval_every=200)


def camvid(config):
    presets.camvid(config)
    config.loss.class_weights = "median_present"
    config.optim.update(TABLE3_SOLVER, schedule="poly")
    config.train.update(TABLE3_RUN)


def camvid_small(config):
    presets.camvid_small(config)
    config.model.update(width=0.25, fc_features=512, dropout_rate=0.1)
    config.optim.update(name="adamw", learning_rate=5e-4, schedule="cosine", warmup_steps=60)
    config.train.update(steps=1800, batch_size=4, eval_every=180)


def paper(config):
    """Table 3: no class balancing, no augmentation. (Its 3,433 training images are not public:
    these are CamVid's 367.)"""
    presets.camvid(config)
    recipes.nothing(config)
    config.optim.update(TABLE3_SOLVER, lr_scale="bias=2", decay_scale="bias=0")
    config.train.update(TABLE3_RUN)


PRESETS = dict(
    streets=streets,
    camvid=camvid,
    camvid_small=camvid_small,
    idd=presets.segnet_notebook,
    paper=paper,
)
