"""What papers and published code say, option by option, apart from the configs.

TABLE has, for each preset that bears the name of a source, rows of (options with their values, the
place that says so). Only what a source states is here: what it leaves open, a preset chooses. The
values were read from the papers and from the files of the authors' repositories:

  SegNet     Badrinarayanan et al., PAMI 2017; alexgkendall/SegNet-Tutorial, Models/*.prototxt
  FCN        shelhamer/fcn.berkeleyvision.org, voc-fcn8s/net.py, solver.prototxt
  LargeFOV   Chen et al., ICLR 2015; its release, exper/voc12/config/deeplab_largeFOV/*.prototxt
  PSPNet     Zhao et al., CVPR 2017; hszhao/semseg, config/ade20k/ade20k_pspnet50.yaml and code
  DeepLabV3  Chen et al., arXiv 1706.05587
  DeepLabV3+  Chen et al., arXiv 1802.02611
  torchvision  pytorch/vision, references/segmentation and torchvision/models/segmentation
  mmseg      mmsegmentation 1.2, configs/_base_: deeplabv3_r50-d8 and deeplabv3plus_r50-d8, 40k on
             Cityscapes, 4xb2

The head of each config has the same lists, and names the options of its presets that differ.
  python -m tests.configs.published          prints the lists of all heads
"""

import textwrap

from tests.configs import published_mmseg

Rows = tuple[tuple[str, dict], ...]  # (source, {option: value})

# Nothing is drawn at random.
STILL = {"augment.scale": (1.0, 1.0), "augment.flip": False, "augment.rotate": 0.0}
# Caffe's multipliers of a convolution: lr_mult 1 and 2, decay_mult 1 and 0 (kernel and bias).
CAFFE = {"optim.lr_scale": {"bias": 2}, "optim.decay_scale": {"bias": 0}}
SGD = {"optim.name": "sgd", "optim.momentum": 0.9}
SHIPPED = "published"  # CamVid's class_weighting values of the prototxt files

_SEGNET = (
    "section 3.3",
    {
        **SGD,
        "optim.learning_rate": 0.1,
        "optim.schedule": "constant",
        "train.batch_size": 12,
        "train.eval_every": 1000,
        "loss.class_weights": "median_present",
        **STILL,
    },
)
_CAMVID = ("section 3.2", {"data.name": "camvid", "data.image_size": (360, 480)})
# The paper's text sums the cross-entropy over the pixels of the batch; the authors' Caffe layer
# (SoftmaxWithLoss, normalize by default) divides that sum by the labelled pixels.
_CAFFE_LOSS = {"loss.terms": "cross_entropy"}
_TABLE3 = (
    "the SegNet paper, section 4 and table 3",
    {
        **SGD,
        "data.name": "camvid",
        "data.image_size": (360, 480),
        "optim.learning_rate": 0.001,
        "optim.schedule": "constant",
        "train.batch_size": 5,
        "train.steps": 40_000,
        "loss.class_weights": "none",
        "model.dropout_rate": 0.5,
    },
)
_CITED_DECAY = {"optim.weight_decay": 5e-4}
_PSPNET_VIEWS = {"augment.scale": (0.5, 2.0), "augment.flip": True, "augment.rotate": 10.0}
_PSPNET_SOLVER = {
    **SGD,
    "optim.learning_rate": 0.01,
    "optim.schedule": "poly",
    "optim.poly_power": 0.9,
    "optim.weight_decay": 1e-4,
    "loss.aux_weight": 0.4,
    "train.batch_size": 16,
}
_DEEPLABV3 = (
    "section 3",
    {
        "model.encoder": "resnet101",
        "model.multi_grid": (1, 2, 4),
        "model.rates": (6, 12, 18),
        "model.image_pooling": True,
    },
)
_DEEPLABV3_TRAINING = {
    "data.name": "voc",
    "augment.crop_size": (513, 513),
    "augment.scale": (0.5, 2.0),
    "augment.flip": True,
    "optim.schedule": "poly",
    "optim.poly_power": 0.9,
    "train.batch_size": 16,
    "train.steps": 30_000,
}

# Of these, the DeepLabV3+ paper repeats what DeepLabV3's says.
_PLUS_TRAINING = (
    *("data.name", "augment.crop_size", "augment.scale", "augment.flip"),
    *("optim.schedule", "optim.poly_power"),
)


def _notebook(document, rate, batch, epochs, stop, plateau, lowest) -> Rows:
    return (
        (
            document,
            {
                "data.image_size": (240, 480),
                "optim.name": "adam",
                "optim.learning_rate": rate,
                "optim.schedule": "constant",
                "optim.weight_decay": 0.0,
                "optim.plateau_patience": plateau,
                "optim.plateau_factor": 0.2,
                "optim.plateau_min_rate": lowest,
                "train.batch_size": batch,
                "train.epochs": float(epochs),
                "train.early_stop_patience": stop,
                "loss.terms": "cross_entropy",
                "loss.class_weights": "none",
                **STILL,
            },
        ),
        ("Keras's default", {"optim.epsilon": 1e-7, "optim.beta1": 0.9, "optim.beta2": 0.999}),
    )


_IDD_LITE: Rows = (
    (
        "the recipe published with the data set's baselines",
        {
            "data.name": "idd_lite",
            "model.encoder": "resnet50",
            "optim.name": "adamw",
            "optim.learning_rate": 0.0024,
            "optim.schedule": "cosine",
            "optim.lr_scale": {"head": 4},
            "train.batch_size": 256,
            "train.epochs": 200.0,
            "augment.crop_size": (224, 320),
            "augment.scale": (1.0, 1.2),
            "loss.terms": "cross_entropy + 0.5 * lovasz",
        },
    ),
)

TABLE: dict[str, Rows] = {
    "segnet:paper": (
        _CAMVID,
        _SEGNET,
        ("segnet_solver.prototxt", _CITED_DECAY),
        (
            "segnet_train.prototxt",
            {
                "optim.lr_scale": {"bias": 2},
                # Batch norm: the scale decays, the shift does not.
                "optim.decay_scale": {"bias": 0, ".*/norm/bias": 0},
                "model.dropout_rate": 0.0,
                **_CAFFE_LOSS,
            },
        ),
    ),
    "segnet:bayesian": (
        (
            "bayesian_segnet_solver.prototxt",
            {
                **SGD,
                "optim.learning_rate": 0.001,
                "optim.schedule": "constant",
                "optim.weight_decay": 5e-4,
                "train.steps": 60_000,
            },
        ),
        (
            "bayesian_segnet_train.prototxt",
            {
                "data.name": "camvid",
                "train.batch_size": 4,
                "model.dropout_rate": 0.5,
                "loss.class_weights": SHIPPED,
                "optim.lr_scale": {"bias": 2},
                "optim.decay_scale": {"bias": 0, ".*/norm/bias": 0},
                **_CAFFE_LOSS,
                **STILL,
            },
        ),
    ),
    "segnet_basic:paper": (
        _CAMVID,
        _SEGNET,
        ("section 3.2, table 1", {"data.local_contrast": 9, "model.features": 64}),
        ("segnet_basic_solver.prototxt", _CITED_DECAY),
        # Its batch norm layers have no multipliers: scale and shift decay.
        ("segnet_basic_train.prototxt", {**CAFFE, **_CAFFE_LOSS}),
    ),
    "segnet_basic:bayesian": (
        (
            "bayesian_segnet_basic_solver.prototxt",
            {
                **SGD,
                "optim.learning_rate": 0.1,
                "optim.schedule": "constant",
                "optim.weight_decay": 5e-4,
                "train.steps": 10_000,
            },
        ),
        (
            "bayesian_segnet_basic_train.prototxt",
            {
                "data.name": "camvid",
                "train.batch_size": 4,
                "model.dropout_rate": 0.5,
                "model.input_lrn": True,
                "loss.class_weights": SHIPPED,
                **CAFFE,
                **_CAFFE_LOSS,
                **STILL,
            },
        ),
    ),
    "fcn_vgg:paper": (
        _TABLE3,
        ('table 3, row "FCN (learnt deconv)"', {"model.learn_upsampling": True}),
        ("FCN's voc-fcn8s/net.py", {**CAFFE, "model.stride": 8, "model.fc_features": 4096}),
        ("FCN's solver.prototxt, and the SegNet authors'", _CITED_DECAY),
    ),
    "largefov:paper": (
        _TABLE3,
        (
            "DeepLab-LargeFOV's train.prototxt",
            {
                "optim.lr_scale": {"classifier": 10, "bias": 2},  # the last bias: 20
                "optim.decay_scale": {"bias": 0},
                "model.rate": 12,
                "model.fc_features": 1024,
            },
        ),
        ("DeepLab-LargeFOV's solver.prototxt, and the SegNet authors'", _CITED_DECAY),
    ),
    "largefov:voc": (
        (
            "solver.prototxt",
            {
                **SGD,
                "optim.learning_rate": 0.001,
                "optim.schedule": "step",
                "optim.step_at": (1 / 3, 2 / 3),  # every 2,000 of 6,000 iterations
                "optim.step_factor": 0.1,
                "optim.weight_decay": 5e-4,
                "train.steps": 6000,
            },
        ),
        (
            "train.prototxt",
            {
                "data.name": "voc",
                "data.variant": "sbd",
                "train.batch_size": 30,  # the paper's section 4.1 has 20
                "augment.crop_size": (321, 321),
                "augment.flip": True,
                "augment.scale": (1.0, 1.0),
                "optim.lr_scale": {"classifier": 10, "bias": 2},
                "optim.decay_scale": {"bias": 0},
                "model.dropout_rate": 0.5,
                "model.rate": 12,
                "model.fc_features": 1024,
                "loss.class_weights": "none",
            },
        ),
    ),
    "pspnet:paper": (
        ("section 5.1", {**_PSPNET_SOLVER, **_PSPNET_VIEWS, "augment.blur": 0.5}),
        ("section 3.3", {"model.encoder": "resnet50", "model.output_stride": 8}),
        ("section 3.2", {"model.bins": (1, 2, 3, 6)}),
        ("section 5.2", {"data.name": "ade20k", "train.steps": 150_000}),
    ),
    "pspnet:semseg": (
        (
            "ade20k_pspnet50.yaml",
            {
                **_PSPNET_SOLVER,
                **_PSPNET_VIEWS,
                "data.name": "ade20k",
                "model.encoder": "resnet50",
                "augment.crop_size": (473, 473),
                "train.epochs": 100.0,
            },
        ),
        (
            "tool/train.py",
            {
                "optim.lr_scale": {"head": 10, "aux": 10},
                "optim.decay_scale": {},  # everything decays
                "loss.terms": "cross_entropy",
                "loss.class_weights": "none",
            },
        ),
        (
            "util/transform.py",
            {
                "augment.rotate_probability": 0.5,
                "augment.blur": 0.5,
                "augment.aspect": (1.0, 1.0),
                "augment.antialias": False,
                "augment.padding": "centre",
            },
        ),
        (
            "model/pspnet.py, model/resnet.py",
            {
                "model.stem": "3x3",
                "model.align_corners": True,
                "model.bins": (1, 2, 3, 6),
                "model.dropout_rate": 0.1,
            },
        ),
    ),
    "deeplabv3:paper": (
        _DEEPLABV3,
        (
            "section 4, training protocol",
            {
                **_DEEPLABV3_TRAINING,
                "data.variant": "sbd",
                "optim.learning_rate": 0.007,
                "model.output_stride": 16,
                "model.momentum": 0.9997,
            },
        ),
    ),
    "deeplabv3:paper_stage2": (
        _DEEPLABV3,
        (
            "section 4, training protocol",
            {
                **_DEEPLABV3_TRAINING,
                "data.train_split": "trainval",
                "optim.learning_rate": 0.001,
                "model.output_stride": 8,
                "train.freeze": ("norm",),
            },
        ),
    ),
    "deeplabv3:torchvision": (
        ("README.md", {"optim.learning_rate": 0.02, "train.batch_size": 32}),  # 8 times -b 4
        (
            "train.py",
            {
                **SGD,
                "optim.schedule": "poly",
                "optim.poly_power": 0.9,
                "optim.weight_decay": 1e-4,
                "optim.decay_scale": {},
                "optim.lr_scale": {"aux": 10},
                "train.epochs": 30.0,
                "loss.terms": "cross_entropy",
                "loss.class_weights": "none",
                "loss.aux_weight": 0.5,
            },
        ),
        (
            "presets.py, transforms.py",
            {
                "augment.crop_size": (480, 480),
                "augment.scale": (0.5, 2.0),  # of 520 pixels
                "augment.flip": True,
                "augment.antialias": True,
                "augment.padding": "end",
            },
        ),
        (
            "models/segmentation/deeplabv3.py, models/resnet.py",
            {
                "model.encoder": "resnet50",
                "model.output_stride": 8,
                "model.contract_dilation": True,
                "model.multi_grid": (1, 1, 1),
                "model.rates": (6, 12, 18),  # 12, 24, 36 at stride 8
                "model.dropout_rate": 0.5,
                "model.head_conv": True,
            },
        ),
    ),
    "deeplabv3:mmseg": (
        *published_mmseg.CITYSCAPES,
        (
            "models/deeplabv3_r50-d8.py",
            published_mmseg.ASPP,
        ),
    ),
    "deeplabv3plus:paper": (
        (
            "section 3.1 and DeepLabV3's",
            {
                "model.rates": (6, 12, 18),
                "model.image_pooling": True,
                "model.multi_grid": (1, 2, 4),
                "model.momentum": 0.9997,
            },
        ),
        (
            "section 3.1 and figure 2",
            {"model.project_kernel": 1, "model.head_conv": False, "model.aspp_features": 256},
        ),
        (
            "section 4",
            {
                **{o: _DEEPLABV3_TRAINING[o] for o in _PLUS_TRAINING},
                "data.variant": "sbd",
                "optim.learning_rate": 0.007,
            },
        ),
        ("section 4 of DeepLabV3's", {"train.batch_size": 16, "train.steps": 30_000}),
        ("tables 1 and 2", {"model.low_level_features": 48, "model.decoder_convs": 2}),
        ("table 3", {"model.encoder": "resnet101", "model.output_stride": 16}),
        ("table 5", {"model.aspp_separable": True, "model.decoder_separable": True}),
    ),
    "deeplabv3plus:mmseg": (
        *published_mmseg.CITYSCAPES,
        (
            "models/deeplabv3plus_r50-d8.py",
            {**published_mmseg.ASPP, "model.aux": True, "model.low_level_features": 48},
        ),
        (
            "mmseg/models/decode_heads/sep_aspp_head.py",
            {
                "model.aspp_separable": True,
                "model.decoder_separable": True,
                "model.norm_between": True,
                "model.decoder_convs": 2,
            },
        ),
    ),
    "deeplabv3plus:idd_lite": _IDD_LITE,
    "deeplabv3:idd_lite": _IDD_LITE,
    "pspnet:idd_lite": _IDD_LITE,
    "notebooks:segnet": _notebook("segnet_keras_idd", 1e-4, 16, 30, 5, 3, 1e-5),
    "notebooks:pspnet": _notebook("pspnet_keras_idd", 1e-3, 8, 30, 3, 2, 5e-4),
    "notebooks:deeplabv3": _notebook("deeplabv3_keras_idd", 1e-3, 8, 50, 5, 3, 5e-4),
    "notebooks:ncsu": (
        (
            "segnet_ncsu_camvid_report, test case 1",
            {
                "data.name": "camvid",
                "data.image_size": (416, 608),
                "optim.name": "sgd",
                "optim.learning_rate": 0.001,
                "train.steps": 50 * 512,
            },
        ),
        ("Keras's default", {"optim.momentum": 0.0, "optim.schedule": "constant"}),
    ),
}


def options(preset: str) -> dict:
    """{option: value} of all rows of "CONFIG:PRESET"; no option is in two rows."""
    values = {}
    for source, row in TABLE[preset]:
        again = values.keys() & row.keys()
        assert not again, f"{preset}: {source} has {', '.join(again)} again"
        values |= row
    return values


def head(preset: str) -> str:
    """The list of a preset as the docstring of its config has it."""
    lines = [f"What the sources of {preset.partition(':')[2]} say:"]
    for source, row in TABLE[preset]:
        items = ", ".join(f"{name}={_text(value)}" for name, value in row.items())
        lines += textwrap.wrap(
            f"{source}: {items}",
            100,
            initial_indent="  ",
            subsequent_indent="    ",
            break_long_words=False,
            break_on_hyphens=False,
        )
    return "\n".join(lines)


def _text(value) -> str:
    if isinstance(value, dict):
        return ";".join(f"{part}:{factor}" for part, factor in value.items()) or '""'
    if isinstance(value, tuple):
        return "x".join(f"{v:g}" if isinstance(v, float) else str(v) for v in value)
    return f"{value:g}" if isinstance(value, float) else str(value).replace(" ", "")


if __name__ == "__main__":
    for name in TABLE:
        print(f"--- {name}\n{head(name)}\n")
