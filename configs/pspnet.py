"""PSPNet: pyramid pooling over a ResNet at output stride 8.

Source: Zhao et al., CVPR 2017 (arXiv 1612.01105). Options: `segjax.models.PSPNet`.
  python launch.py --config=configs/pspnet.py               streets at 145x289, narrow ResNet-18
  python launch.py --config=configs/pspnet.py:camvid_small  CamVid at 180x240, narrow ResNet-18
  python launch.py --config=configs/pspnet.py:camvid        CamVid at 360x480, ResNet-50
  python launch.py --config=configs/pspnet.py:paper         the paper's network and recipe on ADE20K
  python launch.py --config=configs/pspnet.py:semseg        hszhao/semseg's network and recipe
  python launch.py --config=configs/pspnet.py:idd           the seed notebook's settings
  python launch.py --config=configs/pspnet.py:idd_lite      IDD-Lite's published recipe, ResNet-50
  python launch.py --config=configs/pspnet.py:idd_lite_small  IDD-Lite at 128x256, narrow ResNet-18
The pyramids of table 1 are options of model (pooling, reduce, bins), and the encoders of table 4 go
up to resnet269; configs/tables/pspnet has their rows.
Measured on 2 CPU cores (AMD EPYC, jax 0.10.2): streets, val mIoU 0.790, test 0.788, 3 m 43 s of
training (4 m 00 s from an empty compilation cache to the finished report).
What the sources of paper say:
  section 5.1: optim.name=sgd, optim.momentum=0.9, optim.learning_rate=0.01, optim.schedule=poly,
    optim.poly_power=0.9, optim.weight_decay=0.0001, loss.aux_weight=0.4, train.batch_size=16,
    augment.scale=0.5x2, augment.flip=True, augment.rotate=10, augment.blur=0.5
  section 3.3: model.encoder=resnet50, model.output_stride=8
  section 3.2: model.bins=1x2x3x6
  section 5.2: data.name=ade20k, train.steps=150000
Different in paper: images are fitted to the canvas of 473x473 before they are zoomed; there they
  keep their own size. Blur is not said how often.
What the sources of semseg say:
  ade20k_pspnet50.yaml: optim.name=sgd, optim.momentum=0.9, optim.learning_rate=0.01,
    optim.schedule=poly, optim.poly_power=0.9, optim.weight_decay=0.0001, loss.aux_weight=0.4,
    train.batch_size=16, augment.scale=0.5x2, augment.flip=True, augment.rotate=10,
    data.name=ade20k, model.encoder=resnet50, augment.crop_size=473x473, train.epochs=100
  tool/train.py: optim.lr_scale=head:10;aux:10, optim.decay_scale="", loss.terms=cross_entropy,
    loss.class_weights=none
  util/transform.py: augment.rotate_probability=0.5, augment.blur=0.5, augment.aspect=1x1,
    augment.antialias=False, augment.padding=centre
  model/pspnet.py, model/resnet.py: model.stem=3x3, model.align_corners=True, model.bins=1x2x3x6,
    model.dropout_rate=0.1
Different in semseg: images are fitted to the canvas, as above. Test images are there taken by
  windows of 473x473, mirrored too: --mode=predict has that.
What the sources of idd_lite say:
  the recipe published with the data set's baselines: data.name=idd_lite, model.encoder=resnet50,
    optim.name=adamw, optim.learning_rate=0.0024, optim.schedule=cosine, optim.lr_scale=head:4,
    train.batch_size=256, train.epochs=200, augment.crop_size=224x320, augment.scale=1x1.2,
    loss.terms=cross_entropy+0.5*lovasz
Different in idd_lite: which class weights is not said; the networks start from ImageNet's weights.
"""

from configs import presets, recipes

# `zero_init_residual` trains sooner, which matters in a short run.
NARROW = dict(encoder="resnet18", width=0.25, zero_init_residual=True)


def get_config(preset: str = "streets"):
    return presets.make("pspnet", preset, PRESETS)


def streets(config):
    streets_run(config)
    config.model.update(NARROW)


def streets_run(config):
    """The data and the optimiser of `streets`, for any network."""
    presets.streets(config, 145, 289)  # 8n + 1: align_corners is exact
    config.augment.crop_size = (97, 193)
    config.optim.update(name="adamw", learning_rate=4e-3, schedule="cosine", warmup_steps=50)
    config.train.update(steps=1500, batch_size=8, eval_every=500)


def camvid(config):
    presets.camvid(config)
    config.loss.class_weights = "median_present"
    config.optim.update(name="sgd", learning_rate=0.01, schedule="poly")
    config.train.update(steps=20_000, batch_size=8, eval_every=500)


def camvid_small(config):
    camvid_small_run(config)
    config.model.update(NARROW)


def camvid_small_run(config):
    """The data and the optimiser of `camvid_small`, for any network."""
    presets.camvid_small(config)
    config.optim.update(name="adamw", learning_rate=2e-3, schedule="cosine", warmup_steps=60)
    config.train.update(steps=1800, batch_size=6, eval_every=180)  # about three epochs


def paper(config):
    """ADE20K's recipe (section 5.2): SGD 0.01, poly, batch 16, 150,000 updates."""
    ade20k_run(config)
    config.train.update(steps=150_000, eval_every=5000)


def semseg(config):
    """hszhao/semseg on ADE20K: as the paper, heads at ten times the rate, 100 epochs."""
    ade20k_run(config)
    config.optim.lr_scale = "head=10,aux=10"
    config.train.epochs = 100.0


def ade20k_run(config):
    """The data, the views and the solver of `paper` and `semseg`."""
    config.data.update(name="ade20k", root="data/ADEChallengeData2016", image_size=(473, 473))
    recipes.pspnet(config)
    config.optim.update(name="sgd", learning_rate=0.01, schedule="poly", decay_scale="")
    config.train.batch_size = 16


def idd_lite_small(config):
    presets.idd_lite_small(config)
    config.model.update(NARROW)


def idd(config):
    """The notebook's own narrow network is another architecture (`configs/notebooks.py:pspnet`);
    this is the paper's, a quarter as wide."""
    presets.pspnet_notebook(config)
    config.model.update(width=0.25, aux=False)


PRESETS = dict(
    streets=streets,
    camvid=camvid,
    camvid_small=camvid_small,
    idd=idd,
    idd_lite=presets.idd_lite,
    idd_lite_small=idd_lite_small,
    paper=paper,
    semseg=semseg,
)
