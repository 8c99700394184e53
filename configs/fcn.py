"""FCN on a dilated ResNet: the encoder of PSPNet and DeepLabV3 without a context module.

Source: Long et al., CVPR 2015, as the baseline of Zhao et al., CVPR 2017.
  python launch.py --config=configs/fcn.py               streets at 145x289, narrow ResNet-18
  python launch.py --config=configs/fcn.py:camvid_small  CamVid at 180x240, narrow ResNet-18
  python launch.py --config=configs/fcn.py:camvid        CamVid at 360x480, ResNet-50
  python launch.py --config=configs/fcn.py:paper         ResNet-50, the PSPNet paper's recipe
  python launch.py --config=configs/fcn.py:idd           the PSPNet notebook's settings
  python launch.py --config=configs/fcn.py:torchvision   torchvision's fcn_resnet50, its training
"""

from configs import base, presets, pspnet


def get_config(preset: str = "streets"):
    config = base.get_config()
    config.model.name = "fcn"
    config.model.encoder = "resnet50"  # resnet18, 34, 50, 101, 152
    config.model.output_stride = 8  # 8, 16, 32
    config.model.stem = "7x7"  # or three 3x3 convolutions
    config.model.width = 1.0
    config.model.contract_dilation = False  # torchvision's: an atrous stage's first rate is small
    config.model.strided_1x1 = False  # bottlenecks halve in the 1x1 convolution (Keras's)
    config.model.zero_init_residual = False
    config.model.dropout_rate = 0.1
    config.model.aux = True
    config.model.align_corners = False
    config.model.momentum = 0.9  # batch normalisation: the share of the old statistics kept
    presets.apply(
        config,
        preset,
        {
            "streets": pspnet.streets,
            "camvid": pspnet.camvid,
            "camvid_small": pspnet.camvid_small,
            "idd": pspnet.idd,
            "paper": pspnet.paper,
            "torchvision": presets.torchvision,
        },
    )
    return config
