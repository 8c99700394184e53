"""FCN on a dilated ResNet: the encoder of PSPNet and DeepLabV3 without a context module.

Source: Long et al., CVPR 2015, as the baseline of Zhao et al., CVPR 2017, and trained as PSPNet.
Options: `segjax.models.FCN`.
  python launch.py --config=configs/fcn.py               streets at 145x289, narrow ResNet-18
  python launch.py --config=configs/fcn.py:camvid_small  CamVid at 180x240, narrow ResNet-18
  python launch.py --config=configs/fcn.py:camvid        CamVid at 360x480, ResNet-50
  python launch.py --config=configs/fcn.py:paper         ResNet-50, the PSPNet paper's recipe
  python launch.py --config=configs/fcn.py:semseg        the recipe of hszhao/semseg's PSPNet
  python launch.py --config=configs/fcn.py:idd           the PSPNet notebook's settings
  python launch.py --config=configs/fcn.py:idd_lite      IDD-Lite's published recipe, ResNet-50
  python launch.py --config=configs/fcn.py:idd_lite_small  IDD-Lite at 128x256, narrow ResNet-18
  python launch.py --config=configs/fcn.py:torchvision   torchvision's fcn_resnet50, its training
"""

from configs import presets, pspnet


def get_config(preset: str = "streets"):
    return presets.make("fcn", preset, PRESETS)


PRESETS = {**pspnet.PRESETS, "torchvision": presets.torchvision}
