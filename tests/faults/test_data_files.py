"""Data files that were damaged, or made to break their reader."""

import base64
import contextlib
import io
import itertools
import json
import os
import pathlib
import shutil
import struct
import sys
import time
import zlib

import h5py
import numpy as np
import pytest
import tensorflow_datasets as tfds
import tifffile
from PIL import Image

from segjax.data import class_lists
from segjax.data.class_map import read_class_map
from segjax.data.datasets import make_source
from segjax.data.doctor.jpeg_ends import end_of_jpeg
from segjax.data.errors import DataError
from segjax.data.files.headers import NO_HEADER, read_header
from segjax.data.files.images import read_image
from segjax.data.files.lists import is_list, read_list
from segjax.data.files.masks import read_mask
from segjax.data.files.mat import load_mat
from segjax.data.files.tiff import TiffPixels
from segjax.data.layouts.match import Choice
from segjax.data.layouts.samples import Place
from segjax.data.polygons.class_names import labels_of
from segjax.data.polygons.formats import annotation_of, annotations_of
from segjax.data.prepared import manifest as manifests
from segjax.data.prepared.write import write_prepared
from segjax.data.sets.idd import draw_polygons
from segjax.data.sets.prepared import open_prepared
from segjax.data.sets.sunrgbd import read_seglabel
from segjax.inference.inputs import open_inputs
from tests.data.drawn import THREE, Drawn, data_config, photo

IDS = np.array([[0, 1, 2, 2, 1, 255]] * 4, np.uint8)
RGB = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)


def write(path: pathlib.Path, content: object) -> pathlib.Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not isinstance(content, bytes):
        content = (content if isinstance(content, str) else json.dumps(content)).encode()
    path.write_bytes(content)
    return path


def refused(call, *words: str) -> None:
    """That a call ends in one line that can be printed and holds the words."""
    with pytest.raises(DataError) as caught:
        call()
    text = str(caught.value)
    assert text.isprintable(), text
    assert len(text) < 2500
    for word in words:
        assert word in text


# Nothing that a data set names is imported.


def encoded(array: np.ndarray, form: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, form, **options)
    return file.getvalue()


class OfTheTest(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        mask = tfds.features.Image(shape=(None, None, 1))
        features = {"image": tfds.features.Image(), "segmentation_mask": mask}
        features["name"] = tfds.features.Text()
        features = tfds.features.FeaturesDict(features)
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        values = {"image": encoded(RGB), "segmentation_mask": encoded(IDS), "name": "x"}
        return ((k, values) for k in range(3))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of data sets in which TFDS and `--mode=prepare` have written one each."""
    folder = tmp_path_factory.mktemp("sets")
    OfTheTest(data_dir=str(folder), file_format="array_record").download_and_prepare()
    write_prepared({"train": Drawn([IDS] * 3)}, folder, name="toy", classes=THREE)
    return folder


@pytest.fixture
def sets(made, tmp_path, monkeypatch):
    """A copy of them in `data/` of a folder that Python imports from, which is the current one,
    with modules that say so when they are imported."""
    shutil.copytree(made, tmp_path / "data")
    code = f"import pathlib\npathlib.Path({str(tmp_path / 'RAN')!r}).touch()\nclass Evil: pass\n"
    for version in (tmp_path / "data").glob("*/*"):
        (version / "payload.py").write_text(code)
    (tmp_path / "payload.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path / "data"


def named(value: object, module: str) -> object:
    """The JSON with every name of a class or a module replaced, and a feature more."""
    if isinstance(value, list):
        return [named(each, module) for each in value]
    if not isinstance(value, dict):
        return value
    changed = {k: named(v, module) for k, v in value.items()}
    if "features" in changed:
        changed["features"]["extra"] = {"pythonClassName": f"{module}.Evil"}
    if "moduleName" in changed or "version" in changed:
        changed |= {"moduleName": module, "configName": module, "redistributionInfo": module}
    return changed


@pytest.mark.fault("metadata of a data set name a class or a module", "nothing is imported")
@pytest.mark.parametrize("module", ["payload", "data.toy.1.0.0.payload", "data.payload"])
@pytest.mark.parametrize(
    "options",
    [{"name": "prepared", "root": "data/toy"}, {"name": "tfds:of_the_test", "root": "data"}],
)
def test_what_metadata_name_is_not_imported(sets, options, module):
    shutil.copy(sets.parent / "payload.py", sets / "payload.py")
    for path in sets.glob("*/*/*.json"):
        if path.name != manifests.FILE:
            write(path, named(json.loads(path.read_text()), module))
    before = set(sys.modules)
    source = make_source(data_config(**options, classes="a,b,c"), "train")
    np.testing.assert_array_equal(source[1]["label"], IDS)
    assert not (sets.parent / "RAN").exists()
    assert not {name for name in set(sys.modules) - before if "payload" in name}


@pytest.mark.fault("features of a data set have an unknown type", "they cannot be used, by name")
def test_a_feature_of_an_unknown_type_cannot_be_read(sets):
    for path in sets.glob("of_the_test/*/features.json"):
        text = path.read_text().replace("tensorflow_datasets.core.features.image_f", "payload.f")
        write(path, text)
    config = data_config(name="tfds:of_the_test", root="data", classes="a,b,c")
    refused(lambda: make_source(config, "train"), "data.image_feature='image'", "is Image; use")
    assert not (sets.parent / "RAN").exists()


@pytest.mark.fault("metadata of a data set name shards elsewhere", "they are refused")
@pytest.mark.parametrize(
    "template", ["../{SPLIT}", "/etc/passwd", "{SPLIT:999999999}", "{SPLIT.x}"]
)
def test_tfds_shards_are_in_their_folder(sets, template):
    path = next(sets.glob("of_the_test/*/dataset_info.json"))
    info = json.loads(path.read_text())
    info["splits"][0]["filepathTemplate"] = template
    write(path, info)
    config = data_config(name="tfds:of_the_test", root="data", classes="a,b,c")
    refused(lambda: make_source(config, "train"), "dataset_info.json", "use the files that TFDS")


@pytest.mark.fault("metadata of a data set name shards elsewhere", "they are refused")
@pytest.mark.parametrize("file", ["../x", "/etc/passwd", "a/b", "..", "", "a\0b"])
def test_prepared_shards_are_in_their_folder(sets, file):
    path = sets / "toy/1.0.0" / manifests.FILE
    content = json.loads(path.read_text())
    content["splits"]["train"]["shards"][0]["file"] = file
    refused(lambda: open_prepared(write(path, content).parent, "train"), manifests.FILE)


@pytest.mark.fault("a manifest of prepared data is another", "it is named, with what to do")
@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"classes": [{"name": 5, "color": [1, 2, 3]}]},
        {"classes": [{"name": "a", "color": "red"}]},
        {"classes": []},
        {"channels": 0},
        {"channels": 1.5},
        {"encoding": "zip"},
        {"size": ["a", 4]},
        {"splits": {"train": 3}},
        {"splits": {"train": {"source": "", "shards": [{"file": "a", "samples": -1}]}}},
        {"splits": {"train": {"source": "", "shards": [{"file": "a", "samples": "9"}]}}},
        {"value_range": 3},
        {"more": 1},
    ],
)
def test_a_manifest_of_another_form(sets, change):
    path = sets / "toy/1.0.0" / manifests.FILE
    write(path, json.loads(path.read_text()) | change)
    refused(lambda: open_prepared(path.parent, "train"), manifests.FILE, "; use another")


@pytest.mark.fault("a shard is damaged or holds less", "the first read names the shard")
@pytest.mark.parametrize("encoding", ["raw", "png"])
@pytest.mark.parametrize("damage", ["zeros", "garbage", "flip", "of another set", "fewer"])
def test_a_damaged_shard_is_named(tmp_path, encoding, damage):
    label = np.random.default_rng(0).integers(0, 3, (40, 60)).astype(np.uint8)
    manifest = write_prepared(
        {"train": Drawn([label] * 3)}, tmp_path, name="toy", classes=THREE, encoding=encoding
    )
    (shard,) = manifest.shards
    path = manifest.path(shard)
    data = bytearray(path.read_bytes())
    if damage == "fewer":
        fewer = write_prepared(
            {"train": Drawn([label] * 2)}, tmp_path, name="b", classes=THREE, encoding=encoding
        )
        data = bytearray(fewer.path(fewer.shards[0]).read_bytes()[: len(data)])
    elif damage == "of another set":
        other = "png" if encoding == "raw" else "raw"
        more = write_prepared(
            {"train": Drawn([label] * 3)}, tmp_path, name="b", classes=THREE, encoding=other
        )
        data = bytearray(more.path(more.shards[0]).read_bytes()[: len(data)])
    else:
        for at in range(200, len(data), 997):
            data[at] = {"zeros": 0, "garbage": data[at] + 77 & 255, "flip": data[at] ^ 1}[damage]
    path.write_bytes(data.ljust(shard.bytes, b"\0"))
    source = open_prepared(tmp_path / "toy", "train")
    refused(lambda: [source[k] for k in range(3)], path.name, "record ")


class Example:
    """The records of a prepared data set, of which each is one example."""

    def __init__(self, features):
        self.features = features

    def place(self, index):
        return f"a.array_record, record {index}"

    def __getitem__(self, index):
        return {name: tfds_feature(value) for name, value in self.features.items()}


def tfds_feature(value):
    from tensorflow_datasets.proto import tf_example_pb2

    kind = "bytes_list" if isinstance(value, bytes) else "int64_list"
    example = tf_example_pb2.Example()
    getattr(example.features.feature["x"], kind).value.extend(
        [value] if isinstance(value, bytes) else value
    )
    return example.features.feature["x"]


GOOD = {
    "image/shape": [4, 6, 3],
    "image/value": RGB.tobytes(),
    "segmentation_mask/shape": [4, 6, 1],
    "segmentation_mask/value": IDS.tobytes(),
    "name": b"x",
}


@pytest.mark.fault("a record claims another size than it holds", "it is named")
@pytest.mark.parametrize(
    "change",
    [
        {"image/shape": [4, 6, 4]},
        {"image/shape": [4000000, 6000000, 3]},
        {"image/shape": [-1, 6, 3]},
        {"image/shape": [2**62, 2**62, 3]},
        {"image/shape": [4, 6]},
        {"image/shape": b"4"},
        {"image/shape": [1, 1, 3], "image/value": b"abc"},  # an image of one pixel
        {"segmentation_mask/shape": [6, 4, 1]},
        {"segmentation_mask/value": [1, 2, 3]},
        {"name": [3]},
        {"name": b"\xff"},
    ],
)
def test_a_record_of_another_size_is_named(made, change):
    source = open_prepared(made / "toy", "train")
    source.__dict__["_records"] = Example(GOOD)
    np.testing.assert_array_equal(source[0]["label"], IDS)
    source.__dict__["_records"] = Example(GOOD | change)
    refused(lambda: source[1], "a.array_record, record 1")


# Headers that claim more than there is.


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *more: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"\0" * 100))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(more) + pixels + chunk(b"IEND", b"")


def npy(header: str) -> bytes:
    text = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text + b"\0" * 64


def claimed_bmp() -> bytes:
    data = bytearray(encoded(RGB, "BMP"))
    data[18:26] = struct.pack("<ii", 60000, 60000)
    return bytes(data)


def claimed_gif() -> bytes:
    data = bytearray(encoded(RGB, "GIF"))
    data[6:10] = struct.pack("<HH", 60000, 60000)
    return bytes(data)


def claimed_jpeg() -> bytes:
    data = bytearray(encoded(RGB, "JPEG"))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", 60000, 60000)
    return bytes(data)


def tiff(**tags: int) -> bytes:
    """A TIFF with other values of tags."""
    file = io.BytesIO()
    tifffile.imwrite(file, RGB, photometric="rgb")
    data = bytearray(file.getvalue())
    with tifffile.TiffFile(io.BytesIO(data)) as read:
        for name, value in tags.items():
            offset = read.pages[0].tags[name].offset
            data[offset + 2 : offset + 12] = struct.pack("<HII", 4, 1, value)
    return bytes(data)


ZEROS_GZIP = zlib.compress(bytes(64 << 20), 9)
CLAIMS = {
    "a.png": [
        png(60000, 60000),
        png(2**31 - 1, 2**31 - 1),
        png(4, 4, chunk(b"zTXt", b"k\0\0" + ZEROS_GZIP)),
        png(4, 4, chunk(b"iTXt", b"k\0\1\0\0\0" + ZEROS_GZIP)),
        png(4, 4, chunk(b"iCCP", b"k\0\0" + ZEROS_GZIP)),
    ],
    "a.bmp": [claimed_bmp()],
    "a.gif": [claimed_gif()],
    "a.jpg": [claimed_jpeg()],
    "a.ppm": [b"P6 60000 60000 255\n" + bytes(100), b"P6 " + b"9" * 5000 + b" 4 255\n"],
    "a.tif": [
        tiff(ImageWidth=400000, ImageLength=400000),
        tiff(StripOffsets=2**31),
        tiff(StripByteCounts=2**31),
        tiff(RowsPerStrip=1),
        tiff(BitsPerSample=2**16),
        tiff(SamplesPerPixel=2**31),
    ],
    "a.npy": [
        npy("{'descr': '|u1', 'fortran_order': False, 'shape': (100000, 100000, 4)}"),
        npy("{'descr': '|u1', 'fortran_order': False, 'shape': (-1, 4)}"),
        npy("{'descr': '|u1', 'fortran_order': False, 'shape': (" + "(" * 60),
        npy("{'descr': '|O', 'fortran_order': False, 'shape': (4, 4)}"),
        npy("{'descr': '<U9', 'fortran_order': False, 'shape': (1, 1)}"),
        npy("{'descr': [('r', 'u1'), ('g', 'u1')], 'fortran_order': False, 'shape': (4, 4)}"),
        npy("__import__('os').system('touch RAN')"),
        b"PK\3\4" + bytes(200),
        b"",
    ],
}


@pytest.mark.fault("an image's header claims more than there is", "it is refused, unread")
@pytest.mark.parametrize(
    "name, place", [(n, k) for n, each in CLAIMS.items() for k in range(len(each))]
)
def test_claimed_sizes_are_not_believed(tmp_path, name, place):
    path = write(tmp_path / name, CLAIMS[name][place])
    if (name, place) != ("a.png", 4):  # a profile is left out, and the image is
        refused(lambda: read_image(path), name)
    refused(lambda: read_mask(path), name)
    read_header(path)


@pytest.mark.fault("an image file holds a program or names other files", "they are left alone")
def test_formats_that_run_programs_or_open_files_are_no_images(tmp_path):
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 6 4\n%%EndComments\nshowpage\n"
    refused(lambda: read_image(write(tmp_path / "a.png", eps)), "cannot identify image file")
    ome = (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
        '<Image ID="Image:0"><Pixels DimensionOrder="XYCZT" ID="Pixels:0" SizeC="1" SizeT="2" '
        'SizeX="6" SizeY="4" SizeZ="1" Type="uint8"><TiffData FirstT="1" IFD="0"><UUID '
        'FileName="other.tif">urn:uuid:1</UUID></TiffData></Pixels></Image></OME>'
    )
    tifffile.imwrite(tmp_path / "other.tif", IDS)
    tifffile.imwrite(tmp_path / "a.ome.tif", IDS, description=ome, metadata=None)
    opened = []
    sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
    with TiffPixels(tmp_path / "a.ome.tif") as pixels:
        np.testing.assert_array_equal(pixels[:, :][..., 0], IDS)
    assert not any(name.endswith("other.tif") for name in opened)


@pytest.mark.fault("the headers of a TIFF are a long chain", "it is refused in time")
def test_a_tiff_of_thousands_of_headers(tmp_path):
    body = bytearray(b"II*\0" + struct.pack("<I", 8))
    for k in range(5000):
        at = 8 + 18 * k
        body += struct.pack("<HHHIII", 1, 256, 4, 1, 6, at + 18)
    path = write(tmp_path / "a.tif", bytes(body) + bytes(6))
    start = time.process_time()
    refused(lambda: read_image(path), "a.tif has over 4096 pages")
    assert time.process_time() - start < 2


@pytest.mark.fault("the strips of a mask inflate to more than its size", "its size is what is read")
def test_strips_that_inflate(tmp_path):
    file = io.BytesIO()
    tifffile.imwrite(file, IDS.astype(np.int32), compression="zlib")
    with tifffile.TiffFile(io.BytesIO(file.getvalue())) as read:
        offset, count = (read.pages[0].tags[n].offset for n in ("StripOffsets", "StripByteCounts"))
    data = bytearray(file.getvalue())
    data[offset + 2 : offset + 12] = struct.pack("<HII", 4, 1, len(data))
    data[count + 2 : count + 12] = struct.pack("<HII", 4, 1, len(ZEROS_GZIP))
    assert read_mask(write(tmp_path / "m.tif", bytes(data + ZEROS_GZIP))).max() == 0


def matlab(dims: tuple[int, ...], kind: int = 1, size: int = 200) -> bytes:
    element = lambda t, d: struct.pack("<II", t, len(d)) + d.ljust(-(-len(d) // 8) * 8, b"\0")  # noqa: E731
    body = element(6, struct.pack("<II", kind, 0)) + element(5, struct.pack("<ii", *dims))
    body += element(1, b"GTcls")
    return b" " * 124 + b"\0\1IM" + struct.pack("<II", 14, len(body) + size) + body + bytes(size)


@pytest.mark.fault("a MATLAB file claims more than it holds", "it is refused")
@pytest.mark.parametrize(
    "data",
    [
        matlab((2**31 - 1, 2**31 - 1)),
        matlab((40000, 40000), kind=2),
        matlab((-4, 4), kind=9),
        b" " * 124 + b"\0\1IM" + struct.pack("<II", 15, len(ZEROS_GZIP) * 3) + ZEROS_GZIP,
        b" " * 124 + b"\0\1IM" + struct.pack("<II", 14, 2**31),
        b"",
    ],
)
def test_matlab_files_that_claim_more(tmp_path, data):
    path = write(tmp_path / "a.mat", data)
    refused(lambda: load_mat(path, "GTcls", "use another"), "a.mat no GTcls can be read")


@pytest.mark.fault("an HDF5 file takes its content from another", "it is refused")
@pytest.mark.parametrize("how", ["virtual", "link", "storage", "huge"])
def test_hdf5_of_other_files_is_not_read(tmp_path, how):
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["x"] = IDS
    path = tmp_path / "SUNRGBD2Dseg.mat"
    with h5py.File(path, "w") as file:
        if how == "virtual":
            layout = h5py.VirtualLayout((4, 6), np.uint8)
            layout[...] = h5py.VirtualSource(str(tmp_path / "secret.h5"), "x", (4, 6))
            file.create_virtual_dataset("x", layout)
        elif how == "storage":
            external = [(str(tmp_path / "secret.h5"), 0, 24)]
            file.create_dataset("x", (4, 6), np.uint8, external=external)
        elif how == "huge":
            file.create_dataset("x", (10**6, 10**6), np.uint8, chunks=(10, 10))
        if how == "link":
            file["SUNRGBD2Dseg"] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "/")
        else:
            references = np.array([[file["x"].ref]], h5py.ref_dtype)
            file.create_dataset("SUNRGBD2Dseg/seglabel", data=references)
    refused(lambda: read_seglabel(path, 0), "SUNRGBD2Dseg.mat cannot be read as")


# Polygons.


def idd(points, **more):
    return {
        "imgWidth": 64,
        "imgHeight": 32,
        "objects": [{"label": "road", "polygon": points}],
    } | more


@pytest.mark.fault("polygons claim a huge image, or lie nowhere", "their file is named")
@pytest.mark.parametrize(
    "content",
    [
        idd([], imgWidth=60000, imgHeight=60000),
        idd([], imgWidth=10**9, imgHeight=10**9),
        idd([], imgWidth=-5),
        '{"imgWidth": NaN, "imgHeight": 32, "objects": []}',
        '{"imgWidth": 1e999, "imgHeight": 32, "objects": []}',
        json.dumps(idd([[0, 0], [1, 0], [1, "far"]])).replace('"far"', "1e400"),
        idd([[0, 0], [10**400, 1], [2, 2]]),
        idd([1, 2, 3]),
        idd([[0, 0], ["a", 1], [2, 2]]),
        idd([], objects={"a": 1}),
        idd([], objects=[3]),
        "[]",
        '{"objects": ' + "[" * 100_000,
    ],
)
def test_polygons_of_impossible_images(tmp_path, content):
    path = write(tmp_path / "a.json", content)
    refused(lambda: draw_polygons(path, "level1"), "a.json")


def supervisely(png: bytes) -> dict:
    bitmap = {"origin": [0, 0], "data": base64.b64encode(zlib.compress(png)).decode()}
    item = {"classTitle": "a", "geometryType": "bitmap", "bitmap": bitmap}
    return {"size": {"height": 4, "width": 6}, "objects": [item]}


@pytest.mark.fault("run lengths or bitmaps hold more than an image", "their file is named")
@pytest.mark.parametrize(
    "name, content",
    [
        ("a.json", supervisely(png(20000, 20000))),
        (
            "c.json",
            {
                "images": [{"id": 1, "file_name": "a.png", "height": 10**6, "width": 10**6}],
                "categories": [{"id": 1, "name": "a"}],
                "annotations": [
                    {
                        "image_id": 1,
                        "category_id": 1,
                        "segmentation": {"size": [10**6, 10**6], "counts": [10**12]},
                    }
                ],
            },
        ),
        (
            "c.xml",
            '<annotations><image name="a.png" width="6" height="4"><mask label="a" left="0" '
            'top="0" rle="9000000000" width="90000" height="100000"/></image></annotations>',
        ),
        (
            "d.xml",
            '<!DOCTYPE a [<!ENTITY b "bbbbbbbbbb"><!ENTITY c "&b;&b;&b;&b;&b;">]>'
            "<annotations>&c;</annotations>",
        ),
        (
            "e.xml",
            '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><annotations>&b;</annotations>',
        ),
    ],
)
def test_bitmaps_beyond_any_image(tmp_path, name, content):
    path = write(tmp_path / name, content)
    read = annotations_of if name != "a.json" else lambda p: annotation_of(p, (4, 6))
    refused(lambda: read(path), name, "cannot be drawn")


@pytest.mark.fault("polygons by number have a huge number", "their folder is named")
def test_yolo_classes_beyond_any_list(tmp_path):
    photo(tmp_path / "images/a.png")
    write(tmp_path / "labels/a.txt", "999999999999 .1 .1 .9 .1 .9 .9\n")
    place = Place(tmp_path, Choice(), "train")
    refused(lambda: labels_of(place), "labels: polygons of class 999999999999")


# Class lists, class maps, lists of samples.


LETTERS = list(itertools.pairwise("abcdefghijklmnopqrstuvwxyz"))


@pytest.mark.fault("YAML with aliases, tags or deep nesting", "it is refused in time")
@pytest.mark.parametrize(
    "text",
    [
        "a: &a [x, x]\n" + "".join(f"{c}: &{c} [*{b}, *{b}]\n" for b, c in LETTERS),
        "a: &a {<<: *a}\n",
        "&a [*a]\n",
        "[" * 100_000,
        "{" * 100_000,
        "? " * 50_000,
        "- " * 20_000,
        "a: 'x" + "y" * 100_000,
        "a: " + "9" * 100_000 + "\n",
        "\ufffe",
        "a: \ud800x".encode("utf-8", "surrogatepass").decode("latin-1"),
    ],
)
def test_yaml_that_would_not_end(tmp_path, text, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "c.yaml", text)
    refused(lambda: class_lists.read_class_list(path), "c.yaml")
    refused(lambda: read_class_map(path, THREE), "c.yaml")
    assert not (tmp_path / "RAN").exists()


@pytest.mark.fault("tags of YAML name code", "they mean nothing")
def test_tags_of_yaml_are_text(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "c.yaml", "- !!python/object/apply:os.system ['touch RAN']\n- car\n")
    refused(lambda: class_lists.read_class_list(path), "c.yaml")
    path = write(tmp_path / "c.yaml", "!!python/object/apply:os.system ['touch RAN']\n")
    assert class_lists.read_class_list(path).names == ("touch RAN",)
    assert not (tmp_path / "RAN").exists()


SLOW = {
    "c.pbtxt": "item { " + "a" * 900_000 + " }",
    "spaces.txt": "a" + " " * 900_000 + "b\n" + "c\n",
    "comments.txt": "# name id\n" * 5000 + "b 1 2 3\n" * 5000,
    "columns.csv": "id," * 100_000 + "label\n" + "1,2\n" * 40_000,
    "quotes.txt": "'\"" * 400_000,
    "signs.txt": "= " * 400_000,
    "rows.json": "[" + ",".join(f'{{"k{i}": 1}}' for i in range(30_000)) + "]",
    "map.yaml": "a: [" + "'*', " * 8000 + "car]\n",
}


@pytest.mark.fault("a class list takes a reader much longer than its size", "it ends in seconds")
@pytest.mark.parametrize("name", SLOW)
def test_time_grows_with_the_size(tmp_path, name):
    path = write(tmp_path / name, SLOW[name])
    start = time.process_time()
    for read in (class_lists.read_class_list, lambda p: read_class_map(p, THREE)):
        with contextlib.suppress(DataError):
            read(path)
    assert time.process_time() - start < 4


FOLDER = {"name": "folder", "classes": "a,b"}
NO_TEXT = {
    "binary": bytes(range(256)) * 4,
    "NUL bytes": b"a\0b.png m.png\n",
    "Cyrillic in an old encoding": "дорога\nнебо\n".encode("cp1251"),
    "half of a UTF-16 letter": b"\xff\xfea\0b",
    "a field of a megabyte": b'"' + b"x" * (1 << 19) + b'","y\n',
    "a name longer than any": b"x" * 5000 + b".png y.png\n",
    "a JSON line that is none": b'{"image": \n',
    "a JSON line of another form": b'[1]\n{"image": {"a": 1}}\n',
    "deep JSON": b'{"image": ' + b"[" * 100_000 + b"\n",
}


@pytest.mark.fault("a list of samples is no text", "the list is named, and the line")
@pytest.mark.parametrize("name", NO_TEXT)
@pytest.mark.parametrize("suffix", [".txt", ".csv", ".jsonl"])
def test_lists_that_are_no_text(tmp_path, name, suffix):
    photo(tmp_path / "images/train/a.png")
    photo(tmp_path / "masks/train/a.png")
    path = write(tmp_path / f"train{suffix}", NO_TEXT[name])
    is_list(path)
    refused(lambda: make_source(data_config(**FOLDER, root=str(tmp_path)), "train"), path.name)


def test_lists_as_windows_writes_them(tmp_path):
    for encoding in ("utf-8-sig", "utf-16"):
        for end in ("\r\n", "\r"):
            text = end.join(["images/a.png masks/a.png", "images/b.png masks/b.png", ""])
            path = write(tmp_path / "train.txt", text.encode(encoding))
            assert [row.image for row in read_list(path)] == ["images/a.png", "images/b.png"]


@pytest.mark.fault("a list for predict begins with a byte-order mark", "it is read")
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le"])
def test_lists_of_predict_with_a_mark(tmp_path, encoding):
    photo(tmp_path / "a.png")
    path = write(tmp_path / "list.txt", f"{tmp_path / 'a.png'}\r\n".encode(encoding))
    (item,) = open_inputs(path).read()
    assert np.shape(item.image) == (4, 6, 3)


@pytest.mark.fault("a file of data is none, or has a gigabyte", "it is refused, unread")
@pytest.mark.parametrize("name", ["c.txt", "c.json", "c.yaml", "c.csv"])
@pytest.mark.parametrize("kind", ["absent", "folder", "pipe", "device", "gigabyte"])
def test_what_is_no_file_of_classes(tmp_path, name, kind):
    path = tmp_path / name
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "gigabyte":
        with path.open("wb") as file:
            file.truncate(1 << 30)
    refused(lambda: class_lists.read_class_list(path), name)
    refused(lambda: read_class_map(path, THREE), name)
    refused(lambda: read_list(path), name)
    refused(lambda: annotation_of(path, (4, 6)), name)
    refused(lambda: draw_polygons(path, "level1"), name)


@pytest.mark.fault("names in data move the cursor or have a megabyte", "messages stay one line")
@pytest.mark.parametrize("name", ["\x1b[31mred", "a\nb", "x" * (1 << 19), "\u202eabc", "\x9b2J"])
def test_names_in_messages_are_printable(tmp_path, name):
    path = write(tmp_path / "c.json", [name, name])
    refused(lambda: class_lists.read_class_list(path), "c.json", "class names occur twice")
    refused(lambda: read_class_map(write(tmp_path / "m.json", {"a": name}), THREE), "m.json")
    content = idd([], objects=[{"label": name, "polygon": [[0, 0], [1, 0], [1, 1]]}])
    path = write(tmp_path / "a.json", content)
    refused(lambda: draw_polygons(path, "level1"), "a.json: label")


# JPEG files that end early.


@pytest.mark.fault("a JPEG file is cut and closed again", "the doctor names it")
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 2}])
@pytest.mark.parametrize("turned", [1, 6])
def test_a_cut_jpeg_is_seen(tmp_path, options, turned):
    exif = Image.Exif()
    exif[0x0112] = turned
    noise = np.random.default_rng(0).integers(0, 256, (8, 9, 3), np.uint8)
    large = np.asarray(Image.fromarray(noise).resize((360, 200)))
    whole = encoded(large, "JPEG", exif=exif, **options)
    path = tmp_path / "a.jpg"
    for cut in (0, 500, 2500):
        write(path, whole if not cut else whole[:-cut] + b"\xff\xd9")
        assert bool(end_of_jpeg(path, read_image(path, exif="apply"))) == bool(cut)


def test_grey_pictures_are_whole(tmp_path):
    grey = np.full((40, 64, 3), 128, np.uint8)
    path = write(tmp_path / "a.jpg", encoded(grey, "JPEG"))
    assert end_of_jpeg(path, read_image(path)) == ""
    assert read_header(path) != NO_HEADER
