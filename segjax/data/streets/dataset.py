"""`streets`: procedural street scenes with the 7 level-1 classes of the India Driving Dataset.

Every scene is drawn from (seed, split, index): a road in perspective, what stands beside and on
it, light and weather. Colour and label come from the same strokes, so labels are exact; about 3%
of the pixels are void (the camera car's bonnet, cables, unlabelled heaps). Nothing is stored.
"""

import functools

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageFilter

from segjax.data.class_lists import IDD_LEVEL1
from segjax.data.classes import IGNORE
from segjax.data.errors import DataError
from segjax.data.source import DatasetSpec
from segjax.data.streets import brush
from segjax.data.streets.layout import backdrop, ground, populate

SPLITS = ("train", "val", "test")
SMALLEST = 16  # pixels a side


@functools.cache
def _grain() -> np.ndarray:
    """Noise with fine and coarse parts that repeats at its edges, float32 [256, 256]."""
    generator = np.random.Generator(np.random.Philox(7))
    tile = 0.6 * generator.standard_normal((256, 256), np.float32)
    for cells, weight in ((64, 0.5), (16, 0.5)):
        coarse = generator.standard_normal((cells, cells), np.float32)
        coarse = np.pad(coarse, 1, mode="wrap")
        step = 256 // cells
        smooth = Image.fromarray(coarse).resize(((cells + 2) * step,) * 2, Image.BICUBIC)
        tile += weight * np.asarray(smooth)[step:-step, step:-step]
    return tile


# By material: contrast of the texture fixed to the ground, and of the one fixed to the picture.
_ON_GROUND = np.array([0, 0.1, 0.09, 0.16, 0.06, 0, 0, 0], np.float32)
_ON_PICTURE = np.array([0.03, 0.02, 0.02, 0.02, 0.02, 0.2, 0.06, 0], np.float32)


def _finish_ground(image, material, shadows, painter, first, offset):
    """Textures, shades, wets and fogs the ground, in place, from row `first` down.

    `image` float32 [h, w, 3], `material` and `shadows` (darkness 0..255) uint8 [h, w].
    """
    height, width = material.shape
    camera, air, scale = painter.camera, painter.air, painter.width / width
    low, material = image[first:], material[first:]
    row = (np.arange(first, height, dtype=np.float32) + 0.5) * scale - painter.horizon
    column = (np.arange(width, dtype=np.float32) + 0.5) * scale - painter.center
    z = (painter.scale_y * camera.height / np.maximum(row, 0.5))[:, None]
    x = column * (z / painter.scale_x) + (camera.offset - camera.curve * z * z)
    contrast, near = _ON_GROUND[material], np.minimum(1, 7 / z)
    along, across = (z * 22).astype(np.int32) + offset, (x * 22).astype(np.int32) + offset
    texture = 1 + _grain()[along & 255, across & 255] * (contrast * near)
    joints = (material == brush.PAVING) & (((x % 0.8) < 0.09) | ((z % 0.8) < 0.09))
    texture -= joints * (0.16 * near * (z < 16))
    texture *= 1 - shadows[first:] * np.float32(0.62 / 255) * (contrast > 0)
    low *= texture[..., None]
    if air.wet:  # the road mirrors what stands above the horizon
        mirror = image[np.maximum(2 * first - np.arange(first, height), 0)]
        low += (mirror - low) * (np.float32(0.35) * (material == brush.ASPHALT))[..., None]
    haze = (1 - np.exp(-z / air.visibility)) * (contrast > 0)
    low += (np.asarray(air.skyline, np.float32) - low) * haze[..., None]


def _finish(canvas, shadows, painter, draws, generator):
    """The picture uint8 [h, w, 3] and the label map uint8 [h, w] from the drawn canvas."""
    width, height = shadows.size
    factor = canvas.size[1] // height
    codes = np.asarray(canvas.getchannel(3).resize((width, height), Image.NEAREST))
    image = np.asarray(canvas.reduce(factor))[..., :3].astype(np.float32)
    label, material = codes & 7, codes >> 3
    offset, first = draws.whole(0, 159), min(height - 1, int(painter.horizon / factor) + 1)
    blotch = Image.fromarray(_grain()[offset : offset + 96, :192])
    blotch = blotch.resize((width, height), Image.BILINEAR)
    image *= (1 + np.asarray(blotch) * _ON_PICTURE[material])[..., None]
    dark = np.asarray(shadows.filter(ImageFilter.BoxBlur(height / 200)))
    _finish_ground(image, material, dark, painter, first, offset)
    strength = np.float32(draws.number(6, 18))
    image += (generator.random(image.shape, np.float32) - np.float32(0.5)) * strength
    image = np.clip(image, 0, 255, out=image).astype(np.uint8)
    return image, np.where(label == brush.VOID, np.uint8(IGNORE), label)


def _bonnet(painter, draws, canvas):
    """The camera car's own bonnet at the bottom: void."""
    width, height = canvas.size
    top, paint = height * draws.number(0.9, 0.95), draws.colour((0.0, 0.5), (0.08, 0.5))
    for share, tone in ((0.0, 1.0), (0.25, 0.85), (0.5, 0.7)):
        box = (-0.2 * width, top + share * (height - top), 1.2 * width, 1.4 * height)
        painter.ellipse(box, brush.shaded(paint, tone), 1.0, brush.VOID)


def render(
    seed: int, index: int, image_size: tuple[int, ...], *, split: str = "train"
) -> tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w"]]:
    """brush.Draws scene `index` of a split: the picture and its label map.

    Pure and deterministic. The scene depends on (seed, split, index) alone; `image_size` is
    (height, width) and only says how finely it is seen. Wider pictures see more to the sides,
    between 1.2:1 and 2.4:1; other shapes stretch.

    Returns:
      RGB in 0..255, and class ids 0..6 of `classes.IDD_LEVEL1` with 255 for void.

    Raises:
      DataError: if the split is unknown, a side is under 16 pixels, or seed or index negative.
    """
    height, width = _check(split, image_size, seed)
    if index < 0:
        raise DataError(f"index={index}", "use 0 or more")
    key = np.random.SeedSequence([seed, SPLITS.index(split), index])
    generator = np.random.Generator(np.random.SFC64(key))
    draws = brush.Draws(generator)
    half, drive = draws.number(2.8, 3.8), draws.choice((-1, 1))
    walks = draws.number(3.6, 6.5), draws.number(3.6, 6.5)
    camera = brush.Camera(
        focal=draws.number(1.3, 1.65),
        horizon=draws.number(0.36, 0.46),
        height=draws.number(1.35, 1.9),
        shift=draws.number(-0.15, 0.15),
        offset=drive * half * draws.number(0.1, 0.6),
        curve=draws.choice((0.0, draws.number(-0.004, 0.004))),
    )
    factor = 2 if height * width <= 600_000 else 1
    canvas = Image.new("RGBX", (width * factor, height * factor))
    shadows = Image.new("L", (width, height))
    painter = brush.Painter(canvas, shadows, camera, brush.weather(draws))
    backdrop(canvas, painter, draws, generator)
    ground(painter, draws, half, walks)
    populate(painter, draws, half, walks, drive)
    if draws.chance(0.35):
        _bonnet(painter, draws, canvas)
    return _finish(canvas, shadows, painter, draws, generator)


def _check(split: str, image_size: tuple[int, ...], seed: int) -> tuple[int, ...]:
    """Refuses what cannot be drawn; returns the size as a tuple."""
    if split not in SPLITS:
        raise DataError(f"data split {split!r} is unknown", f"streets has {', '.join(SPLITS)}")
    size = tuple(image_size)
    if len(size) != 2 or min(size) < SMALLEST:
        remedy = f"use (height, width), each {SMALLEST} or more pixels"
        raise DataError(f"image_size={size}", remedy)
    if seed < 0:
        raise DataError(f"seed={seed}", "use 0 or more")
    return size


class Streets:
    """Random-access source of `length` scenes; splits never share one.

    Args:
      split: "train", "val" or "test".
      image_size: (height, width) in pixels, each at least 16.
      length: number of scenes, at least 1.
      seed: 0 or more; another seed draws other scenes.

    Raises:
      DataError: if an argument is out of its range; nothing is drawn before `[i]`.
    """

    classes = IDD_LEVEL1

    def __init__(self, split: str, image_size: tuple[int, ...], *, length: int, seed: int = 0):
        self.image_size = _check(split, image_size, seed)
        if length < 1:
            raise DataError(f"length={length}", "use at least 1 scene")
        self.split, self.length, self.seed = split, length, seed

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict:
        """`image` uint8 [H, W, 3], `label` uint8 [H, W] (0..6, 255 = void), `name`.

        Raises:
          IndexError: if index is not in 0..len-1 (negative ones are not counted from the end).
        """
        if not 0 <= index < self.length:
            last = self.length - 1
            raise IndexError(f"index {index} is outside 0..{last} of streets {self.split!r}")
        image, label = render(self.seed, int(index), self.image_size, split=self.split)
        return {"image": image, "label": label, "name": f"streets_{self.split}_{index:05d}"}


SPEC = DatasetSpec(
    title="streets: procedural street scenes, drawn from (seed, index)",
    licence="none is needed: there are no files",
    url="",
    layout="no files",
    splits=SPLITS,
    classes=lambda data: IDD_LEVEL1,
    open=lambda data, split: Streets(
        split,
        tuple(data["image_size"]),
        length=data["train_images" if split == data["train_split"] else "eval_images"],
        seed=data["seed"],
    ),
    reads_files=False,
)
