"""PSPNet as segmentation_models.pytorch has it, for weights that were trained there.

Source: Zhao et al., CVPR 2017, on a plain encoder, and trained as PSPNet. Options:
`segjax.models.SMPPSPNet`.
  python launch.py --config=configs/smp_pspnet.py               streets at 145x289, narrow ResNet-18
  python launch.py --config=configs/smp_pspnet.py:camvid_small  CamVid at 180x240, narrow ResNet-18
  python launch.py --config=configs/smp_pspnet.py:camvid        CamVid at 360x480, ResNet-34
  python launch.py --config=configs/smp_pspnet.py:idd           the PSPNet notebook's settings
"""

from configs import presets, pspnet


def get_config(preset: str = "streets"):
    return presets.make("smp_pspnet", preset, PRESETS)


def streets(config):
    pspnet.streets_run(config)
    config.model.update(encoder="resnet18", width=0.25)


def camvid_small(config):
    pspnet.camvid_small_run(config)
    config.model.update(encoder="resnet18", width=0.25)


def idd(config):
    presets.pspnet_notebook(config)
    config.model.width = 0.25


PRESETS = dict(streets=streets, camvid=pspnet.camvid, camvid_small=camvid_small, idd=idd)
