"""DeconvNet: VGG16 to the end and all the way back, with unpooling.

Source: Noh et al., ICCV 2015 (arXiv 1505.04366).
  python launch.py --config=configs/deconvnet.py               streets at 96x192, width 1/4, CPU
  python launch.py --config=configs/deconvnet.py:camvid_small  CamVid at 180x240, width 1/4
  python launch.py --config=configs/deconvnet.py:camvid        CamVid at 360x480, 1024 features
  python launch.py --config=configs/deconvnet.py:paper         the recipe of SegNet's table 3
  python launch.py --config=configs/deconvnet.py:idd           the SegNet notebook's settings
fc_kernel is the whole bottom map, 1/32 of the image rounded up; the authors' own 4096 features of a
7x7 map are for 224x224 images. VGG16's weights: --config.init_from=FILE (torchvision's vgg16_bn).
"""

from configs import base, fcn_vgg, presets, segnet


def get_config(preset: str = "streets"):
    config = base.get_config()
    config.model.name = "deconvnet"
    config.model.fc_features = 4096
    config.model.fc_kernel = (7, 7)  # rows and columns of fc6
    config.model.width = 1.0
    config.model.momentum = 0.9  # batch normalisation: the share of the old statistics kept
    presets.apply(
        config,
        preset,
        {
            "streets": streets,
            "camvid": camvid,
            "camvid_small": camvid_small,
            "idd": idd,
            "paper": paper,
        },
    )
    return config


def streets(config):
    segnet.streets(config)
    bottom(config, 3, 6, features=256)
    config.train.steps = 600
    config.train.eval_every = 200


def bottom(config, rows: int, columns: int, features: int = 1024):
    """fc6 over the whole bottom map. 1024 features are the SegNet paper's."""
    config.model.fc_kernel = (rows, columns)
    config.model.fc_features = features


def camvid(config):
    segnet.camvid(config)
    bottom(config, 12, 15)


def camvid_small(config):
    segnet.camvid_small(config)
    bottom(config, 6, 8, features=256)


def paper(config):
    fcn_vgg.paper(config)
    bottom(config, 12, 15)


def idd(config):
    segnet.idd(config)
    bottom(config, 8, 15)
