import pickle

import h5py
import numpy as np
import pytest
import scipy.io
from PIL import Image

from segjax.data.datasets import make_source
from segjax.data.sets.sunrgbd import open_sunrgbd
from tests.data.drawn import data_config, mask, photo, uint8

LABELS = "sunrgbd_train_test_labels"


def write_pngs(root, first_train=1):
    for number in (1, 2, 5050, 5051, 5052, 10335):
        mask(root / LABELS / f"img-{number:06d}.png", [[0, number % 37 + 1]], 1, 2)
    for number in (1, 2, 5050):
        photo(root / f"SUNRGBD-test_images/img-{number:06d}.jpg", 1, 2)
    for number in (1, 2, 5285):
        photo(root / f"SUNRGBD-train_images/img-{number - 1 + first_train:06d}.jpg", 1, 2)
    return root


# Scene, camera folder, file name and label map, in the order of the toolbox's lists.
SCENES = [
    ("kv2/kinect2data/000002", "0000103.jpg", [[0, 1, 2], [37, 4, 5]]),
    ("kv1/NYUdata/NYU0001", "NYU0001.jpg", [[1, 1, 1], [0, 0, 36]]),
    ("xtion/sun3ddata/brown_bm_1", "00001.jpg", [[9, 8, 7], [6, 5, 4]]),
]


def write_toolbox(root, machine="/n/fs/sun3d/data/SUNRGBD/"):
    tools = root / "SUNRGBDtoolbox"
    for folder in ("Metadata", "traintestSUNRGBD"):
        (tools / folder).mkdir(parents=True)
    with h5py.File(tools / "Metadata/SUNRGBD2Dseg.mat", "w", userblock_size=512) as file:
        group = file.create_group("SUNRGBD2Dseg")
        references = group.create_dataset("seglabel", (len(SCENES), 1), h5py.ref_dtype)
        for k, (*_, ids) in enumerate(SCENES):
            stored = file.create_dataset(f"#refs#/{k}", data=np.array(ids, np.uint16).T)
            references[k, 0] = stored.ref
    fields = [("rgbpath", object), ("rgbname", object), ("K", object)]
    meta = np.empty((1, len(SCENES)), fields)
    for k, (scene, name, _) in enumerate(SCENES):
        photo(root / f"SUNRGBD/{scene}/image/{name}", 2, 3)
        meta[0, k] = (f"{machine}{scene}/image/{name}", name, np.eye(3))
    scipy.io.savemat(tools / "Metadata/SUNRGBDMeta.mat", {"SUNRGBDMeta": meta})
    folders = [machine + scene for scene, *_ in SCENES]
    cells = [np.array([part], object) for part in (folders[1:], folders[:1])]
    scipy.io.savemat(
        tools / "traintestSUNRGBD/allsplit.mat", {"alltrain": cells[0], "alltest": cells[1]}
    )
    return root


@pytest.mark.parametrize("first_train", [1, 5051])
def test_the_first_5050_labels_are_the_test_images(tmp_path, first_train):
    write_pngs(tmp_path, first_train)
    config = data_config(name="sunrgbd", root=str(tmp_path))
    test, train = make_source(config, "test"), make_source(config, "train")
    assert list(test.names) == ["000001", "000002", "005050"]
    assert list(train.names) == ["005051", "005052", "010335"]
    assert train.image_paths[0].name == f"img-{first_train:06d}.jpg"
    assert train.image_paths[2].name == f"img-{first_train + 5284:06d}.jpg"
    sample = pickle.loads(pickle.dumps(train))[2]
    assert sample["image"].shape == (1, 2, 3)
    np.testing.assert_array_equal(sample["label"], [[255, 10335 % 37]])
    np.testing.assert_array_equal(test[0]["label"], [[255, 1]])
    write_toolbox(tmp_path)  # with both releases, the PNGs are read
    assert repr(open_sunrgbd(tmp_path, "train")) == "SUN RGB-D(split='train', samples=3)"


def test_16_bit_labels_and_ids_beyond_37(tmp_path):
    write_pngs(tmp_path)
    path = tmp_path / LABELS / "img-000001.png"
    Image.fromarray(np.array([[0, 37]], np.uint16)).save(path)
    np.testing.assert_array_equal(open_sunrgbd(tmp_path, "test")[0]["label"], [[255, 36]])
    Image.fromarray(np.array([[38, 37]], np.uint16)).save(path)
    with pytest.raises(ValueError, match=r"1\.png: bad ids 38 \(1 pixels\); allowed are 1\.\.3"):
        open_sunrgbd(tmp_path, "test")[0]


@pytest.mark.parametrize("split, places", [("train", [1, 2]), ("test", [0])])
def test_toolbox_labels_are_turned_and_split_by_its_lists(tmp_path, split, places):
    write_toolbox(tmp_path)
    config = data_config(name="sunrgbd", root=str(tmp_path))
    source = pickle.loads(pickle.dumps(make_source(config, split)))
    assert list(source.names) == [SCENES[place][0] for place in places]
    for index, place in enumerate(places):
        sample = source[index]
        assert sample["image"].shape == (2, 3, 3)
        assert sample["label"].dtype == np.uint8
        expected = (np.array(SCENES[place][2]) - 1) % 256  # 0 is 255, k is k - 1
        np.testing.assert_array_equal(sample["label"], expected)


def test_png_files_that_are_missing_or_of_13_classes_are_named(tmp_path):
    write_pngs(tmp_path)
    (tmp_path / LABELS / "img-005052.png").unlink()
    words = r"'train' is incomplete: of 3 images 1 have no mask \(img-000002\.jpg\) and of 2 masks"
    with pytest.raises(ValueError, match=words):
        open_sunrgbd(tmp_path, "train")
    (tmp_path / "SUNRGBD-test_images/img-005050.jpg").unlink()
    with pytest.raises(ValueError, match=r"1 have no image \(img-005050\.png\); use all archives"):
        open_sunrgbd(tmp_path, "test")
    mask(tmp_path / LABELS / "img13labels-000001.png")
    with pytest.raises(ValueError, match=r"13labels-000001\.png is not named img-NUMBER\.png; use"):
        open_sunrgbd(tmp_path, "test")


def test_toolbox_files_that_are_missing_or_damaged_are_named(tmp_path):
    write_toolbox(tmp_path)
    tools = tmp_path / "SUNRGBDtoolbox"
    with h5py.File(tools / "Metadata/SUNRGBD2Dseg.mat", "w") as file:
        file["SUNRGBD2Dseg/other"] = uint8([1])
    with pytest.raises(ValueError, match=r"2Dseg\.mat cannot be read as SUNRGBD2Dseg\(2\)\.seglab"):
        open_sunrgbd(tmp_path, "train")[0]
    (tmp_path / "SUNRGBD/kv1/NYUdata/NYU0001/image/NYU0001.jpg").unlink()
    words = r"'train' is incomplete: of 2 scenes in .*, 2 are in .* 1 of these have no image \("
    with pytest.raises(ValueError, match=words):
        open_sunrgbd(tmp_path, "train")
    (tools / "Metadata/SUNRGBDMeta.mat").write_bytes(b"cut off")
    with pytest.raises(
        ValueError, match=r"SUNRGBDMeta\.mat no SUNRGBDMeta can be read: it is no file of MATLAB"
    ):
        open_sunrgbd(tmp_path, "train")
    (tools / "traintestSUNRGBD/allsplit.mat").unlink()
    words = r"'train': SUNRGBDtoolbox/traintestSUNRGBD/allsplit\.mat not found in data\.root="
    with pytest.raises(ValueError, match=words):
        open_sunrgbd(tmp_path, "train")

    write_toolbox(tmp_path / "other", machine="/elsewhere/")
    with pytest.raises(ValueError, match=r"allsplit\.mat: path '/elsewhere/.*' has no /SUNRGBD/"):
        open_sunrgbd(tmp_path / "other", "train")
