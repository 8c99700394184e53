"""SegNet: VGG16 encoder and mirrored decoder with pooling indices.

Source: Badrinarayanan et al., PAMI 2017 (arXiv 1511.00561). Options: `segjax.models.SegNet`.
  python launch.py --config=configs/segnet.py               streets at 96x192, width 1/4, CPU
  python launch.py --config=configs/segnet.py:camvid_small  CamVid at 180x240, width 1/4, CPU
  python launch.py --config=configs/segnet.py:camvid        CamVid at 360x480, the paper's width
  python launch.py --config=configs/segnet.py:paper         the paper's network and solver
  python launch.py --config=configs/segnet.py:bayesian      Bayesian SegNet with its authors' solver
  python launch.py --config=configs/segnet.py:idd           the seed notebook's settings
Bayesian SegNet: Kendall et al., BMVC 2017 (arXiv 1511.02680).
What the sources of paper say:
  section 3.2: data.name=camvid, data.image_size=360x480
  section 3.3: optim.name=sgd, optim.momentum=0.9, optim.learning_rate=0.1, optim.schedule=constant,
    train.batch_size=12, train.eval_every=1000, loss.class_weights=median_present,
    augment.scale=1x1, augment.flip=False, augment.rotate=0
  segnet_solver.prototxt: optim.weight_decay=0.0005
  segnet_train.prototxt: optim.lr_scale=bias:2, optim.decay_scale=bias:0;.*/norm/bias:0,
    model.dropout_rate=0, loss.terms=cross_entropy
Different in paper: the best checkpoint is that of the best mIoU on val, the paper's that of the
  best global accuracy; the paper trains until it converges, here 20,000 updates. The paper's text
  sums the loss over the pixels of a batch; the authors' Caffe layer divides that by the labelled
  ones, as here.
What the sources of bayesian say:
  bayesian_segnet_solver.prototxt: optim.name=sgd, optim.momentum=0.9, optim.learning_rate=0.001,
    optim.schedule=constant, optim.weight_decay=0.0005, train.steps=60000
  bayesian_segnet_train.prototxt: data.name=camvid, train.batch_size=4, model.dropout_rate=0.5,
    loss.class_weights=published, optim.lr_scale=bias:2, optim.decay_scale=bias:0;.*/norm/bias:0,
    loss.terms=cross_entropy, augment.scale=1x1, augment.flip=False, augment.rotate=0
"""

from configs import presets, recipes

# The Caffe networks' multipliers: biases learn twice as fast and do not decay. SegNet's batch
# norms have them too: their scale decays, their shift does not.
CAFFE = dict(lr_scale="bias=2", decay_scale="bias=0")
CAFFE_NORMS = dict(lr_scale="bias=2", decay_scale="bias=0,.*/norm/bias=0")
# The paper's solver (section 3.3), but for the schedule: there the rate is constant.
SOLVER = dict(name="sgd", learning_rate=0.1, momentum=0.9, weight_decay=5e-4, schedule="poly")


def get_config(preset: str = "streets"):
    return presets.make("segnet", preset, PRESETS)


def streets(config):
    streets_run(config)
    config.model.width = 0.25


def streets_run(config):
    """The data and the solver of `streets`, for any network."""
    presets.streets(config, 96, 192)
    config.optim.update(SOLVER)
    config.train.update(steps=900, batch_size=4, eval_every=225)


def camvid(config):
    presets.camvid(config)
    config.loss.class_weights = "median_present"
    config.optim.update(SOLVER)
    config.train.update(steps=20_000, batch_size=8, eval_every=500)


def camvid_small(config):
    camvid_small_run(config)
    config.model.width = 0.25


def camvid_small_run(config):
    """The data and the solver of `camvid_small`, for any network."""
    presets.camvid_small(config)
    config.optim.update(SOLVER)
    config.train.update(steps=1800, batch_size=4, eval_every=180)


def paper(config):
    """Section 3.3's controlled solver: SGD 0.1 fixed, momentum 0.9, batch 12, no augmentation."""
    paper_run(config)
    config.optim.update(CAFFE_NORMS)


def paper_run(config):
    """The data and the solver of `paper`, for any network."""
    presets.camvid(config)
    recipes.nothing(config)
    config.loss.class_weights = "median_present"
    config.optim.update(SOLVER, schedule="constant")
    config.train.update(steps=20_000, batch_size=12, eval_every=1000)


def bayesian(config):
    """The authors' published solver: SGD 0.001 fixed, batch 4, 60,000 updates; dropout 0.5."""
    bayesian_run(config)
    config.optim.update(CAFFE_NORMS, learning_rate=0.001)
    config.train.steps = 60_000


def bayesian_run(config):
    """What both Bayesian networks have in common."""
    presets.camvid(config)
    recipes.nothing(config)
    config.model.dropout_rate = 0.5
    config.loss.class_weights = "published"
    config.optim.update(SOLVER, schedule="constant")
    config.train.update(batch_size=4, eval_every=500)


PRESETS = dict(
    streets=streets,
    camvid=camvid,
    camvid_small=camvid_small,
    idd=presets.segnet_notebook,
    paper=paper,
    bayesian=bayesian,
)
