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
    segnet.paper(config)
    recipes.segnet(config)


def bayesian(config):
    segnet.bayesian(config)
    config.model.input_lrn = True


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
