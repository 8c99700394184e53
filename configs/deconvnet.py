"""DeconvNet: VGG16 to the end and all the way back, with unpooling.

Source: Noh et al., ICCV 2015 (arXiv 1505.04366). Options: `segjax.models.DeconvNet`.
  python launch.py --config=configs/deconvnet.py               streets at 96x192, width 1/4, CPU
  python launch.py --config=configs/deconvnet.py:camvid_small  CamVid at 180x240, width 1/4
  python launch.py --config=configs/deconvnet.py:camvid        CamVid at 360x480, 1024 features
  python launch.py --config=configs/deconvnet.py:paper         the recipe of SegNet's table 3
  python launch.py --config=configs/deconvnet.py:idd           the SegNet notebook's settings
Every preset's fc_kernel is the whole bottom map, 1/32 of the image rounded up, and the wide ones
have the SegNet paper's 1024 features; the authors' 4096 features of a 7x7 map are for 224x224
images. VGG16's weights: --config.init_from=imagenet/torchvision_v1/vgg16_bn.
"""

from configs import fcn_vgg, presets, segnet


def get_config(preset: str = "streets"):
    return presets.make("deconvnet", preset, PRESETS)


def streets(config):
    presets.streets(config, 96, 192)
    config.model.update(width=0.25, fc_kernel=(3, 6), fc_features=256)
    config.optim.update(segnet.SOLVER)
    config.train.update(steps=600, batch_size=4, eval_every=200)


def camvid(config):
    segnet.camvid(config)
    config.model.update(fc_kernel=(12, 15), fc_features=1024)


def camvid_small(config):
    segnet.camvid_small_run(config)
    config.model.update(width=0.25, fc_kernel=(6, 8), fc_features=256)


def paper(config):
    fcn_vgg.paper(config)
    config.model.update(fc_kernel=(12, 15), fc_features=1024)


def idd(config):
    presets.segnet_notebook(config)
    config.model.update(fc_kernel=(8, 15), fc_features=1024)


PRESETS = dict(streets=streets, camvid=camvid, camvid_small=camvid_small, idd=idd, paper=paper)
