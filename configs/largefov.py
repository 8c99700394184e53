"""DeepLab-LargeFOV: VGG16 at output stride 8 with an atrous fc6.

Source: Chen et al., ICLR 2015 (arXiv 1412.7062). Options: `segjax.models.DeepLabLargeFOV`.
  python launch.py --config=configs/largefov.py               streets at 97x193, width 1/4, CPU
  python launch.py --config=configs/largefov.py:camvid_small  CamVid at 180x240, width 1/4
  python launch.py --config=configs/largefov.py:camvid        CamVid at 360x480, the paper's width
  python launch.py --config=configs/largefov.py:paper         the recipe of SegNet's table 3
  python launch.py --config=configs/largefov.py:idd           the SegNet notebook's settings
There is no batch normalisation: at full width it needs VGG16's weights, --config.init_from=FILE
with torchvision's vgg16 file; the narrow presets train from nothing with Adam.
"""

from configs import fcn_vgg, presets


def get_config(preset: str = "streets"):
    return presets.make("deeplab_largefov", preset, PRESETS)


def streets(config):
    presets.streets(config, 97, 193)  # 8k + 1: corners on corners
    fcn_vgg.narrow_streets_run(config)
    config.model.update(width=0.25, rate=4)  # the scores are 13x25


def camvid_small(config):
    fcn_vgg.camvid_small(config)
    config.model.rate = 6


PRESETS = dict(
    streets=streets,
    camvid=fcn_vgg.camvid,
    camvid_small=camvid_small,
    idd=presets.segnet_notebook,
    paper=fcn_vgg.paper,
)
