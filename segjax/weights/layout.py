"""The vocabulary of the name tables in `segjax.weights.torch_networks` and `keras_networks`:
how the networks of other projects name their arrays."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Arrays = Mapping[str, np.ndarray]


class Names(NamedTuple):
    """A file's names of one of our blocks.

    Attributes:
      conv: the module or layer that holds the kernel and the bias.
      norm: the module or layer of its batch normalisation; "" where the file's network has none.
      inputs: order of the kernel's input channels, where it differs: ours[i] = theirs[inputs[i]].
      optional: the block stays fresh where the model's has another shape (VGG's fully connected
        layers).
      statistics: whether the normalisation has a running mean and variance; not so layer norms.
      scale: the name of the only array of the block, a factor for each channel.
      var_shift: added to the running variance: the file's epsilon less ours.
    """

    conv: str
    norm: str = ""
    inputs: tuple[int, ...] | None = None
    optional: bool = False
    statistics: bool = True
    scale: str = ""
    var_shift: float = 0.0


@dataclasses.dataclass(frozen=True)
class Layout:
    """One family of files.

    Attributes:
      title: the family's name in messages, such as "torchvision deeplabv3_resnet50/101/152".
      kind: `WeightFile.kind` of its files.
      recognises: whether arrays belong to this family, by their names and shapes.
      describe: the config of the file's network, with `name` and `num_classes`; a classifier's has
        no `name` and holds an encoder's options only.
      blocks: from that config and the arrays to {our block's path: its Names}, for the complete
        network; the block that reads the image comes first.
      mean, std: of the RGB images in [0, 1] that the network was trained on; None: unknown.
      bgr: the network reads BGR; the input channels of its first convolution are reversed here.
    """

    title: str
    kind: str
    recognises: Callable[[Arrays], bool]
    describe: Callable[[Arrays], dict[str, Any]]
    blocks: Callable[[Mapping[str, Any], Arrays], dict[str, Names]]
    mean: tuple[float, ...] | None = IMAGENET_MEAN
    std: tuple[float, ...] | None = IMAGENET_STD
    bgr: bool = False


def role_of(leaf: str) -> tuple[str, str]:
    """The block and the role of a leaf: ("encoder/stem", "kernel") for
    "params/encoder/stem/conv/kernel". Roles: kernel, bias, scale, shift, mean, var."""
    *parents, name = leaf.split("/")[1:]
    if parents[-1] == "norm":
        return "/".join(parents[:-1]), "shift" if name == "bias" else name
    if parents[-1] == "conv" and len(parents) > 1:
        parents = parents[:-1]
    return "/".join(parents), name


NORM_ROLES = ("scale", "shift", "mean", "var")
_TORCH = ("{}.weight", "{}.bias", "{}.weight", "{}.bias", "{}.running_mean", "{}.running_var")
_KERAS = ("{}/kernel", "{}/bias", "{}/gamma", "{}/beta", "{}/moving_mean", "{}/moving_variance")
PATTERNS = {
    kind: dict(zip(("kernel", "bias", *NORM_ROLES), patterns, strict=True))
    for kind, patterns in (("torch", _TORCH), ("keras", _KERAS))
}


def array_names(names: Names, kind: str) -> dict[str, str]:
    """The file's name of each role that the block has there."""
    if names.scale:
        return {"scale": names.scale}
    patterns = PATTERNS[kind]
    roles = {role: patterns[role].format(names.conv) for role in ("kernel", "bias")}
    if names.norm:
        norm_roles = NORM_ROLES if names.statistics else NORM_ROLES[:2]
        roles |= {role: patterns[role].format(names.norm) for role in norm_roles}
    return roles
