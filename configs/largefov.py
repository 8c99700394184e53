"""DeepLab-LargeFOV: VGG16 at output stride 8 with an atrous fc6.

Source: Chen et al., ICLR 2015 (arXiv 1412.7062).
  python launch.py --config=configs/largefov.py               streets at 97x193, width 1/4, CPU
  python launch.py --config=configs/largefov.py:camvid_small  CamVid at 180x240, width 1/4
  python launch.py --config=configs/largefov.py:camvid        CamVid at 360x480, the paper's width
  python launch.py --config=configs/largefov.py:paper         the recipe of SegNet's table 3
  python launch.py --config=configs/largefov.py:idd           the SegNet notebook's settings
There is no batch normalisation: at full width it wants VGG16's weights, --config.init_from=FILE
with torchvision's vgg16 file; the narrow presets train from nothing with Adam.
"""

from configs import base, fcn_vgg, presets, segnet


def get_config(preset: str = "streets"):
    config = base.get_config()
    config.model.name = "deeplab_largefov"
    config.model.rate = 12  # atrous rate of fc6
    config.model.fc_features = 1024
    config.model.dropout_rate = 0.5
    config.model.width = 1.0
    presets.apply(
        config,
        preset,
        {
            "streets": streets,
            "camvid": fcn_vgg.camvid,
            "camvid_small": camvid_small,
            "idd": segnet.idd,
            "paper": fcn_vgg.paper,
        },
    )
    return config


def streets(config):
    fcn_vgg.narrow_streets(config)
    config.model.width = 0.25
    config.model.rate = 4  # the scores are 13x25
    config.data.image_size = (97, 193)  # 8 k + 1: corners on corners


def camvid_small(config):
    fcn_vgg.camvid_small(config)
    config.model.rate = 6
