"""U-Net over a ResNet, as segmentation_models.pytorch has it.

Source: Ronneberger et al., MICCAI 2015 (arXiv 1505.04597); the encoder, the normalisation and the
decoder's channels are segmentation_models.pytorch's. Options: `segjax.models.UNet`. No preset
repeats the paper's training, which had images of cells and another network.
  python launch.py --config=configs/unet.py               streets at 145x289, narrow ResNet-18
  python launch.py --config=configs/unet.py:own           your own images, fitted to 512x512, with
    --config.data.name=folder --config.data.root=FOLDER --config.data.classes=road,car,sky
  python launch.py --config=configs/unet.py:camvid_small  CamVid at 180x240, narrow ResNet-18
  python launch.py --config=configs/unet.py:camvid        CamVid at 360x480, ResNet-34
  python launch.py --config=configs/unet.py:idd           the SegNet notebook's settings
  python launch.py --config=configs/unet.py:idd_lite_small  IDD-Lite at 128x256, narrow ResNet-18
"""

from configs import presets, pspnet, recipes

# `zero_init_residual` trains sooner, which matters in a short run.


def get_config(preset: str = "streets"):
    return presets.make("unet", preset, PRESETS)


def own(config):
    """ResNet-34, AdamW with a cosine, zooms and flips; give the data by `config.data`, and
    `init_from` a file of ImageNet's weights if you have one."""
    config.data.image_size = (512, 512)
    recipes.nothing(config)
    config.augment.update(scale=(0.75, 1.5), flip=True)
    config.optim.update(name="adamw", learning_rate=1e-3, schedule="cosine", warmup_steps=20)
    config.train.update(epochs=50.0, batch_size=8)


def idd(config):
    presets.segnet_notebook(config)
    config.model.width = 0.5


PRESETS = dict(
    streets=pspnet.streets,
    own=own,
    camvid=pspnet.camvid,
    camvid_small=pspnet.camvid_small,
    idd=idd,
    idd_lite_small=pspnet.idd_lite_small,
)
