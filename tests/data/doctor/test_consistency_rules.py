"""Files that are not made alike are found, and those that are stay unaccused."""

import numpy as np
import pytest
from PIL import Image

from segjax.data.class_lists import read_class_list
from segjax.data.doctor import ERROR, INFO, WARNING, diagnose
from segjax.data.files.headers import Header, read_header
from segjax.data.sets.folder import open_folder
from tests.data.drawn import THREE, TWO, mask, pairs, photo, save

NAMES = "abcdef"
HALVES = [0, 1, 0, 1, 0, 1]  # of a row: two classes


def found(root, classes=TWO, splits=("train",), **options):
    """The findings about the splits of a folder, by code."""
    sources = {split: open_folder(root, split, classes, **options) for split in splits}
    return {f.code: f for f in diagnose(sources).findings}


def image(root, name, split="train"):
    return root / f"images/{split}/{name}.png"


def label(root, name, split="train"):
    return root / f"masks/{split}/{name}.png"


@pytest.fixture
def root(tmp_path):
    """Six pairs that are alike."""
    return pairs(tmp_path, NAMES, ids=HALVES, size=(40, 6))


def test_files_that_are_alike_have_no_finding(root):
    assert {code for code, f in found(root).items() if f.severity != INFO} == set()


@pytest.mark.parametrize(
    "picture, words, severity",
    [
        (Image.new("L", (6, 40), 9), "5 8-bit RGB, 1 8-bit grey", INFO),
        (Image.new("RGBA", (6, 40), 9), "1 8-bit RGBA", INFO),
        (Image.fromarray(np.full((40, 6), 60000, np.uint16)), "1 16-bit grey", WARNING),
    ],
    ids=["grey", "alpha", "deep"],
)
def test_images_of_several_kinds(root, picture, words, severity):
    picture.save(image(root, "c"))
    finding = found(root)["image-kinds"]
    assert words in finding.title
    assert (finding.files, finding.severity) == ((str(image(root, "c")),), severity)


def test_half_of_the_masks_ids_half_0_and_255(root):
    """Of three classes 255 may well be void; of two it is refused (test_masks_of_split.py)."""
    for name in "ace":
        mask(label(root, name), 255 * np.array(HALVES), 40)
    finding = found(root, THREE)["mixed-encodings"]
    assert finding.severity == WARNING
    assert finding.title.startswith("train: 3 of 6 masks hold only 0 and 255, 3 others ids (1)")
    assert "their 360 pixels of 255 are ignored" in finding.title
    assert finding.files == tuple(str(label(root, name)) for name in "ace")
    assert found(root)["mixed-encodings"].severity == ERROR
    assert "mixed-encodings" not in found(root, ignore_ids=()), "that is the remedy"


@pytest.mark.parametrize("ids", [[0, 1, 255, 0, 1, 255], 255], ids=["void beside ids", "all void"])
def test_void_is_no_other_encoding(root, ids):
    mask(label(root, "a"), ids, 40)
    assert "mixed-encodings" not in found(root)


def palette_mask(path, colors):
    picture = Image.fromarray(np.tile(np.uint8(HALVES), (40, 1)))
    picture.putpalette(np.ravel(colors).tolist())
    picture.save(path)


def test_palettes_in_another_order(root):
    black, red = [0, 0, 0], [255, 0, 0]
    for name in NAMES:
        palette_mask(label(root, name), [black, red])
    assert "palette-order" not in found(root)
    palette_mask(label(root, "b"), [red, black])
    finding = found(root)["palette-order"]
    assert finding.files == (str(label(root, "b")),)
    assert "#000000 is id 1, 0 in most files" in finding.found[0]
    palette_mask(label(root, "b"), [[1, 2, 3], [4, 5, 6]])
    assert "palette-order" not in found(root), "other colours for show"


def test_some_masks_in_colours_that_the_list_gives(root):
    (root / "classes.txt").write_text("background 0 0 0\ncrack 255 0 0\n")
    save(label(root, "d"), np.full((40, 6, 3), (255, 0, 0), np.uint8))
    finding = found(root, read_class_list(root / "classes.txt"))["mask-kinds"]
    assert finding.title == "train: 1 of 6 masks hold colours and 5 hold ids"
    assert finding.found == (f"{label(root, 'd')}: 8-bit RGB",)


@pytest.mark.parametrize("highest, bits", [(4095, 12), (1023, 10), (16383, 14), (3000, 12)])
def test_values_of_fewer_bits_in_16(root, highest, bits):
    random = np.random.default_rng(0)
    for name in NAMES:
        values = random.integers(0, highest + 1, (40, 6), np.uint16)
        values[0, 0] = highest
        Image.fromarray(values).save(image(root, name))
    findings = found(root)
    assert f"'--config.data.value_range=(0,{2**bits - 1})'" in findings["value-range"].remedy
    assert findings["value-range"].severity == ERROR
    assert not findings.keys() & {"constant-image", "constant-images"}, "they are no failures"
    Image.fromarray(np.full((40, 6), 65000, np.uint16)).save(image(root, "a"))
    assert "value-range" not in found(root)


def test_sizes_and_shapes(root):
    pairs(root, "gh", ids=1, size=(24, 10))  # as large, of another shape
    finding = found(root)["image-sizes"]
    assert finding.severity == INFO
    assert finding.title.startswith("train: 2 of 8 images are of quite another size or shape")
    pairs(root, "i", ids=1, size=(400, 60))  # ten times the sides
    finding = found(root)["image-sizes"]
    assert (finding.severity, len(finding.files)) == (WARNING, 3)
    assert "sides differ up to 10.0 times" in finding.title


def test_splits_of_other_images(root):
    pairs(root, "uvw", "val", ids=HALVES, size=(40, 6))
    assert "splits-differ" not in found(root, splits=("train", "val"))
    for name in "uvw":
        save(image(root, name, "val"), np.random.default_rng(0).integers(0, 9, (40, 6), np.uint8))
    finding = found(root, splits=("train", "val"))["splits-differ"]
    assert finding.severity == WARNING
    assert finding.found[0] == "most are 8-bit grey, in train 8-bit RGB"
    assert finding.found[1].startswith("their mean is 0.01")


def test_headers_are_read_without_decoding(tmp_path, monkeypatch):
    exif = Image.Exif()
    exif[0x0112] = 6
    late = tmp_path / "late.png"
    photo(late)
    # The chunk may follow the pixels, before the last chunk of 12 bytes.
    data = exif.tobytes().removeprefix(b"Exif\0\0")
    chunk = len(data).to_bytes(4, "big") + b"eXIf" + data + bytes(4)
    content = late.read_bytes()
    late.write_bytes(content[:-12] + chunk + content[-12:])
    jpeg = save(tmp_path / "a.jpg", np.zeros((8, 8, 3), np.uint8), exif=exif)
    np.save(tmp_path / "a.npy", np.zeros((4, 6, 5), np.uint16))
    Image.new("P", (4, 4)).save(tmp_path / "p.png")
    (tmp_path / "bad.png").write_bytes(b"none")
    monkeypatch.setattr(Image.Image, "load", None)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", None)
    header = read_header(late)
    assert (header.format, header.mode, header.bits, header.orientation) == ("PNG", "RGB", 8, 6)
    assert header.size == late.stat().st_size
    assert (read_header(jpeg).format, read_header(jpeg).orientation) == ("JPEG", 6)
    assert (read_header(tmp_path / "a.npy").bits, read_header(tmp_path / "p.png").mode) == (16, "P")
    assert read_header(tmp_path / "bad.png") == Header() == read_header(tmp_path / "none.png")


def test_one_class_no_class_one_colour_one_image(tmp_path):
    def codes(**options):
        return {code: f.severity for code, f in found(tmp_path, **options).items()}

    pairs(tmp_path, NAMES, ids=1)
    assert codes()["one-class-labels"] == ERROR
    assert found(tmp_path)["one-class-labels"].found == ("crack: 144 pixels, 0 are ignored",)
    pairs(tmp_path, "xy", "val", ids=0)
    pairs(tmp_path, NAMES, ids=HALVES)
    assert codes(splits=("train", "val"))["one-class-labels"] == WARNING, "of val"
    for name in NAMES:
        mask(label(tmp_path, name), 255)
    assert codes(classes=THREE)["no-labels"] == ERROR
    pairs(tmp_path, NAMES, ids=HALVES)
    for name in NAMES:
        image(tmp_path, name).write_bytes(image(tmp_path, "a").read_bytes())
    assert codes()["one-image"] == WARNING, "as for a trial on one image"
    mask(label(tmp_path, "a"), [1, 1, 1, 0, 0, 0])
    assert codes()["one-image"] == ERROR
    for number, name in enumerate(NAMES):
        save(image(tmp_path, name), np.full((4, 6, 3), 30 * number, np.uint8))
        if number == 3:
            assert codes()["constant-image"] == WARNING, "four of six"
    assert codes()["constant-images"] == ERROR
