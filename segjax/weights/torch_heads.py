"""The names that several torch projects give to arrays of heads."""

from segjax.weights.layout import Arrays, Names
from segjax.weights.torch_encoders import Blocks


def has(arrays: Arrays, *names: str) -> bool:
    """Whether the file holds all arrays of these names."""
    return all(name in arrays for name in names)


def sequential_head(ours: str, theirs: str) -> Blocks:
    """A torch Sequential: convolution 0, normalisation 1, activation, dropout, classifier 4."""
    return {
        f"{ours}/conv": Names(f"{theirs}.0", f"{theirs}.1"),
        f"{ours}/classifier": Names(f"{theirs}.4"),
    }


def aspp_blocks(theirs: str, separable: bool = False) -> Blocks:
    """`AtrousSpatialPyramidPooling`; the image branch begins with the pooling.

    With `separable`, the 3x3 branches are two convolutions with one normalisation after them.
    """
    blocks = {"aspp/conv1x1": Names(f"{theirs}.convs.0.0", f"{theirs}.convs.0.1")}
    for i in (1, 2, 3):
        ours, branch = f"aspp/atrous{i}", f"{theirs}.convs.{i}"
        if separable:
            blocks |= separable_blocks(ours, f"{branch}.0", f"{branch}.1")
        else:
            blocks[ours] = Names(f"{branch}.0", f"{branch}.1")
    blocks["aspp/image_pooling"] = Names(f"{theirs}.convs.4.1", f"{theirs}.convs.4.2")
    blocks["aspp/project"] = Names(f"{theirs}.project.0", f"{theirs}.project.1")
    return blocks


def separable_blocks(ours: str, convs: str, norm: str) -> Blocks:
    """`SeparableConvNormAct` without normalisation inside: convolutions 0 and 1, and the norm."""
    return {
        f"{ours}/depthwise": Names(f"{convs}.0"),
        f"{ours}/pointwise": Names(f"{convs}.1", norm),
    }
