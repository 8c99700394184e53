"""Prepared data sets that were damaged, or made to break their reader."""

import json
import shutil
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

from segjax.data.datasets import make_source
from segjax.data.prepared import manifest as manifests
from segjax.data.prepared.write import write_prepared
from segjax.data.sets.prepared import open_prepared
from tests.data.drawn import THREE, Drawn, data_config
from tests.faults.damaged import IDS, RGB, encoded, refused, write

# Nothing that a data set names is imported.


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
    "template",
    ["../{SPLIT}", "/etc/passwd", "{SPLIT:999999999}", "{SPLIT.x}", "a" * 5000, "{SPLIT}" * 99],
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
