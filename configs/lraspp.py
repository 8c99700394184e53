"""LR-ASPP over MobileNetV3-large: a network for phones and for machines without an accelerator.

Source: Howard et al., ICCV 2019 (arXiv 1905.02244); the network is torchvision's
`lraspp_mobilenet_v3_large`. Options: `segjax.models.LRASPP`. No preset repeats a published
training.
  python launch.py --config=configs/lraspp.py               streets at 145x289, output stride 8
  python launch.py --config=configs/lraspp.py:camvid_small  CamVid at 180x240, output stride 8
  python launch.py --config=configs/lraspp.py:camvid        CamVid at 360x480
  python launch.py --config=configs/lraspp.py:idd           the PSPNet notebook's settings
  python launch.py --config=configs/lraspp.py:idd_lite_small  IDD-Lite at 128x256, output stride 8
"""

from configs import presets, pspnet

# In a run of so few steps, running statistics that move by a hundredth a step come too late: theirs
# move by a tenth of what this says.
SHORT = dict(width=0.5, output_stride=8, momentum=0.5)


def get_config(preset: str = "streets"):
    return presets.make("lraspp", preset, PRESETS)


def streets(config):
    pspnet.streets_run(config)
    config.model.update(SHORT)


def camvid_small(config):
    pspnet.camvid_small_run(config)
    config.model.update(SHORT)


def idd_lite_small(config):
    presets.idd_lite_small(config)
    config.model.update(SHORT)


PRESETS = dict(
    streets=streets,
    camvid_small=camvid_small,
    camvid=pspnet.camvid,
    idd=presets.pspnet_notebook,
    idd_lite_small=idd_lite_small,
)
