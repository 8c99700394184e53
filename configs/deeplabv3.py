"""DeepLabV3: atrous spatial pyramid pooling over a ResNet with multi-grid.

Source: Chen et al., arXiv 1706.05587.
  python launch.py --config=configs/deeplabv3.py               streets at 145x289, narrow ResNet-18
  python launch.py --config=configs/deeplabv3.py:camvid_small  CamVid at 180x240, narrow ResNet-18
  python launch.py --config=configs/deeplabv3.py:camvid        CamVid at 360x480, ResNet-50
  python launch.py --config=configs/deeplabv3.py:paper         the paper's network and recipe on VOC
  python launch.py --config=configs/deeplabv3.py:idd           the seed notebook's settings
  python launch.py --config=configs/deeplabv3.py:torchvision   torchvision's deeplabv3_resnet50
"""

from configs import base, presets, pspnet, recipes


def get_config(preset: str = "streets"):
    config = base.get_config()
    config.model.name = "deeplabv3"
    config.model.encoder = "resnet50"  # resnet18, 34, 50, 101, 152
    config.model.output_stride = 16  # 8, 16, 32
    config.model.multi_grid = (1, 2, 4)
    config.model.rates = (6, 12, 18)  # at output stride 16; doubled at 8
    config.model.width = 1.0
    config.model.stem = "7x7"  # or three 3x3 convolutions: "3x3"
    config.model.contract_dilation = False  # torchvision's: an atrous stage's first rate is small
    config.model.strided_1x1 = False  # bottlenecks halve in the 1x1 convolution (Keras's)
    config.model.zero_init_residual = False
    config.model.image_pooling = True
    config.model.dropout_rate = 0.0
    config.model.head_conv = False  # torchvision's: one more 3x3 convolution
    config.model.aux = True
    config.model.align_corners = False
    config.model.momentum = 0.9  # batch normalisation: the share of the old statistics kept
    presets.apply(
        config,
        preset,
        {
            "streets": streets,
            "camvid": camvid,
            "camvid_small": camvid_small,
            "idd": idd,
            "paper": paper,
            "torchvision": torchvision,
        },
    )
    return config


def streets(config):
    pspnet.streets(config)
    config.model.output_stride = 8
    config.model.rates = (2, 4, 6)  # for a map of 13x25, not 33x33


def camvid(config):
    pspnet.camvid(config)
    config.optim.learning_rate = 0.007
    config.model.output_stride = 8


def camvid_small(config):
    pspnet.camvid_small(config)
    config.model.output_stride = 8
    config.model.rates = (2, 4, 6)


def paper(config):
    """VOC 2012's recipe (section 4)."""
    presets.voc(config)
    config.model.encoder = "resnet101"
    config.model.momentum = 0.9997
    config.model.aux = False
    config.data.image_size = (513, 513)
    recipes.deeplab(config)
    config.optim.learning_rate = 0.007
    config.train.steps = 30_000
    config.train.batch_size = 16
    config.train.eval_every = 2000


def torchvision(config):
    """torchvision's `deeplabv3_resnet50`, 42,004,074 parameters at 21 classes."""
    presets.torchvision(config)
    config.model.multi_grid = (1, 1, 1)
    config.model.dropout_rate = 0.5
    config.model.head_conv = True


def idd(config):
    """`deeplabv3_keras_idd`: Adam 1e-3, batch 8, 50 epochs, patience 5, plateau 3 (to 5e-4).

    The notebook's own network is another architecture; this is ours, half as wide.
    """
    presets.idd(config)
    config.model.width = 0.5
    config.optim.learning_rate = 1e-3
    config.optim.plateau_patience = 3
    config.optim.plateau_min_rate = 5e-4
    config.train.batch_size = 8
    config.train.epochs = 50.0
    config.train.early_stop_patience = 5
