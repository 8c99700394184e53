"""The command predict on what users give it: folders, broken files, odd images, a video."""

import dataclasses
import io
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tifffile
from PIL import Image

from configs import base
from segjax import config as configs
from segjax.commands.predict import UnreadableInputs, predict
from segjax.console import Console
from segjax.data.class_lists import read_class_list
from segjax.data.classes import from_names, in_words
from segjax.data.files.ids import listed_ids
from segjax.data.files.windowed import WindowedImage
from segjax.inference import inputs, video
from segjax.models import build
from segjax.training.checkpoint import CheckpointStore


def quiet(terminal=False):
    return Console(file=io.StringIO(), width=100, force_terminal=terminal)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory, toy):
    """A run that never trained: its config, its classes, and two checkpoints."""
    folder = tmp_path_factory.mktemp("run")
    config = base.get_config()
    config.model.name, config.model.features = "toy", 2
    config.data.image_size = (32, 48)
    config.data.mean, config.data.std = (0.5,) * 3, (0.25,) * 3
    configs.save(config, folder)
    configs.save_classes(from_names(["a", "b", "c"]), folder)
    model = build(config.model, 3)
    image = jnp.zeros((1, 32, 48, 3))
    variables = jax.jit(lambda key: model.init(key, image, train=False))(jax.random.key(0))
    with CheckpointStore(folder) as store:
        for step in (1, 2):
            store.save(step, dict(variables), {})
    return folder


@pytest.fixture
def pictures(tmp_path):
    """RGB, grey, RGBA and 16-bit files, and two that are broken."""
    folder = tmp_path / "in"
    folder.mkdir()
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, (40, 50)).astype(np.uint8)
    Image.fromarray(np.dstack([grey] * 3)).save(folder / "rgb.png")
    Image.fromarray(grey).save(folder / "grey.png")
    Image.fromarray(np.dstack([grey] * 3 + [255 - grey])).save(folder / "rgba.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(folder / "sixteen.png")
    (folder / "broken.png").write_bytes((folder / "rgb.png").read_bytes()[:200])
    (folder / "text.jpg").write_text("no image")
    return folder


def test_broken_files_are_skipped_and_listed_at_the_end(workdir, pictures, tmp_path):
    console = quiet()
    with pytest.raises(UnreadableInputs) as error:
        predict(workdir, pictures, tmp_path / "out", console=console)
    assert isinstance(error.value, ValueError)
    assert "2 of 6 images could not be read and were skipped" in str(error.value)
    assert "broken.png cannot be read" in str(error.value)
    assert "text.jpg cannot be read" in str(error.value)
    assert "4 image(s): masks, colors and overlays in" in console.file.getvalue()
    masks = {path.stem: np.asarray(Image.open(path)) for path in (tmp_path / "out/masks").iterdir()}
    assert sorted(masks) == ["grey", "rgb", "rgba", "sixteen"]
    for name, mask in masks.items():  # all four hold the same picture
        np.testing.assert_array_equal(mask, masks["rgb"], err_msg=name)
    assert masks["rgb"].shape == (40, 50)
    assert Image.open(tmp_path / "out/overlays/grey.png").size == (50, 40)


@pytest.mark.parametrize("inference", ["whole", "slide"])
def test_ways_and_a_list(workdir, pictures, tmp_path, inference):
    (pictures / "list.txt").write_text("rgb.png\ngrey.png\n")
    console = quiet(terminal=True)
    options = {"inference": inference, "flip": True, "batch_size": 2}
    masks = predict(workdir, pictures / "list.txt", tmp_path / "out", console=console, **options)
    assert [mask.name for mask in masks] == ["rgb.png", "grey.png"]
    assert Image.open(masks[0]).size == (50, 40)
    assert "rgb.png (40x50): " in console.file.getvalue()


def test_large_tiffs_are_predicted_by_window(workdir, tmp_path, monkeypatch):
    """The same labels as of the image in memory; one that is damaged inside is skipped."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (60, 90, 3)).astype(np.uint8)
    (tmp_path / "in").mkdir()
    options = dict(photometric="rgb", tile=(16, 16), compression="zlib")
    tifffile.imwrite(tmp_path / "in/good.tif", image, **options)
    Image.fromarray(image).save(tmp_path / "in/same.png")
    content = bytearray((tmp_path / "in/good.tif").read_bytes())
    content[-300:] = bytes(300)
    (tmp_path / "in/torn.tif").write_bytes(content)
    monkeypatch.setattr(inputs, "WINDOWED", 1000)
    monkeypatch.setattr(WindowedImage, "__array__", None)  # never as a whole
    with pytest.raises(UnreadableInputs, match=r"1 of 3 images .*\n.*torn\.tif"):
        predict(workdir, tmp_path / "in", tmp_path / "out", inference="slide", console=quiet())
    for kind in ("masks", "colors", "overlays"):
        whole = np.asarray(Image.open(tmp_path / f"out/{kind}/same.png"))
        np.testing.assert_array_equal(tifffile.imread(tmp_path / f"out/{kind}/good.tif"), whole)


def test_the_previous_checkpoint_is_used(workdir, pictures, tmp_path):
    """The newest is damaged: a warning says so, and the other one predicts."""
    broken = shutil.copytree(workdir, tmp_path / "run")
    shutil.rmtree(broken / "checkpoints" / "latest" / "2" / "state")
    with pytest.warns(UserWarning, match=r"latest/2 cannot be read.*that of step 1 is used"):
        masks = predict(broken, pictures / "rgb.png", console=quiet())
    assert masks == [broken / "predictions" / "masks" / "rgb.png"]


def test_a_run_without_a_checkpoint(workdir, pictures, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    for name in ("config.json", "classes.json"):
        shutil.copy(workdir / name, run)
    with pytest.raises(ValueError, match="has no checkpoints yet; train first"):
        predict(run, pictures, console=quiet())
    (run / "checkpoints").mkdir()
    with pytest.raises(ValueError, match="checkpoints is empty; train first"):
        predict(run, pictures, console=quiet())


@pytest.fixture
def with_ids(workdir, tmp_path):
    """A function that gives the run's classes raw ids, in a copy of its folder."""

    def run(ids):
        copy = shutil.copytree(workdir, tmp_path / f"run{ids}")
        classes = dataclasses.replace(configs.load_classes(configs.load(copy), copy), ids=ids)
        configs.save_classes(classes, copy)
        return copy

    return run


@pytest.mark.parametrize("ids", [(7, 26, 0), (1000, 0, 2000)])
def test_masks_hold_the_ids_of_the_data_set(with_ids, pictures, tmp_path, ids):
    run, console = with_ids(ids), quiet()
    (mask,) = predict(run, pictures / "rgb.png", tmp_path / "raw", console=console)
    (train,) = predict(run, pictures / "rgb.png", tmp_path / "train", ids="train", console=console)
    labels, raw = np.asarray(Image.open(train)), np.asarray(Image.open(mask))
    assert (labels.dtype, labels.max() < 3) == (np.uint8, True)
    np.testing.assert_array_equal(raw, np.array(ids)[labels])
    assert Image.open(mask).mode == ("L" if max(ids) < 256 else "I;16")
    said = f"masks hold ids {in_words(ids)}: {tmp_path / 'raw' / 'legend.csv'}"
    assert said in console.file.getvalue().replace("\n", "")
    # The masks read back by either file are the labels.
    for folder, file in (("raw", "classes.json"), ("raw", "legend.csv"), ("train", "classes.json")):
        listed = read_class_list(tmp_path / folder / file)
        assert listed.classes.names == ("a", "b", "c")
        holds = np.asarray(Image.open(tmp_path / folder / "masks/rgb.png"))
        np.testing.assert_array_equal(listed_ids(listed).labels_of(holds, file), labels)
    lines = (tmp_path / "raw" / "legend.csv").read_text().splitlines()
    assert lines[0] == "id,name,r,g,b,train_id"
    assert [line.split(",")[::5] for line in lines[1:]] == [
        [str(i), str(k)] for k, i in enumerate(ids)
    ]


def test_a_run_is_no_output_and_ids_are_raw_or_train(workdir, pictures):
    with pytest.raises(ValueError, match=r"--output=.* is the folder of a run; use another one"):
        predict(workdir, pictures, workdir, console=quiet())
    with pytest.raises(ValueError, match="--ids=color; use raw or train"):
        predict(workdir, pictures, console=quiet(), ids="color")


class FakeFrames:
    """In place of opencv, which is no requirement: three frames, and a film that is counted."""

    frames = tuple(np.full((20, 30, 3), level, np.uint8) for level in (10, 120, 250))
    film = ()

    def __init__(self, path, rate):
        FakeFrames.film, self.works = (pathlib.Path(path).name, rate, []), True

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def add(self, frame):
        self.film[2].append(frame.shape)


def test_a_video(with_ids, tmp_path, monkeypatch):
    monkeypatch.setattr(video, "probe", lambda path: (3, 12.5))
    monkeypatch.setattr(video, "read_frames", lambda path: iter(FakeFrames.frames))
    monkeypatch.setattr("segjax.commands.predict.VideoWriter", FakeFrames)
    (tmp_path / "a.mp4").write_bytes(b"film")
    output = tmp_path / "out"
    masks = predict(with_ids((3, 4, 5)), tmp_path / "a.mp4", output, batch_size=2, console=quiet())
    assert {3, 4, 5} >= {*np.unique(Image.open(masks[0])).tolist()}
    assert (output / "classes.json").is_file()
    assert [mask.name for mask in masks] == [f"frame_00000{i}.png" for i in range(3)]
    assert FakeFrames.film == ("overlays.mp4", 12.5, [(20, 30, 3)] * 3)
    assert Image.open(masks[2]).size == (30, 20)
    assert not (tmp_path / "out" / "colors").exists()


def test_a_real_video(workdir, tmp_path):
    pytest.importorskip("cv2", reason="opencv-python-headless is not installed")
    with video.VideoWriter(tmp_path / "a.mp4", 5.0) as writer:
        for frame in FakeFrames.frames:
            writer.add(frame)
    console = quiet()
    masks = predict(workdir, tmp_path / "a.mp4", tmp_path / "out", console=console)
    assert len(masks) == 3
    assert len(list(video.read_frames(tmp_path / "out" / "overlays.mp4"))) == 3
    assert "3 frame(s): masks and overlays.mp4 in" in console.file.getvalue()
