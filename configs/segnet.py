"""SegNet: VGG16 encoder and mirrored decoder with pooling indices.

Source: Badrinarayanan et al., PAMI 2017 (arXiv 1511.00561).
  python launch.py --config=configs/segnet.py               streets at 96x192, width 1/4, CPU
  python launch.py --config=configs/segnet.py:camvid_small  CamVid at 180x240, width 1/4, CPU
  python launch.py --config=configs/segnet.py:camvid        CamVid at 360x480, the paper's width
  python launch.py --config=configs/segnet.py:paper         the paper's network and solver
  python launch.py --config=configs/segnet.py:bayesian      Bayesian SegNet with its authors' solver
  python launch.py --config=configs/segnet.py:idd           the seed notebook's settings
Bayesian SegNet: Kendall et al., BMVC 2017 (arXiv 1511.02680).
"""

from configs import base, presets, recipes


def get_config(preset: str = "streets"):
    config = base.get_config()
    config.model.name = "segnet"
    config.model.width = 1.0
    config.model.use_bias = True
    config.model.dropout_rate = 0.0  # Bayesian SegNet: 0.5
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
            "bayesian": bayesian,
        },
    )
    return config


def streets(config):
    presets.streets_short(config)
    papers_solver(config)
    config.model.width = 0.25
    config.data.image_size = (96, 192)
    config.train.batch_size = 4
    config.train.steps = 900
    config.train.eval_every = 225


def papers_solver(config):
    """SGD at the paper's rate, lowered along the run (section 3.3 keeps it fixed)."""
    config.optim.name = "sgd"
    config.optim.learning_rate = 0.1
    config.optim.weight_decay = 5e-4
    config.optim.schedule = "poly"


def camvid(config):
    presets.camvid(config)
    papers_solver(config)
    config.loss.class_weights = "median_present"


def camvid_small(config):
    presets.camvid_small(config)
    papers_solver(config)
    config.model.width = 0.25
    config.train.batch_size = 4


def paper(config):
    """Section 3.3's controlled solver: SGD 0.1 fixed, momentum 0.9, batch 12, no augmentation."""
    camvid(config)
    config.train.batch_size = 12
    config.optim.schedule = "constant"
    recipes.nothing(config)


def bayesian(config):
    """The authors' published solver: SGD 0.001 fixed, batch 4, 60,000 updates; dropout 0.5."""
    paper(config)
    config.model.dropout_rate = 0.5
    config.optim.learning_rate = 0.001
    config.train.batch_size = 4
    config.train.steps = 60_000


def idd(config):
    """`segnet_keras_idd`: Adam 1e-4, batch 16, 30 epochs, patience 5, plateau 3 (to 1e-5)."""
    presets.idd(config)
    config.optim.learning_rate = 1e-4
    config.optim.plateau_patience = 3
    config.optim.plateau_min_rate = 1e-5
    config.train.batch_size = 16
    config.train.epochs = 30.0
    config.train.early_stop_patience = 5
