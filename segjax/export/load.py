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

The hashes reveal a damaged or edited file, not its author. Sizes that a file declares are not
believed: a file and its content have at most `MAX_BYTES`, and the content at most `MAX_RATIO` times
the bytes of the file, and `SLACK`. A program that calls anything but StableHLO's own operations is
refused; how long one computes and how much memory it takes is not bounded: load files of people you
trust.
"""

import hashlib
import io
import json
import pathlib
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from numpy.typing import ArrayLike

SUFFIX = ".segjax"
METADATA, PROGRAM, WEIGHTS, TEST = "metadata.json", "model.stablehlo", "weights.npz", "test.npz"
PARTS = (METADATA, PROGRAM, WEIGHTS, TEST)
HASHES = "sha256.json"
FORMAT, FORMAT_VERSION = "segjax export", 1
MAX_BYTES = 16 * 2**30
MAX_RATIO, SLACK = 64, 2**24
# `test_tolerance` is at most this, see `segjax.export.program`.
_MAX_TOLERANCE = 0.05
_AGAIN = "; copy it again, or write it with --mode=export"


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
    try:
        return _load(path)
    except ImportError:
        raise
    except Exception as error:  # of any class: libraries read what others wrote
        if isinstance(error, ValueError) and str(path) in str(error):
            raise
        raise ValueError(
            f"{path} is damaged, or no exported model of segjax ({_words(error)}){_AGAIN}"
        ) from error


def _load(path: pathlib.Path) -> ExportedModel:
    parts = _read(path)
    metadata = _json(parts[METADATA], METADATA)
    if metadata.get("format") != FORMAT or metadata.get("format_version") != FORMAT_VERSION:
        found = _line(f"{metadata.get('format')!r} version {metadata.get('format_version')}")
        raise ValueError(
            f"{path} has format {found}; this segjax reads {FORMAT!r} version {FORMAT_VERSION}; "
            "export the run again, or use the segjax that wrote the file"
        )
    check_metadata(metadata, _PROGRAM_RULES)
    test = _arrays(parts[TEST])
    images, expected = test["images"], test["labels"]
    if images.shape[:3] != expected.shape or not expected.size:
        raise ValueError(f"{TEST} has {images.shape} images, {expected.shape} labels")
    try:
        model = from_program(metadata, parts[PROGRAM], _arrays(parts[WEIGHTS]))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    versions = (
        f"written with jax {metadata['versions']['jax']} on {metadata['written_on']}, loaded by "
        f"jax {jax.__version__} on {platform()}; use that jax, or export the run again"
    )
    try:
        labels = model(images)
    except Exception as error:  # an older jax may misread a newer program
        raise ValueError(f"{path} does not run here ({_words(error)}); {versions}") from error
    share = float(np.mean(labels != expected))
    tolerance = metadata["test_tolerance"][platform()]
    if share > tolerance:
        raise ValueError(
            f"{path} does not compute here what it computed when it was written: {share:.2%} of "
            f"the test's pixels differ (limit: {tolerance:.2%}); {versions}"
        )
    return model


def _line(text: str) -> str:
    """A text of a file or a library in one short line that gives a terminal no orders."""
    text = " ".join(text.split())[:300]
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _words(error: Exception) -> str:
    return _line(str(error)) or type(error).__name__


def _json(data: bytes, name: str) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name} is no JSON: {_words(error)}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{name} holds no dict")
    return value


# What the metadata may be ------------------------------------------------------------------------

Rule = Callable[[Any], bool]


def _whole(low: int, high: int) -> Rule:
    return lambda value: type(value) is int and low <= value <= high


def _list(each: Rule, shortest: int, longest: int) -> Rule:
    return lambda value: (
        isinstance(value, list | tuple)
        and shortest <= len(value) <= longest
        and all(map(each, value))
    )


def _dict(each: Rule, *names: str) -> Rule:
    return lambda value: (
        isinstance(value, dict) and {*names} <= {*value} and all(map(each, value.values()))
    )


def _text(value: Any) -> bool:
    return isinstance(value, str) and value.isprintable()


def _share(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value <= _MAX_TOLERANCE


_RULES: dict[str, Rule] = {
    "classes": _list(_text, 1, 256),
    "palette": _list(_list(_whole(0, 255), 3, 3), 1, 256),
    "channels": _whole(1, 2**16),
    "size": _list(_whole(1, 2**16), 2, 2),
    "multiple": lambda value: value is None or _whole(1, 2**16)(value),
}
_PROGRAM_RULES: dict[str, Rule] = {
    **_RULES,
    "platforms": _list(_text, 1, 16),
    "written_on": _text,
    "versions": _dict(_text, "jax"),
    "test_tolerance": _dict(_share),
}


def check_metadata(metadata: Mapping[str, Any], rules: Mapping[str, Rule] = _RULES) -> None:
    """Raises ValueError, without the file's name, for entries that no export writes."""
    wrong = [name for name, holds in rules.items() if not holds(metadata.get(name))]
    count = len(metadata["classes"]) if "classes" not in wrong else 0
    if "ids" in metadata and not _list(_whole(0, 2**16 - 1), count, count)(metadata["ids"]):
        wrong.append("ids")
    if wrong:
        name = wrong[0]
        raise ValueError(f"its metadata say {name}={_line(repr(metadata.get(name)))[:100]}")


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
    """The arrays of an .npz file."""
    arrays = {}
    for name, content in _contents(io.BytesIO(data), len(data)):
        array = np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
        if array.dtype.kind not in "fiub":
            raise ValueError(f"{name} holds {_line(str(array.dtype))} instead of numbers")
        arrays[name.removesuffix(".npy")] = array
    return arrays


def _contents(file: Any, size: int) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the files in a zip of so many bytes.

    Raises:
      ValueError: before anything is read, if they are too large, encrypted, of one name, or
        compressed in a way that takes any memory; if one is not of the size that it declares.
    """
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        if len({entry.filename for entry in entries}) < len(entries):
            raise ValueError("two files in it have one name")
        limit, total = min(MAX_BYTES, MAX_RATIO * size + SLACK), sum(e.file_size for e in entries)
        if max(size, total) > limit:
            raise ValueError(f"it would take {total:,} bytes; at most {limit:,} are read")
        for entry in entries:
            usual = entry.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
            if not usual or entry.flag_bits & 1:
                raise ValueError(f"{_line(entry.filename)} is encrypted, or compressed unusually")
            with archive.open(entry) as part:
                content = part.read(entry.file_size)  # without a number it inflates all at once
            if len(content) != entry.file_size:
                raise ValueError(f"{_line(entry.filename)} is cut short")
            yield entry.filename, content


def _read(path: pathlib.Path) -> dict[str, bytes]:
    """The parts of an artifact, checked against their hashes."""
    if not path.is_file():
        what = "is no file" if path.exists() else "does not exist"
        raise ValueError(f"exported model {path} {what}{_AGAIN}")
    parts = dict(_contents(path, path.stat().st_size))
    if missing := sorted({*PARTS, HASHES} - {*parts}):
        raise ValueError(
            f"{path} is no exported model of segjax: there is no {', '.join(missing)} in "
            f"it; use a {SUFFIX} file that --mode=export wrote"
        )
    hashes = _json(parts[HASHES], HASHES)
    changed = [n for n in PARTS if hashes.get(n) != hashlib.sha256(parts[n]).hexdigest()]
    if changed:
        raise ValueError(
            f"{path} was changed after it was written: the SHA-256 of {', '.join(changed)} is not "
            f"the one in {HASHES}{_AGAIN}"
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

        exported = export.deserialize(bytearray(program))
        text = exported.mlir_module()
    except ImportError as error:
        raise ImportError(
            f"jax.export needs a package that is not installed ({error}): pip install flatbuffers"
        ) from error
    except Exception as error:  # the parser's error for a newer format may be any
        raise ValueError(
            f"the program was written by jax {metadata['versions']['jax']} and cannot be read by "
            f"jax {jax.__version__} ({type(error).__name__}: {_words(error)}); install that jax, "
            "or export the run again with this one"
        ) from error
    _check_calls(text)
    return exported


# Operations of jaxlib that a program may call: checks of shapes, marks of shardings, and what older
# forms of StableHLO lack. Other custom calls reach any function that is registered, Python's too.
_CALLS = re.compile(r"custom_call @(shape_assertion|Sharding|mhlo\.\w+|chlo\.\w+)\(")
_OUTSIDE = re.compile(r"custom_call|stablehlo\.(infeed|outfeed|send|recv)\b")


def _check_calls(module: str) -> None:
    """Raises ValueError if a program, as MLIR's text, calls what is outside of StableHLO."""
    generic = '"stablehlo.custom_call"' in module
    bare = re.sub(r'"[^"]*"', '""', module)  # a quote in a text is written as a number
    if generic or len(_OUTSIDE.findall(bare)) > len(_CALLS.findall(bare)):
        raise ValueError(
            "the program calls functions outside of itself, which no program of segjax does; it is "
            "not run. Export the run again"
        )
