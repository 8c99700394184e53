"""Images and masks on disk: the `folder` and `camvid` sources, and the readers they share.

A source is a random-access sequence that pickles, so that worker processes can read for
themselves. Paths and pairs are checked when it is made; nothing is decoded before `source[i]`.
"""

import itertools
import os
import pathlib
import re

import numpy as np
from jaxtyping import Integer, UInt8
from PIL import Image, ImageOps

from segjax.data.checks import labels_from_ids
from segjax.data.classes import CAMVID, CAMVID_VOID, IGNORE, ClassTable

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
_LAYOUTS = "images/<split> with masks/<split>, or <split>/images with <split>/masks"
# The words of a file name, where affixes may end: gtFine_03 is gt, Fine, _, 03.
_WORDS = re.compile(r"\d+|[A-Z]*[a-z]+|[A-Z]+|.")
# A number that stands alone, as in `seq1_`, and not inside a word, as in `leftImg8bit`.
_NUMBER = re.compile(r"(?<![^\W_])\d|\d(?![^\W_])")


class _Pairs:
    """What `Folder` and `CamVid` share: reading pairs whose paths are known."""

    def __len__(self) -> int:
        return len(self.image_paths)

    def __getitem__(self, index: int) -> dict:
        image_path, mask_path = self.image_paths[index], self.mask_paths[index]
        image, ids = read_image(image_path), read_mask(mask_path)
        if image.shape[:2] != ids.shape:
            remedy = "use a mask of the image's size (resize masks by nearest neighbour)"
            if image.shape[:2] == ids.shape[::-1]:
                remedy = "use files turned alike (training does not apply EXIF orientation)"
            raise ValueError(
                f"{image_path} is {image.shape[0]}x{image.shape[1]} but its mask {mask_path} is "
                f"{ids.shape[0]}x{ids.shape[1]} (height x width); {remedy}"
            )
        label = labels_from_ids(ids, len(self.classes), self.ignore_ids, mask_path)
        return {"image": image, "label": label, "name": self.names[index]}

    def __repr__(self) -> str:
        # Without the root: grain compares this text on resume, and the data may have moved.
        return f"{type(self).__name__}(split={self.split!r}, samples={len(self)})"


class Folder(_Pairs):
    """One split's image and mask files, in `images/<split>` and `masks/<split>`, or in
    `<split>/images` and `<split>/masks`; subfolders are searched and count in the name.

    A sample is {"image": uint8 [H,W,3], "label": uint8 [H,W] of ids 0..K-1 and 255 = ignore,
    "name": str}. How images and masks pair: see `pair_files`; `pairing` says it in words.

    Args:
      root: the data set's folder.
      split: the split's folder name, such as "train".
      classes: the K classes.
      ignore_ids: ids in the mask files that become 255. A class id listed here is ignored too.

    Raises:
      ValueError: if a folder is missing or empty, or files do not pair one to one. Reading a
        sample raises it if a file cannot be read, the sizes differ, or an id is neither a class
        nor ignored.
    """

    def __init__(self, root, split: str, classes: ClassTable, *, ignore_ids=(IGNORE,)):
        images, masks = _split_folders(_existing_root(root, _LAYOUTS), split)
        self.split, self.classes = split, classes
        self.ignore_ids = tuple(int(i) for i in ignore_ids)
        self.names, self.image_paths, self.mask_paths, self.pairing = pair_files(images, masks)


class CamVid(_Pairs):
    """CamVid as the SegNet authors ship it: 11 classes; their id 11 (void) becomes 255.

    `<split>.txt` has an image and its mask on each line; the last two components of these paths
    are looked up in `root`, then the whole (it starts with the authors' own folders). Without
    that list, `<split>/` is paired with `<split>annot/`. Samples are as in `Folder`.

    Raises:
      ValueError: if the split is not there, or a list names a file that is not there.
    """

    def __init__(self, root, split: str):
        root = _existing_root(root, "<split>.txt, <split>/ and <split>annot/, as the authors ship")
        self.split, self.classes, self.ignore_ids = split, CAMVID, (CAMVID_VOID, IGNORE)
        images, masks, listing = root / split, root / f"{split}annot", root / f"{split}.txt"
        if listing.is_file():
            self.image_paths, self.mask_paths = _read_listing(root, listing)
            self.names = [p.stem for p in self.image_paths]
        elif images.is_dir() and masks.is_dir():
            self.names, self.image_paths, self.mask_paths, _ = pair_files(images, masks)
        else:
            raise ValueError(
                f"data split {split!r}: no {split}.txt, nor both of {split}/ and {split}annot/, in "
                f"data.root={root}; it holds: {_some([p.name for p in root.iterdir()], 9)}; "
                "use the split train, val or test, and the CamVid folder of the SegNet authors"
            )


def list_images(path: str | os.PathLike) -> list[pathlib.Path]:
    """The image file `path`, or every image in the folder `path` and below it, sorted.

    In a folder, hidden files and files of other types are passed over.

    Raises:
      ValueError: if the path is missing, is no image file, or is a folder without images.
    """
    path, known = pathlib.Path(path), " ".join(IMAGE_SUFFIXES)
    if not path.exists():
        raise ValueError(f"{path} does not exist; use an image file or a folder of images")
    if path.is_file():
        if path.suffix.lower() not in IMAGE_SUFFIXES:
            raise ValueError(f"{path} is not of a known image type; use one of {known}")
        return [path]
    below = [
        pathlib.Path(folder, name).relative_to(path)
        for folder, _, names in os.walk(path, followlinks=True)
        for name in names
    ]
    below = [p for p in below if not any(part.startswith(".") for part in p.parts)]
    found = sorted(p.as_posix() for p in below if p.suffix.lower() in IMAGE_SUFFIXES)
    if not found:
        there = _some({p.suffix or p.name for p in below})
        raise ValueError(f"{path} holds no images (types found: {there}); use one of {known}")
    return [path / name for name in found]


def read_image(path: str | os.PathLike, *, exif: bool = False) -> UInt8[np.ndarray, "h w 3"]:
    """Decodes an image to RGB; grey is repeated, alpha dropped, 16-bit grey scaled to 0..255.

    Args:
      path: the file; of several frames the first is read.
      exif: turn the image as its EXIF orientation says. Right for photos to predict on; wrong
        for training pairs, whose masks carry no such tag. (Pillow turns a TIFF either way.)

    Raises:
      ValueError: if the file cannot be read, or its values have no known range (float, 32-bit).
    """
    image = _open(path)
    if exif:
        image = ImageOps.exif_transpose(image)
    if image.mode == "F" or image.mode.startswith("I"):
        values = np.asarray(image)
        if image.mode == "F" or values.min() < 0 or values.max() > 65535:
            raise ValueError(
                f"{path}: {values.dtype} values from {values.min()} to {values.max()}, whose "
                "full range is unknown; use 8-bit or 16-bit images"
            )
        grey = np.round(values / 257).astype(np.uint8)  # 65535 becomes 255
        return np.repeat(grey[..., None], 3, axis=-1)
    return np.array(image.convert("RGB"))


def read_mask(path: str | os.PathLike) -> Integer[np.ndarray, "h w"]:
    """Decodes a mask to the ids in the file: uint8, or int32 from 16-bit and 32-bit files.

    One-channel files give their values, palette files their indices.

    Raises:
      ValueError: if the file cannot be read, or holds colours instead of ids.
    """
    mask = _open(path)
    if mask.mode in ("1", "L", "P") or mask.mode.startswith("I"):
        return np.array(mask).astype(np.int32 if mask.mode.startswith("I") else np.uint8)
    found = f"{path}: masks must hold one class id per pixel, found mode {mask.mode}"
    if mask.mode not in ("RGB", "RGBA"):
        raise ValueError(f"{found}; use a one-channel PNG of class ids")
    rgb = np.asarray(mask)[..., :3].astype(np.int32)
    colors = np.unique(rgb @ [1 << 16, 1 << 8, 1])
    remedy = "ids[(rgb == color_of_class_k).all(-1)] = k, for each class, and save the ids as PNG"
    if (rgb == rgb[..., :1]).all():
        remedy = "one of the channels, which are equal: np.asarray(mask)[..., 0], saved as PNG"
    shown = _some([f"#{c:06x}" for c in colors])
    raise ValueError(f"{found} with {len(colors)} colours ({shown}); use {remedy}")


def pair_files(images: pathlib.Path, masks: pathlib.Path):
    """Pairs two folders' files one to one: (names, image paths, mask paths, in words how).

    Equal stems pair. Otherwise affixes that all stems of a side share are left out, the shortest
    that will do: `a.jpg` with `a_mask.png`, `img_003` with `mask_003`. An affix ends where a word
    ends and holds no number, so it takes no part of an id: `seq1_04` is not `seq2_04`.

    Raises:
      ValueError: if two files share a name, or a file has no partner; up to 5 are named.
    """
    sides = [_files_by_name(folder) for folder in (images, masks)]
    ways = itertools.product(*map(_ways_to_name, sides))
    most = -1
    for way in sorted(ways, key=lambda way: sum(len(pattern) for pattern, _ in way)):
        (image_pattern, images_by_key), (mask_pattern, masks_by_key) = way
        common = len(images_by_key.keys() & masks_by_key.keys())
        if common > most:
            most, found = common, (images_by_key, masks_by_key)
            how = f"{image_pattern} with {mask_pattern}"
        if common == len(images_by_key) == len(masks_by_key):
            break
    alone = [[found[s][k].name for k in found[s] if k not in found[1 - s]] for s in (0, 1)]
    if any(alone):
        raise ValueError(
            f"{len(alone[0])} images in {images} have no mask ({_some(alone[0])}) and "
            f"{len(alone[1])} masks in {masks} have no image ({_some(alone[1])}), names read as "
            f"{how}; use one mask of class ids per image, in the same subfolder, named alike but "
            "for an affix that all share"
        )
    names = [(folder / stem).as_posix() for folder, stem in sides[0]]
    return names, list(found[0].values()), [found[1][key] for key in found[0]], how


def _files_by_name(folder: pathlib.Path) -> dict[tuple[pathlib.Path, str], pathlib.Path]:
    files = {}
    for path in list_images(folder):
        key = (path.parent.relative_to(folder), path.stem)
        if key in files:
            raise ValueError(f"{path} has the same name as {files[key].name}; use one of the two")
        files[key] = path
    return files


def _ways_to_name(files) -> list[tuple[str, dict]]:
    """(pattern such as `*_mask`, files by what `*` stands for), per affix that all stems share."""
    words = [_WORDS.findall(stem) for _, stem in files]
    prefixes = ["", *itertools.accumulate(_shared(words))]
    suffixes = ["", *itertools.accumulate(_shared([w[::-1] for w in words]), lambda s, w: w + s)]
    shortest = min(len(stem) for _, stem in files)
    ways = []
    for p, s in itertools.product(prefixes, suffixes):
        if len(p + s) < shortest and not _NUMBER.search(f"{p} {s}"):
            keyed = {(d, n[len(p) : len(n) - len(s)]): file for (d, n), file in files.items()}
            ways.append((f"{p}*{s}", keyed))
    return ways


def _shared(words: list[list[str]]) -> list[str]:
    columns = zip(*words, strict=False)
    return [c[0] for c in itertools.takewhile(lambda c: len(set(c)) == 1, columns)]


def _read_listing(root: pathlib.Path, listing: pathlib.Path):
    columns = [], []
    for number, line in enumerate(listing.read_text().splitlines(), 1):
        words = [pathlib.PurePosixPath(word) for word in line.split()]
        if len(words) not in (0, 2):
            raise ValueError(f"{listing}, line {number}: {line!r}; use `image.png mask.png`")
        for column, word in zip(columns, words, strict=False):
            tried = root.joinpath(*word.parts[-2:]), root / str(word).lstrip("/")
            column += [p for p in tried if p.is_file()][:1] or [None]
            if column[-1] is None:
                raise ValueError(
                    f"{listing}, line {number}: {word} is not there (looked for {tried[0]}); "
                    "use a complete copy of the data, or take the line out of the list"
                )
    if not columns[0]:
        raise ValueError(f"{listing} lists no images; use lines of `image.png mask.png`")
    return columns


def _existing_root(root, layout: str) -> pathlib.Path:
    root = pathlib.Path(root)
    if not root.is_dir():
        raise ValueError(f"data.root={root} is not an existing folder; use one with {layout}")
    return root


def _split_folders(root: pathlib.Path, split: str) -> tuple[pathlib.Path, pathlib.Path]:
    layouts = (
        (root / "images" / split, root / "masks" / split),
        (root / split / "images", root / split / "masks"),
    )
    complete = [pair for pair in layouts if pair[0].is_dir() and pair[1].is_dir()]
    if len(complete) == 1:
        return complete[0]
    found = [d.relative_to(root).as_posix() for pair in layouts for d in pair if d.is_dir()]
    splits = {p.name for p in (root / "images").glob("*/")}
    splits |= {p.parent.name for p in root.glob("*/images/")}
    raise ValueError(
        f"data split {split!r}: data.root={root} needs {_LAYOUTS}, one of the two; found of these: "
        f"{_some(found)}; splits found: {_some(splits)}; data.root holds: "
        f"{_some([p.name for p in root.iterdir()])}; use one of the splits or add the folders"
    )


def _some(things, shown: int = 5) -> str:
    words = sorted(map(str, things))
    return ", ".join(words[:shown] + ["..."] * (len(words) > shown)) or "none"


def _open(path) -> Image.Image:
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error, ...
        raise ValueError(f"{path} cannot be read: {error}; use an intact image file") from error
