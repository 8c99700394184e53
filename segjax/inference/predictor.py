"""Predicting label maps with a trained run."""

import functools
import math
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, UInt8

from segjax import config as configs
from segjax.data.classes import ClassTable
from segjax.data.fitted import fit_image, fitted_size, resize_image
from segjax.inference.options import InferenceOptions
from segjax.inference.sliding import SlidingWindows
from segjax.inference.tta import combine, taps, view_logits
from segjax.inference.windows import bucket
from segjax.models import build
from segjax.training.checkpoint import CheckpointStore
from segjax.transforms.normalize import normalize


def forward_fn(
    model: nn.Module, config: Mapping[str, Any], train: bool = False
) -> Callable[..., Float[Array, "n H W k"]]:
    """Returns `forward(variables, images, rngs=None, inside=None)`, to be jitted: the logits.

    It takes uint8 images [n, H, W, c], normalises them as the run does, and returns the float32
    logits [n, H, W, K]. `rngs` goes to the model; of `images` what is not `inside` (bool [n, H, W])
    is 0 after normalisation. With `train` batch normalisation uses the batch's statistics, and
    what it would remember of them is dropped.
    """
    data = config["data"]
    mean, std = tuple(data["mean"]), tuple(data["std"])
    local_contrast = data.get("local_contrast", 0)  # older runs have no such option

    def forward(
        variables: Any,
        images: UInt8[Array, "n H W c"],
        rngs: Mapping[str, jax.Array] | None = None,
        inside: Bool[Array, "n H W"] | None = None,
    ) -> Float[Array, "n H W k"]:
        images = normalize(images.astype(jnp.float32) / 255, mean, std, local_contrast, inside)
        given = {} if rngs is None else {"rngs": rngs}
        if not train:
            return model.apply(variables, images, train=False, **given)["logits"]
        outputs, _ = model.apply(variables, images, train=True, mutable=["batch_stats"], **given)
        return outputs["logits"]

    return forward


class Predictor:
    """A model with its variables, classes and preprocessing; label maps at the images' own size.

    By default (`way="canvas"`) images are fitted to the canvas that the model was trained and
    evaluated on (`data.image_size`); the logits, not the labels, are resized back: what evaluation
    scores. `InferenceOptions` has the other ways, and test-time augmentation.

    However many sizes come, the network is compiled once per scale for the canvas (and once for
    batches), once for sliding windows, and for whole images once per pair of buckets
    (`windows.bucket`) and size of batch; so are the small programs that make labels of logits.

    Args:
      model, variables: as trained.
      classes: names and colours.
      config: the run's config.
      options: how images are taken.
    """

    def __init__(
        self,
        model: nn.Module,
        variables: Any,
        classes: ClassTable,
        config: Mapping[str, Any],
        options: InferenceOptions | None = None,
    ):
        self.model, self.classes, self.config = model, classes, config
        self.variables = variables
        self.options = options = options or InferenceOptions()
        self._canvas = tuple(config["data"]["image_size"])
        devices = jax.local_devices()
        self._batch = -(-options.batch_size // len(devices)) * len(devices)
        self._mesh = self._copied = self._copies = None
        if len(devices) > 1:
            self._mesh = jax.make_mesh(
                (len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices
            )
        forward = forward_fn(model, config)
        self._views = jax.jit(functools.partial(view_logits, forward, options.flip))
        if options.way == "sliding":
            window = options.window or self._canvas
            self._sliding = SlidingWindows(forward, window, len(classes), options, self._put)

    @classmethod
    def from_workdir(
        cls,
        workdir: str | pathlib.Path,
        step: int | None = None,
        options: InferenceOptions | None = None,
    ) -> "Predictor":
        """Loads the best checkpoint of a run, or that of `step`.

        Where the best cannot be read, the newest that can be is taken, with a warning.

        Raises:
          ValueError: if the folder holds no run, no checkpoint, or not that step.
        """
        config = configs.load(workdir)
        classes = configs.load_classes(config, workdir)
        model = build(config["model"], len(classes), config["dtype"])
        with CheckpointStore(workdir, read_only=True) as store:
            variables = store.restore_variables(step)
        return cls(model, variables, classes, config, options)

    def predict(
        self, image: UInt8[np.ndarray, "h w c"], out: UInt8[np.ndarray, "h w"] | None = None
    ) -> UInt8[np.ndarray, "h w"]:
        """The label map of one image of any size, ids 0..K-1.

        Args:
          image: with `data.channels` channels. With sliding windows a `np.memmap` will do: only
            windows of it are read.
          out: where to write the labels, a `np.memmap` perhaps; with sliding windows rows are
            written as they are finished. Made if None.

        Raises:
          ValueError: for an image of another kind, or an `out` of another size.
        """
        image, out = self._check(image), self._result(image, out)
        if self.options.way == "sliding":
            return self._sliding.run(self.variables, image, out)
        logits = self._views_of([image], 1)
        return self._finish(logits, 0, image, labels=True, out=out)

    def predict_batch(
        self, images: Sequence[UInt8[np.ndarray, "h w c"]]
    ) -> list[UInt8[np.ndarray, "h w"]]:
        """The label maps of images, of one size or not, `batch_size` computed at a time.

        Images that the network sees at the same size share a batch; batches are filled up: to
        `batch_size`, or, whole images, to a power of two.
        """
        images = [self._check(image) for image in images]
        if self.options.way == "sliding":
            return [self.predict(image) for image in images]
        groups: dict[Any, list[int]] = {}
        for index, image in enumerate(images):
            key = tuple(seen for seen, _ in self._placements(image.shape[:2]))
            groups.setdefault(key, []).append(index)
        labels: list[Any] = [None] * len(images)
        for group in groups.values():
            for start in range(0, len(group), self._batch):
                batch = group[start : start + self._batch]
                logits = self._views_of([images[i] for i in batch], self._rows(len(batch)))
                for row, index in enumerate(batch):
                    labels[index] = self._finish(logits, row, images[index], labels=True)
        return labels

    def logits(self, image: UInt8[np.ndarray, "h w c"]) -> Float[np.ndarray, "h w k"]:
        """float32 scores of one image at its own size, whose softmax are its probabilities.

        They are the model's logits, or the logarithm of the mean probabilities where several
        views or windows are averaged. Keeps 4 * h * w * K bytes, unlike `predict`.
        """
        image = self._check(image)
        if self.options.way == "sliding":
            out = np.empty((*image.shape[:2], len(self.classes)), np.float32)
            return self._sliding.run(self.variables, image, out)
        return self._finish(self._views_of([image], 1), 0, image, labels=False)

    def _check(self, image: Any) -> UInt8[np.ndarray, "h w c"]:
        image, channels = np.asarray(image), self.config["data"]["channels"]
        if image.ndim != 3 or image.shape[2] != channels or image.dtype != np.uint8:
            raise ValueError(
                f"predict wants a uint8 image [h, w, {channels}], found {image.dtype} {image.shape}"
            )
        if not image.size:
            raise ValueError(f"predict wants an image with pixels, found {image.shape}")
        return image

    def _result(self, image: np.ndarray, out: np.ndarray | None) -> UInt8[np.ndarray, "h w"]:
        if out is None:
            return np.empty(image.shape[:2], np.uint8)
        if out.shape != image.shape[:2] or out.dtype != np.uint8:
            raise ValueError(
                f"out is {out.dtype} {out.shape}; use a uint8 array {image.shape[:2]}, as the image"
            )
        return out

    def _placements(self, size: tuple[int, int]) -> list[tuple[tuple[int, int], tuple[int, int]]]:
        """For each scale, the size that the network sees and the part of it that the image fills,
        top left."""
        placements = []
        for scale in self.options.scales:
            if self.options.way == "canvas":
                seen = tuple(max(1, round(n * scale)) for n in self._canvas)
                placements.append((seen, fitted_size(size, seen)))
            else:
                fitted = tuple(max(1, round(n * scale)) for n in size)
                placements.append((tuple(bucket(n) for n in fitted), fitted))
        return placements

    def _views_of(self, images: list[np.ndarray], batch: int) -> list[Float[Array, "v n H W k"]]:
        """The logits of images that the network sees at the same sizes, an array for each scale;
        filled up to `batch` images."""
        placements = [self._placements(image.shape[:2]) for image in images]
        views = []
        for scale in range(len(self.options.scales)):
            seen = placements[0][scale][0]
            pixels = np.zeros((batch, *seen, images[0].shape[2]), np.uint8)
            fitted = np.ones((batch, 2), np.int32)
            for row, image in enumerate(images):
                height, width = fitted[row] = placements[row][scale][1]
                if self.options.way == "canvas":
                    pixels[row] = fit_image(image, seen)
                else:
                    pixels[row, :height, :width] = resize_image(image, (height, width))
            # The rest of the canvas has the image's mean colour, as in evaluation.
            sizes = None if self.options.way == "canvas" else fitted
            if batch == 1:  # cannot be divided
                views.append(self._views(self.variables, pixels, sizes))
            else:
                views.append(self._views(*self._put(self.variables, pixels, sizes)))
        return views

    def _rows(self, images: int) -> int:
        """Of the batch that so many images of one size are filled up to."""
        if self.options.way == "canvas":
            return self._batch
        # Whole images of one size may be few: a power of two is enough for them.
        devices = 1 if self._mesh is None else self._mesh.size
        rows = devices * 2 ** math.ceil(math.log2(-(-images // devices)))
        return min(rows, self._batch)

    def _put(self, variables: Any, *batches: Any) -> tuple[Any, ...]:
        """Variables on every device and arrays' first axes divided over them, if there are
        several."""
        if self._mesh is None:
            return variables, *batches
        if self._copied is not variables:  # once, and anew if somebody sets other ones
            whole = NamedSharding(self._mesh, PartitionSpec())
            self._copied, self._copies = variables, jax.device_put(variables, whole)
        divided = NamedSharding(self._mesh, PartitionSpec("data"))
        return self._copies, *jax.device_put(batches, divided)

    def _finish(self, views, row: int, image: np.ndarray, *, labels: bool, out=None) -> np.ndarray:
        """One image's labels, or scores, from the logits of a batch."""
        height, width = image.shape[:2]
        fitted = [fitted for _, fitted in self._placements((height, width))]
        result = combine(
            tuple(view[:, row] for view in views),
            tuple(taps(rows, height) for rows, _ in fitted),
            tuple(taps(columns, width) for _, columns in fitted),
            labels=labels,
        )
        result = np.asarray(result)[:height, :width]
        if out is None:
            return result
        out[:] = result
        return out
