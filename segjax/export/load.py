"""Runs an exported model; a StableHLO program with jax, numpy and flatbuffers only, and no other
file of segjax.

An artifact is one zip file, NAME.segjax:

- `metadata.json`: classes, palette, preprocessing, input and output, versions, scores;
- `model.stablehlo`: the program, as `jax.export` serialises it, without its weights. It takes the
  weights and uint8 images, normalises, runs the network and returns the best class of each pixel,
  or of a sigmoid head (`metadata["head"]`) bits, bit k set where class k is present;
- `weights.npz`: the weights, float32, by name;
- `test.npz`: `images` [1, H, W, c] and the `labels` [1, H, W] that the network gave at the export;
- `sha256.json`: the SHA-256 of each of the others.

The hashes reveal a damaged or edited file, not its author: load files of people you trust.
"""

import hashlib
import io
import json
import pathlib
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from numpy.typing import ArrayLike

SUFFIX = ".segjax"
METADATA, PROGRAM, WEIGHTS, TEST = "metadata.json", "model.stablehlo", "weights.npz", "test.npz"
PARTS = (METADATA, PROGRAM, WEIGHTS, TEST)
HASHES = "sha256.json"
FORMAT, FORMAT_VERSION = "segjax export", 1


class ExportedModel:
    """A model from an artifact: `model(images) -> labels`; see `load_exported`.

    Attributes:
      metadata: of the artifact, a dict; `segjax.export.program` writes it.
      classes: the names, in id order.
      palette: the RGB colour, 0..255, of each value that the model gives: of each class, or with a
        sigmoid head of each set of classes.
      ids: of each class in the masks of its data set, see `to_raw_ids`.
      size: (H, W) of the canvas on which the model was trained, evaluated and tested.
      multiple: the model takes images whose H and W are multiples of it; None: only of `size`.
    """

    def __init__(self, metadata: Mapping[str, Any], run: Callable[[np.ndarray], Any]):
        """`run` takes the images of `__call__`, which have been checked."""
        self.metadata = dict(metadata)
        self.classes = tuple(metadata["classes"])
        self.palette = tuple(tuple(color) for color in metadata["palette"])
        # Files of earlier versions have no ids.
        self.ids = tuple(metadata.get("ids", range(len(self.classes))))
        self.size, self.multiple = tuple(metadata["size"]), metadata["multiple"]
        self._run = run

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """The label map.

        Args:
          images: uint8 [n, H, W, c] as read from image files (RGB, 0..255), n >= 1; for H and W
            see `size` and `multiple`. Each new shape compiles once.

        Returns:
          uint8 [n, H, W]: ids 0..K-1, or bits of a sigmoid head.

        Raises:
          ValueError: for images of another dtype or shape.
        """
        images = np.asarray(images)
        self._check(images)
        return np.asarray(self._run(images))

    def colorize(self, labels: ArrayLike) -> np.ndarray:
        """Paints labels [...] in the palette's colours: uint8 [..., 3]; other ids are black."""
        table = np.zeros((256, 3), np.uint8)
        table[: len(self.palette)] = self.palette
        return table[np.asarray(labels, np.uint8)]

    def to_raw_ids(self, labels: ArrayLike) -> np.ndarray:
        """Labels [...] as the data set's own masks have them, and its server takes them: uint8, or
        uint16 if an id needs it. Bits of a sigmoid head stay."""
        labels = np.asarray(labels, np.uint8)
        if self.metadata.get("head") == "sigmoid":
            return labels
        table = np.arange(256, dtype=np.uint8 if max(self.ids) < 256 else np.uint16)
        table[: len(self.ids)] = self.ids
        return table[labels]

    def _check(self, images: np.ndarray) -> None:
        (height, width), step = self.size, self.multiple
        channels = self.metadata["channels"]
        if images.ndim == 4 and images.dtype == np.uint8 and len(images):
            given = images.shape[1:3]
            fits = all(n and n % step == 0 for n in given) if step else given == self.size
            if fits and images.shape[3] == channels:
                return
        expected = f"[n, {height}, {width}, {channels}]"
        if step:
            expected = f"[n, H, W, {channels}] with n >= 1 and H and W multiples of {step}"
        raise ValueError(
            f"this model takes uint8 images {expected}, found {images.dtype} "
            f"{list(images.shape)}; resize or pad them (metadata['preprocessing'] describes "
            "how its training did)"
        )


def from_program(
    metadata: Mapping[str, Any], program: bytes, weights: Mapping[str, Any]
) -> ExportedModel:
    """The model of a serialised program and its weights.

    Raises:
      ValueError: if the program is for other platforms, or of a jax that this jax cannot read.
      ImportError: if flatbuffers is missing.
    """
    _check_platform(metadata["platforms"])
    call = jax.jit(_deserialize(program, metadata).call)
    on_device = jax.device_put(dict(weights))
    return ExportedModel(metadata, lambda images: call(on_device, images))


def load_exported(path: str | pathlib.Path) -> ExportedModel:
    """Loads what `--mode=export` wrote: a program, or an ONNX file (see `segjax.export.onnx`).

    A program is checked to compute the same on this machine: the hashes of its parts, then the
    stored test, where at most the share `metadata["test_tolerance"][platform]` of the pixels may
    have another class than at the export. The share is 0.1 % on a CPU for a float32 model from a
    CPU, else 5 %: products are rounded differently there, which changes pixels whose two best
    classes are nearly tied.

    Raises:
      ValueError: naming the file, if it is missing, no artifact, damaged or edited, was written for
        other platforms or by a jax that this jax cannot read, or fails the stored test.
      ImportError: if flatbuffers is missing, which jax.export needs.
    """
    path = pathlib.Path(path)
    if path.suffix == ".onnx":
        from segjax.export.onnx import load

        return load.load(path)
    parts = _read(path)
    metadata = json.loads(parts[METADATA])
    if metadata.get("format") != FORMAT or metadata.get("format_version") != FORMAT_VERSION:
        raise ValueError(
            f"{path} has format {metadata.get('format')!r} version "
            f"{metadata.get('format_version')}; this segjax reads {FORMAT!r} version "
            f"{FORMAT_VERSION}; export the run again, or use the segjax that wrote the file"
        )
    try:
        model = from_program(metadata, parts[PROGRAM], _arrays(parts[WEIGHTS]))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    test = _arrays(parts[TEST])
    versions = (
        f"written with jax {metadata['versions']['jax']} on {metadata['written_on']}, loaded by "
        f"jax {jax.__version__} on {platform()}; use that jax, or export the run again"
    )
    try:
        labels = model(test["images"])
    except Exception as error:  # an older jax may misread a newer program
        raise ValueError(f"{path} does not run here ({error}); {versions}") from error
    share = float(np.mean(labels != test["labels"]))
    tolerance = metadata["test_tolerance"][platform()]
    if share > tolerance:
        raise ValueError(
            f"{path} does not compute here what it computed when it was written: {share:.2%} of "
            f"the test's pixels differ (limit: {tolerance:.2%}); {versions}"
        )
    return model


def platform() -> str:
    """The platform that JAX compiles for, in `jax.export`'s names: cpu, cuda, rocm or tpu."""
    device = jax.devices()[0]
    if device.platform != "gpu":
        return device.platform
    return "rocm" if "rocm" in device.client.platform_version.lower() else "cuda"


def arrays_to_npz(arrays: Mapping[str, np.ndarray], *, compress: bool = False) -> bytes:
    """The bytes of an .npz file."""
    file = io.BytesIO()
    save: Any = np.savez_compressed if compress else np.savez  # its stub mixes arrays and options
    save(file, **arrays)
    return file.getvalue()


def write_parts(path: pathlib.Path, parts: Mapping[str, bytes]) -> None:
    """Writes an artifact: the parts and their hashes."""
    hashes = {name: hashlib.sha256(parts[name]).hexdigest() for name in PARTS}
    with zipfile.ZipFile(path, "w") as archive:
        for name in PARTS:
            archive.writestr(name, parts[name])
        archive.writestr(HASHES, json.dumps(hashes, indent=1) + "\n")


def _arrays(data: bytes) -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _read(path: pathlib.Path) -> dict[str, bytes]:
    """The parts of an artifact, checked against their hashes."""
    again = "; copy it again, or write it with --mode=export"
    if not path.is_file():
        raise ValueError(f"exported model {path} does not exist{again}")
    try:
        with zipfile.ZipFile(path) as archive:
            missing = sorted({*PARTS, HASHES} - set(archive.namelist()))
            if missing:
                raise ValueError(
                    f"{path} is no exported model of segjax: there is no {', '.join(missing)} in "
                    f"it; use a {SUFFIX} file that --mode=export wrote"
                )
            parts = {name: archive.read(name) for name in PARTS}
            hashes = json.loads(archive.read(HASHES))
    except (zipfile.BadZipFile, EOFError, OSError, json.JSONDecodeError) as error:
        raise ValueError(
            f"{path} is damaged, or no exported model of segjax ({error}){again}"
        ) from error
    changed = [n for n in PARTS if hashes.get(n) != hashlib.sha256(parts[n]).hexdigest()]
    if changed:
        raise ValueError(
            f"{path} was changed after it was written: the SHA-256 of {', '.join(changed)} is not "
            f"the one in {HASHES}{again}"
        )
    return parts


def _check_platform(platforms: list[str]) -> None:
    if platform() not in platforms:
        raise ValueError(
            f"exported for {', '.join(platforms)}, but jax runs on {platform()} here; set the "
            "environment variable JAX_PLATFORMS to one of these that this machine has"
        )


def _deserialize(program: bytes, metadata: Mapping[str, Any]):
    try:
        from jax import export

        return export.deserialize(bytearray(program))
    except ImportError as error:
        raise ImportError(
            f"jax.export needs a package that is not installed ({error}): pip install flatbuffers"
        ) from error
    except Exception as error:  # the parser's error for a newer format may be any
        raise ValueError(
            f"the program was written by jax {metadata['versions']['jax']} and cannot be read by "
            f"jax {jax.__version__} ({type(error).__name__}: {error}); install that jax, or export "
            "the run again with this one"
        ) from error
