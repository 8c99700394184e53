"""DeepLabV3: atrous spatial pyramid pooling over a ResNet with multi-grid.

Source: Chen et al., arXiv 1706.05587. Options: `segjax.models.DeepLabV3`.
  python launch.py --config=configs/deeplabv3.py               streets at 145x289, narrow ResNet-18
  python launch.py --config=configs/deeplabv3.py:camvid_small  CamVid at 180x240, narrow ResNet-18
  python launch.py --config=configs/deeplabv3.py:camvid        CamVid at 360x480, ResNet-50
  python launch.py --config=configs/deeplabv3.py:paper         the paper's network and recipe on VOC
  python launch.py --config=configs/deeplabv3.py:idd           the seed notebook's settings
  python launch.py --config=configs/deeplabv3.py:torchvision   torchvision's deeplabv3_resnet50
"""

from configs import presets, pspnet, recipes

# Stride 8, and rates for a map of 13x25 in place of the paper's 33x33.
NARROW = dict(**pspnet.NARROW, output_stride=8, rates=(2, 4, 6))


def get_config(preset: str = "streets"):
    return presets.make("deeplabv3", preset, PRESETS)


def streets(config):
    pspnet.streets_run(config)
    config.model.update(NARROW)


def camvid(config):
    presets.camvid(config)
    config.model.output_stride = 8
    config.loss.class_weights = "median_present"
    config.optim.update(name="sgd", learning_rate=0.007, schedule="poly")
    config.train.update(steps=20_000, batch_size=8, eval_every=500)


def camvid_small(config):
    pspnet.camvid_small_run(config)
    config.model.update(NARROW)


def paper(config):
    """VOC 2012's recipe (section 4): SGD 0.007, poly, batch 16, 30,000 updates."""
    presets.voc(config, 513)
    recipes.deeplab(config)
    config.model.update(encoder="resnet101", momentum=0.9997, aux=False)
    config.optim.update(name="sgd", learning_rate=0.007, schedule="poly")
    config.train.update(steps=30_000, batch_size=16, eval_every=2000)


def torchvision(config):
    """torchvision's `deeplabv3_resnet50`, 42,004,074 parameters at 21 classes."""
    presets.torchvision(config)
    config.model.update(multi_grid=(1, 1, 1), dropout_rate=0.5, head_conv=True)


def idd(config):
    """The notebook's own network is another architecture (`configs/notebooks.py:deeplabv3`); this
    is the paper's, half as wide."""
    presets.deeplabv3_notebook(config)
    config.model.update(width=0.5, aux=False)


PRESETS = dict(
    streets=streets,
    camvid=camvid,
    camvid_small=camvid_small,
    idd=idd,
    paper=paper,
    torchvision=torchvision,
)
