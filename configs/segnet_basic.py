"""SegNet-Basic: four 7x7 stages with pooling indices, the network of the paper's table 1.

Source: Badrinarayanan et al., PAMI 2017 (arXiv 1511.00561), section 3.2.
Options: `segjax.models.SegNetBasic`.
  python launch.py --config=configs/segnet_basic.py               streets at 96x192, 24 channels
  python launch.py --config=configs/segnet_basic.py:camvid_small  CamVid at 180x240, 32 channels
  python launch.py --config=configs/segnet_basic.py:camvid        CamVid at 360x480, the paper's
  python launch.py --config=configs/segnet_basic.py:paper         the same with the paper's solver
  python launch.py --config=configs/segnet_basic.py:idd           the SegNet notebook's settings
Bayesian SegNet-Basic (Kendall et al., arXiv 1511.02680) with its authors' solver:
  python launch.py --config=configs/segnet_basic.py:bayesian
The rows of table 1, each the decoder of its name with the settings of `paper` (mIoU on CamVid's
test split with median-frequency weights, without them):
  python launch.py --config=configs/segnet_basic.py:bilinear_interpolation      43.3, 43.8
  python launch.py --config=configs/segnet_basic.py:segnet_basic                47.7, 46.3
  python launch.py --config=configs/segnet_basic.py:encoder_addition            48.5, 47.7
  python launch.py --config=configs/segnet_basic.py:single_channel_decoder      46.1, 45.2
  python launch.py --config=configs/segnet_basic.py:fcn_basic                   47.3, 45.0
  python launch.py --config=configs/segnet_basic.py:fcn_basic_no_addition       44.1, 44.2
  python launch.py --config=configs/segnet_basic.py:fcn_basic_no_dim_reduction  50.1, 47.0
  python launch.py --config=configs/segnet_basic.py:fcn_basic_no_addition_no_dim_reduction
                                                                                45.9, 45.5
`--config.loss.class_weights=none` trains without the weights.
What the sources of paper say:
  section 3.2: data.name=camvid, data.image_size=360x480
  section 3.3: optim.name=sgd, optim.momentum=0.9, optim.learning_rate=0.1, optim.schedule=constant,
    train.batch_size=12, train.eval_every=1000, loss.class_weights=median_present,
    augment.scale=1x1, augment.flip=False, augment.rotate=0
  section 3.2, table 1: data.local_contrast=9, model.features=64
  segnet_basic_solver.prototxt: optim.weight_decay=0.0005
  segnet_basic_train.prototxt: optim.lr_scale=bias:2, optim.decay_scale=bias:0,
    loss.terms=cross_entropy
Different in paper: what configs/segnet.py says of its preset paper holds here too.
What the sources of bayesian say:
  bayesian_segnet_basic_solver.prototxt: optim.name=sgd, optim.momentum=0.9,
    optim.learning_rate=0.1, optim.schedule=constant, optim.weight_decay=0.0005, train.steps=10000
  bayesian_segnet_basic_train.prototxt: data.name=camvid, train.batch_size=4,
    model.dropout_rate=0.5, model.input_lrn=True, loss.class_weights=published,
    optim.lr_scale=bias:2, optim.decay_scale=bias:0, loss.terms=cross_entropy, augment.scale=1x1,
    augment.flip=False, augment.rotate=0
"""

import functools

from configs import presets, recipes, segnet
from segjax.models.segnet_basic import TABLE1


def get_config(preset: str = "streets"):
    return presets.make("segnet_basic", preset, PRESETS)


def streets(config):
    segnet.streets_run(config)
    config.model.features = 24


def camvid_small(config):
    segnet.camvid_small_run(config)
    config.model.features = 32


def paper(config):
    """Section 3.3, with local contrast normalisation of the image; the authors' published network
    has a local response normalisation over the channels in its place (`bayesian`)."""
    segnet.paper_run(config)
    recipes.segnet(config)
    config.optim.update(segnet.CAFFE)


def bayesian(config):
    """The authors' published solver: SGD 0.1 fixed, batch 4, 10,000 updates; dropout 0.5."""
    segnet.bayesian_run(config)
    config.model.input_lrn = True
    config.optim.update(segnet.CAFFE, learning_rate=0.1)
    config.train.steps = 10_000


def table1(config, row: str):
    """The settings of `paper` for another decoder."""
    paper(config)
    config.model.update(TABLE1[row])


PRESETS = {
    "streets": streets,
    "camvid": segnet.camvid,
    "camvid_small": camvid_small,
    "idd": presets.segnet_notebook,
    "paper": paper,
    "bayesian": bayesian,
    **{row: functools.partial(table1, row=row) for row in TABLE1},
}
