"""The bookkeeping of one load: the arrays taken, the leaves that stay fresh, and every problem."""

import dataclasses
from typing import Any

import flax.linen as nn
import numpy as np

from segjax.models import MODELS, model_options
from segjax.weights.files import WeightFile
from segjax.weights.layout import NORM_ROLES, Layout, Names, array_names, role_of
from segjax.weights.report import Report

# Counters that no network computes with.
_COUNTERS = ("num_batches_tracked",)
# Options that describe the file's network in messages, and options that only training reads.
_SHOWN = ("name", "encoder", "num_classes")
_ENCODER_OPTIONS = ("encoder", "stem", "strided_1x1", "tensorflow")
# Copies of a ResNet's last stage (`model.cascade`), which classifiers have none of.
_CASCADE = ("encoder/stage6_", "encoder/stage7_", "encoder/stage8_")
_MOST_LINES = 500  # of one message; the largest network here has fewer arrays than this twice
_TRAINING_ONLY = ("dropout_rate", "momentum", "zero_init_residual")


def model_name(model: nn.Module) -> str:
    """The name of a model in the table."""
    return next(name for name, kind in MODELS.items() if kind is type(model))


def is_encoder(block: str) -> bool:
    return block.startswith("encoder")


@dataclasses.dataclass
class Merge:
    """One load in progress: `take` every leaf, then `account_for_the_rest` and `raise_problems`.

    Attributes:
      file, layout: the arrays, and the family that they belong to.
      described: the config of the file's network.
      model, roles: the model to fill, and the (block, role) of each of its leaves.
      parts: "all" or "encoder".
    """

    file: WeightFile
    layout: Layout
    described: dict[str, Any]
    model: nn.Module
    parts: str
    roles: set[tuple[str, str]]

    def __post_init__(self):
        details = ", ".join(f"{k}={self.described[k]}" for k in _SHOWN if k in self.described)
        details = f" ({details})" if details else ""
        looks = f"weight file {self.file.path} looks like {self.layout.title}{details}"
        self.report = Report(
            f"{self.file.path}: {self.layout.title}{details}",
            mean=self.file.mean or self.layout.mean,
            std=self.file.std or self.layout.std,
        )
        if self.file.prefix:
            self.report.notes.append(f"names were read without their prefix {self.file.prefix!r}")
        for name in self.file.outside:
            self.report.left_over[name] = f"not under {self.file.prefix!r}"
        if self.file.unread:
            names = ", ".join(self.file.unread[:4]) + ", ..." * (len(self.file.unread) > 4)
            self.report.notes.append(f"objects beside the weights were not read: {names}")
        self.problems: dict[str, dict[str, list[str]]] = {}  # reason: place: details
        self.used: set[str] = set()
        self.blocks, self.sources = self._find_sources()
        self.complete = "name" in self.described  # a segmentation network, no classifier
        name = model_name(self.model)
        if self.complete and self.parts == "all" and self.described["name"] != name:
            raise ValueError(
                f"{looks}; the model is {name}. Use model.name={self.described['name']}, or "
                "init_parts=encoder to take its encoder only"
            )
        theirs, encoder = self.described.get("encoder"), getattr(self.model, "encoder", None)
        if theirs and encoder and theirs != encoder:
            raise ValueError(
                f"{looks}; the model's encoder is {encoder}. Use model.encoder={theirs}, or "
                f"weights of {encoder}"
            )
        ours = {block for block, _ in self.roles}
        if not ours & {block for block in self.blocks if is_encoder(block)}:
            raise ValueError(
                f"{looks}; the model's encoder is of another architecture ({name}: "
                f"{min(filter(is_encoder, ours))}, ...; the file: {next(iter(self.blocks))}, ...)"
            )
        self._note_options()

    def _find_sources(self) -> tuple[dict[str, Names], dict[tuple[str, str], str]]:
        """The blocks of the file's network, and the file's name for each (block, role)."""
        arrays, kind = self.file.arrays, self.file.kind
        if kind == "segjax":
            sources = {role_of(leaf): leaf for leaf in arrays}
            return {block: Names(block) for block, _ in sources}, sources
        blocks = self.layout.blocks(self.described, arrays)
        sources = {
            (block, role): name
            for block, names in blocks.items()
            for role, name in array_names(names, kind).items()
            if role != "bias" or name in arrays
        }
        return blocks, sources

    def _note_options(self) -> None:
        """Notes options without arrays that make another function of the same weights."""
        options = model_options(model_name(self.model))
        for option, theirs in self.described.items():
            ours = getattr(self.model, option, None)
            relevant = self.parts == "all" or option in _ENCODER_OPTIONS
            if option in ("aux", *_TRAINING_ONLY) or not relevant or option not in options:
                continue
            if ours != theirs:
                self.report.notes.append(
                    f"model.{option} is {ours} here and {theirs} in the file's network: its "
                    "outputs are not reproduced"
                )

    def problem(self, reason: str, place: str, detail: str) -> None:
        self.problems.setdefault(reason, {}).setdefault(place, []).append(detail)

    def take(self, leaf: str, value: Any) -> Any:
        """The file's array for one of our leaves; `value` itself where there is none."""
        block, role = role_of(leaf)
        if self.parts == "encoder" and not is_encoder(block):
            self.report.fresh[leaf] = "only the encoder was asked for"
        elif (block, role) not in self.sources:
            self._excuse(leaf, block, role)
        elif (name := self.sources[block, role]) not in self.file.arrays:
            self.problem("missing in the file", leaf, name)
        else:
            self.used.add(name)
            array = self._convert(self.file.arrays[name], block, role, tuple(value.shape))
            array = self._fit(array, leaf, block, role, tuple(value.shape))
            if array is not None:
                self.report.loaded[leaf] = array.size
                if not np.isfinite(array).all():
                    bad = np.count_nonzero(~np.isfinite(array))
                    self.problem("not finite", name, f"{bad} NaN or infinite values")
                return array
        return value

    def _excuse(self, leaf: str, block: str, role: str) -> None:
        """Notes why a leaf for which the file has no array may stay fresh, or that it may not."""
        title = self.layout.title
        normalised = any((block, other) in self.sources for other in NORM_ROLES)
        if block in self.blocks and role in NORM_ROLES and not normalised:
            self.report.fresh[leaf] = f"{title} has no normalisation there"
        elif block in self.blocks and role == "bias":
            self.report.fresh[leaf] = f"{title} has no bias there"
        elif block.startswith("aux_head"):
            self.report.fresh[leaf] = "the file has no auxiliary head"
        elif block.startswith(_CASCADE) and block not in self.blocks:
            self.report.fresh[leaf] = "the file has no such copy of the last stage"
        elif self.complete or is_encoder(block):
            self.problem("has no place in the file's network", block, role)
        else:
            self.report.fresh[leaf] = "a classifier's file has an encoder only"

    def _convert(self, array, block: str, role: str, shape: tuple[int, ...]) -> np.ndarray:
        """The file's array in our order of axes and channels."""
        names, kind = self.blocks[block], self.file.kind
        if role == "var":
            return array + np.float32(names.var_shift)
        if role == "mean" and (bias := self._lost_bias(block)) is not None:
            return array - bias
        if role == "scale" and names.scale:
            return array.reshape(-1)  # [c, 1, 1] in torchvision's layer scale
        if role != "kernel":
            return array
        if array.ndim == 2 and array.size == np.prod(shape):  # a fully connected layer
            height, width, inputs, outputs = shape
            order = (outputs, inputs, height, width) if kind == "torch" else shape
            array = array.reshape(order)
        if kind == "torch" and array.ndim == 4:
            array = array.transpose(2, 3, 1, 0)
        if names.inputs is not None:
            array = array[:, :, list(names.inputs)]
        if self.layout.bgr and self._reads_image(block):
            array = array[:, :, ::-1]
            self.report.notes.append("the first convolution reads RGB here, BGR in the file")
        return np.ascontiguousarray(array)

    def _reads_image(self, block: str) -> bool:
        return block == next(iter(self.blocks))

    def _lost_bias(self, block: str) -> np.ndarray | None:
        """The file's bias of a convolution where our block has none. A normalisation follows: its
        running mean less the bias makes the same function."""
        name = self.sources.get((block, "bias"))
        if name is None or (block, "bias") in self.roles:
            return None
        self.used.add(name)
        return self.file.arrays[name]

    def _fit(self, array, leaf: str, block: str, role: str, shape) -> np.ndarray | None:
        """The array if it fits the leaf or can be adapted; else None, with the reason noted."""
        if array.shape == shape:
            return array
        theirs, ours = self.described.get("num_classes"), self.model.num_classes
        if len(array.shape) == len(shape) and all(
            a == b or (a, b) == (theirs, ours) for a, b in zip(array.shape, shape, strict=True)
        ):
            self.report.fresh[leaf] = f"{theirs} classes in the file, {ours} here"
        elif role == "kernel" and self._reads_image(block) and _same_but_inputs(array, shape):
            self.report.notes.append(
                f"the first convolution reads {shape[2]} channels here, {array.shape[2]} in the "
                + ("file: its kernels are summed" if shape[2] == 1 else "file: they are repeated")
            )
            return _other_inputs(array, shape[2])
        elif self.blocks[block].optional:
            self.report.fresh[leaf] = f"{list(array.shape)} in the file, {list(shape)} here"
        else:
            name = self.sources[block, role]
            shapes = f"{list(shape)}, {name}: {list(array.shape)}"
            self.problem("of another shape", leaf, shapes)
        return None

    def account_for_the_rest(self) -> None:
        """Notes why each array of the file was not used, or that it should have been."""
        claimed = {name: key for key, name in self.sources.items()}
        for name in self.file.arrays:
            if name in self.used or name.endswith(_COUNTERS):
                continue
            block, role = claimed.get(name, ("", ""))
            if not block:
                self.report.left_over[name] = f"not part of {self.layout.title} as it is here"
            elif self.parts == "encoder" and not is_encoder(block):
                self.report.left_over[name] = "only the encoder was asked for"
            elif block.startswith("aux_head"):
                self.report.left_over[name] = "the model has no auxiliary head"
            elif self.blocks[block].optional:
                self.report.left_over[name] = "the model has no such layer"
            elif role == "bias" and (block, "scale") in self.roles:
                self.report.left_over[name] = "batch normalisation, which is fresh, takes it away"
            else:
                self.problem("has no place in the model", block, name)

    def raise_problems(self) -> None:
        """Raises one ValueError that lists all problems."""
        if not self.problems:
            return
        count = sum(len(d) for places in self.problems.values() for d in places.values())
        lines = [f"{count} arrays of {self.report.source} do not fit the model:"]
        for reason, places in self.problems.items():
            lines += [f"  {reason}: {place}: {', '.join(d)}" for place, d in places.items()]
        for option, theirs in self.described.items():
            ours = getattr(self.model, option, theirs)
            if ours != theirs and option not in ("name", "num_classes", "aux", *_TRAINING_ONLY):
                lines.append(f"  model.{option} is {ours}; the file's network has {theirs}")
        if "width" not in self.described and getattr(self.model, "width", 1) != 1:
            lines.append(f"  model.width is {self.model.width}; published networks have 1.0")
        if len(lines) > _MOST_LINES:
            lines[_MOST_LINES:] = [f"  ... and {len(lines) - _MOST_LINES:,} more"]
        raise ValueError("\n".join(lines))


def _same_but_inputs(array: np.ndarray, shape: tuple[int, ...]) -> bool:
    return array.ndim == 4 and array.shape[:2] + array.shape[3:] == shape[:2] + shape[3:]


def _other_inputs(kernel: np.ndarray, channels: int) -> np.ndarray:
    """A first kernel for images of another number of channels, with the same mean response: for one
    channel the sum over the file's, else the file's channels in turn, scaled to the same total."""
    if channels == 1:
        return kernel.sum(2, keepdims=True)
    order = np.arange(channels) % kernel.shape[2]
    return kernel[:, :, order] * np.float32(kernel.shape[2] / channels)
