"""SegNet-Basic: four 7x7 stages with pooling indices, the network of the paper's table 1.

Source: Badrinarayanan et al., PAMI 2017 (arXiv 1511.00561), section 3.2.
  python launch.py --config=configs/segnet_basic.py               streets at 96x192, 24 channels
  python launch.py --config=configs/segnet_basic.py:camvid_small  CamVid at 180x240, 32 channels
  python launch.py --config=configs/segnet_basic.py:camvid        CamVid at 360x480, the paper's
  python launch.py --config=configs/segnet_basic.py:paper         the same with the paper's solver
  python launch.py --config=configs/segnet_basic.py:idd           the SegNet notebook's settings
The paper reports mIoU 47.7 on CamVid's test split (median-frequency weights), 46.3 without.
"""

from configs import base, presets, segnet


def get_config(preset: str = "streets"):
    config = base.get_config()
    config.model.name = "segnet_basic"
    config.model.features = 64
    config.model.input_lrn = False
    config.model.momentum = 0.9  # batch normalisation: the share of the old statistics kept
    presets.apply(
        config,
        preset,
        {
            "streets": streets,
            "camvid": segnet.camvid,
            "camvid_small": camvid_small,
            "idd": segnet.idd,
            "paper": paper,
        },
    )
    return config


def streets(config):
    segnet.streets(config)
    del config.model.width
    config.model.features = 24


def camvid_small(config):
    segnet.camvid_small(config)
    del config.model.width
    config.model.features = 32


def paper(config):
    segnet.paper(config)
    config.model.input_lrn = True
