"""Polygon files of one image each: labelme, Supervisely, Cityscapes and IDD, YOLO."""

import base64
import io
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool
from PIL import Image

from segjax.data.polygons.paint import Annotation, Shape, box, by_area, ellipse, ring
from segjax.data.polygons.rle import MOST_PIXELS

FEW_POINTS = "polygons of fewer than 3 points"
_BITMAP_BYTES = 256_000_000  # of one bitmap, decompressed


def labelme(content: Any) -> Annotation:
    """labelme's JSON: polygons, rectangles, circles and masks in order; lines and points are left
    out."""
    shapes, left_out = [], Counter()
    for item in content["shapes"]:
        label, kind = str(item["label"]).strip(), item.get("shape_type") or "polygon"
        points = ring(item["points"])
        if kind == "rectangle" and len(points) in (2, 4):
            (left, top), (right, bottom) = points.min(0), points.max(0)
            shapes.append(Shape(label, (box(left, top, right, bottom),)))
        elif kind == "circle" and len(points) == 2:
            radius = float(np.hypot(*(points[1] - points[0])))
            shapes.append(Shape(label, (ellipse(points[0], (radius, radius)),)))
        elif kind == "mask" and len(points):
            bitmap = _png(base64.b64decode(item["mask"], validate=True), shapes)
            left, top = np.rint(points.min(0)).astype(int).tolist()
            shapes.append(Shape(label, bitmap=bitmap, place=(left, top)))
        elif kind in ("polygon", "oriented_rectangle"):
            _add_polygon(shapes, left_out, label, points)
        else:
            left_out[f"shapes of type {kind}"] += 1
    return Annotation(tuple(shapes), _size(content, "imageHeight", "imageWidth"), left_out)


def supervisely(content: Any) -> Annotation:
    """Supervisely's JSON: polygons with holes, rectangles and bitmaps in order; lines, points and
    others are left out."""
    shapes, left_out = [], Counter()
    for item in content["objects"]:
        label, kind = str(item["classTitle"]).strip(), item.get("geometryType", "polygon")
        if kind == "polygon":
            points = ring(item["points"]["exterior"])
            holes = [ring(hole) for hole in item["points"].get("interior", ())]
            _add_polygon(shapes, left_out, label, points, [h for h in holes if len(h) >= 3])
        elif kind == "rectangle":
            (left, top), (right, bottom) = ring(item["points"]["exterior"])
            shapes.append(Shape(label, (box(left, top, right, bottom),)))
        elif kind == "bitmap":
            data = _unzipped(base64.b64decode(item["bitmap"]["data"], validate=True))
            bitmap = _png(data, shapes)
            left, top = map(int, item["bitmap"]["origin"])
            shapes.append(Shape(label, bitmap=bitmap, place=(left, top)))
        else:
            left_out[f"shapes of type {kind}"] += 1
    return Annotation(tuple(shapes), _size(content["size"], "height", "width"), left_out)


def cityscapes(content: Any) -> Annotation:
    """Cityscapes' and IDD's JSON: polygons in order, without deleted ones."""
    shapes, left_out = [], Counter()
    for item in content["objects"]:
        if not item.get("deleted"):
            _add_polygon(shapes, left_out, str(item["label"]), ring(item["polygon"]))
    return Annotation(tuple(shapes), _size(content, "imgHeight", "imgWidth"), left_out)


def yolo(text: str, size: tuple[int, int], names: Sequence[str]) -> Annotation:
    """YOLO's lines `class x y x y ...`, in shares of width and height; small ones on top.

    Boxes (`class x y w h`) are left out.

    Raises:
      ValueError: naming the line that is neither, or whose class has no name; or if all lines are
        boxes.
    """
    shapes, left_out = [], Counter()
    lines = [(n, line.split()) for n, line in enumerate(text.splitlines(), 1) if line.strip()]
    for number, words in lines:
        try:
            place, values = int(words[0]), ring(zip(words[1::2], words[2::2], strict=True))
        except ValueError as error:
            raise ValueError(f"line {number}: {' '.join(words)[:40]!r}: {error}") from error
        if not 0 <= place < len(names):
            raise ValueError(f"line {number}: class {place}, but {len(names)} names: {list(names)}")
        if (np.abs(values) > 2).any():
            raise ValueError(f"line {number}: coordinates are no shares of width and height")
        if len(values) == 2:
            left_out["boxes"] += 1
            continue
        _add_polygon(shapes, left_out, names[place], values * (size[1], size[0]))
    if lines and left_out["boxes"] == len(lines):
        raise ValueError("all lines are boxes (class x y w h), and none a polygon")
    return Annotation(by_area(shapes), size, left_out)


def _add_polygon(
    shapes: list[Shape],
    left_out: Counter,
    label: str,
    points: np.ndarray,
    holes: Sequence[np.ndarray] = (),
) -> None:
    if len(points) < 3:
        left_out[FEW_POINTS] += 1
    else:
        shapes.append(Shape(label, (points,), tuple(holes)))


def _size(content: Mapping[str, Any], height: str, width: str) -> tuple[int, int] | None:
    if content.get(height) is None or content.get(width) is None:
        return None
    return int(content[height]), int(content[width])


def _unzipped(data: bytes) -> bytes:
    decoder = zlib.decompressobj()
    plain = decoder.decompress(data, _BITMAP_BYTES)
    if decoder.unconsumed_tail:
        raise ValueError(f"a bitmap of over {_BITMAP_BYTES} bytes")
    return plain


def _png(data: bytes, shapes: Sequence[Shape]) -> Bool[np.ndarray, "h w"]:
    """The pixels of a PNG that are set, by alpha where it has any, else those above 0; ValueError
    if there are too many in it and in the bitmaps of the shapes before."""
    with Image.open(io.BytesIO(data), formats=("PNG",)) as picture:
        pixels = picture.width * picture.height
        before = sum(np.size(shape.bitmap) for shape in shapes if shape.bitmap is not None)
        if pixels > _BITMAP_BYTES or before + pixels > MOST_PIXELS:
            raise ValueError(f"a bitmap of {picture.width}x{picture.height} pixels")
        if picture.has_transparency_data:
            return np.array(picture.convert("RGBA"))[..., 3] > 0
        return np.array(picture.convert("L")) > 0
