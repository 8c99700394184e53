"""DeepLabV3+: DeepLabV3 and a decoder that refines its output with c2, of separable convolutions.

Source: Chen et al., ECCV 2018 (arXiv 1802.02611). Options: `segjax.models.DeepLabV3Plus`.
  python launch.py --config=configs/deeplabv3plus.py               streets at 145x289, narrow
  python launch.py --config=configs/deeplabv3plus.py:camvid_small  CamVid at 180x240, narrow
  python launch.py --config=configs/deeplabv3plus.py:camvid        CamVid at 360x480, ResNet-50
  python launch.py --config=configs/deeplabv3plus.py:paper         the paper's recipe on VOC
  python launch.py --config=configs/deeplabv3plus.py:mmseg         mmsegmentation's, on Cityscapes
  python launch.py --config=configs/deeplabv3plus.py:idd           the DeepLabV3 notebook's settings
  python launch.py --config=configs/deeplabv3plus.py:idd_lite      IDD-Lite's published recipe
  python launch.py --config=configs/deeplabv3plus.py:idd_lite_small  IDD-Lite at 128x256, narrow
What the sources of paper say:
  section 3.1 and DeepLabV3's: model.rates=6x12x18, model.image_pooling=True,
    model.multi_grid=1x2x4, model.momentum=0.9997
  section 3.1 and figure 2: model.project_kernel=1, model.head_conv=False, model.aspp_features=256
  section 4: data.name=voc, augment.crop_size=513x513, augment.scale=0.5x2, augment.flip=True,
    optim.schedule=poly, optim.poly_power=0.9, data.variant=sbd, optim.learning_rate=0.007
  section 4 of DeepLabV3's: train.batch_size=16, train.steps=30000
  tables 1 and 2: model.low_level_features=48, model.decoder_convs=2
  table 3: model.encoder=resnet101, model.output_stride=16
  table 5: model.aspp_separable=True, model.decoder_separable=True
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
  models/deeplabv3plus_r50-d8.py: model.encoder=resnet50, model.stem=v1c, model.output_stride=8,
    model.contract_dilation=True, model.multi_grid=1x1x1, model.rates=6x12x18,
    model.aspp_features=512, model.project_kernel=3, model.image_pooling=True,
    model.dropout_rate=0.1, model.align_corners=False, loss.aux_weight=0.4,
    loss.terms=cross_entropy(divide_by=all), loss.class_weights=none, model.aux=True,
    model.low_level_features=48
  mmseg/models/decode_heads/sep_aspp_head.py: model.aspp_separable=True,
    model.decoder_separable=True, model.norm_between=True, model.decoder_convs=2
What the sources of idd_lite say:
  the recipe published with the data set's baselines: data.name=idd_lite, model.encoder=resnet50,
    optim.name=adamw, optim.learning_rate=0.0024, optim.schedule=cosine, optim.lr_scale=head:4,
    train.batch_size=256, train.epochs=200, augment.crop_size=224x320, augment.scale=1x1.2,
    loss.terms=cross_entropy+0.5*lovasz
Different in paper: images are fitted to the canvas of 513x513 before they are zoomed; there they
  keep their own size. The best network of the paper has Xception below; separable convolutions are
  table 5's, on Xception, the ResNet-101 is table 3's. There is no momentum of the optimiser and no
  weight decay in the paper: 0.9 and 1e-4 here.
Different in mmseg: images are fitted to the canvas before they are zoomed. Dropout stands before
  the classifier there, after ASPP here.
Different in idd_lite: which class weights is not said; the networks start from ImageNet's weights.
"""

from configs import deeplabv3, presets, recipes


def get_config(preset: str = "streets"):
    return presets.make("deeplabv3plus", preset, PRESETS)


def idd_lite_small(config):
    presets.idd_lite_small(config)
    config.model.update(deeplabv3.NARROW)


def paper(config):
    """VOC 2012's recipe (section 4): SGD 0.007, poly, crops of 513."""
    presets.voc(config, 513)
    recipes.deeplab(config)
    config.model.update(encoder="resnet101", multi_grid=(1, 2, 4), momentum=0.9997)
    config.optim.update(name="sgd", learning_rate=0.007, schedule="poly")
    config.train.update(steps=30_000, batch_size=16, eval_every=2000)


def mmseg(config):
    """mmsegmentation's deeplabv3plus_r50-d8 on Cityscapes, 40,000 updates of 4 GPUs' 2 images."""
    deeplabv3.mmseg(config)
    config.model.aux = True


def idd(config):
    presets.deeplabv3_notebook(config)
    config.model.width = 0.5


PRESETS = dict(
    streets=deeplabv3.streets,
    camvid=deeplabv3.camvid,
    camvid_small=deeplabv3.camvid_small,
    idd=idd,
    idd_lite=presets.idd_lite,
    idd_lite_small=idd_lite_small,
    paper=paper,
    mmseg=mmseg,
)
