"""Preparation: complete shards or none, the same whoever writes them, and a run that goes on."""

import dataclasses
import json
import os
import sys

import numpy as np
import pytest
import tensorflow_datasets

from segjax.data.fitted import fit_image, fit_label
from segjax.data.prepared import manifest as manifests
from segjax.data.prepared import write as prepare_module
from segjax.data.prepared.manifest import verify
from segjax.data.prepared.write import write_prepared
from segjax.data.sets.folder import open_folder
from segjax.data.sets.prepared import open_prepared
from tests.data.drawn import THREE, Drawn, mask, pairs, uint8


class Varied:
    """Samples of two sizes, noisy images, ids 0..2 and 255; fails at `bad`."""

    classes = THREE

    def __init__(self, length=7, channels=3, bad=None):
        self.length, self.channels, self.bad = length, channels, bad

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        if index == self.bad:
            raise ValueError(f"sample {index} is broken")
        random = np.random.default_rng(index)
        size = (6 + index % 2, 10)
        return {
            "image": random.integers(0, 256, (*size, self.channels), np.uint8),
            "label": random.choice(uint8(0, 1, 2, 255), size),
            "name": f"sample {index}",
        }


class Smooth(Varied):
    def __getitem__(self, index):
        sample = super().__getitem__(index)
        height, width, channels = sample["image"].shape
        ramp = np.add.outer(np.arange(height), 2 * np.arange(width))[..., None]
        return {**sample, "image": np.tile(ramp, channels).astype(np.uint8)}


class Deadly(Varied):
    def __getitem__(self, index):
        if index == 5:
            os._exit(9)  # as the kernel does to who takes all memory
        return super().__getitem__(index)


def prepared(output, sources=None, **options):
    sources = {"train": Varied(7), "val": Varied(2)} if sources is None else sources
    # About two samples a shard.
    options = {"name": "varied", "classes": THREE, "shard_mb": 6e-4, **options}
    return write_prepared(sources, output, **options)


@pytest.mark.versions
@pytest.mark.parametrize(
    "encoding, channels", [("raw", 3), ("raw", 5), ("png", 1), ("png", 3), ("png", 4)]
)
def test_plain_tfds_reads_it_without_tensorflow(tmp_path, encoding, channels):
    sources = {"train": Varied(5, channels), "val": Varied(2, channels)}
    url = "https://example.org/varied"
    about = {"title": "Varied (nobody, 2020)", "licence": "CC0", "url": url}
    manifest = prepared(tmp_path, sources, encoding=encoding, **about)
    assert manifest.folder == tmp_path / "varied" / "1.0.0"
    builder = tensorflow_datasets.builder_from_directory(manifest.folder)
    info = builder.info
    assert (builder.name, str(builder.version)) == ("varied", "1.0.0")
    assert {name: s.num_examples for name, s in info.splits.items()} == {"train": 5, "val": 2}
    assert info.metadata["classes"] == ["road", "car", "sky"]
    assert info.metadata["palette"] == [list(color) for color in THREE.palette]
    assert (info.description, info.homepage) == ("Varied (nobody, 2020)", url)
    assert info.redistribution_info.license == "CC0"
    records = builder.as_data_source("train")
    assert len(records) == 5
    for record, expected in zip(records, sources["train"], strict=False):
        np.testing.assert_array_equal(record["image"], expected["image"])
        np.testing.assert_array_equal(record["segmentation_mask"], expected["label"][..., None])
        assert record["name"].decode() == expected["name"]
    assert "tensorflow" not in sys.modules


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_is_near_the_images_and_has_the_masks_themselves(tmp_path, channels):
    source = Smooth(2, channels)
    manifest = prepared(tmp_path, {"train": source}, encoding="jpeg")
    read = open_prepared(manifest.folder, "train")
    records = tensorflow_datasets.builder_from_directory(manifest.folder).as_data_source("train")
    for expected, sample, record in zip(source, read, records, strict=False):
        assert np.abs(sample["image"] - expected["image"].astype(int)).max() <= 6
        np.testing.assert_array_equal(sample["label"], expected["label"])
        np.testing.assert_array_equal(record["image"], sample["image"])


def test_shards_are_alike_in_length_and_hold_a_record_a_group(tmp_path):
    from array_record.python import array_record_module

    manifest = prepared(tmp_path)
    train = manifest.splits["train"]
    assert [s.samples for s in train.shards] == [1, 2, 2, 2]
    assert train.samples == 7
    assert train.shards[0].file == "varied-train.array_record-00000-of-00004"
    for shard in manifest.shards:
        reader = array_record_module.ArrayRecordReader(str(manifest.path(shard)))
        assert reader.num_records() == shard.samples
        assert "group_size:1," in reader.writer_options_string()
        assert "uncompressed" in reader.writer_options_string()
    assert len(prepared(tmp_path / "b", shard_mb=100).splits["train"].shards) == 1
    assert len(prepared(tmp_path / "c", shard_mb=1e-9).splits["train"].shards) == 7


def test_workers_write_the_same_files(tmp_path):
    alone, calls = prepared(tmp_path / "a"), []
    many = prepared(tmp_path / "b", workers=2, progress=lambda *n: calls.append(n))
    assert many.splits == alone.splits
    for shard in alone.shards:
        assert manifests.sha256(many.path(shard)) == shard.sha256
    done, totals = zip(*calls, strict=True)
    assert totals == (9,) * len(alone.shards)
    assert list(done) == sorted(done)
    assert done[-1] == 9
    with pytest.raises(RuntimeError, match=r"a worker process died, .*with fewer workers"):
        prepared(tmp_path / "c", {"train": Deadly()}, workers=1)
    assert manifests.load(tmp_path / "c" / "varied" / "1.0.0").finished is False


def test_samples_are_fitted_to_a_size_as_a_canvas_does(tmp_path):
    manifest, expected = prepared(tmp_path, size=(5, 8)), Varied()[1]
    assert manifest.size == (5, 8)
    builder = tensorflow_datasets.builder_from_directory(manifest.folder)
    record = builder.as_data_source("train")[1]
    np.testing.assert_array_equal(record["image"], fit_image(expected["image"], (5, 8)))
    label = record["segmentation_mask"][..., 0]
    np.testing.assert_array_equal(label, fit_label(expected["label"], (5, 8)))


def test_a_run_that_broke_goes_on_and_keeps_what_is_done(tmp_path):
    class Broken(Varied):
        def __repr__(self):
            return "Varied"

    with pytest.raises(ValueError, match="sample 5 is broken"):
        prepared(tmp_path, {"train": Broken(7, bad=5)})
    folder = tmp_path / "varied" / "1.0.0"
    half = manifests.load(folder)
    assert not half.finished
    assert [bool(shard.sha256) for shard in half.shards] == [True, True, True, False]
    assert not list(folder.glob("*.part"))
    assert not (folder / "dataset_info.json").exists()  # nor does TFDS take it for complete
    (folder / "varied-train.array_record-00003-of-00004.77.part").write_text("of a killed run")
    times = {path: path.stat().st_mtime_ns for path in folder.glob("*.array_record-*-of-00004")}
    assert len(times) == 3
    calls = []
    complete = prepared(tmp_path, {"train": Broken(7)}, progress=lambda *n: calls.append(n))
    assert calls == [(7, 7)]
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())
    assert complete.finished
    assert not list(folder.glob("*.part"))
    assert complete.shards == prepared(tmp_path / "b", {"train": Broken(7)}).shards


def test_a_shard_that_is_truncated_or_missing_is_written_again_and_no_other(tmp_path, monkeypatch):
    manifest, calls = prepared(tmp_path), []
    for damage in (lambda path: path.unlink(), lambda path: path.write_bytes(b"short")):
        damage(manifest.path(manifest.splits["train"].shards[1]))
        assert prepared(tmp_path, progress=lambda *n: calls.append(n)) == manifest
        assert calls.pop() == (9, 9)
        assert calls == []
    monkeypatch.setattr(prepare_module, "write_shard", None)
    monkeypatch.setattr(prepare_module, "write_tfds_metadata", None)
    assert prepared(tmp_path) == manifest


def test_verify_reads_every_byte(tmp_path):
    manifest, calls = prepared(tmp_path), []
    assert verify(manifest.folder, lambda *n: calls.append(n)) == manifest
    assert calls == [(i + 1, 5) for i in range(5)]
    bad = manifest.path(manifest.splits["train"].shards[2])
    content = bytearray(bad.read_bytes())
    content[len(content) // 2] ^= 1
    bad.write_bytes(content)
    with pytest.raises(ValueError, match=rf"1 of 5 shards are not as .*: {bad.name}; delete them"):
        verify(tmp_path)


@pytest.mark.parametrize(
    "change, named",
    [
        ({"encoding": "png"}, "encoding"),
        ({"size": (4, 4)}, "size"),
        ({"classes": dataclasses.replace(THREE, names=("road", "car", "air"))}, "classes"),
        ({"sources": {"train": Varied(7)}}, "split val"),
        ({"sources": {"train": Varied(8), "val": Varied(2)}}, "split train"),
        ({"shard_mb": 50}, "split train"),
    ],
)
def test_other_data_are_not_mixed_with_those_that_are_there(tmp_path, change, named):
    prepared(tmp_path)
    with pytest.raises(ValueError, match=rf"1\.0\.0 holds a preparation of .*{named}.*; use an"):
        prepared(tmp_path, **change)
    assert prepared(tmp_path, version="1.1.0", **change).version == "1.1.0"


def test_a_source_whose_files_changed_is_another_and_other_files_are_left_alone(tmp_path):
    sources = {"train": open_folder(pairs(tmp_path / "files", "a"), "train", THREE)}
    first = prepared(tmp_path / "out", sources)
    assert prepared(tmp_path / "out", sources) == first
    mask(tmp_path / "files/masks/train/a.png", ids=np.arange(24).reshape(4, 6) % 3)
    with pytest.raises(ValueError, match="they differ in: split train"):
        prepared(tmp_path / "out", sources)
    (tmp_path / "varied" / "1.0.0").mkdir(parents=True)
    (tmp_path / "varied" / "1.0.0" / "thesis.tex").write_text("")
    with pytest.raises(ValueError, match=r"holds other files \(thesis\.tex\); use another output"):
        prepared(tmp_path)


FIVE, FOUR = Varied(channels=5), Varied(channels=4)
WIDE = Drawn([uint8([0, 1])], image=np.zeros((1, 3, 3), np.uint8))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"name": "My Data"}, r"name='My Data'; use lower-case letters"),
        ({"version": "1"}, r"version='1'; use three numbers"),
        ({"size": (5,)}, r"size=\(5,\); use \(height, width\)"),
        ({"workers": -1}, r"workers=-1"),
        ({"shard_mb": 0}, r"shard_mb=0"),
        ({"encoding": "gif"}, r"encoding='gif' is unknown; use raw or png or jpeg"),
        ({"sources": {}}, r"there are no splits"),
        ({"sources": {"train[:80%]": Varied()}}, r"split 'train\[:80%\]'; use a name of"),
        ({"sources": {"train": Varied(0)}}, r"split 'train' is empty"),
        (
            {"sources": {"a": FIVE}, "encoding": "png"},
            r"hold 5 channels; use encoding='raw'",
        ),
        (
            {"sources": {"a": FOUR}, "encoding": "jpeg"},
            r"encoding='jpeg' cannot hold 4 channels",
        ),
        ({"sources": {"a": Varied(), "b": FOUR}}, r"has 4 channels, the first .* 3"),
        ({"sources": {"train": Drawn([uint8([0, 3])])}}, r"drawn 0: bad ids 3 \(1 pixels\)"),
        ({"sources": {"train": WIDE}}, r"label is uint8 \[1, 2\]; use uint8 \[1, 3\], the image's"),
    ],
)
def test_sources_and_options_that_will_not_do(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        prepared(tmp_path, **options)


def test_a_manifest_is_read_as_it_was_written(tmp_path):
    manifest = prepared(tmp_path, size=(4, 5), command="python launch.py --mode=prepare")
    assert manifests.load(manifest.folder) == manifest
    # The ids of the original masks stay; they are no other preparation.
    raw = dataclasses.replace(manifest, classes=dataclasses.replace(THREE, ids=(7, 300, 0)))
    raw.save()
    assert manifests.load(manifest.folder) == raw
    assert manifests.differences(manifest, raw) == []
    path = manifest.folder / manifests.FILE
    values = json.loads(path.read_text())
    for broken in ("", "[]", json.dumps({**values, "format": 2}), json.dumps({"format": 1})):
        path.write_text(broken)
        with pytest.raises(ValueError, match=r"segjax\.json is not a manifest of prepared data"):
            manifests.load(manifest.folder)
