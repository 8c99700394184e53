"""The inputs of predict: images, folders, lists, videos."""

import pathlib
import sys

import numpy as np
import pytest
from PIL import Image

from segjax.inference import video
from segjax.inference.inputs import open_inputs, output_names


@pytest.fixture
def images(tmp_path):
    """a.png, b.jpg and sub/a.png, of growing size, and a broken c.png."""
    for index, name in enumerate(("a.png", "b.jpg", "sub/a.png")):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4 + index, 6, 3), 40 * index, np.uint8)).save(path)
    (tmp_path / "in" / "c.png").write_bytes((tmp_path / "in" / "a.png").read_bytes()[:40])
    return tmp_path / "in"


def test_folder(images):
    inputs = open_inputs(images)
    assert (inputs.total, inputs.frames_per_second) == (4, None)
    found = list(inputs.read())
    assert [item.name for item in found] == ["a", "b", "c", "sub/a"]
    assert [item.image is None for item in found] == [False, False, True, False]
    assert "c.png cannot be read" in found[2].problem
    assert found[3].image.shape == (6, 6, 3)
    assert [item.name for item in inputs.read()] == ["a", "b", "c", "sub/a"]  # once more
    for ahead in (1, 2, 9):  # decoded in threads before their use
        assert [item.problem for item in inputs.read(ahead)] == [item.problem for item in found]


def test_one_file(images):
    (item,) = open_inputs(images / "b.jpg").read()
    assert (item.name, item.image.shape) == ("b", (5, 6, 3))


def test_list(images, tmp_path):
    """Paths are relative to the list; comments, blank lines and repetitions are ignored."""
    listing = images / "some.txt"
    outside = tmp_path / "elsewhere.png"
    Image.fromarray(np.zeros((3, 3), np.uint8)).save(outside)
    lines = ["# mine", "sub/a.png", "", "  a.png ", "a.png", "gone.png", str(outside)]
    listing.write_text("\n".join(lines))
    found = list(open_inputs(listing).read())
    assert [item.name for item in found[:3]] == ["sub/a", "a", "gone"]
    assert not pathlib.Path(found[3].name).is_absolute()
    assert found[3].name.endswith("elsewhere")
    assert [item.image is None for item in found] == [False, False, True, False]
    listing.write_text("# nothing\n\n")
    with pytest.raises(ValueError, match=r"some.txt names no image; use one path per line"):
        open_inputs(listing)


def test_names_are_unique_and_stay_inside(tmp_path):
    paths = [tmp_path / "x" / name for name in ("a.png", "a.jpg", "b.png", "../y/a.png")]
    names = output_names(paths, tmp_path / "x")
    assert names[:3] == ["a.png", "a.jpg", "b"]
    assert ".." not in pathlib.Path(names[3]).parts
    assert names[3].endswith("y/a")


def test_nothing_of_the_kind(images, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.md").write_text("x")
    with pytest.raises(ValueError, match="empty holds no images"):
        open_inputs(tmp_path / "empty")
    with pytest.raises(ValueError, match="nowhere does not exist"):
        open_inputs(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"notes.md is no image, .* use an image \(.bmp"):
        open_inputs(tmp_path / "notes.md")


def test_video_without_opencv(tmp_path, monkeypatch):
    (tmp_path / "a.mp4").write_bytes(b"x")
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ValueError, match="use `pip install opencv-python-headless`, or a folder"):
        open_inputs(tmp_path / "a.mp4")
    with pytest.raises(ValueError, match=r"is a video, but data.channels=4; use images of 4"):
        open_inputs(tmp_path / "a.mp4", 4)


def test_frames_there_and_back(tmp_path):
    """Frames that opencv writes and reads keep colour and order; other files are refused."""
    pytest.importorskip("cv2", reason="opencv-python-headless is not installed")
    path = tmp_path / "a.mp4"
    with video.VideoWriter(path, 5.0) as writer:
        for level in (60, 120, 240):
            frame = np.zeros((32, 64, 3), np.uint8)
            frame[..., 0] = level
            writer.add(frame)
    assert writer.works
    inputs = open_inputs(path)
    assert (inputs.total, inputs.frames_per_second) == (3, 5.0)
    found = list(inputs.read())
    assert [item.name for item in found] == ["frame_000000", "frame_000001", "frame_000002"]
    for item, level in zip(found, (60, 120, 240), strict=True):
        assert item.image.shape == (32, 64, 3)
        np.testing.assert_allclose(item.image.mean((0, 1)), (level, 0, 0), atol=12)
    (tmp_path / "b.mp4").write_bytes(b"no video" * 99)
    with pytest.raises(ValueError, match=r"b.mp4 cannot be opened as a video"):
        open_inputs(tmp_path / "b.mp4")


def test_files_that_are_left_are_said_and_frames_are_named(images):
    frames = [Image.new("RGB", (6, 4), colour) for colour in ("red", "blue")]
    frames[0].save(images / "anim.gif", save_all=True, append_images=frames[1:])
    for name in ("x.heic", "sub/y.HEIC", "z.dcm", "a.pgw", "a.png.aux.xml"):
        (images / name).write_bytes(b"?")
    inputs = open_inputs(images)
    assert inputs.note == "3 file(s) of other types were left: 2 .heic, 1 .dcm"
    found = {item.name: item for item in inputs.read()}
    assert found["anim"].origin.endswith("anim.gif (the first of 2 frames)")
    assert (found["anim"].image == (255, 0, 0)).all()
    assert open_inputs(images / "sub").note == "1 file(s) of other types were left: 1 .heic"


def test_few_bits_in_16_need_a_range(tmp_path):
    values = np.linspace(0, 4095, 24).reshape(4, 6).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    (item,) = open_inputs(tmp_path / "a.png").read()
    assert item.image is None
    assert "a.png: samples of 16 bits hold values up to 4095" in item.problem
    assert "--config.data.value_range=(0,4095)" in item.problem
    (item,) = open_inputs(tmp_path / "a.png", value_range=((0, 4095),)).read()
    assert (item.image.min(), item.image.max()) == (0, 255)
    (item,) = open_inputs(tmp_path / "a.png", value_range=((0, 65535),)).read()
    assert item.image.max() == 16


def test_photos_are_turned_unless_the_run_did_not(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    Image.new("RGB", (6, 4)).save(tmp_path / "a.jpg", exif=exif)
    for option, size in (("auto", (6, 4)), ("apply", (6, 4)), ("ignore", (4, 6))):
        (item,) = open_inputs(tmp_path, exif=option).read()
        assert item.image.shape[:2] == size
