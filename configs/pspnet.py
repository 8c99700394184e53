"""PSPNet: pyramid pooling over a ResNet at output stride 8.

Source: Zhao et al., CVPR 2017 (arXiv 1612.01105).
  python launch.py --config=configs/pspnet.py               streets at 145x289, narrow ResNet-18
  python launch.py --config=configs/pspnet.py:camvid_small  CamVid at 180x240, narrow ResNet-18
  python launch.py --config=configs/pspnet.py:camvid        CamVid at 360x480, ResNet-50
  python launch.py --config=configs/pspnet.py:paper         the paper's network and recipe on ADE20K
  python launch.py --config=configs/pspnet.py:idd           the seed notebook's settings
Measured on 2 CPU cores (AMD EPYC, jax 0.10.2): streets, val mIoU 0.788, test 0.784, 4 m 53 s of
training and evaluation (5 m 09 s from an empty compilation cache to the finished report).
"""

from configs import base, presets, recipes


def get_config(preset: str = "streets"):
    config = base.get_config()
    config.model.name = "pspnet"
    config.model.encoder = "resnet50"  # resnet18, 34, 50, 101, 152
    config.model.output_stride = 8  # 8, 16, 32
    config.model.stem = "3x3"  # three 3x3 convolutions, or one 7x7
    config.model.width = 1.0
    config.model.contract_dilation = False  # torchvision's: an atrous stage's first rate is small
    config.model.strided_1x1 = False  # bottlenecks halve in the 1x1 convolution (Keras's)
    config.model.zero_init_residual = False
    config.model.bins = (1, 2, 3, 6)
    config.model.dropout_rate = 0.1
    config.model.aux = True
    config.model.align_corners = True
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
        },
    )
    return config


def streets(config):
    presets.streets_short(config)
    config.model.encoder = "resnet18"
    config.model.width = 0.25
    config.model.zero_init_residual = True  # trains sooner; matters in a short run
    config.data.image_size = (145, 289)  # 8n + 1: align_corners is exact
    config.augment.crop_size = (97, 193)


def camvid(config):
    presets.camvid(config)
    config.loss.class_weights = "median_present"


def camvid_small(config):
    presets.camvid_small(config)
    config.model.encoder = "resnet18"
    config.model.width = 0.25
    config.model.zero_init_residual = True


def paper(config):
    """ADE20K's recipe (section 5.2)."""
    config.data.name = "ade20k"
    config.data.root = "data/ADEChallengeData2016"
    config.data.image_size = (473, 473)
    recipes.pspnet(config)
    config.optim.learning_rate = 0.01
    config.optim.decay_biases_and_norms = True
    config.train.steps = 150_000
    config.train.batch_size = 16
    config.train.eval_every = 5000


def idd(config):
    """`pspnet_keras_idd`: Adam 1e-3, batch 8, 30 epochs, patience 3, plateau 2 (to 5e-4).

    The notebook's own narrow network is another architecture; this is ours, a quarter as wide.
    """
    presets.idd(config)
    config.model.width = 0.25
    config.optim.learning_rate = 1e-3
    config.optim.plateau_patience = 2
    config.optim.plateau_min_rate = 5e-4
    config.train.batch_size = 8
    config.train.epochs = 30.0
    config.train.early_stop_patience = 3
