"""Polygon files of many images each: COCO, CVAT, VGG VIA."""

import csv
import io
import json
import pathlib
import re
import xml.parsers.expat
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

import numpy as np

from segjax.data.polygons.paint import Annotation, Shape, box, by_area, ellipse, ring
from segjax.data.polygons.per_image import FEW_POINTS
from segjax.data.polygons.rle import Runs, decompress

Annotations = dict[str, Annotation]  # by the file name of the image, maybe with folders
Names = list[tuple[int | None, str]]  # id in the file, or None, and name of each class
_CLASS_KEYS = ("class", "label", "name", "category", "type", "object", "class_name", "object_name")


def coco(content: Mapping[str, Any]) -> tuple[Annotations, Names]:
    """COCO's JSON: polygons, run lengths as numbers or as a string, and crowds; small ones on top.

    Annotations without a segmentation (boxes, key points) are left out.

    Raises:
      ValueError: if no annotation has a segmentation.
    """
    names = {c["id"]: str(c["name"]).strip() for c in content["categories"]}
    images = {image["id"]: image for image in content["images"]}
    shapes: dict[Any, list[Shape]] = {key: [] for key in images}
    left_out: dict[Any, Counter] = {key: Counter() for key in images}
    for item in content["annotations"]:
        key, segmentation = item["image_id"], item.get("segmentation")
        if key not in images:
            raise ValueError(
                f"annotation {item.get('id')} is of image_id {key}, which is not there"
            )
        if item["category_id"] not in names:
            raise ValueError(f"category_id {item['category_id']} has no category")
        label = names[item["category_id"]]
        if not segmentation:
            left_out[key]["boxes without a segmentation"] += 1
        elif isinstance(segmentation, dict):
            size = int(segmentation["size"][0]), int(segmentation["size"][1])
            own = int(images[key].get("height", size[0])), int(images[key].get("width", size[1]))
            if size != own:
                raise ValueError(f"run lengths of {size} for an image of {own}")
            counts = segmentation["counts"]
            counts = decompress(counts) if isinstance(counts, str) else counts
            runs = Runs(np.array(counts, np.int64), size, by_column=True)
            shapes[key].append(Shape(label, bitmap=runs))
        else:
            outlines = [ring(zip(p[0::2], p[1::2], strict=True)) for p in segmentation]
            left_out[key][FEW_POINTS] += sum(len(points) < 3 for points in outlines)
            outlines = tuple(points for points in outlines if len(points) >= 3)
            if outlines:
                shapes[key].append(Shape(label, outlines))
    if content["annotations"] and all(
        not item.get("segmentation") for item in content["annotations"]
    ):
        raise ValueError("no annotation has a segmentation: they are boxes alone")
    found = {}
    for key, image in images.items():
        size = image.get("height"), image.get("width")
        found[str(image["file_name"])] = Annotation(
            by_area(shapes[key]),
            None if None in size else (int(size[0]), int(size[1])),
            +left_out[key],
        )
    return found, _coco_names(content, names)


def _coco_names(content: Mapping[str, Any], names: Mapping[Any, str]) -> Names:
    """The categories in the order of their ids, without those that only group others."""
    used = {item["category_id"] for item in content["annotations"]}
    groups = {str(c.get("supercategory")) for c in content["categories"]}
    kept = {k for k in names if k in used or names[k] not in groups or len(names) == 1}
    kept |= {
        c["id"] for c in content["categories"] if str(c.get("supercategory")) == str(c["name"])
    }
    return [(int(k), names[k]) for k in sorted(kept)]


def cvat(data: bytes) -> tuple[Annotations, Names]:
    """CVAT's XML for images, version 1.1: polygons, boxes, ellipses and masks by z_order; lines,
    points, cuboids and others are left out.

    Raises:
      ValueError: for a DTD, which could make a small file huge; for tracks of a video.
    """
    root = _parsed(data)
    if root.find("track") is not None:
        raise ValueError("tracks of a video: export as `CVAT for images 1.1`")
    found = {}
    for image in root.iter("image"):
        drawn, left_out = [], Counter()
        for item in image:
            shape = _cvat_shape(item, left_out)
            if shape is not None:
                drawn.append((int(item.get("z_order") or 0), shape))
        drawn.sort(key=lambda pair: pair[0])
        found[image.attrib["name"]] = Annotation(
            tuple(shape for _, shape in drawn),
            (int(image.attrib["height"]), int(image.attrib["width"])),
            left_out,
            image.get("subset") or "",
        )
    names = [label.findtext("name") for label in root.iter("label")]
    return found, [(None, name.strip()) for name in dict.fromkeys(names) if name]


def _parsed(data: bytes) -> ElementTree.Element:
    builder = ElementTree.TreeBuilder()
    parser = xml.parsers.expat.ParserCreate()

    def refuse(*_: Any) -> None:
        raise ValueError("a DTD, which is not read")

    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    parser.Parse(data, True)
    return builder.close()


def _cvat_shape(item: ElementTree.Element, left_out: Counter) -> Shape | None:
    given, label = item.attrib, item.get("label", "").strip()
    number = lambda name: float(given.get(name) or 0)  # noqa: E731
    if item.tag == "polygon":
        points = ring(pair.split(",") for pair in given["points"].split(";") if pair.strip())
        if len(points) >= 3:
            return Shape(label, (points,))
        left_out[FEW_POINTS] += 1
    elif item.tag == "box":
        sides = [float(given[name]) for name in ("xtl", "ytl", "xbr", "ybr")]
        return Shape(label, (box(*sides, degrees=number("rotation")),))
    elif item.tag == "ellipse":
        center, radii = [[float(given[k]) for k in pair] for pair in (("cx", "cy"), ("rx", "ry"))]
        return Shape(label, (ellipse(center, radii, number("rotation")),))
    elif item.tag == "mask":
        counts = np.array(given["rle"].replace(",", " ").split(), np.int64)
        runs = Runs(counts, (int(given["height"]), int(given["width"])), by_column=False)
        return Shape(label, bitmap=runs, place=(int(given["left"]), int(given["top"])))
    elif item.tag != "tag":
        left_out[f"shapes of type {item.tag}"] += 1
    return None


def via(content: Mapping[str, Any]) -> tuple[Annotations, Names]:
    """VGG Image Annotator's JSON, a project or an export of annotations: polygons, boxes, circles
    and ellipses, small ones on top; lines and points are left out."""
    images = content.get("_via_img_metadata", content).values()
    rows = []
    for image in images:
        regions = image["regions"]
        regions = regions.values() if isinstance(regions, dict) else regions
        rows.append((str(image["filename"]), list(regions)))
    attributes = (content.get("_via_attributes") or {}).get("region") or {}
    return _via(rows, list(attributes))


def via_csv(text: str) -> tuple[Annotations, Names]:
    """VGG Image Annotator's CSV; as `via`."""
    by_image: dict[str, list] = {}
    for row in csv.DictReader(io.StringIO(text)):
        name = row.get("filename") or row["#filename"]
        shape = json.loads(row["region_shape_attributes"] or "{}")
        regions = by_image.setdefault(name, [])
        if shape:
            attributes = json.loads(row["region_attributes"] or "{}")
            regions.append({"shape_attributes": shape, "region_attributes": attributes})
    return _via(list(by_image.items()), [])


def _via(
    rows: Sequence[tuple[str, list[Mapping[str, Any]]]], attributes: Sequence[str]
) -> tuple[Annotations, Names]:
    regions = [region for _, of_image in rows for region in of_image]
    key = _class_key([region.get("region_attributes") or {} for region in regions], attributes)
    found, names = {}, []
    for name, of_image in rows:
        shapes, left_out = [], Counter()
        for region in of_image:
            label = _via_label((region.get("region_attributes") or {}).get(key, ""))
            shape = _via_shape(region["shape_attributes"], label, left_out)
            if shape is not None:
                shapes.append(shape)
                names.append(label)
        found[name] = Annotation(by_area(shapes), None, left_out)
    return found, [(None, name) for name in sorted(set(names)) if name]


def _class_key(given: Sequence[Mapping[str, Any]], attributes: Sequence[str]) -> str:
    """The attribute of regions that is their class; "" where they have none.

    Raises:
      ValueError: if several may be it.
    """
    known = list(dict.fromkeys([*attributes, *(key for regions in given for key in regions)]))
    named = [key for wanted in _CLASS_KEYS for key in known if key.lower() == wanted]
    if len(known) > 1 and not named:
        raise ValueError(
            f"regions have the attributes {', '.join(known)}, and none of them is named class: "
            "rename the one that is the class"
        )
    return next(iter([*named, *known]), "")


def _via_label(value: Any) -> str:
    """The value of a text or a choice, or the one that is set of several check boxes."""
    if isinstance(value, dict):
        chosen = [str(key) for key, is_set in value.items() if is_set]
        if len(chosen) != 1:
            raise ValueError(f"a region of the classes {chosen}, and one is needed")
        return chosen[0].strip()
    return str(value).strip()


def _via_shape(given: Mapping[str, Any], label: str, left_out: Counter) -> Shape | None:
    kind = given["name"]
    if kind == "polygon":
        points = ring(zip(given["all_points_x"], given["all_points_y"], strict=True))
        if len(points) >= 3:
            return Shape(label, (points,))
        left_out[FEW_POINTS] += 1
    elif kind == "rect":
        x, y, width, height = [float(given[k]) for k in ("x", "y", "width", "height")]
        return Shape(label, (box(x, y, x + width, y + height),))
    elif kind in ("circle", "ellipse"):
        radii = [given["r"]] * 2 if kind == "circle" else (given["rx"], given["ry"])
        turn = np.rad2deg(float(given.get("theta") or 0))
        return Shape(label, (ellipse((given["cx"], given["cy"]), radii, float(turn)),))
    else:
        left_out[f"shapes of type {kind}"] += 1
    return None


class ByImage:
    """The annotations of a file, found by the path of the image.

    A name may hold folders; the last of a path's folders that it has decide.
    """

    def __init__(self, annotations: Mapping[str, Annotation], names: Names):
        self.annotations, self.names = annotations, names
        self._by_name: dict[str, list[str]] = {}
        for name in annotations:
            self._by_name.setdefault(re.split(r"[\\/]", name)[-1], []).append(name)

    @property
    def subsets(self) -> dict[str, int]:
        """The splits that the file gives its images, and their sizes; {} for none or one."""
        counts = Counter(a.subset for a in self.annotations.values() if a.subset)
        return dict(counts) if len(counts) > 1 else {}

    def name_of(self, image: pathlib.Path) -> str | None:
        """The name that the file gives an image; None if it has none."""
        names = self._by_name.get(image.name, [])
        path = image.as_posix()
        ends = [n for n in names if f"/{path}".endswith("/" + n.replace("\\", "/").lstrip("./"))]
        if ends:
            return max(ends, key=len)
        return names[0] if len(names) == 1 else None
