"""Predictions of GeoTIFFs as GeoTIFFs of the same place, and of other images as PNG."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from segjax.data.files.geo import GEO_TAGS, NODATA_TAG
from segjax.inference import inputs as inputs_module
from segjax.inference.inputs import Input, open_inputs
from segjax.inference.masks_out import Rows, mark_void, void_id, write_picture
from tests.data.drawn import save

RGB = np.random.default_rng(0).integers(1, 256, (300, 270, 3)).astype(np.uint8)
LABEL = np.random.default_rng(1).integers(0, 4, (300, 270)).astype(np.uint8)
# Half a metre a pixel from (440720, 3751320), in UTM zone 11N on WGS 84: GeoTIFF's own example.
KEYS = (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32611)
PLACE = [
    (33550, 12, 3, (0.5, 0.5, 0.0), True),
    (33922, 12, 6, (0.0, 0.0, 0.0, 440720.0, 3751320.0, 0.0), True),
    (34735, 3, len(KEYS), KEYS, True),
    (34737, 2, 0, "WGS 84 / UTM zone 11N|", True),
]
TRANSFORM = [(34264, 12, 16, (0.5, 0, 0, 9.0, 0, -0.5, 0, 7.0, *[0.0] * 7, 1.0), True)]


def nodata(text):
    return (NODATA_TAG, 2, 0, text, True)


def geotiff(path, values=RGB, tags=PLACE, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    photometric = {"photometric": "rgb"} if values.ndim == 3 else {}
    tifffile.imwrite(path, values, extratags=tags, metadata=None, **photometric, **options)
    return path


def only(path, channels=3):
    (item,) = open_inputs(path, channels).read()
    assert item.image is not None, item.problem
    return item


def geo_of(path):
    with tifffile.TiffFile(path) as file:
        tags = file.pages[0].tags
        return {code: tags[code].value for code in GEO_TAGS if code in tags}


@pytest.mark.parametrize("tags", [PLACE, TRANSFORM])
@pytest.mark.parametrize("windowed", [False, True])
@pytest.mark.parametrize("shape", ["labels", "colours"])
def test_the_tags_of_place_come_out_as_they_went_in(tmp_path, monkeypatch, tags, windowed, shape):
    monkeypatch.setattr(inputs_module, "WINDOWED", 10 if windowed else 2**26)
    path = geotiff(tmp_path / "in/a.tif", tags=tags, tile=(64, 64), compression="zlib")
    item = only(path)
    np.testing.assert_array_equal(item.image[0:300], RGB)
    picture = LABEL if shape == "labels" else RGB
    out = write_picture(tmp_path / "masks", item, Rows.of(picture), nodata=255)
    assert out == tmp_path / "masks/a.tif"
    np.testing.assert_array_equal(tifffile.imread(out), picture)
    np.testing.assert_array_equal(np.asarray(Image.open(out)), picture)
    assert geo_of(out) == geo_of(path) == {tag[0]: tag[3] for tag in tags}
    with tifffile.TiffFile(out) as file:
        assert NODATA_TAG not in file.pages[0].tags


@pytest.mark.parametrize("windowed", [False, True])
@pytest.mark.parametrize("kind", ["0", "nan", "alpha"])
def test_pixels_without_data_are_255(tmp_path, monkeypatch, windowed, kind):
    monkeypatch.setattr(inputs_module, "WINDOWED", 10 if windowed else 2**26)
    values, tags, options = RGB.copy(), PLACE, {}
    if kind == "alpha":
        values = np.dstack([values, np.full(LABEL.shape, 255, np.uint8)])
        options = {"extrasamples": ["unassalpha"]}
    else:
        values = values if kind == "0" else (values / 255).astype(np.float32)
        tags = [*PLACE, nodata(kind)]
    values[250:, :40] = np.nan if kind == "nan" else 0
    values[0, 0, 0] = 0  # of one band alone: data
    item, label = only(geotiff(tmp_path / "a.tif", values, tags, **options)), LABEL.copy()
    mark_void(item, label)
    assert (label[250:, :40] == 255).all()
    kept = np.ones(LABEL.shape, bool)
    kept[250:, :40] = False
    np.testing.assert_array_equal(label[kept], LABEL[kept])
    with tifffile.TiffFile(write_picture(tmp_path, item, label, nodata=255)) as file:
        assert file.pages[0].tags[NODATA_TAG].value == "255"


def test_the_id_of_pixels_without_data_is_no_class():
    assert (void_id((0, 1)), void_id((0, 255)), void_id((255, 254, 7))) == (255, 254, 253)
    label = np.zeros((2, 3), np.uint8)
    mark_void(Input("a", "a", None, void=lambda rows: np.eye(2, 3, dtype=bool)[rows]), label, 254)
    np.testing.assert_array_equal(label, np.eye(2, 3) * 254)


def test_other_images_are_png_with_their_world_files(tmp_path):
    for name, world in (("a.jpg", ".jgw"), ("b.png", ".PGW"), ("c.tif", ".tfw"), ("d.png", "")):
        path = save(tmp_path / "in" / name, RGB)
        if world:
            path.with_suffix(world).write_text("0.5\n0\n0\n-0.5\n9\n7\n")
            path.with_suffix(".prj").write_text("PROJCS")
        out = write_picture(tmp_path / "out", only(path), LABEL, nodata=255)
        assert out == tmp_path / f"out/{path.stem}.png"
        np.testing.assert_array_equal(np.asarray(Image.open(out)), LABEL)
        assert out.with_suffix(".pgw").is_file() == bool(world)
        assert out.with_suffix(".prj").is_file() == bool(world)


def test_a_geotiff_is_never_turned(tmp_path):
    tags = [*PLACE, (274, 3, 1, 6, True)]
    assert only(geotiff(tmp_path / "a.tif", tags=tags)).image.shape == RGB.shape


def test_rows_that_are_made_as_they_are_written(tmp_path):
    asked = []

    def read(rows):
        asked.append((rows.start, rows.stop))
        return LABEL[rows]

    item = Input("a", "a", RGB, tiff=True)
    out = write_picture(tmp_path, item, Rows(LABEL.shape, read))
    np.testing.assert_array_equal(tifffile.imread(out), LABEL)
    assert asked == [(0, 256), (256, 300)]


@pytest.mark.slow
def test_rasterio_sees_the_same_place(tmp_path):
    rasterio = pytest.importorskip("rasterio")
    path = geotiff(tmp_path / "in.tif", tags=[*PLACE, nodata("0")])
    out = write_picture(tmp_path / "out", only(path), LABEL, nodata=255)
    with rasterio.open(path) as before, rasterio.open(out) as after:
        assert (after.transform, after.crs) == (before.transform, before.crs)
        assert after.nodata == 255
