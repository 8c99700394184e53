"""The command init: a config for a folder of images and masks that nobody has described yet."""

import pathlib
import time
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np

from segjax.console import Console
from segjax.data.classes import ClassTable
from segjax.data.doctor.split import Split
from segjax.data.errors import DataError
from segjax.data.files.headers import read_header
from segjax.data.files.images import read_image
from segjax.data.found_classes import (
    FoundClasses,
    classes_of_masks,
    named_classes,
    write_class_list,
)
from segjax.data.layouts.find import Found, find_layout
from segjax.data.layouts.match import Choice
from segjax.data.layouts.samples import Place, files_of_split
from segjax.data.polygons.class_names import labels_of
from segjax.data.splits import Splits
from segjax.report.harm import print_harm
from segjax.report.page import write_text
from segjax.training.progress import duration, print_line
from segjax.training.setup import setup_programs, setup_run
from segjax.weights import hub
from segjax.weights.hub_rows import ROWS

_MINUTES_ON_CPU = 20  # that training may take
_MOST_EPOCHS = 300
_RARE = 0.02  # share of the labelled pixels of the rarest class, below which classes are weighted
_MODEL = "deeplabv3plus"


class _Machine(NamedTuple):
    """What suits a machine."""

    encoder: str
    batch_size: int
    longest_canvas: int  # sides in pixels
    longest_crop: int
    dtype: str


_CPU = _Machine("mobilenet_v2", 4, 256, 256, "float32")
_ACCELERATOR = _Machine("resnet50", 16, 1024, 512, "bfloat16")


class _Line(NamedTuple):
    """An option of the config, its value, and what is said of it."""

    option: str
    value: Any
    comment: str = ""


def init(
    input: str | pathlib.Path,
    base: Any,
    output: str | pathlib.Path | None = None,
    console: Console | None = None,
) -> pathlib.Path:
    """Looks at a folder of images and masks, says what it found, and writes a config for it.

    With that config `train` is one command. It names the data, the classes, the canvas and the crop
    after the images' sizes, class weights where classes are rare, and a network with weights and a
    length for this machine.

    Args:
      input: the folder, in any layout that `find_layout` knows.
      base: gives the config of all defaults of a model, by its name.
      output: the config's file; by default FOLDER_config.py beside the folder. Where the folder
        names no classes, a class list FOLDER_classes.csv is written beside it.

    Returns:
      The config's path.

    Raises:
      DataError: if no layout fits, the masks cannot be understood, the data would stop training, or
        a file that would be written exists.
    """
    console, root = console or Console(), pathlib.Path(input)
    path = pathlib.Path(output or root.resolve().parent / f"{root.resolve().name}_config.py")
    found = _found(root)
    print_line(console, str(found))
    first = found.split_of("train") or next(iter(found.splits), "train")
    place = Place(found.root, Choice.of(dict(found.options)), first)
    pairs = place.open(first).pairs
    lines = [
        _Line("data.name", "folder"),
        _Line("data.root", root.resolve()),
        *_where(found, pairs.images),
        *_classes(found, place, pairs.masks, _unused(path, "--output"), console),
    ]
    lines = _with_share(base, lines)
    machine = _CPU if jax.default_backend() == "cpu" else _ACCELERATOR
    data = Splits(_config(base, lines).data)
    training = data.looked_at(data.data["train_split"])
    print_line(console, f"{training.numbers.images} images to train on, {_sizes(training)}")
    lines += [*_canvas(training, machine), *_network(machine, console), *_loss(training)]
    lines += _length(base, lines, training, machine, console)
    setup = setup_run(_config(base, lines))
    print_harm(setup.findings, console)
    write_text(path, _text(path, root, lines, found, training, setup.classes))
    print_line(console, f"config: {path}")
    print_line(console, f"look at the data: segjax doctor --config={path}")
    print_line(console, f"train:            segjax --config={path}")
    return path


def _found(root: pathlib.Path) -> Found:
    if not root.is_dir():
        raise DataError(f"{root} is no folder", "use a folder of images and masks")
    found = find_layout(root)
    if found is None:
        files_of_split(root, "train", Choice())  # raises, and says what is there
        raise DataError(f"{root} has no layout that is known", "use data.images and data.masks")
    return found


def _unused(path: pathlib.Path, flag: str = "") -> pathlib.Path:
    """The path, if nothing is there."""
    if path.exists():
        another = f"use another {flag}, or move" if flag else "move"
        raise DataError(f"{path} exists already", f"{another} it away")
    return path


def _where(found: Found, images: Sequence[pathlib.Path]) -> list[_Line]:
    """The patterns and the splits."""
    said = {
        "images": f"the layout of {found.name}",
        "val_share": "of the training images, by a hash of their names: there is no split for it",
        "val_split": "decides which checkpoint is the best; there is no other",
    }
    lines = [_Line(f"data.{k}", v, said.get(k, "")) for k, v in found.options.items()]
    deep = any(read_header(path).bits > 8 for path in images[:20])
    channels = _channels(images[0])
    lines += [_Line("data.channels", channels, "bands of the images")] * (channels != 3)
    return [*lines, *([_Line("data.value_range", ("auto",), "of files deeper than 8 bits")] * deep)]


def _channels(path: pathlib.Path) -> int:
    """3 for what can be read as RGB, else the bands of an image."""
    for channels in (3, *range(1, 33)):
        try:
            read_image(path, channels, value_range=((0.0, 1.0),))
        except DataError as error:
            refused = error
        else:
            return channels
    raise refused


def _with_share(base: Any, lines: list[_Line]) -> list[_Line]:
    """The lines with the least share for validation from 0.2 on that holds an image: hashes of few
    names may leave 0.2 without any."""
    place = next((k for k, line in enumerate(lines) if line.option == "data.val_share"), None)
    if place is None:
        return lines
    for share in (0.2, 0.3, 0.4, 0.5):
        tried = [*lines[:place], lines[place]._replace(value=share), *lines[place + 1 :]]
        data = Splits(_config(base, tried).data)
        try:
            data.source(data.data["val_split"])
        except DataError as error:
            refused = error
        else:
            return tried
    raise refused


def _classes(
    found: Found,
    place: Place,
    masks: Sequence[pathlib.Path],
    path: pathlib.Path,
    console: Console,
) -> list[_Line]:
    """The class list: the folder's own, or one that is written beside the config."""
    if found.class_list is not None:
        return [_Line("data.classes", found.class_list)]
    target = _unused(path.with_name(f"{path.stem.removesuffix('_config')}_classes.csv"))
    if place.kind == "many":
        return []  # the file of all annotations names them
    classes = _of_polygons(place) if place.kind else classes_of_masks(masks)
    write_class_list(classes, target)
    values = ", ".join(f"{row.id} {row.name}" for row in classes.rows[:12])
    what = "labels of polygons" if place.kind else "colours" if classes.in_colors else "ids"
    print_line(
        console,
        f"{len(classes.rows)} {what} in {classes.looked_at} annotations or masks: {values}"
        f"{', ...' * (len(classes.rows) > 12)}; change their names in {target}",
    )
    lines = [_Line("data.classes", target, "change the names there")]
    if not classes.ignore_ids:
        lines.append(_Line("data.ignore_ids", (), "255 is a class"))
    if classes.threshold:
        said = "values at or above it are foreground: the masks have soft edges"
        lines.append(_Line("data.mask_threshold", float(classes.threshold), said))
        print_line(console, f"two values with soft edges: data.mask_threshold={classes.threshold}")
    return lines


def _of_polygons(place: Place) -> FoundClasses:
    """A background and the labels of polygons."""
    labels, files = labels_of(place)
    return FoundClasses(named_classes(["background", *labels]), False, (255,), files)


def _sizes(split: Split) -> str:
    sizes = sorted(split.numbers.sizes)
    names = [f"{h}x{w}" for h, w in (sizes[0], sizes[-1])]
    return f"{' to '.join(dict.fromkeys(names))} (height x width)"


def _canvas(split: Split, machine: _Machine) -> list[_Line]:
    """The canvas: the median shape, no larger than suits the machine; and the crop."""
    sizes = np.array([size for size, n in split.numbers.sizes.items() for _ in range(n)])
    height, width = np.median(sizes, axis=0)
    zoom = min(1.0, machine.longest_canvas / max(height, width))
    canvas = tuple(max(32, round(side * zoom / 8) * 8) for side in (height, width))
    said = f"images shrink to {zoom:.2f} of their size; larger shows more, and takes longer"
    crop = tuple(min(side, machine.longest_crop) for side in canvas)
    return [
        _Line("data.image_size", canvas, said if zoom < 0.9 else ""),
        _Line("data.label_size", ("own",), "scored at the masks' own size"),
        _Line("augment.crop_size", crop if crop != canvas else (0, 0)),
        _Line("augment.scale", (0.75, 1.5)),
        _Line("augment.flip", True, "False where left and right differ, as for text"),
    ]


def _network(machine: _Machine, console: Console) -> list[_Line]:
    weights = _weights(machine.encoder, console)
    said = "" if weights else "no ImageNet weights could be fetched; docs/weights.md names files"
    return [
        _Line("dtype", machine.dtype),
        _Line("model.encoder", machine.encoder),
        _Line("init_from", weights, said),
        _Line("optim.name", "adamw"),
        _Line("optim.learning_rate", 5e-4 if weights else 2e-3),
        _Line("optim.schedule", "cosine"),
    ]


def _weights(encoder: str, console: Console) -> str:
    """The name of ImageNet weights that are in the cache or can be fetched; "" without any."""
    rows = [r for r in ROWS if r.network == encoder and r.collection == "imagenet"]
    rows.sort(key=lambda row: (not (hub.cache_folder() / row.file).is_file(), not row.default))
    for row in rows:
        try:
            hub.fetch(row, console)
            return row.name
        except OSError:
            continue
    return ""


def _loss(split: Split) -> list[_Line]:
    """Weights where a class is rare."""
    pixels = split.numbers.class_pixels
    share = pixels[pixels > 0] / max(1, pixels.sum())
    if split.classes.multilabel or share.size < 2 or share.min() >= _RARE:
        return []
    said = f"the rarest class has {100 * share.min():.2g}% of the pixels"
    return [_Line("loss.class_weights", "median_present", said)]


def _length(
    base: Any, lines: Sequence[_Line], split: Split, machine: _Machine, console: Console
) -> list[_Line]:
    """Batch and steps: what fits the time on a CPU, where a step is measured; else 100 epochs."""
    images = split.numbers.images
    batch = max(1, min(machine.batch_size, images))
    epochs = 100.0
    said = ""
    if machine is _CPU:
        print_line(console, "measuring a training step of this machine ...")
        trial = [*lines, _Line("train.batch_size", batch), _Line("train.steps", 8)]
        seconds = _seconds_a_step(setup_programs(_config(base, trial)))
        affordable = 60 * _MINUTES_ON_CPU / seconds * batch / images
        epochs = float(max(1, round(min(_MOST_EPOCHS, affordable))))
        all_of_it = seconds * epochs * images / batch
        said = f"a step takes {seconds:.2g} s here, so all of them about {duration(all_of_it)}"
    steps = max(1, round(epochs * images / batch))
    return [
        _Line("train.batch_size", batch),
        _Line("train.epochs", epochs, said),
        _Line("train.eval_every", max(1, steps // 8), "steps"),
        _Line("optim.warmup_steps", steps // 20),
    ]


def _seconds_a_step(setup: Any) -> float:
    """The median of three training steps of a `Setup` on empty images."""
    step, state = setup.train_step(), setup.init_state()
    batch = jax.tree.map(
        lambda x: jax.device_put(np.zeros(x.shape, x.dtype), x.sharding), setup.abstract_batch()
    )
    times = []
    for _ in range(4):
        began = time.perf_counter()
        state, metrics = step(state, batch)
        jax.block_until_ready((state, metrics))
        times.append(time.perf_counter() - began)
    return float(np.median(times[1:]))


def _config(base: Any, lines: Iterable[_Line]) -> ml_collections.ConfigDict:
    """The defaults with the options of the lines."""
    config = base(_MODEL)
    for line in lines:
        config.update_from_flattened_dict({line.option: _plain(line.value)})
    return config


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, pathlib.PurePath) else value


def _text(
    path: pathlib.Path,
    root: pathlib.Path,
    lines: Sequence[_Line],
    found: Found,
    split: Split,
    classes: ClassTable,
) -> str:
    """The config's file."""
    folder = path.resolve().parent
    said = {"names": ", ".join(classes.names[:20]) + ", ..." * (len(classes) > 20)}
    head = [
        f'"""DeepLabV3+ on {root}, written by `segjax init`. Every option may be changed.',
        "",
        f"  segjax doctor --config={path.name}    what is wrong with the data",
        f"  segjax --config={path.name}           trains, evaluates, writes report.html",
        "",
        f"{str(found).removeprefix('data.root looks like ')}. Images of {_sizes(split)}.",
        f"Classes: {said['names']}.",
        "All options and what they mean: configs/base.py of segjax.",
        '"""',
    ]
    body, section = [], ""
    for line in lines:
        if line.option.split(".")[0] != section:
            section = line.option.split(".")[0]
            body.append("")
        if line.comment:
            body.append(f"    # {line.comment}")
        body.append(f"    config.{line.option} = {_source(line.value, folder)}")
    return "\n".join(
        [
            *(part.replace("\\", "\\\\") for part in head),
            "",
            "import pathlib",
            "",
            "from configs import base",
            "",
            "HERE = pathlib.Path(__file__).parent",
            "",
            "",
            'def get_config(preset: str = ""):',
            f'    config = base.get_config("{_MODEL}").lock()  # locked: a misspelt option fails',
            *body,
            "    return config.unlock()",
            "",
        ]
    )


def _source(value: Any, folder: pathlib.Path) -> str:
    """Python's text of a value; a path below the config's folder is found from there."""
    if not isinstance(value, pathlib.PurePath):
        return repr(value)
    if value.is_relative_to(folder):
        return f"str(HERE / {value.relative_to(folder).as_posix()!r})"
    return repr(str(value))
