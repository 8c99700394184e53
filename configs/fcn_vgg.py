"""FCN-8s, FCN-16s and FCN-32s on VGG16, as their authors' Caffe networks.

Source: Long et al., CVPR 2015. Choose the stride with --config.model.stride=8|16|32.
  python launch.py --config=configs/fcn_vgg.py               streets at 96x192, width 1/8, CPU
  python launch.py --config=configs/fcn_vgg.py:camvid_small  CamVid at 180x240, width 1/4
  python launch.py --config=configs/fcn_vgg.py:camvid        CamVid at 360x480, the paper's width
  python launch.py --config=configs/fcn_vgg.py:paper         the recipe of SegNet's table 3
  python launch.py --config=configs/fcn_vgg.py:idd           the SegNet notebook's settings
There is no batch normalisation: at full width it wants VGG16's weights, --config.init_from=FILE
with torchvision's vgg16 file; the narrow presets train from nothing with Adam.
The 100 zeros around the image cost: 96x192 pixels are computed as 294x390.
"""

from configs import base, presets, recipes, segnet


def get_config(preset: str = "streets"):
    config = base.get_config()
    config.model.name = "fcn_vgg"
    config.model.stride = 8  # of the finest scores: 8, 16, 32
    config.model.learn_upsampling = True  # False: fixed bilinear
    config.model.fc_features = 4096
    config.model.dropout_rate = 0.5
    config.model.width = 1.0
    presets.apply(
        config,
        preset,
        {
            "streets": streets,
            "camvid": camvid,
            "camvid_small": camvid_small,
            "idd": segnet.idd,
            "paper": paper,
        },
    )
    return config


def streets(config):
    narrow_streets(config)
    config.model.width = 0.125


def narrow_streets(config):
    """What a plain VGG of little width learns from in a few minutes of a CPU."""
    presets.streets_short(config)
    config.model.fc_features = 256
    config.model.dropout_rate = 0.1
    config.data.image_size = (96, 192)
    config.optim.learning_rate = 1e-3
    config.train.batch_size = 4
    config.train.steps = 600
    config.train.eval_every = 200


def camvid(config):
    presets.camvid(config)
    table3_solver(config)
    config.optim.schedule = "poly"
    config.loss.class_weights = "median_present"


def camvid_small(config):
    presets.camvid_small(config)
    config.optim.learning_rate = 5e-4
    config.model.width = 0.25
    config.model.fc_features = 512
    config.model.dropout_rate = 0.1
    config.train.batch_size = 4


def table3_solver(config):
    """What the SegNet paper compares all networks with (section 4, table 3): SGD 0.001 fixed,
    momentum 0.9, batch 5, 40,000 updates for the first column; weight decay as its solvers."""
    config.optim.name = "sgd"
    config.optim.learning_rate = 0.001
    config.optim.momentum = 0.9
    config.optim.weight_decay = 5e-4
    config.optim.schedule = "constant"
    config.train.batch_size = 5
    config.train.steps = 40_000


def paper(config):
    """Table 3: no class balancing, no augmentation. (Its 3,433 training images are not public:
    these are CamVid's 367.)"""
    presets.camvid(config)
    table3_solver(config)
    recipes.nothing(config)
