"""Loading artifacts: with jax alone, damaged, edited, foreign."""

import functools
import json
import pathlib
import shutil
import subprocess
import sys
import zipfile

import jax
import numpy as np
import pytest

import segjax
from segjax.export import load as exported

ROOT = pathlib.Path(__file__).parents[2]
SIZE = (4, 6)
TOLERANCE = {"cpu": 0.001, "cuda": 0.05}


def brightest(weights, images):
    """A stand-in for a network: the channel whose weighted value is the largest."""
    return jax.numpy.argmax(images * weights["scale"], -1).astype(np.uint8)


@functools.cache
def program(platforms=("cpu", "cuda")):
    images = jax.ShapeDtypeStruct(jax.export.symbolic_shape("b, 2*h, 2*w, 3"), np.uint8)
    weights = {"scale": jax.ShapeDtypeStruct((3,), np.float32)}
    return bytes(
        jax.export.export(jax.jit(brightest), platforms=platforms)(weights, images).serialize()
    )


def parts(**changes):
    """The parts of a small artifact; `changes` go into its metadata."""
    image = np.random.default_rng(0).integers(0, 256, (1, *SIZE, 3), np.uint8)
    metadata = {
        "format": exported.FORMAT,
        "format_version": exported.FORMAT_VERSION,
        "classes": ["red", "green", "blue"],
        "palette": [[255, 0, 0], [0, 255, 0], [0, 0, 255]],
        "channels": 3,
        "size": SIZE,
        "multiple": 2,
        "platforms": ["cpu", "cuda"],
        "written_on": "cpu",
        "test_tolerance": TOLERANCE,
        "versions": {"jax": jax.__version__},
        **changes,
    }
    return {
        exported.METADATA: json.dumps(metadata).encode(),
        exported.PROGRAM: program(),
        exported.WEIGHTS: exported.arrays_to_npz({"scale": np.ones(3, np.float32)}),
        exported.TEST: exported.arrays_to_npz({"images": image, "labels": image.argmax(-1)}),
    }


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "model.segjax"
    exported.write_parts(path, parts())
    return path


def replaced(artifact, path, **contents):
    """A copy with other bytes in the parts of these names (without suffix) and the old hashes."""
    with zipfile.ZipFile(artifact) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            new.writestr(name, contents.get(name.partition(".")[0], old.read(name)))
    return path


def test_runs_on_any_number_of_images_and_sizes(artifact):
    model = segjax.load_exported(artifact)
    rng = np.random.default_rng(1)
    for shape in ((1, 4, 6, 3), (3, 4, 6, 3), (2, 8, 2, 3)):
        images = rng.integers(0, 256, shape, np.uint8)
        labels = model(images)
        assert labels.dtype == np.uint8
        np.testing.assert_array_equal(labels, images.argmax(-1))
    assert model.classes == ("red", "green", "blue")
    np.testing.assert_array_equal(
        model.colorize([[2, 0], [255, 1]]), [[[0, 0, 255], [255, 0, 0]], [[0, 0, 0], [0, 255, 0]]]
    )


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((1, 4, 6, 3), np.float32),
        np.zeros((4, 6, 3), np.uint8),
        np.zeros((0, 4, 6, 3), np.uint8),
        np.zeros((1, 5, 6, 3), np.uint8),
        np.zeros((1, 0, 6, 3), np.uint8),
        np.zeros((1, 4, 6, 4), np.uint8),
    ],
)
def test_wrong_images(artifact, images):
    model = segjax.load_exported(artifact)
    message = rf"H and W multiples of 2, found {images.dtype} \[{', '.join(map(str, images.shape))}"
    with pytest.raises(ValueError, match=message):
        model(images)


def test_a_fixed_size_takes_no_other(tmp_path):
    exported.write_parts(tmp_path / "m.segjax", parts(multiple=None))
    model = segjax.load_exported(tmp_path / "m.segjax")
    with pytest.raises(ValueError, match=r"\[n, 4, 6, 3\], found uint8 \[1, 8, 6, 3\]"):
        model(np.zeros((1, 8, 6, 3), np.uint8))


def test_labels_in_the_ids_of_the_data_set(artifact, tmp_path):
    """Which files of earlier versions lack."""
    exported.write_parts(tmp_path / "m.segjax", parts(ids=[7, 300, 0]))
    model = segjax.load_exported(tmp_path / "m.segjax")
    raw = model.to_raw_ids([[0, 1, 2, 255]])
    assert (model.ids, raw.dtype, raw.tolist()) == ((7, 300, 0), np.uint16, [[7, 300, 0, 255]])
    old = segjax.load_exported(artifact)
    assert (old.ids, old.to_raw_ids([2, 1]).tolist()) == ((0, 1, 2), [2, 1])
    exported.write_parts(tmp_path / "bits.segjax", parts(ids=[0, 1, 2], head="sigmoid"))
    assert segjax.load_exported(tmp_path / "bits.segjax").to_raw_ids([7]).tolist() == [7]


def test_edited_parts_are_refused(artifact, tmp_path):
    changes = {
        "weights": exported.arrays_to_npz({"scale": np.array([1, 1, 1.01], np.float32)}),
        "metadata": parts(classes=["a", "b", "c"])[exported.METADATA],
        "test": exported.arrays_to_npz({"images": np.zeros((1, 4, 6, 3)), "labels": np.zeros(1)}),
        "model": program(("cpu",)),
    }
    for name, content in changes.items():
        path = replaced(artifact, tmp_path / "m.segjax", **{name: content})
        with pytest.raises(ValueError, match=rf"m.segjax was changed .*: the SHA-256 of {name}\."):
            segjax.load_exported(path)


def test_another_answer_to_the_stored_test_is_refused(tmp_path):
    """Right hashes but wrong results, as on a device that computes something else."""
    changed = parts()
    changed[exported.WEIGHTS] = exported.arrays_to_npz({"scale": np.array([1, 1, 9], np.float32)})
    exported.write_parts(tmp_path / "m.segjax", changed)
    with pytest.raises(ValueError, match=r"does not compute here .* of the test's pixels differ"):
        segjax.load_exported(tmp_path / "m.segjax")


def test_damaged_and_foreign_files(artifact, tmp_path):
    path = tmp_path / "m.segjax"
    with pytest.raises(ValueError, match=r"m\.segjax does not exist; copy it again"):
        segjax.load_exported(path)
    whole = artifact.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="is damaged, or no exported model"):
        segjax.load_exported(path)
    # One bit of the program, where the archive's own checksum finds it.
    at = whole.index(parts()[exported.PROGRAM][:64]) + 500
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    with pytest.raises(ValueError, match=r"is damaged, .*Bad CRC-32 for file 'model.stablehlo'"):
        segjax.load_exported(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("weights.h5", b"")
    with pytest.raises(ValueError, match=r"no exported model of segjax: there is no metadata.json"):
        segjax.load_exported(path)


def test_another_version_platform_or_jax(tmp_path):
    path = tmp_path / "m.segjax"
    exported.write_parts(path, parts(format_version=99))
    with pytest.raises(ValueError, match=r"version 99; this segjax reads .* version 1; export the"):
        segjax.load_exported(path)
    exported.write_parts(path, parts(platforms=["fpga"]))
    with pytest.raises(ValueError, match=r"m.segjax: exported for fpga, but jax runs on cpu here"):
        segjax.load_exported(path)
    exported.write_parts(path, {**parts(versions={"jax": "9.9"}), exported.PROGRAM: b"new format"})
    with pytest.raises(ValueError, match=r"written by jax 9\.9 and cannot be read by jax"):
        segjax.load_exported(path)
    # jax 0.8 reads a program of 0.10, and fails when it calls it.
    weights = exported.arrays_to_npz({"other": np.ones(3, np.float32)})
    exported.write_parts(path, {**parts(versions={"jax": "9.9"}), exported.WEIGHTS: weights})
    with pytest.raises(ValueError, match=r"m.segjax does not run here (.|\n)*with jax 9\.9 on cpu"):
        segjax.load_exported(path)


def test_jax_alone_is_enough(artifact, tmp_path):
    """An artifact loads where only jax, numpy and flatbuffers can be imported."""
    needed = (ROOT / "requirements.txt").read_text().splitlines()
    needed = {line.split("#")[0].split(">=")[0].strip().replace("-", ".") for line in needed}
    names = {"pillow": "PIL", "orbax.checkpoint": "orbax", "pyyaml": "yaml"}
    absent = {names.get(n, n) for n in needed if n} - {"jax", "numpy", "flatbuffers"}
    # jax itself takes scipy for its linear algebra.
    absent -= {"scipy"}
    shutil.copy(artifact, tmp_path / "m.segjax")
    script = f"""
import sys
for name in {sorted(absent)}:
    sys.modules[name] = None
import numpy as np, segjax
model = segjax.load_exported("m.segjax")
print(model(np.eye(3, dtype=np.uint8)[[[[0, 1], [2, 2]]]]).tolist())
loaded = sorted(n for n in sys.modules if n.startswith("segjax"))
assert loaded == ["segjax", "segjax.export.load"], loaded
"""
    assert {"flax", "orbax", "PIL"} <= absent
    process = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "PATH": ""},
        capture_output=True,
        text=True,
    )
    assert process.stdout.strip() == "[[[0, 1], [2, 2]]]", process.stderr


def test_segjax_has_no_other_lazy_names():
    with pytest.raises(AttributeError, match="no attribute 'load_everything'"):
        segjax.load_everything  # noqa: B018
