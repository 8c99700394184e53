"""DeepLabV3: atrous spatial pyramid pooling, or a cascade of blocks, over a ResNet with multi-grid.

Source: Chen et al., arXiv 1706.05587. Options: `segjax.models.DeepLabV3`.
  python launch.py --config=configs/deeplabv3.py               streets at 145x289, narrow ResNet-18
  python launch.py --config=configs/deeplabv3.py:camvid_small  CamVid at 180x240, narrow ResNet-18
  python launch.py --config=configs/deeplabv3.py:camvid        CamVid at 360x480, ResNet-50
  python launch.py --config=configs/deeplabv3.py:paper         the paper's network and recipe on VOC
  python launch.py --config=configs/deeplabv3.py:paper_stage2  its second stage, from the weights of
                                                    the first: --config.init_from=WORKDIR
  python launch.py --config=configs/deeplabv3.py:idd           the seed notebook's settings
  python launch.py --config=configs/deeplabv3.py:idd_lite      IDD-Lite's published recipe
  python launch.py --config=configs/deeplabv3.py:torchvision   torchvision's deeplabv3_resnet50
  python launch.py --config=configs/deeplabv3.py:mmseg         mmsegmentation's, on Cityscapes
Both stages on streets, in minutes:
  python launch.py --config=configs/deeplabv3.py:streets_stage1 --workdir=runs/stage1
  python launch.py --config=configs/deeplabv3.py:streets_stage2 --config.init_from=runs/stage1
The paper's cascade of blocks ("going deeper", section 3.2) is a preset with
  --config.model.with_aspp=False --config.model.cascade=3 --config.model.multi_grid=1,2,1
and an output stride from 8 to 256; configs/tables/deeplabv3 has the rows of tables 1 to 4.
What the sources of paper say:
  section 3: model.encoder=resnet101, model.multi_grid=1x2x4, model.rates=6x12x18,
    model.image_pooling=True
  section 4, training protocol: data.name=voc, augment.crop_size=513x513, augment.scale=0.5x2,
    augment.flip=True, optim.schedule=poly, optim.poly_power=0.9, train.batch_size=16,
    train.steps=30000, data.variant=sbd, optim.learning_rate=0.007, model.output_stride=16,
    model.momentum=0.9997
Different in paper: images are fitted to the canvas of 513x513 before they are zoomed; there they
  keep their own size. Section 4 has no momentum of the optimiser and no weight decay: 0.9 and 1e-4
  here.
What the sources of paper_stage2 say:
  section 3: model.encoder=resnet101, model.multi_grid=1x2x4, model.rates=6x12x18,
    model.image_pooling=True
  section 4, training protocol: data.name=voc, augment.crop_size=513x513, augment.scale=0.5x2,
    augment.flip=True, optim.schedule=poly, optim.poly_power=0.9, train.batch_size=16,
    train.steps=30000, data.train_split=trainval, optim.learning_rate=0.001, model.output_stride=8,
    train.freeze=norm
Different in paper_stage2: as in paper. It starts from the weights of that one,
  --config.init_from=WORKDIR.
What the sources of torchvision say:
  README.md: optim.learning_rate=0.02, train.batch_size=32
  train.py: optim.name=sgd, optim.momentum=0.9, optim.schedule=poly, optim.poly_power=0.9,
    optim.weight_decay=0.0001, optim.decay_scale="", optim.lr_scale=aux:10, train.epochs=30,
    loss.terms=cross_entropy, loss.class_weights=none, loss.aux_weight=0.5
  presets.py, transforms.py: augment.crop_size=480x480, augment.scale=0.5x2, augment.flip=True,
    augment.antialias=True, augment.padding=end
  models/segmentation/deeplabv3.py, models/resnet.py: model.encoder=resnet50, model.output_stride=8,
    model.contract_dilation=True, model.multi_grid=1x1x1, model.rates=6x12x18,
    model.dropout_rate=0.5, model.head_conv=True
Different in torchvision: the data, VOC in place of COCO's images of VOC's classes; a side of 520
  pixels before the zoom is the longer one here, the shorter one there.
What the sources of mmseg say:
  schedules/schedule_40k.py: optim.name=sgd, optim.momentum=0.9, optim.learning_rate=0.01,
    optim.weight_decay=0.0005, optim.decay_scale="", optim.schedule=poly, optim.poly_power=0.9,
    optim.eta_min=0.0001, train.steps=40000, train.eval_every=4000
  datasets/cityscapes.py: data.name=cityscapes, augment.crop_size=512x1024, augment.scale=0.5x2,
    augment.max_class_share=0.75, augment.flip=True, augment.antialias=False, augment.padding=end,
    train.batch_size=8
  PhotoMetricDistortion: augment.colour_model=hsv, augment.brightness=0.12549, augment.contrast=0.5,
    augment.saturation=0.5, augment.hue=0.1, augment.brightness_probability=0.5,
    augment.contrast_probability=0.5, augment.saturation_probability=0.5,
    augment.hue_probability=0.5
  models/deeplabv3_r50-d8.py: model.encoder=resnet50, model.stem=v1c, model.output_stride=8,
    model.contract_dilation=True, model.multi_grid=1x1x1, model.rates=6x12x18,
    model.aspp_features=512, model.project_kernel=3, model.image_pooling=True,
    model.dropout_rate=0.1, model.align_corners=False, loss.aux_weight=0.4,
    loss.terms=cross_entropy(divide_by=all), loss.class_weights=none
Different in mmseg: images are fitted to the canvas before they are zoomed.
What the sources of idd_lite say:
  the recipe published with the data set's baselines: data.name=idd_lite, model.encoder=resnet50,
    optim.name=adamw, optim.learning_rate=0.0024, optim.schedule=cosine, optim.lr_scale=head:4,
    train.batch_size=256, train.epochs=200, augment.crop_size=224x320, augment.scale=1x1.2,
    loss.terms=cross_entropy+0.5*lovasz
Different in idd_lite: which class weights is not said; the networks start from ImageNet's weights.
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


def paper_stage2(config):
    """Section 4 again, from the first stage's weights: stride 8, batch norms frozen, rate 0.001, on
    VOC's own training and validation images."""
    paper(config)
    config.data.update(variant="voc2012", train_split="trainval")
    second_stage(config, 0.001)


def second_stage(config, learning_rate: float):
    """Output stride 8 in place of 16, batch norms frozen, a lower rate."""
    config.model.output_stride = 8
    config.optim.learning_rate = learning_rate
    config.train.freeze = ("norm",)


def streets_stage1(config):
    streets(config)
    config.model.output_stride = 16
    config.train.update(steps=750, eval_every=250)


def streets_stage2(config):
    """A seventh of the first stage's rate, as in the paper."""
    streets_stage1(config)
    second_stage(config, config.optim.learning_rate / 7)


def mmseg(config):
    """mmsegmentation's deeplabv3_r50-d8 on Cityscapes, 40,000 updates of 4 GPUs' 2 images."""
    config.data.update(name="cityscapes", root="data/cityscapes", image_size=(1024, 2048))
    recipes.mmseg(config)
    config.model.update(
        encoder="resnet50",
        stem="v1c",
        output_stride=8,
        contract_dilation=True,
        multi_grid=(1, 1, 1),
        rates=(6, 12, 18),
        aspp_features=512,
        project_kernel=3,
        dropout_rate=0.1,
    )
    config.loss.update(terms="cross_entropy(divide_by=all)", aux_weight=0.4)
    config.optim.update(
        name="sgd",
        learning_rate=0.01,
        weight_decay=5e-4,
        decay_scale="",
        schedule="poly",
        poly_power=0.9,
        eta_min=1e-4,
    )
    config.train.update(steps=40_000, batch_size=8, eval_every=4000)


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
    idd_lite=presets.idd_lite,
    paper=paper,
    paper_stage2=paper_stage2,
    streets_stage1=streets_stage1,
    streets_stage2=streets_stage2,
    mmseg=mmseg,
    torchvision=torchvision,
)
