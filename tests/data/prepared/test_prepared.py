"""`data.name=prepared`: the samples that were prepared, and messages where they are not there."""

import dataclasses
import pickle
import shutil

import numpy as np
import pytest

from configs import base
from segjax.data.datasets import class_table, make_source
from segjax.data.doctor import ERROR, diagnose_config
from segjax.data.prepared import manifest as manifests
from segjax.data.prepared.write import write_prepared
from segjax.data.sets.folder import open_folder
from segjax.data.sets.prepared import open_prepared
from tests.data.drawn import THREE, data_config, mask, pairs


@pytest.fixture(scope="module", params=["raw", "png"])
def data(request, tmp_path_factory):
    """(sources, the folder they are prepared in)."""
    root, random = tmp_path_factory.mktemp(request.param), np.random.default_rng(0)
    for split in ("train", "val"):
        pairs(root / "files", "01234", split, size=(8, 12))
        for k in range(5):
            ids = random.integers(0, 3, (8, 12))
            ids[0, :k] = 255
            mask(root / "files" / "masks" / split / f"{k}.png", ids, 8, 12)
    sources = {split: open_folder(root / "files", split, THREE) for split in ("train", "val")}
    command = "python launch.py --mode=prepare --workdir=toy"
    options = {"encoding": request.param, "shard_mb": 8e-4, "command": command}
    write_prepared(sources, root / "out", name="toy", classes=THREE, **options)
    return sources, root / "out"


@pytest.fixture
def own(data, tmp_path):
    """A copy of the prepared data that a test may damage."""
    return shutil.copytree(data[1], tmp_path / "out")


def config(root, **options):
    return data_config(name="prepared", root=str(root), **options)


def test_samples_and_classes_are_those_of_the_sources(data):
    sources, root = data
    assert class_table(config(root)) == THREE
    for split, source in sources.items():
        prepared = make_source(config(root), split)
        assert prepared.classes == THREE
        assert len(prepared) == len(source) == 5
        for expected, sample in zip(source, prepared, strict=True):
            assert sample["name"] == expected["name"]
            for name in ("image", "label"):
                assert sample[name].dtype == np.uint8
                np.testing.assert_array_equal(sample[name], expected[name])
    with pytest.raises(IndexError, match="has no sample 5"):
        prepared[5]
    with pytest.raises(IndexError):
        prepared[-1]


def test_it_pickles_without_open_files_and_reads_where_it_arrives(data):
    source = open_prepared(data[1], "train")
    closed = pickle.dumps(source)
    expected = source[3]
    assert pickle.dumps(source) == closed
    np.testing.assert_array_equal(pickle.loads(closed)[3]["label"], expected["label"])


def test_its_text_names_the_samples_and_not_where_they_lie(own, data):
    source = open_prepared(own, "train")
    for root in (data[1], own / "toy", own / "toy" / "1.0.0"):  # the folder, or one above it
        assert repr(source) == repr(open_prepared(root, "train"))
    assert repr(source).startswith("Prepared(toy 1.0.0, split='train', samples=5, content=")
    assert repr(source)[:-20] != repr(open_prepared(own, "val"))[:-20]
    shards = source.manifest.splits["train"].shards
    other = source.manifest.with_shard("train", 1, dataclasses.replace(shards[1], sha256="0" * 64))
    assert repr(dataclasses.replace(source, manifest=other)) != repr(source)


def test_roots_splits_and_channels_that_will_not_do(own, tmp_path):
    (tmp_path / "a" / "images").mkdir(parents=True)
    shutil.copytree(own / "toy" / "1.0.0", tmp_path / "two" / "toy" / "1.0.0")
    shutil.copytree(own / "toy" / "1.0.0", tmp_path / "two" / "toy" / "1.1.0")
    for options, message in (
        ({"root": tmp_path / "a"}, r"no prepared data \(<name>/<version>/segjax\.json.*: images;"),
        ({"root": tmp_path / "absent"}, r"data\.root=.*absent is not an existing folder; use"),
        ({"root": ""}, r"data\.root is empty; use --config\.data\.root="),
        ({"root": tmp_path / "two"}, r"several data sets: toy/1\.0\.0, toy/1\.1\.0; use one"),
        ({"channels": 4}, r"data\.channels=4, but images in .* have 3; use data\."),
    ):
        with pytest.raises(ValueError, match=message):
            make_source(config(**{"root": own, **options}), "train")
    with pytest.raises(ValueError, match=r"split 'test' is not in .*1\.0\.0, which has train, val"):
        make_source(config(own), "test")


def test_a_preparation_that_did_not_end(own):
    manifest = manifests.find(own)
    shard = manifest.splits["train"].shards[0]
    half = manifest.with_shard("train", 0, dataclasses.replace(shard, bytes=0, sha256=""))
    dataclasses.replace(half, finished=False).save()
    total = len(manifest.shards)
    message = (
        rf"1\.0\.0 is unfinished: {total - 1} of {total} shards are complete; "
        r"use python launch\.py --mode=prepare --workdir=toy \("
    )
    with pytest.raises(ValueError, match=message):
        open_prepared(own, "train")


def test_shards_that_are_truncated_or_missing(own):
    manifest = manifests.find(own)
    shard = manifest.splits["train"].shards[0]
    path = manifest.path(shard)
    path.write_bytes(path.read_bytes()[:1000])
    message = rf"{path.name} is 1000 bytes, not {shard.bytes} bytes; use python launch\.py --mode"
    with pytest.raises(ValueError, match=message):
        open_prepared(own, "train")
    path.unlink()
    with pytest.raises(ValueError, match=rf"{path.name} is missing, not {shard.bytes} bytes"):
        open_prepared(own, "train")
    assert len(open_prepared(own, "val")) == 5  # the other split is complete


def test_the_doctor_finds_a_shard_that_has_changed(own):
    config = base.get_config()
    config.data.name, config.data.root, config.train.batch_size = "prepared", str(own), 1
    assert not diagnose_config(config).of(ERROR)
    manifest = manifests.find(own)
    path = manifest.path(manifest.splits["val"].shards[0])
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    (finding,) = diagnose_config(config, ["train"]).of(ERROR)
    assert finding.code == "changed-shard"
    assert path.name in finding.found[0]
    assert finding.remedy.startswith("delete them and use python launch.py --mode=prepare")
