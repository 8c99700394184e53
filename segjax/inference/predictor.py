"""Prediction of label maps with a trained run."""

import functools
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
import scipy
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, UInt8

from segjax import config as configs
from segjax.data.classes import ClassTable
from segjax.data.files.windowed import WindowedImage
from segjax.data.fitted import fit_image, fitted_size, resize_image
from segjax.inference.crf import dense_crf
from segjax.inference.exported import open_exported
from segjax.inference.options import InferenceOptions
from segjax.inference.sliding import SlidingWindows
from segjax.inference.tta import combine, interpolation, scaled_size, view_logits
from segjax.inference.windows import bucket
from segjax.models import build
from segjax.training.checkpoint import CheckpointStore
from segjax.training.forward import logits_fn
from segjax.training.head import make_head
from segjax.training.options import check_run
from segjax.transforms.normalize import Normalization


class Fit(NamedTuple):
    """How an image becomes the network's input at one scale.

    Attributes:
      input_size: (H, W) of the network's input.
      image_size: (h, w) that the resized image fills of it, top left.
    """

    input_size: tuple[int, int]
    image_size: tuple[int, int]


class Predictor:
    """A model with its variables, classes and preprocessing; predicts at the images' own size.

    By default (`inference="resize"`) images are resized to fit the canvas of training and
    evaluation (`data.image_size`), and the logits, not the labels, are resized back: this is what
    evaluation scores. `InferenceOptions` has the alternatives and test-time augmentation.

    The network is compiled for few shapes: with "resize" once per scale (and once more for
    batches), with "slide" once, with "whole" once per pair of buckets (`windows.bucket`) and batch
    size. So are the small programs that turn logits into labels.

    Args:
      model, variables: as trained.
      classes: names and colours.
      config: the run's config.
      options: see `InferenceOptions`.

    Attributes:
      normalization: of the run.
      forward: see `segjax.training.forward.logits_fn`.
      head: what the logits mean, see `segjax.training.head`.

    Raises:
      ValueError: for a head that does not suit the classes, see `make_head`.
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
        self.variables, self.head = variables, make_head(config, classes)
        self.normalization = Normalization.from_config(config["data"])
        self.forward = logits_fn(model, self.normalization)
        self.options = options = options or InferenceOptions()
        if options.crf and self.head.name != "softmax":
            raise ValueError(
                f"--crf with model.head={self.head.name}: a dense CRF gives each pixel one class; "
                "leave --crf out"
            )
        self._canvas = tuple(config["data"]["image_size"])
        devices = jax.local_devices()
        self._batch_size = -(-options.batch_size // len(devices)) * len(devices)
        self._mesh = self._copied = self._copies = None
        if len(devices) > 1:
            self._mesh = jax.make_mesh(
                (len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices
            )
        self._view_logits = jax.jit(functools.partial(view_logits, self.forward, options.flip))
        if options.inference == "slide":
            window = options.window or self._canvas
            self._windows = SlidingWindows(
                self.forward, window, len(classes), options, self._put, self.head
            )

    @classmethod
    def from_workdir(
        cls,
        workdir: str | pathlib.Path,
        step: int | None = None,
        options: InferenceOptions | None = None,
        overrides: Mapping[str, Any] | None = None,
    ) -> "Predictor":
        """Loads the best checkpoint of a run, or that of `step`.

        If the best checkpoint cannot be read, the newest readable one is used, with a warning.

        Args:
          workdir: of a training run.
          step: of the checkpoint.
          options: see `InferenceOptions`.
          overrides: of the run's config, see `config.with_overrides`.

        Raises:
          ValueError: if the folder holds no run, no checkpoint, or not that step; or for an
            override of an unknown option.
        """
        config = configs.load(workdir)
        classes = configs.load_classes(config, workdir)
        config = configs.with_overrides(config, overrides or {})
        check_run(config, workdir)
        model = build(config["model"], len(classes), config["dtype"])
        with CheckpointStore(workdir, read_only=True) as store:
            variables = store.restore_variables(step)
        return cls(model, variables, classes, config, options)

    @classmethod
    def from_pretrained(
        cls,
        folder: str | pathlib.Path,
        options: InferenceOptions | None = None,
        overrides: Mapping[str, Any] | None = None,
    ) -> "Predictor":
        """Loads an exported model: the folder that `--mode=export --format=huggingface` writes.

        Args:
          folder: of the model.
          options: see `InferenceOptions`.
          overrides: as for `from_workdir`.

        Raises:
          ValueError: naming the file that is missing or damaged; or for an override of an unknown
            option.
        """
        exported = open_exported(folder)
        config = configs.with_overrides(exported.config, overrides or {})
        check_run(config, folder)
        return cls(exported.model, exported.variables, exported.classes, config, options)

    def predict(
        self,
        image: UInt8[np.ndarray, "h w c"] | WindowedImage,
        out: UInt8[np.ndarray, "h w"] | None = None,
    ) -> UInt8[np.ndarray, "h w"]:
        """The label map of one image of any size: ids 0..K-1, or of a sigmoid head bits.

        `classes.to_raw_ids` gives the data set's own ids, which its masks and its server have.
        Bit k is set where label k is present; `classes.classes_of[label_map]` is bool [h, w, K].

        Args:
          image: with `data.channels` channels. For sliding windows it may be a `np.memmap` or a
            `WindowedImage`, of which only windows are read.
          out: the array to write to, perhaps a `np.memmap`; sliding windows write its rows as they
            finish them. A new array if None.

        Raises:
          ValueError: for an image of another kind, or an `out` of another size.
        """
        checked = self._check_image(image)
        out = np.empty(checked.shape[:2], np.uint8) if out is None else _check_out(out, checked)
        if self.options.crf:
            out[:] = self.logits(checked).argmax(-1)
            return out
        if self.options.inference == "slide":
            return self._windows.run(self.variables, checked, out)
        out[:] = self._resize_back(self._run([checked], 1), 0, checked, labels=True)
        return out

    def predict_batch(
        self, images: Sequence[UInt8[np.ndarray, "_ _ c"]]
    ) -> list[UInt8[np.ndarray, "_ _"]]:
        """The label maps of images, of one size or several, `batch_size` computed at a time.

        Images that become the same input size share a batch. Batches are padded to `batch_size`,
        those of whole images to a power of two.
        """
        images = [self._check_image(image) for image in images]
        if self.options.inference == "slide" or self.options.crf:
            return [self.predict(image) for image in images]
        groups: dict[Any, list[int]] = {}
        for index, image in enumerate(images):
            sizes = tuple(fit.input_size for fit in self._fits(image.shape[:2]))
            groups.setdefault(sizes, []).append(index)
        labels: list[Any] = [None] * len(images)
        for group in groups.values():
            for start in range(0, len(group), self._batch_size):
                batch = group[start : start + self._batch_size]
                logits = self._run([images[i] for i in batch], self._padded_size(len(batch)))
                for row, index in enumerate(batch):
                    labels[index] = self._resize_back(logits, row, images[index], labels=True)
        return labels

    def logits(self, image: UInt8[np.ndarray, "h w c"]) -> Float[np.ndarray, "h w k"]:
        """float32 scores of one image at its own size; `head.probabilities`, a softmax or sigmoids,
        turns them into the class probabilities.

        They are the model's logits, or where several views or windows are averaged scores of the
        mean probabilities, or of the probabilities that the dense CRF gives. Needs 4 * h * w * K
        bytes, unlike `predict` without a CRF.
        """
        image = self._check_image(image)
        scores = self._scores(image)
        if self.options.crf is None:
            return scores
        refined = dense_crf(scipy.special.softmax(scores, -1), image, self.options.crf)
        return np.log(np.maximum(refined, np.finfo(np.float32).tiny))

    def _scores(self, image: UInt8[np.ndarray, "h w c"]) -> Float[np.ndarray, "h w k"]:
        if self.options.inference == "slide":
            out = np.empty((*image.shape[:2], len(self.classes)), np.float32)
            return self._windows.run(self.variables, image, out)
        return self._resize_back(self._run([image], 1), 0, image, labels=False)

    def _check_image(self, image: Any) -> Any:
        """The image as an array, or as it is where only windows of it are read."""
        channels = self.config["data"]["channels"]
        if self.options.inference != "slide" or self.options.crf:
            image = np.asarray(image)
        if image.ndim != 3 or image.shape[2] != channels or image.dtype != np.uint8:
            raise ValueError(
                f"predict takes a uint8 image [h, w, {channels}], found {image.dtype} {image.shape}"
            )
        if not image.size:
            raise ValueError(f"predict takes an image with pixels, found {image.shape}")
        return image

    def _fits(self, size: tuple[int, int]) -> list[Fit]:
        """How an image of `size` becomes the network's input, at each scale."""
        fits = []
        for scale in self.options.scales:
            if self.options.inference == "resize":
                canvas = scaled_size(self._canvas, scale)
                fits.append(Fit(canvas, fitted_size(size, canvas)))
            else:
                height, width = scaled = scaled_size(size, scale)
                fits.append(Fit((bucket(height), bucket(width)), scaled))
        return fits

    def _run(
        self, images: Sequence[np.ndarray], batch_size: int
    ) -> list[Float[Array, "v n _ _ k"]]:
        """Resizes images that become the same input size and runs the network on them.

        Returns:
          Their logits, an array per scale; rows are the images, padded to `batch_size`.
        """
        fits = [self._fits(image.shape[:2]) for image in images]
        logits = []
        for scale in range(len(self.options.scales)):
            inputs, sizes = self._resize(images, [fit[scale] for fit in fits], batch_size)
            arguments = self.variables, inputs, sizes
            if batch_size > 1:  # a single image cannot be divided over the devices
                arguments = self._put(*arguments)
            logits.append(self._view_logits(*arguments))
        return logits

    def _resize(
        self, images: Sequence[np.ndarray], fits: Sequence[Fit], batch_size: int
    ) -> tuple[UInt8[np.ndarray, "n H W c"], np.ndarray | None]:
        """The network's input at one scale, and the sizes that the images fill of it.

        On the canvas the sizes are None: `fit_image` fills the rest with the image's mean colour,
        as in evaluation. The rest around a whole image becomes 0 after normalisation.
        """
        inputs = np.zeros((batch_size, *fits[0].input_size, images[0].shape[2]), np.uint8)
        if self.options.inference == "resize":
            for row, (image, fit) in enumerate(zip(images, fits, strict=True)):
                inputs[row] = fit_image(image, fit.input_size)
            return inputs, None
        sizes = np.ones((batch_size, 2), np.int32)
        for row, (image, fit) in enumerate(zip(images, fits, strict=True)):
            height, width = sizes[row] = fit.image_size
            inputs[row, :height, :width] = resize_image(image, fit.image_size)
        return inputs, sizes

    def _resize_back(
        self, logits: Sequence[Float[Array, "v n _ _ k"]], row: int, image: np.ndarray, labels: bool
    ) -> np.ndarray:
        """The labels, or scores, of one image of a batch, at the image's size."""
        height, width = image.shape[:2]
        fits = self._fits((height, width))
        result = combine(
            tuple(views[:, row] for views in logits),
            tuple(interpolation(fit.image_size[0], height) for fit in fits),
            tuple(interpolation(fit.image_size[1], width) for fit in fits),
            labels=labels,
            head=self.head,
        )
        return np.asarray(result)[:height, :width]

    def _padded_size(self, count: int) -> int:
        """The batch size to which `count` images are padded."""
        if self.options.inference == "resize":
            return self._batch_size
        # Few whole images may share a size: the next power of two is enough for them.
        devices = 1 if self._mesh is None else self._mesh.size
        return min(devices * 2 ** math.ceil(math.log2(-(-count // devices))), self._batch_size)

    def _put(self, variables: Any, *batches: Any) -> tuple[Any, ...]:
        """Copies variables to every device and divides the arrays' first axes over the devices."""
        if self._mesh is None:
            return variables, *batches
        if self._copied is not variables:  # only once, unless the caller sets other variables
            replicated = NamedSharding(self._mesh, PartitionSpec())
            self._copied, self._copies = variables, jax.device_put(variables, replicated)
        divided = NamedSharding(self._mesh, PartitionSpec("data"))
        return self._copies, *jax.device_put(batches, divided)


def _check_out(out: np.ndarray, image: Any) -> UInt8[np.ndarray, "h w"]:
    if out.shape != image.shape[:2] or out.dtype != np.uint8:
        raise ValueError(
            f"out is {out.dtype} {out.shape}; use a uint8 array {image.shape[:2]}, as the image"
        )
    return out
