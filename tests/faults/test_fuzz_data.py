"""Data files with random damage."""

import base64
import contextlib
import io
import json
import pathlib
import zlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest
import scipy.io
import tifffile
from PIL import Image

from segjax.data.class_lists import read_class_list
from segjax.data.class_map import read_class_map
from segjax.data.classes import from_names
from segjax.data.doctor.jpeg_ends import end_of_jpeg
from segjax.data.files.headers import read_header
from segjax.data.files.images import read_image
from segjax.data.files.lists import is_list, read_list
from segjax.data.files.masks import read_mask
from segjax.data.files.mat import load_mat
from segjax.data.files.panoptic import load_annotations
from segjax.data.files.windowed import WindowedImage
from segjax.data.polygons.formats import annotation_of, annotations_of
from segjax.data.polygons.paint import paint
from segjax.data.prepared import manifest as manifests
from segjax.data.sets.idd import draw_polygons
from segjax.data.sets.tfds_files import TfdsFiles
from tests.faults.fuzzing import fuzz, json_edits, short_and_long

RANDOM = np.random.default_rng(0)
RGB = RANDOM.integers(0, 256, (24, 40, 3), np.uint8)
IDS = np.kron(RANDOM.integers(0, 3, (3, 5)), np.ones((8, 8))).astype(np.uint8)
EXIF = Image.Exif()
EXIF[0x0112] = 6


def encoded(array: np.ndarray, form: str, mode: str = "", **options) -> bytes:
    file, image = io.BytesIO(), Image.fromarray(array)
    if mode == "P":
        image.putpalette(RANDOM.integers(0, 256, 768).astype(np.uint8).tobytes())
    (image.convert(mode) if mode else image).save(file, form, **options)
    return file.getvalue()


def tiff(array: np.ndarray, **options) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, array, **options)
    return file.getvalue()


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def mat() -> bytes:
    file, segments = io.BytesIO(), np.empty((1, 1), [("Segmentation", "O"), ("Categories", "O")])
    segments[0, 0] = IDS, np.array([1, 2])
    scipy.io.savemat(file, {"GTcls": segments}, do_compression=True)
    return file.getvalue()


class Case(NamedTuple):
    """A reader, and intact files for it, whose texts are lists, numbers and so on in JSON."""

    name: str  # of the file
    read: Callable[[pathlib.Path], Any]
    seeds: Sequence[Any]
    edits: Any = None


def read_drawn(path: pathlib.Path) -> None:
    names = ("road", "car")
    annotation = annotation_of(path, (24, 40), names)
    labels = {shape.label: 1 for shape in annotation.shapes}
    paint((24, 40), annotation.shapes, labels, 0)


def read_all_drawn(path: pathlib.Path) -> None:
    for annotation in annotations_of(path).annotations.values():
        paint((24, 40), annotation.shapes, {shape.label: 1 for shape in annotation.shapes}, 0)


def read_windows(path: pathlib.Path) -> None:
    with contextlib.closing(WindowedImage(path)) as image:
        if image.readable:
            assert image[:8, :8].shape == (min(8, image.shape[0]), min(8, image.shape[1]), 3)


POINTS = [[1, 1], [30, 1], [30, 20.5]]
BITMAP = base64.b64encode(zlib.compress(encoded(IDS > 0, "PNG"))).decode()
COCO = {
    "images": [{"id": 1, "file_name": "a.png", "height": 24, "width": 40}],
    "categories": [{"id": 1, "name": "road"}, {"id": 2, "name": "car", "supercategory": "v"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[1, 1, 30, 1, 30, 20]]},
        *(
            {
                "id": 2,
                "image_id": 1,
                "category_id": 2,
                "segmentation": {"size": [24, 40], "counts": counts},
            }
            for counts in ([10, 20, 930], "Pn0")
        ),
    ],
}
LABELME = {
    "shapes": [
        {"label": "car", "points": POINTS, "shape_type": "polygon"},
        {"label": "road", "points": POINTS[:2], "shape_type": "circle"},
        {"label": "road", "points": POINTS[:2], "shape_type": "rectangle"},
    ],
    "imageHeight": 24,
    "imageWidth": 40,
}
SUPERVISELY = {
    "size": {"height": 24, "width": 40},
    "objects": [
        {"classTitle": "a", "geometryType": "polygon", "points": {"exterior": POINTS}},
        {
            "classTitle": "b",
            "geometryType": "bitmap",
            "bitmap": {"origin": [3, 3], "data": BITMAP},
        },
    ],
}
CITYSCAPES = {"imgHeight": 24, "imgWidth": 40, "objects": [{"label": "road", "polygon": POINTS}]}
CVAT = """<annotations><meta><task><labels><label><name>car</name></label></labels></task></meta>
<image id="0" name="a.png" width="40" height="24"><polygon label="car" points="1,1;30,1;30,20"/>
<box label="car" xtl="1" ytl="2" xbr="9" ybr="8" z_order="1"/>
<mask label="car" rle="2, 3, 3" left="1" top="1" width="4" height="2"/></image></annotations>"""
SHAPE = {"name": "polygon", "all_points_x": [1, 30, 30], "all_points_y": [1, 1, 20]}
VIA = {"a.png9": {"filename": "a.png", "regions": [{"shape_attributes": SHAPE}]}}
VIA_CSV = (
    "filename,region_shape_attributes,region_attributes\n"
    'a.png,"{""name"": ""rect"", ""x"": 1, ""y"": 2, ""width"": 3, ""height"": 4}","{}"\n'
)
PANOPTIC = {
    "categories": [{"id": 1, "name": "road"}],
    "annotations": [
        {"file_name": "a.png", "segments_info": [{"id": 65793, "category_id": 1}]},
    ],
}
MANIFEST = {
    "format": 1,
    "name": "toy",
    "version": "1.0.0",
    "title": "",
    "licence": "",
    "url": "",
    "classes": [{"name": "road", "color": [1, 2, 3]}, {"name": "car", "color": [3, 2, 1]}],
    "encoding": "raw",
    "channels": 3,
    "size": [24, 40],
    "command": "",
    "finished": True,
    "splits": {
        "train": {
            "source": "x",
            "shards": [{"file": "a.array_record", "samples": 2, "bytes": 9, "sha256": "0"}],
        }
    },
    "value_range": [[0, 4095]],
}
TFDS = "tensorflow_datasets.core.features."
FEATURES = {
    "pythonClassName": TFDS + "features_dict.FeaturesDict",
    "featuresDict": {
        "features": {
            "image": {
                "pythonClassName": TFDS + "image_feature.Image",
                "image": {"shape": {"dimensions": ["-1", "-1", "3"]}, "dtype": "uint8"},
            },
            "mask": {
                "pythonClassName": TFDS + "tensor_feature.Tensor",
                "tensor": {"shape": {"dimensions": ["24", "40"]}, "dtype": "int64"},
            },
        }
    },
}
INFO = {
    "name": "toy",
    "version": "1.0.0",
    "fileFormat": "array_record",
    "splits": [
        {
            "name": "train",
            "shardLengths": ["2", "3"],
            "numBytes": "10",
            "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
        }
    ],
}
CLASSES = [
    {"id": 0, "name": "road", "color": [128, 64, 128], "trainId": 0},
    {"id": 7, "name": "car", "color": "#00008e", "ignoreInEval": False},
]
PROTOBUF = "item {\n id: 1\n name: 'road'\n}\nitem {\n id: 2\n name: 'car'\n}\n"
MAP_CLASSES = from_names(["road", "car", "bus", "sky"])
CASES = {
    "class list in text": Case(
        "c.txt",
        read_class_list,
        ["road\ncar\nsky\n", "0 road 128 64 128\n1 car 0 0 142\n", "# id name\n7: road\n8: car"],
    ),
    "class list in a table": Case(
        "c.csv",
        read_class_list,
        ["id,name,r,g,b\n0,road,1,2,3\n7,car,4,5,6\n", 'name;rgb\n"a b";1 2 3\nc;4 5 6\n'],
    ),
    "class list in YAML": Case(
        "c.yaml", read_class_list, ["names: {0: road, 1: car}\nnc: 2\n", "names:\n- a\n- b\n"]
    ),
    "class list in protobuf": Case("c.pbtxt", read_class_list, [PROTOBUF]),
    "class list in JSON": Case(
        "c.json", read_class_list, [CLASSES, {"id2label": {"0": "a", "1": "b"}}], json_edits
    ),
    "class map": Case(
        "m.yaml",
        lambda path: read_class_map(path, MAP_CLASSES),
        ["vehicle: [car, bus]\nroad:\nrest: '*'\n", "- {name: a, from: [car], color: [1, 2, 3]}\n"],
    ),
    "class map in JSON": Case(
        "m.json",
        lambda path: read_class_map(path, MAP_CLASSES),
        [{"a": ["car", "bus"], "b": "sky"}, [{"name": "a", "from": "car", "color": "#010203"}]],
        json_edits,
    ),
    "list of a split": Case(
        "train.txt",
        lambda path: (is_list(path), read_list(path)),
        ["a.png m/a.png\nb.png m/b.png\n", "image,mask\na.png,b.png\n", '{"image": "a.png"}\n'],
    ),
    "polygons of labelme": Case("a.json", read_drawn, [LABELME], json_edits),
    "polygons of Supervisely": Case("a.json", read_drawn, [SUPERVISELY], json_edits),
    "polygons of Cityscapes": Case("a.json", read_drawn, [CITYSCAPES], json_edits),
    "polygons of IDD": Case(
        "a.json", lambda path: draw_polygons(path, "level1"), [CITYSCAPES], json_edits
    ),
    "polygons of YOLO": Case("a.txt", read_drawn, ["0 .1 .1 .9 .1 .9 .8\n1 0 0 1 0 1 1\n"]),
    "polygons of COCO": Case("a.json", read_all_drawn, [COCO], json_edits),
    "polygons of CVAT": Case("a.xml", read_all_drawn, [CVAT]),
    "polygons of VIA": Case("a.json", read_all_drawn, [VIA], json_edits),
    "polygons of VIA in a table": Case("a.csv", read_all_drawn, [VIA_CSV]),
    "panoptic segments": Case("a.json", load_annotations, [PANOPTIC], json_edits),
    "PNG image": Case(
        "a.png",
        lambda path: (read_header(path), read_image(path)),
        [
            encoded(RGB, "PNG", exif=EXIF),
            encoded(RGB[..., 0], "PNG", "P"),
            encoded(RGB[..., 0].astype(np.uint16), "PNG"),
        ],
    ),
    "JPEG image": Case(
        "a.jpg",
        lambda path: (read_header(path), end_of_jpeg(path, read_image(path))),
        [encoded(RGB, "JPEG", exif=EXIF), encoded(RGB, "JPEG", progressive=True)],
    ),
    "image of other formats": Case(
        "a.bmp",
        lambda path: (read_header(path), read_image(path)),
        [encoded(RGB, form) for form in ("WEBP", "BMP", "GIF", "PPM")],
    ),
    "TIFF image": Case(
        "a.tif",
        lambda path: (read_header(path), read_image(path)),
        [
            tiff(RGB, photometric="rgb", compression="zlib", predictor=2),
            tiff(np.tile(RGB, (3, 2, 1)), photometric="rgb", tile=(16, 16)),
            encoded(RGB, "TIFF", compression="tiff_lzw"),
        ],
    ),
    "TIFF by windows": Case(
        "a.tif",
        read_windows,
        [tiff(RGB, photometric="rgb", compression="zlib"), encoded(RGB, "TIFF")],
    ),
    "PNG mask": Case("m.png", read_mask, [encoded(IDS, "PNG"), encoded(IDS, "PNG", "P")]),
    "TIFF mask": Case(
        "m.tif", read_mask, [tiff(IDS.astype(np.int32), compression="zlib"), tiff(IDS)]
    ),
    ".npy mask": Case("m.npy", read_mask, [npy(IDS), npy(IDS.astype(np.float32))]),
    "MATLAB mask": Case("m.mat", lambda path: load_mat(path, "GTcls", "use another"), [mat()]),
    "manifest of prepared data": Case(
        manifests.FILE, lambda path: manifests.find(path.parent), [MANIFEST], json_edits
    ),
    "features of TFDS": Case(
        "features.json", lambda path: TfdsFiles("toy", path.parent).features, [FEATURES], json_edits
    ),
    "description of TFDS": Case(
        "dataset_info.json",
        lambda path: (
            TfdsFiles(path.name, path.parent).formats,
            TfdsFiles(path.name, path.parent).parts("train"),
        ),
        [INFO],
        json_edits,
    ),
}


def content(seed: Any) -> bytes:
    if isinstance(seed, bytes):
        return seed
    return (seed if isinstance(seed, str) else json.dumps(seed)).encode()


@pytest.fixture(autouse=True)
def _small_images(monkeypatch):
    """Limits images as users may; by default one of 500 megapixels may take as long as it takes."""
    monkeypatch.setenv("SEGJAX_MAX_MEGAPIXELS", "4")


@pytest.mark.fault("random damage to a data file", "it is read, or named in one line")
@pytest.mark.parametrize("name", CASES)
@short_and_long(12, 2_000)
def test_a_damaged_file_is_read_or_named(name, tmp_path, record_property, examples):
    case = CASES[name]
    for k in range(2):  # of the TFDS data set
        (tmp_path / f"toy-train.array_record-{k:05d}-of-00002").touch()
    fuzz(
        case.read,
        [content(seed) for seed in case.seeds],
        tmp_path / case.name,
        record=record_property,
        examples=examples,
        edits=case.edits,
    )
