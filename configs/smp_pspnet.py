"""PSPNet as segmentation_models.pytorch has it, for weights that were trained there.

Source: Zhao et al., CVPR 2017, on a plain encoder; see segjax/models/smp.py.
  python launch.py --config=configs/smp_pspnet.py               streets at 145x289, narrow ResNet-18
  python launch.py --config=configs/smp_pspnet.py:camvid_small  CamVid at 180x240, narrow ResNet-18
  python launch.py --config=configs/smp_pspnet.py:camvid        CamVid at 360x480, ResNet-34
  python launch.py --config=configs/smp_pspnet.py:idd           the PSPNet notebook's settings
"""

from configs import base, presets, pspnet


def get_config(preset: str = "streets"):
    config = base.get_config()
    config.model.name = "smp_pspnet"
    config.model.encoder = "resnet34"  # resnet18, 34, 50, 101, 152
    config.model.encoder_depth = 3  # halvings: 3, 4, 5
    config.model.width = 1.0
    config.model.bins = (1, 2, 3, 6)
    config.model.dropout_rate = 0.2
    config.model.align_corners = True
    config.model.momentum = 0.9  # batch normalisation: the share of the old statistics kept
    presets.apply(
        config,
        preset,
        {
            "streets": narrow(pspnet.streets),
            "camvid": pspnet.camvid,
            "camvid_small": narrow(pspnet.camvid_small),
            "idd": pspnet.idd,
        },
    )
    return config


def narrow(preset):
    """PSPNet's preset without the option of its encoder that this network has not."""

    def apply(config):
        with config.unlocked():
            preset(config)
            del config.model.zero_init_residual

    return apply
