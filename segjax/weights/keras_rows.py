"""Convolutions and normalisations of Keras networks, in the order of `model.layers`.

That order is by depth, the number of layers between a layer and the output. So in a residual block
the projection of the input comes beside the last convolution of the main path. Layers of one depth
come in the order of the addition's or the concatenation's inputs.
"""

import string
from typing import NamedTuple

from segjax.models.vgg import VGG16_STAGES

# Blocks in stages 2 to 5 of the encoders (He et al., CVPR 2016, table 1).
RESNET_DEPTHS = {
    "resnet50": (3, 4, 6, 3),
    "resnet101": (3, 4, 23, 3),
    "resnet152": (3, 8, 36, 3),
}


class Row(NamedTuple):
    """One convolution of a network.

    Attributes:
      block: our block's path.
      size: the kernel's side.
      conv: the layer's name; "" where Keras numbers it (conv2d_7).
      norm: its normalisation's name; "" where Keras numbers it, None where there is none.
    """

    block: str
    size: int
    conv: str = ""
    norm: str | None = None


def vgg_rows(stages: int = 5) -> tuple[Row, ...]:
    """VGG16's convolutions in keras.applications' names."""
    return tuple(
        Row(f"encoder/conv{s}_{i}", 3, f"block{s}_conv{i}")
        for s, channels in enumerate(VGG16_STAGES[:stages], 1)
        for i in range(1, len(channels) + 1)
    )


def resnet_rows(depths: tuple[int, ...]) -> tuple[Row, ...]:
    """A ResNet in keras.applications' names."""
    rows = [Row("encoder/stem", 7, "conv1_conv", "conv1_bn")]
    for s, blocks in enumerate(depths, 2):
        for b in range(1, blocks + 1):
            ours, theirs = f"encoder/stage{s}_block{b}", f"conv{s}_block{b}"
            # The addition's first input is the shortcut.
            parts = [("reduce", 1, 1), ("conv", 3, 2), ("shortcut", 1, 0), ("expand", 1, 3)]
            rows += [
                Row(f"{ours}/{part}", size, f"{theirs}_{n}_conv", f"{theirs}_{n}_bn")
                for part, size, n in parts
                if part != "shortcut" or b == 1
            ]
    return tuple(rows)


def old_resnet_rows(depths: tuple[int, ...]) -> tuple[Row, ...]:
    """A ResNet in keras.applications' earlier names, which are those of the authors' Caffe network.

    That version's 3x3 pooling had no padding, so its maps are a cell smaller than ours.
    """
    rows = [Row("encoder/stem", 7, "conv1", "bn_conv1")]
    for s, blocks in enumerate(depths, 2):
        for b, letter in zip(range(1, blocks + 1), string.ascii_lowercase, strict=False):
            ours, theirs = f"encoder/stage{s}_block{b}", f"{s}{letter}_branch"
            # The addition's second input is the shortcut.
            parts = [("reduce", 1, "2a"), ("conv", 3, "2b"), ("expand", 1, "2c")]
            parts += [("shortcut", 1, "1")] if b == 1 else []
            rows += [
                Row(f"{ours}/{part}", size, f"res{theirs}{n}", f"bn{theirs}{n}")
                for part, size, n in parts
            ]
    return tuple(rows)


def notebook_segnet_rows() -> tuple[Row, ...]:
    """The SegNet of the document `segnet_keras_idd`."""
    counts = [len(channels) for channels in VGG16_STAGES]
    places = [("encoder", "En", s, counts[s - 1]) for s in range(1, 6)]
    places += [("decoder", "Dec", s, counts[s - 1]) for s in range(5, 0, -1)]
    rows = [
        Row(f"{ours}{s}_{i}", 3, f"{theirs}_Block{s}_Conv{i}", f"{theirs}_Block{s}_Batch{i}")
        for ours, theirs, s, count in places
        for i in range(1, count + 1)
    ]
    return (*rows, Row("classifier", 3, "Final_Conv"))


def notebook_resnet_rows() -> tuple[Row, ...]:
    """The encoder of the documents `pspnet_keras_idd` and `deeplabv3_keras_idd`."""
    rows = [Row("encoder/stem", 7, "Block1_Conv1", "Block1_Conv1_BN")]
    for s, blocks in enumerate(RESNET_DEPTHS["resnet50"], 2):
        for b in range(1, blocks + 1):
            theirs = f"Block{s}.{b}_{'CONV' if b == 1 else 'ID'}_"
            # The addition's second input is the shortcut.
            parts = [("reduce", 1, "Conv1"), ("conv", 3, "Conv2"), ("expand", 1, "Conv3")]
            parts += [("shortcut", 1, "conv_previous_add")] if b == 1 else []
            rows += [
                Row(f"encoder/stage{s}_block{b}/{part}", size, theirs + name, "")
                for part, size, name in parts
            ]
    return tuple(rows)


_PSPNET_HEAD = (
    Row("pyramid6", 1, "GREENConv1_1", ""),
    Row("pyramid3", 1, "BLUEConv1_1", ""),
    Row("pyramid2", 1, "ORANGEConv1_1", ""),
    Row("pyramid_global", 1, "REDConv1_1", ""),
    Row("head", 5, "Conv1", ""),
    Row("classifier", 3, "Conv2"),
)
_DEEPLAB_HEAD = (
    # An enlargement follows it, so the image's mean comes before the other branches.
    Row("image_pooling", 1, "Global_Conv", ""),
    Row("conv1x1", 1, "ASPP_Conv0_1x1", ""),
    Row("atrous1", 3, "ASPP_Conv1_3x3", ""),
    Row("atrous2", 3, "ASPP_Conv2_3x3", ""),
    Row("atrous3", 3, "ASPP_Conv3_3x3", ""),
    Row("project", 1, "ASPP_Out", ""),
    Row("head", 1, "out"),
    Row("classifier", 1, "output"),
)
_NCSU_DECODER = (
    *(Row(f"decoder{s}", 3, "", "") for s in range(4, 0, -1)),
    Row("classifier", 3),
)
SEED_NETWORKS = {
    "notebook_segnet": notebook_segnet_rows(),
    "notebook_pspnet": notebook_resnet_rows() + _PSPNET_HEAD,
    "notebook_deeplabv3": notebook_resnet_rows() + _DEEPLAB_HEAD,
    "ncsu_segnet": vgg_rows(4) + _NCSU_DECODER,
}
